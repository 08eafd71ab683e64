//! Buckets and their accounts.

use super::error::Done;
use super::rows::{self, unsigned};
use crate::Outcome;
pub(super) use crate::common::accounts::{Account, not_found};
use crate::common::accounts::{quota_number, retention_number};
use carrack_domain::file::{Bucket, BucketSettings};
use carrack_domain::{BucketName, Code, Error, Key, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn account(connection: &Connection, name: &BucketName) -> Done<Account> {
    let mut statement = connection
        .prepare_cached("SELECT id, quota_bytes, used_bytes, reserved_bytes FROM bucket WHERE name = ?1")?;
    let account = statement.query_row([name.as_str()], |row| {
        Ok(Account { id: row.get(0)?, quota: row.get(1)?, used: row.get(2)?, reserved: row.get(3)? })
    });
    Ok(account.optional()?.ok_or_else(|| not_found(name))?)
}

/// Adds to the account; the table refuses sums below 0.
pub(super) fn book(connection: &Connection, id: i64, used: i64, files: i64, generation: i64) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE bucket SET used_bytes = used_bytes + ?2, file_count = file_count + ?3, \
         generation = generation + ?4 WHERE id = ?1",
    )?;
    statement.execute([id, used, files, generation])?;
    Ok(())
}

/// Adds to the bytes reserved for uploads, by name: an upload that holds a reservation keeps its bucket alive.
pub(super) fn reserve(connection: &Connection, bucket: &str, bytes: i64) -> Done<()> {
    let mut statement = connection
        .prepare_cached("UPDATE bucket SET reserved_bytes = reserved_bytes + ?2 WHERE name = ?1")?;
    if statement.execute(params![bucket, bytes])? == 1 {
        return Ok(());
    }
    Err(Error::broken(format!("bucket {bucket} is gone while it has an open upload")).into())
}

pub(super) fn get(connection: &Connection, name: &BucketName) -> Done<Bucket> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM bucket WHERE name = ?1", rows::BUCKET))?;
    let mut found = statement.query([name.as_str()])?;
    match found.next()? {
        Some(row) => rows::bucket(row),
        None => Err(not_found(name).into()),
    }
}

pub(super) fn all(connection: &Connection) -> Done<Vec<Bucket>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM bucket ORDER BY name", rows::BUCKET))?;
    let mut found = statement.query([])?;
    let mut buckets = Vec::new();
    while let Some(row) = found.next()? {
        buckets.push(rows::bucket(row)?);
    }
    Ok(buckets)
}

pub(super) fn generation(connection: &Connection, name: &BucketName) -> Done<u64> {
    let mut statement = connection.prepare_cached("SELECT generation FROM bucket WHERE name = ?1")?;
    let generation: Option<i64> = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
    Ok(unsigned(generation.ok_or_else(|| not_found(name))?)?)
}

pub(super) fn put(
    connection: &Connection,
    name: &BucketName,
    settings: &BucketSettings,
    now: Timestamp,
) -> Done<(Bucket, Outcome)> {
    let quota = settings.quota_bytes.map(quota_number).transpose()?;
    let retention = settings.retention_seconds.map(retention_number).transpose()?;
    let policy = settings.policy.as_ref().map(rows::policy_text).transpose()?;
    let mut statement = connection.prepare_cached(
        "UPDATE bucket SET quota_bytes = ?2, retention_seconds = ?3, policy = ?4 WHERE name = ?1",
    )?;
    if statement.execute(params![name.as_str(), quota, retention, policy])? > 0 {
        return Ok((get(connection, name)?, Outcome::Replaced));
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO bucket (name, quota_bytes, retention_seconds, policy, created_at, generation) \
         SELECT ?1, ?2, ?3, ?4, ?5, value + 1 FROM meta WHERE name = 'generation_floor'",
    )?;
    statement.execute(params![name.as_str(), quota, retention, policy, now.as_millis()])?;
    Ok((get(connection, name)?, Outcome::Created))
}

pub(super) fn delete(connection: &Connection, name: &BucketName) -> Done<()> {
    let account = account(connection, name)?;
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM file WHERE bucket_id = ?1) \
         OR EXISTS (SELECT 1 FROM upload WHERE bucket = ?2 AND state < 2)",
    )?;
    if statement.query_row(params![account.id, name.as_str()], |row| row.get(0))? {
        let detail = format!("The bucket {name} still has files or open uploads: delete those first.");
        return Err(Error::new(Code::BucketNotEmpty, detail).into());
    }
    let mut statement = connection.prepare_cached(
        "UPDATE meta SET value = max(value, (SELECT generation FROM bucket WHERE id = ?1)) \
         WHERE name = 'generation_floor'",
    )?;
    statement.execute([account.id])?;
    connection.prepare_cached("DELETE FROM bucket WHERE id = ?1")?.execute([account.id])?;
    Ok(())
}

/// Whether `bytes` more fit once the file that `key` points at now is gone.
pub(super) fn check_quota(connection: &Connection, name: &BucketName, key: &Key, bytes: u64) -> Done<()> {
    check_quota_once_freed(connection, name, key, bytes, 0)
}

/// As [`check_quota`], with `freed` bytes of reservations given back.
pub(super) fn check_quota_once_freed(
    connection: &Connection,
    name: &BucketName,
    key: &Key,
    bytes: u64,
    freed: i64,
) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "SELECT id, quota_bytes, used_bytes, reserved_bytes, size FROM bucket \
         LEFT JOIN file ON file.bucket_id = bucket.id AND file.key = ?2 WHERE name = ?1",
    )?;
    let found = statement.query_row(params![name.as_str(), key.as_str().as_bytes()], |row| {
        let account =
            Account { id: row.get(0)?, quota: row.get(1)?, used: row.get(2)?, reserved: row.get(3)? };
        Ok((account, row.get::<_, Option<i64>>(4)?))
    });
    let (account, present) = found.optional()?.ok_or_else(|| not_found(name))?;
    Ok(account.admit(bytes, freed.saturating_add(present.unwrap_or(0)))?)
}
