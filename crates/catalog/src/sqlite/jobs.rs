//! Jobs: leases by the clock of the database, and a fence in every write.

use super::error::Done;
use super::rows::{signed, unsigned};
use crate::Claim;
pub(super) use crate::common::jobs::{failure, number, state};
use crate::common::jobs::{failure_text, lost, millis};
use carrack_domain::ArchiveId;
use carrack_domain::job::{JobFailure, JobState, JobWish, Progress};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// Milliseconds by the clock of the database.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// This database has one process at a time: whoever had a lease when it is opened is dead.
pub(super) fn free_all(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE job SET state = 0, lease_owner = NULL, lease_until = NULL WHERE state = 1";
    connection.execute(sql, []).map(drop)
}

pub(super) fn insert(connection: &Connection, id: &ArchiveId, state: JobState) -> Done<()> {
    let sql = format!("INSERT INTO job (id, kind, state, next_run_at) VALUES (?1, 1, ?2, {NOW})");
    connection.prepare_cached(&sql)?.execute(params![id.as_bytes(), number(state)])?;
    Ok(())
}

/// The jobs that can be taken, the most urgent first.
fn due() -> String {
    format!(
        "SELECT id FROM (SELECT id, priority, next_run_at FROM job WHERE state = 0 AND next_run_at <= {NOW} \
         UNION ALL SELECT id, priority, next_run_at FROM job WHERE state = 1 AND lease_until < {NOW}) \
         ORDER BY priority DESC, next_run_at, id LIMIT 1"
    )
}

pub(super) fn is_due(connection: &Connection) -> Done<bool> {
    Ok(connection.prepare_cached(&due())?.exists([])?)
}

pub(super) fn claim(connection: &Connection, worker: [u8; 16], lease: Duration) -> Done<Option<Claim>> {
    let due = due();
    let due: Option<[u8; 16]> =
        connection.prepare_cached(&due)?.query_row([], |row| row.get(0)).optional()?;
    let Some(id) = due else { return Ok(None) };
    let take = format!(
        "UPDATE job SET state = 1, lease_owner = ?2, lease_until = {NOW} + ?3, fence = fence + 1 WHERE id = ?1 \
         RETURNING fence, attempts"
    );
    let (fence, attempts) = connection
        .prepare_cached(&take)?
        .query_row(params![id, worker, millis(lease)?], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    Ok(Some(Claim { job: ArchiveId::from_bytes(id), fence: unsigned(fence)?, attempts }))
}

/// `superseded` unless the job is still the claim's.
pub(super) fn check(connection: &Connection, claim: &Claim) -> Done<()> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM job WHERE id = ?1 AND state = 1 AND fence = ?2")?;
    let found = statement.exists(params![claim.job.as_bytes(), signed(claim.fence)?])?;
    if found { Ok(()) } else { Err(lost().into()) }
}

pub(super) fn renew(connection: &Connection, claim: &Claim, lease: Duration, progress: Progress) -> Done<()> {
    let sql = format!(
        "UPDATE job SET lease_until = {NOW} + ?3, entries_done = ?4, bytes_done = ?5 \
         WHERE id = ?1 AND state = 1 AND fence = ?2"
    );
    let changed = connection.prepare_cached(&sql)?.execute(params![
        claim.job.as_bytes(),
        signed(claim.fence)?,
        millis(lease)?,
        signed(progress.entries)?,
        signed(progress.bytes)?,
    ])?;
    if changed == 1 { Ok(()) } else { Err(lost().into()) }
}

/// The job is in this state from now on, and nobody's.
pub(super) fn put_down(connection: &Connection, id: &ArchiveId, state: JobState) -> Done<()> {
    let sql =
        "UPDATE job SET state = ?2, lease_owner = NULL, lease_until = NULL, fence = fence + 1 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![id.as_bytes(), number(state)])?;
    Ok(())
}

pub(super) fn release(connection: &Connection, claim: &Claim, progress: Progress) -> Done<()> {
    if check(connection, claim).is_err() {
        return Ok(());
    }
    renew(connection, claim, Duration::ZERO, progress)?;
    put_down(connection, &claim.job, JobState::Waiting)
}

pub(super) fn retry(
    connection: &Connection,
    claim: &Claim,
    attempts: u32,
    pause: Duration,
    failure: &JobFailure,
) -> Done<()> {
    check(connection, claim)?;
    put_down(connection, &claim.job, JobState::Waiting)?;
    let sql = format!("UPDATE job SET attempts = ?2, next_run_at = {NOW} + ?3, failure = ?4 WHERE id = ?1");
    let failure = failure_text(failure);
    connection.prepare_cached(&sql)?.execute(params![
        claim.job.as_bytes(),
        attempts,
        millis(pause)?,
        failure
    ])?;
    Ok(())
}

pub(super) fn fail(connection: &Connection, claim: &Claim, failure: &JobFailure) -> Done<()> {
    check(connection, claim)?;
    put_down(connection, &claim.job, JobState::Failed)?;
    connection
        .prepare_cached("UPDATE job SET failure = ?2 WHERE id = ?1")?
        .execute(params![claim.job.as_bytes(), failure_text(failure)])?;
    super::archives::let_go(connection, &claim.job)
}

pub(super) fn complete(connection: &Connection, claim: &Claim) -> Done<()> {
    check(connection, claim)?;
    put_down(connection, &claim.job, JobState::Completed)?;
    let sql = "UPDATE job SET failure = NULL, (entries_done, bytes_done) = \
         (SELECT entries, bytes FROM archive WHERE archive.id = job.id) WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([claim.job.as_bytes()])?;
    Ok(())
}

pub(super) fn wish(connection: &Connection, id: &ArchiveId, now: JobState, wish: JobWish) -> Done<()> {
    let next = now.after(wish)?;
    put_down(connection, id, next)?;
    if next == JobState::Waiting {
        let sql = format!("UPDATE job SET attempts = 0, failure = NULL, next_run_at = {NOW} WHERE id = ?1");
        connection.prepare_cached(&sql)?.execute([id.as_bytes()])?;
    }
    if next == JobState::Cancelled {
        super::archives::let_go(connection, id)?;
    }
    Ok(())
}
