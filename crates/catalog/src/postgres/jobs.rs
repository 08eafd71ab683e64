//! Jobs: leases by the clock of the database, and a fence in every write.

use super::error::Done;
use super::rows::{bytes, fixed, get, number as unsigned};
use super::session::{Session, params};
use crate::Claim;
pub(super) use crate::common::jobs::{failure, number, state};
use crate::common::jobs::{failure_text, lost, millis};
use crate::common::values::{damaged, signed};
use carrack_domain::ArchiveId;
use carrack_domain::job::{JobFailure, JobState, JobWish, Progress};
use std::time::Duration;

/// Milliseconds by the clock of the database, at this moment: a transaction may have waited for its turn.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) async fn insert(session: &Session, id: &ArchiveId, state: JobState) -> Done<()> {
    let sql = format!("INSERT INTO job (id, kind, state, next_run_at) VALUES ($1, 1, $2, {NOW})");
    session.execute(&sql, params![bytes(id.as_bytes()), number(state)]).await?;
    Ok(())
}

/// One statement, so it needs no turn: of many who ask at once each locks another row, or finds none.
pub(super) async fn claim(session: &Session, worker: [u8; 16], lease: Duration) -> Done<Option<Claim>> {
    let sql = format!(
        "UPDATE job SET state = 1, lease_owner = $1, lease_until = {NOW} + $2, fence = fence + 1 WHERE id = ( \
             SELECT id FROM job WHERE (state = 0 AND next_run_at <= {NOW}) OR (state = 1 AND lease_until < {NOW}) \
             ORDER BY priority DESC, next_run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) \
         RETURNING id, fence, attempts"
    );
    let Some(row) = session.row(&sql, params![bytes(&worker), millis(lease)?]).await? else {
        return Ok(None);
    };
    let attempts = u32::try_from(get::<i64>(&row, 2)?).map_err(|_| damaged("a job"))?;
    Ok(Some(Claim { job: ArchiveId::from_bytes(fixed(&row, 0)?), fence: unsigned(&row, 1)?, attempts }))
}

/// `superseded` unless the job is still the claim's, and it stays so until the transaction ends: claims do not wait for
/// their turn.
pub(super) async fn check(session: &Session, claim: &Claim) -> Done<()> {
    let sql = "SELECT 1 FROM job WHERE id = $1 AND state = 1 AND fence = $2 FOR UPDATE";
    let found = session.row(sql, params![bytes(claim.job.as_bytes()), signed(claim.fence)?]).await?;
    if found.is_some() { Ok(()) } else { Err(lost().into()) }
}

pub(super) async fn renew(session: &Session, claim: &Claim, lease: Duration, progress: Progress) -> Done<()> {
    let sql = format!(
        "UPDATE job SET lease_until = {NOW} + $3, entries_done = $4, bytes_done = $5 \
         WHERE id = $1 AND state = 1 AND fence = $2"
    );
    let values = params![
        bytes(claim.job.as_bytes()),
        signed(claim.fence)?,
        millis(lease)?,
        signed(progress.entries)?,
        signed(progress.bytes)?,
    ];
    if session.execute(&sql, values).await? == 1 { Ok(()) } else { Err(lost().into()) }
}

/// The job is in this state from now on, and nobody's.
async fn put_down(session: &Session, id: &ArchiveId, state: JobState) -> Done<()> {
    let sql =
        "UPDATE job SET state = $2, lease_owner = NULL, lease_until = NULL, fence = fence + 1 WHERE id = $1";
    session.execute(sql, params![bytes(id.as_bytes()), number(state)]).await?;
    Ok(())
}

pub(super) async fn release(session: &Session, claim: &Claim, progress: Progress) -> Done<()> {
    match check(session, claim).await {
        Ok(()) => {}
        Err(failed) if failed.kind() == super::error::Kind::Refused => return Ok(()),
        Err(failed) => return Err(failed),
    }
    renew(session, claim, Duration::ZERO, progress).await?;
    put_down(session, &claim.job, JobState::Waiting).await
}

pub(super) async fn retry(
    session: &Session,
    claim: &Claim,
    attempts: u32,
    pause: Duration,
    failure: &JobFailure,
) -> Done<()> {
    check(session, claim).await?;
    put_down(session, &claim.job, JobState::Waiting).await?;
    let sql = format!("UPDATE job SET attempts = $2, next_run_at = {NOW} + $3, failure = $4 WHERE id = $1");
    let values =
        params![bytes(claim.job.as_bytes()), i64::from(attempts), millis(pause)?, failure_text(failure)];
    session.execute(&sql, values).await?;
    Ok(())
}

pub(super) async fn fail(session: &Session, claim: &Claim, failure: &JobFailure) -> Done<()> {
    check(session, claim).await?;
    put_down(session, &claim.job, JobState::Failed).await?;
    let sql = "UPDATE job SET failure = $2 WHERE id = $1";
    session.execute(sql, params![bytes(claim.job.as_bytes()), failure_text(failure)]).await?;
    super::archives::let_go(session, &claim.job).await
}

pub(super) async fn complete(session: &Session, claim: &Claim) -> Done<()> {
    check(session, claim).await?;
    put_down(session, &claim.job, JobState::Completed).await?;
    let sql = "UPDATE job SET failure = NULL, (entries_done, bytes_done) = \
         (SELECT entries, bytes FROM archive WHERE archive.id = job.id) WHERE id = $1";
    session.execute(sql, params![bytes(claim.job.as_bytes())]).await?;
    Ok(())
}

pub(super) async fn wish(session: &Session, id: &ArchiveId, now: JobState, wish: JobWish) -> Done<()> {
    let next = now.after(wish)?;
    put_down(session, id, next).await?;
    if next == JobState::Waiting {
        let sql = format!("UPDATE job SET attempts = 0, failure = NULL, next_run_at = {NOW} WHERE id = $1");
        session.execute(&sql, params![bytes(id.as_bytes())]).await?;
    }
    if next == JobState::Cancelled {
        super::archives::let_go(session, id).await?;
    }
    Ok(())
}
