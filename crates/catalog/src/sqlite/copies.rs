//! Rows as they are, for a copy: see [`crate::copies`].

use super::SqliteCatalog;
use super::error::Done;
use crate::common::values::{damaged, unsigned};
use crate::copies::{
    self, BEGUN, CopyCatalog, CopyState, DONE, Identity, Kind, OPEN_UPLOADS, Range, Row, TABLES, Table,
    Totals, Value,
};
use async_trait::async_trait;
use carrack_domain::{Result, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

/// Bytes of rows after which a page ends early.
const PAGE_BYTES: usize = 8 << 20;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[async_trait]
impl CopyCatalog for SqliteCatalog {
    async fn identity(&self) -> Result<Identity> {
        self.long("identity", |c| identity(c)).await
    }

    async fn copy_state(&self) -> Result<CopyState> {
        self.long("copy_state", |c| Ok(copies::state(meta(c, BEGUN)?, meta(c, DONE)?))).await
    }

    async fn is_empty(&self) -> Result<bool> {
        self.long("is_empty", |c| is_empty(c)).await
    }

    /// Whoever has the data folder locked is alone.
    async fn others(&self) -> Result<u64> {
        Ok(0)
    }

    async fn totals(&self) -> Result<Totals> {
        self.long("totals", |c| totals(c)).await
    }

    async fn begin_copy(&self, of: &Identity, now: Timestamp) -> Result<()> {
        let of = *of;
        self.write("begin_copy", move |c| begin(c, &of, now)).await
    }

    async fn copy_rows(&self, table: &'static Table, range: Range, limit: usize) -> Result<Vec<Row>> {
        self.long("copy_rows", move |c| rows(c, table, &range, limit)).await
    }

    async fn put_rows(&self, table: &'static Table, rows: Vec<Row>) -> Result<()> {
        self.write("put_rows", move |c| put(c, table, &rows)).await
    }

    async fn drop_rows(&self, table: &'static Table, keys: Vec<Row>) -> Result<()> {
        self.write("drop_rows", move |c| remove(c, table, &keys)).await
    }

    async fn finish_copy(&self, of: &Identity, now: Timestamp) -> Result<()> {
        let of = *of;
        self.queue("finish_copy", move |c, journal| {
            finish(c, &of, now)?;
            journal.go_on_after(super::audit::head(c)?);
            Ok(())
        })
        .await
    }
}

fn meta(connection: &Connection, name: &str) -> Done<Option<i64>> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
}

fn set_meta(connection: &Connection, name: &str, value: i64) -> Done<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.prepare_cached(sql)?.execute(params![name, value])?;
    Ok(())
}

fn event_seq(connection: &Connection) -> Done<i64> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'event'";
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn identity(connection: &Connection) -> Done<Identity> {
    Ok(Identity {
        log: connection.query_row("SELECT id FROM audit_chain", [], |row| row.get(0))?,
        events: connection.query_row("SELECT id FROM event_source", [], |row| row.get(0))?,
        generation_floor: meta(connection, "generation_floor")?.ok_or_else(|| damaged("no generation"))?,
        event_seq: event_seq(connection)?,
    })
}

fn is_empty(connection: &Connection) -> Done<bool> {
    for table in TABLES.iter().filter(|table| !table.fills).chain([&OPEN_UPLOADS]) {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
        if connection.query_row(&sql, [], |row| row.get(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn totals(connection: &Connection) -> Done<Totals> {
    let number = |sql: &str| -> Done<u64> {
        Ok(unsigned(connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))?)
    };
    Ok(Totals {
        buckets: number("SELECT count(*) FROM bucket")?,
        files: number("SELECT sum(file_count) FROM bucket")?,
        blobs: number("SELECT count(*) FROM blob")?,
        bytes: number("SELECT sum(size) FROM blob")?
            + number("SELECT sum(size) FROM pack")?
            + number("SELECT sum(manifest_bytes) FROM archive")?,
        tokens: number("SELECT count(*) FROM token")?,
        links: number("SELECT count(*) FROM link")?,
        archives: number("SELECT count(*) FROM archive")?,
        audit_blocks: number("SELECT count(*) FROM audit_block")?,
        open_uploads: number("SELECT count(*) FROM upload WHERE state < 2")?,
    })
}

fn begin(connection: &Connection, of: &Identity, now: Timestamp) -> Done<()> {
    if meta(connection, BEGUN)?.is_none() {
        set_meta(connection, BEGUN, now.as_millis())?;
    }
    connection.execute("UPDATE audit_chain SET id = ?1", [of.log])?;
    connection.execute("UPDATE event_source SET id = ?1", [of.events])?;
    Ok(())
}

fn finish(connection: &Connection, of: &Identity, now: Timestamp) -> Done<()> {
    let floor = meta(connection, "generation_floor")?.unwrap_or(0);
    set_meta(connection, "generation_floor", floor.max(of.generation_floor))?;
    if event_seq(connection)? < of.event_seq {
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'event'", [])?;
        let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?1)";
        connection.execute(sql, [of.event_seq])?;
    }
    set_meta(connection, DONE, now.as_millis())
}

/// What is read of a column.
fn read(table: &Table, column: &copies::Column) -> String {
    match (column.kind, column.read) {
        (Kind::Content, _) => {
            format!("(SELECT bytes FROM content WHERE content.id = {}.content)", table.name)
        }
        (_, Some(read)) => read.to_owned(),
        (_, None) => column.name.to_owned(),
    }
}

/// `(k1, k2)` and as many placeholders from `first` on.
fn compared(table: &Table, by: &str, first: usize) -> String {
    let names: Vec<&str> = table.columns[..table.key].iter().map(|column| column.name).collect();
    let marks: Vec<String> = (first..first + table.key).map(|at| format!("?{at}")).collect();
    format!("({}) {by} ({})", names.join(", "), marks.join(", "))
}

fn rows(connection: &Connection, table: &Table, range: &Range, limit: usize) -> Done<Vec<Row>> {
    let columns: Vec<String> = table.columns.iter().map(|column| read(table, column)).collect();
    let keys: Vec<&str> = table.columns[..table.key].iter().map(|column| column.name).collect();
    let mut conditions = Vec::new();
    if !table.filter.is_empty() {
        conditions.push(format!("({})", table.filter));
    }
    let mut values: Vec<&Value> = Vec::new();
    for (by, key) in [(">", &range.after), ("<=", &range.through)] {
        if let Some(key) = key {
            conditions.push(compared(table, by, values.len() + 1));
            values.extend(key);
        }
    }
    let conditions =
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let sql = format!(
        "SELECT {} FROM {} {conditions} ORDER BY {} LIMIT {limit}",
        columns.join(", "),
        table.name,
        keys.join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && let Some(row) = found.next()?
    {
        let row = (0..table.columns.len()).map(|at| value(row.get_ref(at)?)).collect::<Done<Row>>()?;
        bytes += row.iter().map(Value::size).sum::<usize>();
        rows.push(row);
    }
    Ok(rows)
}

fn value(value: ValueRef<'_>) -> Done<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => {
            Value::Text(String::from_utf8(text.to_vec()).map_err(|_| damaged("text that is not UTF-8"))?)
        }
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(_) => return Err(damaged("a fraction").into()),
    })
}

fn put(connection: &Connection, table: &Table, rows: &[Row]) -> Done<()> {
    let plain: Vec<(usize, &str)> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.kind != Kind::Content)
        .map(|(at, column)| (at, column.name))
        .collect();
    let names: Vec<&str> = plain.iter().map(|(_, name)| *name).collect();
    let others = &names[table.key..];
    let set = |from: &dyn Fn(&str) -> String| {
        others.iter().map(|name| format!("{name} = {}", from(name))).collect::<Vec<_>>().join(", ")
    };
    let sql = if table.fills {
        let mark =
            |name: &str| format!("?{}", names.iter().position(|other| *other == name).unwrap_or(0) + 1);
        format!("UPDATE {} SET {} WHERE {}", table.name, set(&mark), compared(table, "=", 1))
    } else {
        let marks: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
        let instead = match others {
            [] => "NOTHING".to_owned(),
            _ => format!("UPDATE SET {}", set(&|name| format!("excluded.{name}"))),
        };
        format!(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO {instead}",
            table.name,
            names.join(", "),
            marks.join(", "),
            names[..table.key].join(", ")
        )
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let content = table.columns.iter().position(|column| column.kind == Kind::Content);
    for row in rows {
        statement.execute(params_from_iter(plain.iter().map(|(at, _)| &row[*at])))?;
        if let Some(Value::Bytes(bytes)) = content.map(|at| &row[at]) {
            put_content(connection, &row[0], bytes)?;
        }
    }
    Ok(())
}

fn put_content(connection: &Connection, blob: &Value, bytes: &[u8]) -> Done<()> {
    let known = connection
        .prepare_cached("SELECT content IS NOT NULL FROM blob WHERE id = ?1")?
        .query_row([blob], |row| row.get(0))?;
    if known {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO content (id, bytes) VALUES (next_content(), ?1)")?
        .execute([bytes])?;
    let number = connection.last_insert_rowid();
    connection
        .prepare_cached("UPDATE blob SET content = ?2 WHERE id = ?1")?
        .execute(params![blob, number])?;
    Ok(())
}

fn remove(connection: &Connection, table: &Table, keys: &[Row]) -> Done<()> {
    let sql = if table.fills {
        let others = table.columns[table.key..].iter().map(|column| format!("{} = NULL", column.name));
        let others: Vec<String> = others.collect();
        format!("UPDATE {} SET {} WHERE {}", table.name, others.join(", "), compared(table, "=", 1))
    } else {
        format!("DELETE FROM {} WHERE {}", table.name, compared(table, "=", 1))
    };
    let mut statement = connection.prepare_cached(&sql)?;
    for key in keys {
        statement.execute(params_from_iter(&key[..table.key]))?;
    }
    Ok(())
}
