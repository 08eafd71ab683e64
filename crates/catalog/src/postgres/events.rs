//! The outbox, and where each sink is in it.
//!
//! Events get their numbers in the turn of who writes them, so that their order is that of the commits: who reads up to a
//! number has read all before it. A sink's own row is changed by one statement each, and needs no turn.

use super::error::{Done, Failed, Kind};
use super::rows::{bytes, count, fixed, get, number, some_time, time};
use super::session::{Session, params};
use super::{PostgresCatalog, once, read};
use crate::common::jobs::millis;
use crate::common::measured;
use crate::common::values::signed;
use crate::events::{Event, EventCatalog, NewEvent, Sink, Turn};
use async_trait::async_trait;
use carrack_domain::{Code, Error, Result, Timestamp};
use std::time::Duration;

/// Milliseconds by the clock of the database.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Keeps events of the present transaction.
pub(super) async fn insert(session: &Session, at: Timestamp, events: &[NewEvent]) -> Done<()> {
    let kinds: Vec<&str> = events.iter().map(|event| event.kind).collect();
    let subjects: Vec<&str> = events.iter().map(|event| event.subject.as_str()).collect();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    let sql = "WITH last AS (UPDATE meta SET value = value + $1 WHERE name = 'event_seq' RETURNING value) \
         INSERT INTO event (seq, at, kind, subject, data) \
         SELECT last.value - $1 + e.place, $2, e.kind, e.subject, e.data \
         FROM last, unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS e (kind, subject, data, place)";
    let values = params![events.len() as i64, at.as_millis(), kinds, subjects, data];
    session.execute(sql, values).await?;
    Ok(())
}

async fn set(session: &Session, names: &[String]) -> Done<()> {
    session.execute("DELETE FROM event_sink WHERE name <> ALL ($1)", params![names]).await?;
    let sql = "INSERT INTO event_sink AS s (name, passed) \
         SELECT name, (SELECT value FROM meta WHERE meta.name = 'event_seq') FROM unnest($1::text[]) AS name \
         ON CONFLICT (name) DO UPDATE SET failing_since = NULL, problem = NULL, dead = false WHERE s.dead";
    session.execute(sql, params![names]).await?;
    Ok(())
}

async fn all(session: &Session) -> Done<Vec<Sink>> {
    let sql = "SELECT name, passed, (SELECT count(*) FROM event WHERE seq > passed), failing_since, problem, dead \
         FROM event_sink ORDER BY name";
    let mut sinks = Vec::new();
    for row in session.rows(sql, &[]).await? {
        sinks.push(Sink {
            name: get(&row, 0)?,
            passed: number(&row, 1)?,
            pending: number(&row, 2)?,
            failing_since: some_time(&row, 3)?,
            problem: get(&row, 4)?,
            is_dead: get(&row, 5)?,
        });
    }
    Ok(sinks)
}

async fn take(session: &Session, sink: &str, holder: [u8; 16], lease: Duration) -> Done<Option<Turn>> {
    let sql = format!(
        "UPDATE event_sink SET fence = fence + (holder IS DISTINCT FROM $2)::int, holder = $2, lease_until = {NOW} + $3 \
         WHERE name = $1 AND NOT dead AND (holder IS NULL OR holder = $2 OR lease_until < {NOW}) \
         RETURNING fence, passed, failing_since"
    );
    let Some(row) = session.row(&sql, params![sink, bytes(&holder), millis(lease)?]).await? else {
        return Ok(None);
    };
    Ok(Some(Turn { fence: number(&row, 0)?, passed: number(&row, 1)?, failing_since: some_time(&row, 2)? }))
}

async fn give_back(session: &Session, sink: &str, fence: u64) -> Done<()> {
    let sql = "UPDATE event_sink SET holder = NULL, lease_until = NULL WHERE name = $1 AND fence = $2";
    session.execute(sql, params![sink, signed(fence)?]).await?;
    Ok(())
}

/// One row was changed, or it is somebody else's turn.
fn held(changed: u64) -> Done<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::new(Code::Superseded, "Another node tells this sink by now, or it is gone.").into())
}

async fn after(session: &Session, seq: u64, limit: usize) -> Done<Vec<Event>> {
    let sql = "SELECT seq, at, kind, subject, data, event_source.id FROM event CROSS JOIN event_source \
         WHERE seq > $1 ORDER BY seq LIMIT $2";
    let mut events = Vec::new();
    for row in session.rows(sql, params![signed(seq)?, count(limit)]).await? {
        let (seq, source) = (number(&row, 0)?, fixed::<8>(&row, 5)?);
        events.push(Event {
            seq,
            id: format!("{}-{seq}", carrack_domain::id::hex(&source)),
            at: time(&row, 1)?,
            kind: get(&row, 2)?,
            subject: get(&row, 3)?,
            data: get(&row, 4)?,
        });
    }
    Ok(events)
}

async fn passed(session: &Session, sink: &str, fence: u64, seq: u64) -> Done<()> {
    let sql = "UPDATE event_sink SET passed = greatest(passed, $3), failing_since = NULL, problem = NULL \
         WHERE name = $1 AND fence = $2";
    held(session.execute(sql, params![sink, signed(fence)?, signed(seq)?]).await?)
}

async fn failed(
    session: &Session,
    sink: &str,
    fence: u64,
    now: Timestamp,
    problem: &str,
    give_up: bool,
) -> Done<()> {
    let sql = "UPDATE event_sink SET failing_since = coalesce(failing_since, $3), problem = $4, dead = $5 \
         WHERE name = $1 AND fence = $2";
    // What others say may hold anything.
    let problem = problem.replace('\0', " ");
    let values = params![sink, signed(fence)?, now.as_millis(), problem, give_up];
    held(session.execute(sql, values).await?)
}

async fn drop_through(session: &Session, before: Timestamp, limit: usize) -> Done<u64> {
    let sql = "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE at < $1 OR seq <= coalesce(\
         (SELECT min(passed) FROM event_sink WHERE NOT dead), 0) ORDER BY seq LIMIT $2)";
    session.execute(sql, params![before.as_millis(), count(limit)]).await
}

#[async_trait]
impl EventCatalog for PostgresCatalog {
    async fn set_sinks(&self, names: &[String]) -> Result<()> {
        self.write("set_sinks", names.to_vec(), |names, turn| Box::pin(set(turn.session, names))).await
    }

    async fn sinks(&self) -> Result<Vec<Sink>> {
        read!(self, "sinks", |c| all(c))
    }

    async fn take_turn(&self, sink: &str, holder: [u8; 16], lease: Duration) -> Result<Option<Turn>> {
        once!(self, "take_turn", |c| take(c, sink, holder, lease))
    }

    async fn end_turn(&self, sink: &str, fence: u64) -> Result<()> {
        once!(self, "end_turn", |c| give_back(c, sink, fence))
    }

    async fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>> {
        read!(self, "events", |c| after(c, after_seq, limit))
    }

    async fn pass(&self, sink: &str, fence: u64, seq: u64) -> Result<()> {
        once!(self, "pass", |c| passed(c, sink, fence, seq))
    }

    async fn note_failure(
        &self,
        sink: &str,
        fence: u64,
        now: Timestamp,
        problem: &str,
        give_up: bool,
    ) -> Result<()> {
        once!(self, "note_failure", |c| failed(c, sink, fence, now, problem, give_up))
    }

    async fn drop_events(&self, before: Timestamp, limit: usize) -> Result<u64> {
        self.write("drop_events", (before, limit), |(before, limit), turn| {
            Box::pin(drop_through(turn.session, *before, *limit))
        })
        .await
    }
}
