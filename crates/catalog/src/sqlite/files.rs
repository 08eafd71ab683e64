//! Files: the name, the pointer, and what follows from moving it.

use super::buckets::{self, Account};
use super::error::Done;
use super::rows::{self, signed};
use super::{blobs, uploads};
use crate::common::files::{self, not_found, require};
use crate::{Committed, NewFile, Origin, Outcome};
use carrack_domain::file::{Blob, File, Precondition};
use carrack_domain::{BlobId, BucketName, ETag, Key, Timestamp};
use rusqlite::{Connection, params};

/// Columns as in [`rows::FILE`], written out because this is the one statement every download runs.
const GET: &str = "SELECT key, blob_id, size, crc32, blake3, sha256, file.created_at, created_by, content_type, \
     metadata, pieces, whole_blake3 FROM bucket LEFT JOIN file ON file.bucket_id = bucket.id AND file.key = ?2 WHERE bucket.name = ?1";

/// The file that is there, as far as a change needs it.
struct Present {
    blob: BlobId,
    size: i64,
    etag: ETag,
    created_at: Timestamp,
}

pub(super) fn get(connection: &Connection, bucket: &BucketName, key: &Key) -> Done<File> {
    let mut statement = connection.prepare_cached(GET)?;
    let mut found = statement.query(params![bucket.as_str(), key.as_str().as_bytes()])?;
    match found.next()? {
        None => Err(buckets::not_found(bucket).into()),
        Some(row) if row.get_ref(0)? == rusqlite::types::ValueRef::Null => Err(not_found(bucket, key).into()),
        Some(row) => rows::file(row, bucket),
    }
}

pub(super) fn of_content(
    connection: &Connection,
    size: u64,
    sha256: Option<[u8; 32]>,
    limit: usize,
) -> Done<Vec<File>> {
    // Nothing is as large as what the column cannot hold.
    let Ok(size) = i64::try_from(size) else { return Ok(Vec::new()) };
    let condition = if sha256.is_some() { "sha256 = ?2" } else { "sha256 IS NULL AND ?2 IS NULL" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, bucket.name FROM file JOIN bucket ON bucket.id = file.bucket_id \
         WHERE size = ?1 AND {condition} LIMIT ?3",
        rows::FILE
    ))?;
    let mut found = statement.query(params![size, sha256, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut files = Vec::new();
    while let Some(row) = found.next()? {
        let bucket = rows::bucket_name(row, 12)?;
        files.push(rows::file(row, &bucket)?);
    }
    Ok(files)
}

fn present(connection: &Connection, account: &Account, key: &Key) -> Done<Option<Present>> {
    let mut statement = connection.prepare_cached(
        "SELECT blob_id, size, blake3, created_at FROM file WHERE bucket_id = ?1 AND key = ?2",
    )?;
    let mut found = statement.query(params![account.id, key.as_str().as_bytes()])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let etag = ETag::of_content(&row.get(2)?);
    let created_at = Timestamp::from_millis(row.get(3)?);
    Ok(Some(Present { blob: rows::blob_id(row, 0)?, size: row.get(1)?, etag, created_at }))
}

pub(super) fn commit(connection: &Connection, new: &NewFile) -> Done<Committed> {
    let account = buckets::account(connection, &new.target.bucket)?;
    let reservations = match &new.origin {
        Origin::Session(upload) => uploads::finishing(connection, upload, new.blob.id)?,
        Origin::Request | Origin::Whole(_) => Vec::new(),
        Origin::Copy(source) => {
            let there = get(connection, &source.bucket, &source.key)?;
            if there.blob.id != new.blob.id {
                return Err(not_found(&source.bucket, &source.key).into());
            }
            Vec::new()
        }
    };
    let present = present(connection, &account, &new.target.key)?;
    require(&new.precondition, present.as_ref().map(|present| &present.etag))?;
    let replaced = present.as_ref().map_or(0, |present| present.size);
    let here = reservations.iter().filter(|held| held.bucket == new.target.bucket.as_str());
    let released: i64 = here.map(|held| held.size).sum();
    // Both are part of what the account counts now; saturating only matters for an account that is broken anyway.
    account.admit(new.blob.size, replaced.saturating_add(released))?;

    let blob = blobs::refer(connection, &new.blob, new.content.as_ref())?;
    let size = signed(blob.size)?;
    let file = point(connection, &account, new, blob)?;
    let mut orphan = None;
    if let Some(present) = &present
        && blobs::release(connection, &present.blob)?
    {
        orphan = Some(present.blob);
    }
    let files = i64::from(present.is_none());
    buckets::book(connection, account.id, size - replaced, files, 1)?;
    for held in &reservations {
        buckets::reserve(connection, &held.bucket, -held.size)?;
    }
    let outcome = if present.is_some() { Outcome::Replaced } else { Outcome::Created };
    match &new.origin {
        Origin::Request | Origin::Copy(_) => {}
        Origin::Session(upload) => uploads::complete(connection, upload, &file, outcome)?,
        Origin::Whole(upload) => {
            uploads::insert(connection, upload)?;
            uploads::complete(connection, &upload.id, &file, outcome)?;
        }
    }
    Ok(Committed { file, outcome, orphan })
}

/// Makes the key point at the blob.
fn point(connection: &Connection, account: &Account, new: &NewFile, blob: Blob) -> Done<File> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO file (bucket_id, key, blob_id, size, crc32, blake3, sha256, created_at, created_by, \
         content_type, metadata, pieces, whole_blake3) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
         ON CONFLICT DO UPDATE SET blob_id = excluded.blob_id, size = excluded.size, crc32 = excluded.crc32, \
         blake3 = excluded.blake3, sha256 = excluded.sha256, created_at = excluded.created_at, \
         created_by = excluded.created_by, content_type = excluded.content_type, metadata = excluded.metadata, \
         pieces = excluded.pieces, whole_blake3 = excluded.whole_blake3",
    )?;
    statement.execute(params![
        account.id,
        new.target.key.as_str().as_bytes(),
        blob.id.as_bytes(),
        signed(blob.size)?,
        blob.digest.crc32,
        blob.digest.blake3,
        blob.digest.sha256,
        new.created_at.as_millis(),
        new.created_by,
        new.target.content_type,
        rows::metadata_text(&new.target.metadata)?,
        blob.pieces.as_deref().map(rows::pieces_bytes),
        blob.pieces.as_ref().and_then(|pieces| pieces.blake3),
    ])?;
    Ok(files::made(new, blob))
}

pub(super) fn delete(
    connection: &Connection,
    bucket: &BucketName,
    key: &Key,
    precondition: &Precondition,
) -> Done<Option<BlobId>> {
    let account = buckets::account(connection, bucket)?;
    let present = present(connection, &account, key)?.ok_or_else(|| not_found(bucket, key))?;
    require(precondition, Some(&present.etag))?;
    remove(connection, &account, key, &present)
}

pub(super) fn expire(
    connection: &Connection,
    bucket: &BucketName,
    key: &Key,
    before: Timestamp,
) -> Done<Option<BlobId>> {
    let account = buckets::account(connection, bucket)?;
    let present = present(connection, &account, key)?.ok_or_else(|| not_found(bucket, key))?;
    if present.created_at >= before {
        return Err(files::younger().into());
    }
    remove(connection, &account, key, &present)
}

fn remove(connection: &Connection, account: &Account, key: &Key, present: &Present) -> Done<Option<BlobId>> {
    connection
        .prepare_cached("DELETE FROM file WHERE bucket_id = ?1 AND key = ?2")?
        .execute(params![account.id, key.as_str().as_bytes()])?;
    buckets::book(connection, account.id, -present.size, -1, 1)?;
    let unreferenced = blobs::release(connection, &present.blob)?;
    Ok(unreferenced.then_some(present.blob))
}
