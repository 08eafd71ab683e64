//! Buckets and their accounts.

use super::error::Done;
use super::rows::{self, get};
use super::session::{Session, params};
use crate::Outcome;
pub(super) use crate::common::accounts::{Account, not_found};
use crate::common::accounts::{quota_number, retention_number};
use crate::common::values::policy_text;
use carrack_domain::file::{Bucket, BucketSettings};
use carrack_domain::{BucketName, Code, Error, Key, Timestamp};
use tokio_postgres::Row;

fn account_of(row: &Row) -> Done<Account> {
    Ok(Account { id: get(row, 0)?, quota: get(row, 1)?, used: get(row, 2)?, reserved: get(row, 3)? })
}

pub(super) async fn account(session: &Session, name: &BucketName) -> Done<Account> {
    let sql = "SELECT id, quota_bytes, used_bytes, reserved_bytes FROM bucket WHERE name = $1";
    let row = session.row(sql, params![name.as_str()]).await?;
    account_of(&row.ok_or_else(|| not_found(name))?)
}

/// Adds to the account; the table refuses sums below 0.
pub(super) async fn book(session: &Session, id: i64, used: i64, files: i64, generation: i64) -> Done<()> {
    let sql = "UPDATE bucket SET used_bytes = used_bytes + $2, file_count = file_count + $3, \
         generation = generation + $4 WHERE id = $1";
    session.execute(sql, params![id, used, files, generation]).await?;
    Ok(())
}

/// Adds to the bytes reserved for uploads, by name: an upload that holds a reservation keeps its bucket alive.
pub(super) async fn reserve(session: &Session, bucket: &str, bytes: i64) -> Done<()> {
    let sql = "UPDATE bucket SET reserved_bytes = reserved_bytes + $2 WHERE name = $1";
    if session.execute(sql, params![bucket, bytes]).await? == 1 {
        return Ok(());
    }
    Err(Error::broken(format!("bucket {bucket} is gone while it has an open upload")).into())
}

pub(super) async fn find(session: &Session, name: &BucketName) -> Done<Bucket> {
    let sql = format!("SELECT {} FROM bucket WHERE name = $1", rows::BUCKET);
    let row = session.row(&sql, params![name.as_str()]).await?;
    rows::bucket(&row.ok_or_else(|| not_found(name))?)
}

pub(super) async fn all(session: &Session) -> Done<Vec<Bucket>> {
    let sql = format!("SELECT {} FROM bucket ORDER BY name", rows::BUCKET);
    session.rows(&sql, &[]).await?.iter().map(rows::bucket).collect()
}

pub(super) async fn generation(session: &Session, name: &BucketName) -> Done<u64> {
    let sql = "SELECT generation FROM bucket WHERE name = $1";
    let row = session.row(sql, params![name.as_str()]).await?;
    rows::number(&row.ok_or_else(|| not_found(name))?, 0)
}

pub(super) async fn put(
    session: &Session,
    name: &BucketName,
    settings: &BucketSettings,
    now: Timestamp,
) -> Done<(Bucket, Outcome)> {
    let quota = settings.quota_bytes.map(quota_number).transpose()?;
    let retention = settings.retention_seconds.map(retention_number).transpose()?;
    let policy = settings.policy.as_ref().map(policy_text).transpose()?;
    let sql = "UPDATE bucket SET quota_bytes = $2, retention_seconds = $3, policy = $4 WHERE name = $1";
    if session.execute(sql, params![name.as_str(), quota, retention, policy]).await? > 0 {
        return Ok((find(session, name).await?, Outcome::Replaced));
    }
    let sql = "INSERT INTO bucket (name, quota_bytes, retention_seconds, policy, created_at, generation) \
         SELECT $1, $2, $3, $4, $5, value + 1 FROM meta WHERE name = 'generation_floor'";
    session.execute(sql, params![name.as_str(), quota, retention, policy, now.as_millis()]).await?;
    Ok((find(session, name).await?, Outcome::Created))
}

pub(super) async fn delete(session: &Session, name: &BucketName) -> Done<()> {
    let account = account(session, name).await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM file WHERE bucket_id = $1) \
         OR EXISTS (SELECT 1 FROM upload WHERE bucket = $2 AND state < 2)";
    let used = session.row(sql, params![account.id, name.as_str()]).await?;
    if used.is_none_or(|row| row.get(0)) {
        let detail = format!("The bucket {name} still has files or open uploads: delete those first.");
        return Err(Error::new(Code::BucketNotEmpty, detail).into());
    }
    let sql = "UPDATE meta SET value = greatest(value, (SELECT generation FROM bucket WHERE id = $1)) \
         WHERE name = 'generation_floor'";
    session.execute(sql, params![account.id]).await?;
    session.execute("DELETE FROM bucket WHERE id = $1", params![account.id]).await?;
    Ok(())
}

/// Whether `bytes` more fit once the file that `key` points at now is gone, and `freed` bytes of reservations are given
/// back.
pub(super) async fn check_quota(
    session: &Session,
    name: &BucketName,
    key: &Key,
    bytes: u64,
    freed: i64,
) -> Done<()> {
    let sql = "SELECT id, quota_bytes, used_bytes, reserved_bytes, size FROM bucket \
         LEFT JOIN file ON file.bucket_id = bucket.id AND file.key = $2 WHERE name = $1";
    let row = session.row(sql, params![name.as_str(), key.as_str().as_bytes()]).await?;
    let row = row.ok_or_else(|| not_found(name))?;
    let present: Option<i64> = get(&row, 4)?;
    Ok(account_of(&row)?.admit(bytes, freed.saturating_add(present.unwrap_or(0)))?)
}
