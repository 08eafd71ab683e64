//! Rows as they are, for a copy: see [`crate::copies`].

use super::error::{Done, Failed, Kind};
use super::rows::{bytes, count, fixed, get};
use super::session::{Session, params};
use super::{PostgresCatalog, read};
use crate::common::measured;
use crate::common::values::{damaged, unsigned};
use crate::copies::{
    self, BEGUN, Column, CopyCatalog, CopyState, DONE, Identity, Kind as Holds, OPEN_UPLOADS, Range, Row,
    TABLES, Table, Totals, Value,
};
use async_trait::async_trait;
use carrack_domain::{Result, Timestamp};
use tokio_postgres::types::ToSql;

type Parameter = Box<dyn ToSql + Sync + Send>;

#[async_trait]
impl CopyCatalog for PostgresCatalog {
    async fn identity(&self) -> Result<Identity> {
        read!(self, "identity", |c| identity(c))
    }

    async fn copy_state(&self) -> Result<CopyState> {
        read!(self, "copy_state", |c| state(c))
    }

    async fn is_empty(&self) -> Result<bool> {
        read!(self, "is_empty", |c| is_empty(c))
    }

    async fn others(&self) -> Result<u64> {
        read!(self, "others", |c| others(c))
    }

    async fn totals(&self) -> Result<Totals> {
        read!(self, "totals", |c| totals(c))
    }

    async fn begin_copy(&self, of: &Identity, now: Timestamp) -> Result<()> {
        self.write("begin_copy", (*of, now), |(of, now), turn| Box::pin(begin(turn.session, of, *now))).await
    }

    async fn copy_rows(&self, table: &'static Table, range: Range, limit: usize) -> Result<Vec<Row>> {
        read!(self, "copy_rows", |c| rows(c, table, &range, limit))
    }

    async fn put_rows(&self, table: &'static Table, rows: Vec<Row>) -> Result<()> {
        self.write("put_rows", (table, rows), |(table, rows), turn| Box::pin(put(turn.session, table, rows)))
            .await
    }

    async fn drop_rows(&self, table: &'static Table, keys: Vec<Row>) -> Result<()> {
        self.write("drop_rows", (table, keys), |(table, keys), turn| {
            Box::pin(remove(turn.session, table, keys))
        })
        .await
    }

    async fn finish_copy(&self, of: &Identity, now: Timestamp) -> Result<()> {
        self.write("finish_copy", (*of, now), |(of, now), turn| Box::pin(finish(turn.session, of, *now)))
            .await
    }
}

async fn meta(session: &Session, name: &str) -> Done<Option<i64>> {
    let row = session.row("SELECT value FROM meta WHERE name = $1", params![name]).await?;
    row.map(|row| get(&row, 0)).transpose()
}

/// Sets a number, unless it is greater already.
async fn raise(session: &Session, name: &str, value: i64) -> Done<()> {
    let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET value = greatest(meta.value, excluded.value)";
    session.execute(sql, params![name, value]).await?;
    Ok(())
}

async fn state(session: &Session) -> Done<CopyState> {
    Ok(copies::state(meta(session, BEGUN).await?, meta(session, DONE).await?))
}

async fn identity(session: &Session) -> Done<Identity> {
    let id = async |table: &str| {
        session
            .row(&format!("SELECT id FROM {table}"), &[])
            .await?
            .ok_or_else(|| Failed::from(damaged("no name")))
    };
    let number = async |name| meta(session, name).await?.ok_or_else(|| Failed::from(damaged("no number")));
    Ok(Identity {
        log: fixed(&id("audit_chain").await?, 0)?,
        events: fixed(&id("event_source").await?, 0)?,
        generation_floor: number("generation_floor").await?,
        event_seq: number("event_seq").await?,
    })
}

async fn is_empty(session: &Session) -> Done<bool> {
    for table in TABLES.iter().filter(|table| !table.fills).chain([&OPEN_UPLOADS]) {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name);
        if session.row(&sql, &[]).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A server's sessions are called `carrack`, unless its URL says otherwise; those of a copy are not.
async fn others(session: &Session) -> Done<u64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'carrack' AND pid <> pg_backend_pid()";
    let row = session.row(sql, &[]).await?.ok_or_else(|| damaged("no count"))?;
    Ok(unsigned(get(&row, 0)?)?)
}

async fn totals(session: &Session) -> Done<Totals> {
    let number = async |of: &str| -> Done<u64> {
        let row = session.row(&format!("SELECT coalesce({of}, 0)::bigint"), &[]).await?;
        Ok(unsigned(get(&row.ok_or_else(|| damaged("no sum"))?, 0)?)?)
    };
    Ok(Totals {
        buckets: number("(SELECT count(*) FROM bucket)").await?,
        files: number("(SELECT sum(file_count) FROM bucket)").await?,
        blobs: number("(SELECT count(*) FROM blob)").await?,
        bytes: number("(SELECT sum(size) FROM blob)").await?
            + number("(SELECT sum(size) FROM pack)").await?
            + number("(SELECT sum(manifest_bytes) FROM archive)").await?,
        tokens: number("(SELECT count(*) FROM token)").await?,
        links: number("(SELECT count(*) FROM link)").await?,
        archives: number("(SELECT count(*) FROM archive)").await?,
        audit_blocks: number("(SELECT count(*) FROM audit_block)").await?,
        open_uploads: number("(SELECT count(*) FROM upload WHERE state < 2)").await?,
    })
}

async fn begin(session: &Session, of: &Identity, now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    session.execute(sql, params![BEGUN, now.as_millis()]).await?;
    session.execute("UPDATE audit_chain SET id = $1", params![bytes(&of.log)]).await?;
    session.execute("UPDATE event_source SET id = $1", params![bytes(&of.events)]).await?;
    Ok(())
}

async fn finish(session: &Session, of: &Identity, now: Timestamp) -> Done<()> {
    raise(session, "generation_floor", of.generation_floor).await?;
    raise(session, "event_seq", of.event_seq).await?;
    // Ids that were copied did not come from the sequence.
    let sql = "SELECT setval(pg_get_serial_sequence('bucket', 'id'), max(id)) FROM bucket HAVING max(id) IS NOT NULL";
    session.row(sql, &[]).await?;
    raise(session, DONE, now.as_millis()).await
}

/// What is read of a column.
fn read_of(table: &Table, column: &Column) -> String {
    match (column.kind, column.read) {
        (Holds::Content, _) => {
            format!("(SELECT bytes FROM content WHERE content.blob_id = {}.id)", table.name)
        }
        (_, Some(read)) => read.to_owned(),
        (_, None) => column.name.to_owned(),
    }
}

fn keys(table: &Table) -> &'static [Column] {
    &table.columns[..table.key]
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

async fn rows(session: &Session, table: &Table, range: &Range, limit: usize) -> Done<Vec<Row>> {
    let columns: Vec<String> = table.columns.iter().map(|column| read_of(table, column)).collect();
    let mut conditions = Vec::new();
    if !table.filter.is_empty() {
        conditions.push(format!("({})", table.filter));
    }
    let mut values: Vec<Parameter> = Vec::new();
    for (by, key) in [(">", &range.after), ("<=", &range.through)] {
        if let Some(key) = key {
            let marks: Vec<String> = (1..=table.key).map(|at| format!("${}", values.len() + at)).collect();
            conditions.push(format!("({}) {by} ({})", names(keys(table)), marks.join(", ")));
            values.extend(keys(table).iter().zip(key).map(|(column, value)| parameter(column.kind, value)));
        }
    }
    let conditions =
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let sql = format!(
        "SELECT {} FROM {} {conditions} ORDER BY {} LIMIT ${}",
        columns.join(", "),
        table.name,
        names(keys(table)),
        values.len() + 1
    );
    values.push(Box::new(count(limit)));
    let values: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
    let found = session.rows(&sql, &values).await?;
    found
        .iter()
        .map(|row| table.columns.iter().enumerate().map(|(at, column)| value(row, at, column.kind)).collect())
        .collect()
}

fn value(row: &tokio_postgres::Row, at: usize, kind: Holds) -> Done<Value> {
    Ok(match kind {
        Holds::Int => get::<Option<i64>>(row, at)?.map_or(Value::Null, Value::Int),
        Holds::Flag => get::<Option<bool>>(row, at)?.map_or(Value::Null, |flag| Value::Int(flag.into())),
        Holds::Text => get::<Option<String>>(row, at)?.map_or(Value::Null, Value::Text),
        Holds::Bytes | Holds::Content => get::<Option<Vec<u8>>>(row, at)?.map_or(Value::Null, Value::Bytes),
    })
}

fn of_int(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

fn of_flag(value: &Value) -> Option<bool> {
    of_int(value).map(|flag| flag != 0)
}

/// A value as its column has it.
fn parameter(kind: Holds, value: &Value) -> Parameter {
    match kind {
        Holds::Int => Box::new(of_int(value)),
        Holds::Flag => Box::new(of_flag(value)),
        Holds::Text => Box::new(value.text().map(str::to_owned)),
        Holds::Bytes | Holds::Content => Box::new(value.bytes().map(<[u8]>::to_vec)),
    }
}

/// The values of a column, and the type of such a list.
fn list<'r>(
    kind: Holds,
    values: impl Iterator<Item = &'r Value>,
) -> (Box<dyn ToSql + Sync + Send + 'r>, &'static str) {
    match kind {
        Holds::Int => (Box::new(values.map(of_int).collect::<Vec<_>>()), "bigint[]"),
        Holds::Flag => (Box::new(values.map(of_flag).collect::<Vec<_>>()), "boolean[]"),
        Holds::Text => (Box::new(values.map(Value::text).collect::<Vec<_>>()), "text[]"),
        Holds::Bytes | Holds::Content => (Box::new(values.map(Value::bytes).collect::<Vec<_>>()), "bytea[]"),
    }
}

/// Runs a statement whose rows come as lists, one for each of these columns; `{rows}` in it is `unnest(...)`.
async fn with_rows(session: &Session, sql: &str, columns: &[(usize, Column)], rows: &[Row]) -> Done<()> {
    let (mut values, mut types) = (Vec::new(), Vec::new());
    for (number, (at, column)) in columns.iter().enumerate() {
        let (list, kind) = list(column.kind, rows.iter().map(|row| &row[*at]));
        values.push(list);
        types.push(format!("${}::{kind}", number + 1));
    }
    let values: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
    session.execute(&sql.replace("{rows}", &format!("unnest({})", types.join(", "))), &values).await?;
    Ok(())
}

/// `t.k1 = u.k1 AND ...`
fn joined(table: &Table) -> String {
    let same = keys(table).iter().map(|column| format!("t.{0} = u.{0}", column.name));
    same.collect::<Vec<_>>().join(" AND ")
}

async fn put(session: &Session, table: &Table, rows: &[Row]) -> Done<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let numbered = table.columns.iter().copied().enumerate();
    let (contents, plain): (Vec<_>, Vec<_>) = numbered.partition(|(_, column)| column.kind == Holds::Content);
    let columns: Vec<Column> = plain.iter().map(|(_, column)| *column).collect();
    let others = &columns[table.key..];
    let set = |from: &str| {
        others.iter().map(|column| format!("{0} = {from}.{0}", column.name)).collect::<Vec<_>>().join(", ")
    };
    let (name, all) = (table.name, names(&columns));
    let sql = if table.fills {
        format!("UPDATE {name} AS t SET {} FROM {{rows}} AS u ({all}) WHERE {}", set("u"), joined(table))
    } else {
        let instead = match others {
            [] => "NOTHING".to_owned(),
            _ => format!("UPDATE SET {}", set("excluded")),
        };
        format!(
            "INSERT INTO {name} ({all}) OVERRIDING SYSTEM VALUE SELECT * FROM {{rows}} \
             ON CONFLICT ({}) DO {instead}",
            names(keys(table))
        )
    };
    with_rows(session, &sql, &plain, rows).await?;
    for content in contents {
        let id = (0, table.columns[0]);
        let sql = "INSERT INTO content (blob_id, bytes) SELECT * FROM {rows} AS u (blob_id, bytes) \
             WHERE u.bytes IS NOT NULL ON CONFLICT (blob_id) DO NOTHING";
        with_rows(session, sql, &[id, content], rows).await?;
    }
    Ok(())
}

async fn remove(session: &Session, table: &Table, keys_of: &[Row]) -> Done<()> {
    if keys_of.is_empty() {
        return Ok(());
    }
    let columns: Vec<(usize, Column)> = keys(table).iter().copied().enumerate().collect();
    let (name, all, same) = (table.name, names(keys(table)), joined(table));
    let sql = if table.fills {
        let others = table.columns[table.key..].iter().map(|column| format!("{} = NULL", column.name));
        let others = others.collect::<Vec<_>>().join(", ");
        format!("UPDATE {name} AS t SET {others} FROM {{rows}} AS u ({all}) WHERE {same}")
    } else {
        format!("DELETE FROM {name} AS t USING {{rows}} AS u ({all}) WHERE {same}")
    };
    with_rows(session, &sql, &columns, keys_of).await
}
