//! What each owner has, and may have. Triggers keep the sums; what goes beyond a quota is undone here.

use super::error::Done;
use super::rows::{bytes, get};
use super::session::{Session, params};
use crate::common::accounts::Holding;
use crate::common::values::signed;
use carrack_domain::UploadId;
use carrack_domain::access::FileRef;

async fn holding(session: &Session, owner: &str) -> Done<Holding> {
    let sql = "SELECT bytes, quota_bytes FROM owner WHERE name = $1";
    match session.row(sql, params![owner]).await? {
        Some(row) => Ok(Holding { bytes: get(&row, 0)?, quota: get(&row, 1)? }),
        None => Ok(Holding::default()),
    }
}

/// Does `work`; `quota_exceeded`, and nothing is changed, if that leads the owner beyond their quota.
pub(super) async fn bounded<T>(
    session: &Session,
    owner: &str,
    work: impl Future<Output = Done<T>>,
) -> Done<T> {
    let before = holding(session, owner).await?;
    let done = work.await?;
    // Whose turn it is changes quotas too: one without has none afterwards either.
    if before.quota.is_some() {
        holding(session, owner).await?.admit(before.bytes)?;
    }
    Ok(done)
}

/// The same for the owner of an upload.
pub(super) async fn bounded_by_upload<T>(
    session: &Session,
    upload: &UploadId,
    work: impl Future<Output = Done<T>>,
) -> Done<T> {
    let sql = "SELECT owner FROM upload WHERE id = $1";
    match session.row(sql, params![bytes(upload.as_bytes())]).await? {
        Some(row) => bounded(session, get(&row, 0)?, work).await,
        // There is none: the work says so.
        None => work.await,
    }
}

/// `quota_exceeded` unless a file of `more` bytes in this place fits, which gives back what the owner has there.
pub(super) async fn check(session: &Session, owner: &str, place: &FileRef, more: u64) -> Done<()> {
    let before = holding(session, owner).await?;
    if before.quota.is_none() {
        return Ok(());
    }
    let sql = "SELECT size FROM file JOIN bucket ON bucket.id = file.bucket_id \
         WHERE bucket.name = $1 AND key = $2 AND created_by = $3";
    let key = place.key.as_str().as_bytes();
    let present = session.row(sql, params![place.bucket.as_str(), key, owner]).await?;
    let present: i64 = present.map(|row| get(&row, 0)).transpose()?.unwrap_or(0);
    let more = i64::try_from(more).unwrap_or(i64::MAX);
    let after = before.bytes.saturating_sub(present).saturating_add(more);
    Ok(Holding { bytes: after, ..before }.admit(before.bytes)?)
}

pub(super) async fn set_quota(session: &Session, owner: &str, quota: Option<u64>) -> Done<()> {
    let quota = quota.map(signed).transpose()?;
    let sql = "INSERT INTO owner (name, quota_bytes) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET quota_bytes = excluded.quota_bytes";
    session.execute(sql, params![owner, quota]).await?;
    Ok(())
}

pub(super) async fn forget_quotas(session: &Session) -> Done<()> {
    session.execute("UPDATE owner SET quota_bytes = NULL WHERE quota_bytes IS NOT NULL", &[]).await?;
    session.execute("DELETE FROM owner WHERE bytes = 0", &[]).await?;
    Ok(())
}
