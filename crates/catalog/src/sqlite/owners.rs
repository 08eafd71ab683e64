//! What each owner has, and may have. Triggers keep the sums; what goes beyond a quota is undone here.

use super::error::Done;
use super::rows::signed;
use crate::common::accounts::Holding;
use carrack_domain::UploadId;
use carrack_domain::access::FileRef;
use rusqlite::{Connection, OptionalExtension, params};

fn holding(connection: &Connection, owner: &str) -> Done<Holding> {
    let mut statement = connection.prepare_cached("SELECT bytes, quota_bytes FROM owner WHERE name = ?1")?;
    let found = statement.query_row([owner], |row| Ok(Holding { bytes: row.get(0)?, quota: row.get(1)? }));
    Ok(found.optional()?.unwrap_or_default())
}

/// Does `work`; `quota_exceeded`, and nothing is changed, if that leads the owner beyond their quota.
pub(super) fn bounded<T>(connection: &Connection, owner: &str, work: impl FnOnce() -> Done<T>) -> Done<T> {
    let before = holding(connection, owner)?.bytes;
    let done = work()?;
    holding(connection, owner)?.admit(before)?;
    Ok(done)
}

/// The same for the owner of an upload.
pub(super) fn bounded_by_upload<T>(
    connection: &Connection,
    upload: &UploadId,
    work: impl FnOnce() -> Done<T>,
) -> Done<T> {
    let mut statement = connection.prepare_cached("SELECT owner FROM upload WHERE id = ?1")?;
    let owner: Option<String> = statement.query_row([upload.as_bytes()], |row| row.get(0)).optional()?;
    match owner {
        Some(owner) => bounded(connection, &owner, work),
        // There is none: the work says so.
        None => work(),
    }
}

/// `quota_exceeded` unless a file of `bytes` in this place fits, which gives back what the owner has there.
pub(super) fn check(connection: &Connection, owner: &str, place: &FileRef, bytes: u64) -> Done<()> {
    let before = holding(connection, owner)?;
    if before.quota.is_none() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "SELECT size FROM file JOIN bucket ON bucket.id = file.bucket_id \
         WHERE bucket.name = ?1 AND key = ?2 AND created_by = ?3",
    )?;
    let present = statement
        .query_row(params![place.bucket.as_str(), place.key.as_str().as_bytes(), owner], |row| {
            row.get::<_, i64>(0)
        })
        .optional()?;
    let more = i64::try_from(bytes).unwrap_or(i64::MAX);
    let after = before.bytes.saturating_sub(present.unwrap_or(0)).saturating_add(more);
    Ok(Holding { bytes: after, ..before }.admit(before.bytes)?)
}

pub(super) fn set_quota(connection: &Connection, owner: &str, quota: Option<u64>) -> Done<()> {
    let quota = quota.map(signed).transpose()?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO owner (name, quota_bytes) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET quota_bytes = excluded.quota_bytes",
    )?;
    statement.execute(params![owner, quota])?;
    Ok(())
}

pub(super) fn forget_quotas(connection: &Connection) -> Done<()> {
    connection.execute("UPDATE owner SET quota_bytes = NULL WHERE quota_bytes IS NOT NULL", [])?;
    connection.execute("DELETE FROM owner WHERE bytes = 0", [])?;
    Ok(())
}
