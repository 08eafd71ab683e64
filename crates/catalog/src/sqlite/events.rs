//! The outbox, and where each sink is in it.

use super::SqliteCatalog;
use super::error::Done;
use super::rows::{damaged, signed, unsigned};
use crate::events::{Event, EventCatalog, NewEvent, Sink, Turn};
use async_trait::async_trait;
use carrack_domain::{Code, Error, Result, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// Milliseconds by the clock of the database.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Keeps events of the present transaction.
pub(super) fn insert(connection: &Connection, at: Timestamp, events: &[NewEvent]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT INTO event (at, kind, subject, data) VALUES (?1, ?2, ?3, ?4)")?;
    for event in events {
        statement.execute(params![at.as_millis(), event.kind, event.subject, event.data])?;
    }
    Ok(())
}

/// This database has one process at a time: whoever had a turn when it is opened is dead.
pub(super) fn free_all(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE event_sink SET holder = NULL, lease_until = NULL", []).map(drop)
}

fn set(connection: &Connection, names: &[String]) -> Done<()> {
    let present: Vec<String> = connection
        .prepare_cached("SELECT name FROM event_sink")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for gone in present.iter().filter(|name| !names.contains(name)) {
        connection.prepare_cached("DELETE FROM event_sink WHERE name = ?1")?.execute([gone])?;
    }
    // The sequence, since the last events may have been dropped.
    let begin = "INSERT INTO event_sink (name, passed) \
                 VALUES (?1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)) \
                 ON CONFLICT (name) DO UPDATE SET failing_since = NULL, problem = NULL, dead = 0 WHERE dead = 1";
    for name in names {
        connection.prepare_cached(begin)?.execute([name])?;
    }
    Ok(())
}

fn all(connection: &Connection) -> Done<Vec<Sink>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, passed, (SELECT count(*) FROM event WHERE seq > passed), failing_since, problem, dead \
         FROM event_sink ORDER BY name",
    )?;
    let mut found = statement.query([])?;
    let mut sinks = Vec::new();
    while let Some(row) = found.next()? {
        sinks.push(Sink {
            name: row.get(0)?,
            passed: unsigned(row.get(1)?)?,
            pending: unsigned(row.get(2)?)?,
            failing_since: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
            problem: row.get(4)?,
            is_dead: row.get(5)?,
        });
    }
    Ok(sinks)
}

fn take(connection: &Connection, sink: &str, holder: [u8; 16], lease: Duration) -> Done<Option<Turn>> {
    let sql = format!(
        "UPDATE event_sink SET fence = fence + (holder IS NOT ?2), holder = ?2, lease_until = {NOW} + ?3 \
         WHERE name = ?1 AND dead = 0 AND (holder IS NULL OR holder = ?2 OR lease_until < {NOW}) \
         RETURNING fence, passed, failing_since"
    );
    let lease = i64::try_from(lease.as_millis()).map_err(|_| damaged("a lease"))?;
    let row = connection
        .prepare_cached(&sql)?
        .query_row(params![sink, holder, lease], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    let Some((fence, passed, failing)) = row else { return Ok(None) };
    let failing_since = failing.map(Timestamp::from_millis);
    Ok(Some(Turn { fence: unsigned(fence)?, passed: unsigned(passed)?, failing_since }))
}

/// One row was changed, or it is somebody else's turn.
fn held(changed: usize) -> Done<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::new(Code::Superseded, "Another node tells this sink by now, or it is gone.").into())
}

fn after(connection: &Connection, seq: u64, limit: usize) -> Done<Vec<Event>> {
    let source: [u8; 8] = connection
        .query_row("SELECT id FROM event_source", [], |row| row.get(0))
        .optional()?
        .ok_or_else(|| damaged("event_source"))?;
    let source = carrack_domain::id::hex(&source);
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, kind, subject, data FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut found = statement.query(params![signed(seq)?, limit as i64])?;
    let mut events = Vec::new();
    while let Some(row) = found.next()? {
        let seq = unsigned(row.get(0)?)?;
        events.push(Event {
            seq,
            id: format!("{source}-{seq}"),
            at: Timestamp::from_millis(row.get(1)?),
            kind: row.get(2)?,
            subject: row.get(3)?,
            data: row.get(4)?,
        });
    }
    Ok(events)
}

fn drop_through(connection: &Connection, before: Timestamp, limit: usize) -> Done<u64> {
    let sql = "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE at < ?1 OR seq <= coalesce(\
               (SELECT min(passed) FROM event_sink), 0) ORDER BY seq LIMIT ?2)";
    let gone = connection.prepare_cached(sql)?.execute(params![before.as_millis(), limit as i64])?;
    Ok(gone as u64)
}

#[async_trait]
impl EventCatalog for SqliteCatalog {
    async fn set_sinks(&self, names: &[String]) -> Result<()> {
        let names = names.to_vec();
        self.write("set_sinks", move |c| set(c, &names)).await
    }

    async fn sinks(&self) -> Result<Vec<Sink>> {
        self.long("sinks", |c| all(c)).await
    }

    async fn take_turn(&self, sink: &str, holder: [u8; 16], lease: Duration) -> Result<Option<Turn>> {
        let sink = sink.to_owned();
        self.write("take_turn", move |c| take(c, &sink, holder, lease)).await
    }

    async fn end_turn(&self, sink: &str, fence: u64) -> Result<()> {
        let sink = sink.to_owned();
        let sql = "UPDATE event_sink SET holder = NULL, lease_until = NULL WHERE name = ?1 AND fence = ?2";
        self.write("end_turn", move |c| {
            c.prepare_cached(sql)?.execute(params![sink, signed(fence)?])?;
            Ok(())
        })
        .await
    }

    async fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>> {
        self.long("events", move |c| after(c, after_seq, limit)).await
    }

    async fn pass(&self, sink: &str, fence: u64, seq: u64) -> Result<()> {
        let sink = sink.to_owned();
        let sql = "UPDATE event_sink SET passed = max(passed, ?3), failing_since = NULL, problem = NULL \
                   WHERE name = ?1 AND fence = ?2";
        self.write("pass", move |c| {
            held(c.prepare_cached(sql)?.execute(params![sink, signed(fence)?, signed(seq)?])?)
        })
        .await
    }

    async fn note_failure(
        &self,
        sink: &str,
        fence: u64,
        now: Timestamp,
        problem: &str,
        give_up: bool,
    ) -> Result<()> {
        let (sink, problem) = (sink.to_owned(), problem.to_owned());
        let sql = "UPDATE event_sink SET failing_since = coalesce(failing_since, ?3), problem = ?4, dead = ?5 \
                   WHERE name = ?1 AND fence = ?2";
        self.write("note_failure", move |c| {
            let row = params![sink, signed(fence)?, now.as_millis(), problem, give_up];
            held(c.prepare_cached(sql)?.execute(row)?)
        })
        .await
    }

    async fn drop_events(&self, before: Timestamp, limit: usize) -> Result<u64> {
        self.write("drop_events", move |c| drop_through(c, before, limit)).await
    }
}
