//! Files: the name, the pointer, and what follows from moving it.

use super::buckets::{self, Account};
use super::error::Done;
use super::rows::{self, bytes, count, get};
use super::session::{Session, params};
use super::{blobs, uploads};
use crate::common::files::{self, not_found, require};
use crate::common::values::{metadata_text, pieces_bytes, signed};
use crate::{Committed, NewFile, Origin, Outcome};
use carrack_domain::file::{Blob, File, Precondition};
use carrack_domain::{BlobId, BucketName, ETag, Key, Timestamp};

/// The file that is there, as far as a change needs it.
struct Present {
    blob: BlobId,
    size: i64,
    etag: ETag,
    created_at: Timestamp,
}

pub(super) async fn find(session: &Session, bucket: &BucketName, key: &Key) -> Done<File> {
    let sql = format!(
        "SELECT {} FROM bucket LEFT JOIN file ON file.bucket_id = bucket.id AND file.key = $2 WHERE bucket.name = $1",
        rows::FILE
    );
    let row = session.row(&sql, params![bucket.as_str(), key.as_str().as_bytes()]).await?;
    let row = row.ok_or_else(|| buckets::not_found(bucket))?;
    if get::<Option<&[u8]>>(&row, 0)?.is_none() {
        return Err(not_found(bucket, key).into());
    }
    rows::file(&row, bucket)
}

pub(super) async fn of_content(
    session: &Session,
    size: u64,
    sha256: Option<[u8; 32]>,
    limit: usize,
) -> Done<Vec<File>> {
    // Nothing is as large as what the column cannot hold.
    let Ok(size) = i64::try_from(size) else { return Ok(Vec::new()) };
    let condition = if sha256.is_some() { "sha256 = $2" } else { "sha256 IS NULL AND $2::bytea IS NULL" };
    let sql = format!(
        "SELECT {}, bucket.name FROM file JOIN bucket ON bucket.id = file.bucket_id \
         WHERE size = $1 AND {condition} LIMIT $3",
        rows::FILE
    );
    let found = session.rows(&sql, params![size, sha256.as_ref().map(bytes), count(limit)]).await?;
    found.iter().map(|row| rows::file(row, &rows::bucket_name(row, 12)?)).collect()
}

async fn present(session: &Session, account: &Account, key: &Key) -> Done<Option<Present>> {
    let sql = "SELECT blob_id, size, blake3, created_at FROM file WHERE bucket_id = $1 AND key = $2";
    let Some(row) = session.row(sql, params![account.id, key.as_str().as_bytes()]).await? else {
        return Ok(None);
    };
    let etag = ETag::of_content(&rows::fixed(&row, 2)?);
    let created_at = rows::time(&row, 3)?;
    Ok(Some(Present { blob: rows::blob_id(&row, 0)?, size: get(&row, 1)?, etag, created_at }))
}

pub(super) async fn commit(session: &Session, new: &NewFile) -> Done<Committed> {
    let account = buckets::account(session, &new.target.bucket).await?;
    let reservations = match &new.origin {
        Origin::Session(upload) => uploads::finishing(session, upload, new.blob.id).await?,
        Origin::Request | Origin::Whole(_) => Vec::new(),
        Origin::Copy(source) => {
            let there = find(session, &source.bucket, &source.key).await?;
            if there.blob.id != new.blob.id {
                return Err(not_found(&source.bucket, &source.key).into());
            }
            Vec::new()
        }
    };
    let present = present(session, &account, &new.target.key).await?;
    require(&new.precondition, present.as_ref().map(|present| &present.etag))?;
    let replaced = present.as_ref().map_or(0, |present| present.size);
    let here = reservations.iter().filter(|held| held.bucket == new.target.bucket.as_str());
    let released: i64 = here.map(|held| held.size).sum();
    // Both are part of what the account counts now; saturating only matters for an account that is broken anyway.
    account.admit(new.blob.size, replaced.saturating_add(released))?;

    let blob = blobs::refer(session, &new.blob, new.content.as_ref()).await?;
    let size = signed(blob.size)?;
    let file = point(session, &account, new, blob).await?;
    let mut orphan = None;
    if let Some(present) = &present
        && blobs::release(session, &present.blob).await?
    {
        orphan = Some(present.blob);
    }
    let files = i64::from(present.is_none());
    buckets::book(session, account.id, size - replaced, files, 1).await?;
    for held in &reservations {
        buckets::reserve(session, &held.bucket, -held.size).await?;
    }
    let outcome = if present.is_some() { Outcome::Replaced } else { Outcome::Created };
    match &new.origin {
        Origin::Request | Origin::Copy(_) => {}
        Origin::Session(upload) => uploads::complete(session, upload, &file, outcome).await?,
        Origin::Whole(upload) => {
            uploads::insert(session, upload).await?;
            uploads::complete(session, &upload.id, &file, outcome).await?;
        }
    }
    Ok(Committed { file, outcome, orphan })
}

/// Makes the key point at the blob.
async fn point(session: &Session, account: &Account, new: &NewFile, blob: Blob) -> Done<File> {
    let sql = "INSERT INTO file (bucket_id, key, blob_id, size, crc32, blake3, sha256, created_at, created_by, \
         content_type, metadata, pieces, whole_blake3) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (bucket_id, key) DO UPDATE SET blob_id = excluded.blob_id, size = excluded.size, \
         crc32 = excluded.crc32, blake3 = excluded.blake3, sha256 = excluded.sha256, \
         created_at = excluded.created_at, created_by = excluded.created_by, content_type = excluded.content_type, \
         metadata = excluded.metadata, pieces = excluded.pieces, whole_blake3 = excluded.whole_blake3";
    let values = params![
        account.id,
        new.target.key.as_str().as_bytes(),
        bytes(blob.id.as_bytes()),
        signed(blob.size)?,
        i64::from(blob.digest.crc32),
        bytes(&blob.digest.blake3),
        blob.digest.sha256.as_ref().map(bytes),
        new.created_at.as_millis(),
        new.created_by,
        new.target.content_type,
        metadata_text(&new.target.metadata)?,
        blob.pieces.as_deref().map(pieces_bytes),
        blob.pieces.as_ref().and_then(|pieces| pieces.blake3.as_ref()).map(bytes),
    ];
    session.execute(sql, values).await?;
    Ok(files::made(new, blob))
}

pub(super) async fn delete(
    session: &Session,
    bucket: &BucketName,
    key: &Key,
    precondition: &Precondition,
) -> Done<Option<BlobId>> {
    let account = buckets::account(session, bucket).await?;
    let present = present(session, &account, key).await?.ok_or_else(|| not_found(bucket, key))?;
    require(precondition, Some(&present.etag))?;
    remove(session, &account, key, &present).await
}

pub(super) async fn expire(
    session: &Session,
    bucket: &BucketName,
    key: &Key,
    before: Timestamp,
) -> Done<Option<BlobId>> {
    let account = buckets::account(session, bucket).await?;
    let present = present(session, &account, key).await?.ok_or_else(|| not_found(bucket, key))?;
    if present.created_at >= before {
        return Err(files::younger().into());
    }
    remove(session, &account, key, &present).await
}

async fn remove(session: &Session, account: &Account, key: &Key, present: &Present) -> Done<Option<BlobId>> {
    let sql = "DELETE FROM file WHERE bucket_id = $1 AND key = $2";
    session.execute(sql, params![account.id, key.as_str().as_bytes()]).await?;
    buckets::book(session, account.id, -present.size, -1, 1).await?;
    let unreferenced = blobs::release(session, &present.blob).await?;
    Ok(unreferenced.then_some(present.blob))
}
