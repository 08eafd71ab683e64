//! Uploads, their ledgers and their reservations.

use super::buckets;
use super::error::Done;
use super::rows::{self, bytes, count, get};
use super::session::{Session, params};
pub(super) use crate::common::uploads::{FINISHING, OPEN, Reservation, finished, not_found, parts_missing};
use crate::common::uploads::{Standing, being_completed, not_being_completed, reserved};
use crate::common::values::{
    self, PARTS, condition, digests_text, file_of_text, file_text, metadata_text, signed,
};
use crate::{Finish, Outcome};
use carrack_domain::file::File;
use carrack_domain::upload::{StoredExtent, Upload};
use carrack_domain::{BlobId, BucketName, Timestamp, UploadId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

pub(super) async fn create(session: &Session, upload: &Upload) -> Done<()> {
    let account = buckets::account(session, &upload.target.bucket).await?;
    let size = reserved(upload);
    account.admit(size, 0)?;
    insert(session, upload).await?;
    buckets::reserve(session, upload.target.bucket.as_str(), signed(size)?).await
}

/// Records an open upload, reserving nothing.
pub(super) async fn insert(session: &Session, upload: &Upload) -> Done<()> {
    let (shape, part_size) = values::shape_numbers(upload);
    let (only_create, condition) = condition(&upload.precondition);
    let length = upload.length().filter(|_| shape != PARTS).map(signed).transpose()?;
    let sql = "INSERT INTO upload (id, owner, bucket, key, size, part_size, only_create, state, created_at, expires_at, \
         expected, content_type, metadata, shape, length, echo_metadata, echo_concat, told, condition, wants_sha256, direct) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";
    let values = params![
        bytes(upload.id.as_bytes()),
        upload.owner,
        upload.target.bucket.as_str(),
        upload.target.key.as_str().as_bytes(),
        signed(reserved(upload))?,
        signed(part_size)?,
        only_create,
        upload.created_at.as_millis(),
        upload.expires_at.as_millis(),
        digests_text(&upload.expected),
        upload.target.content_type,
        metadata_text(&upload.target.metadata)?,
        shape,
        length,
        upload.echo.metadata,
        upload.echo.concat,
        upload.told,
        condition,
        upload.wants_sha256,
        upload.direct,
    ];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn query(
    session: &Session,
    rest: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Done<Vec<Upload>> {
    let sql = format!("SELECT {} FROM upload WHERE {rest}", rows::UPLOAD);
    session.rows(&sql, params).await?.iter().map(rows::upload).collect()
}

pub(super) async fn maybe(session: &Session, id: &UploadId) -> Done<Option<Upload>> {
    Ok(query(session, "id = $1", params![bytes(id.as_bytes())]).await?.pop())
}

pub(super) async fn find(session: &Session, id: &UploadId) -> Done<Upload> {
    Ok(maybe(session, id).await?.ok_or_else(|| not_found(id))?)
}

pub(super) async fn of_owner(
    session: &Session,
    owner: &str,
    bucket: Option<&BucketName>,
    limit: usize,
) -> Done<Vec<Upload>> {
    let rest =
        "owner = $1 AND state = 0 AND ($2::text IS NULL OR bucket = $2) ORDER BY created_at, id LIMIT $3";
    query(session, rest, params![owner, bucket.map(BucketName::as_str), count(limit)]).await
}

pub(super) async fn all_finishing(session: &Session) -> Done<Vec<Upload>> {
    query(session, "state = 1 ORDER BY id", &[]).await
}

pub(super) async fn active(session: &Session) -> Done<u64> {
    let row = session.row("SELECT count(*) FROM upload WHERE state < 2", &[]).await?;
    Ok(row.map(|row| rows::number(&row, 0)).transpose()?.unwrap_or(0))
}

pub(super) async fn exists(session: &Session, id: &UploadId) -> Done<bool> {
    let sql = "SELECT 1 FROM upload WHERE id = $1";
    Ok(session.row(sql, params![bytes(id.as_bytes())]).await?.is_some())
}

pub(super) async fn expire(session: &Session, now: Timestamp, limit: usize) -> Done<Vec<UploadId>> {
    let sql = "SELECT id FROM upload WHERE expires_at < $1 AND state <> 1 ORDER BY expires_at, id LIMIT $2";
    let found = session.rows(sql, params![now.as_millis(), count(limit)]).await?;
    let ids = found.iter().map(|row| rows::upload_id(row, 0)).collect::<Done<Vec<_>>>()?;
    for id in &ids {
        delete(session, id).await?;
    }
    Ok(ids)
}

pub(super) async fn record_extent(
    session: &Session,
    id: &UploadId,
    extent: &StoredExtent,
    expires_at: Timestamp,
) -> Done<()> {
    let sql = "UPDATE upload SET expires_at = $2 WHERE id = $1 AND state = 0";
    touch(session, sql, id, expires_at).await?;
    // The row of the upload is locked by that, so nobody comes in between.
    let start = extent.piece.fragment.start();
    if !extent.is_seen() && self::extent(session, id, start).await?.is_some_and(|present| present.is_seen()) {
        return Ok(());
    }
    put_line(session, id, extent).await
}

pub(super) async fn note_direct(session: &Session, id: &UploadId, expires_at: Timestamp) -> Done<()> {
    let sql = "UPDATE upload SET expires_at = $2, direct = true WHERE id = $1 AND state = 0";
    touch(session, sql, id, expires_at).await
}

/// Changes an open upload.
async fn touch(session: &Session, sql: &'static str, id: &UploadId, expires_at: Timestamp) -> Done<()> {
    if session.execute(sql, params![bytes(id.as_bytes()), expires_at.as_millis()]).await? > 0 {
        return Ok(());
    }
    let error = if exists(session, id).await? { finished() } else { not_found(id) };
    Err(error.into())
}

/// Writes a line of the ledger over the one that begins at the same offset.
pub(super) async fn put_line(session: &Session, id: &UploadId, extent: &StoredExtent) -> Done<()> {
    let sql = "INSERT INTO extent (upload_id, begins, ends, crc32, blake3, fragment, receipt) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (upload_id, begins) DO UPDATE SET ends = excluded.ends, crc32 = excluded.crc32, \
         blake3 = excluded.blake3, fragment = excluded.fragment, receipt = excluded.receipt";
    let fragment = &extent.piece.fragment;
    let values = params![
        bytes(id.as_bytes()),
        signed(fragment.start())?,
        signed(fragment.end())?,
        i64::from(extent.piece.crc32),
        bytes(&extent.blake3),
        fragment.encode(),
        extent.receipt.to_vec(),
    ];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn extents(session: &Session, id: &UploadId) -> Done<Vec<StoredExtent>> {
    let sql = format!("SELECT {} FROM extent WHERE upload_id = $1 ORDER BY begins", rows::EXTENT);
    session.rows(&sql, params![bytes(id.as_bytes())]).await?.iter().map(rows::extent).collect()
}

pub(super) async fn extent(session: &Session, id: &UploadId, offset: u64) -> Done<Option<StoredExtent>> {
    let Ok(offset) = i64::try_from(offset) else { return Ok(None) };
    let sql = format!("SELECT {} FROM extent WHERE upload_id = $1 AND begins = $2", rows::EXTENT);
    let row = session.row(&sql, params![bytes(id.as_bytes()), offset]).await?;
    row.as_ref().map(rows::extent).transpose()
}

/// Whether the extents are neighbours from 0 to `size`.
async fn covers(session: &Session, id: &UploadId, size: i64) -> Done<bool> {
    let sql = "SELECT begins, ends FROM extent WHERE upload_id = $1 ORDER BY begins";
    let mut covered: i64 = 0;
    for row in session.rows(sql, params![bytes(id.as_bytes())]).await? {
        if get::<i64>(&row, 0)? != covered {
            return Ok(false);
        }
        covered = get(&row, 1)?;
    }
    Ok(covered == size)
}

pub(super) async fn standing(session: &Session, id: &UploadId) -> Done<Standing> {
    let sql = "SELECT state, size, blob_id, file, shape, length FROM upload WHERE id = $1";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?.ok_or_else(|| not_found(id))?;
    let finish = match get::<i64>(&row, 0)? {
        OPEN => None,
        FINISHING => Some(Finish::Underway(rows::blob_id(&row, 2)?)),
        _ => {
            let (file, outcome) = file_of_text(get(&row, 3)?)?;
            Some(Finish::Done(Box::new(file), outcome))
        }
    };
    Ok(Standing { finish, shape: get(&row, 4)?, size: get(&row, 1)?, length: get(&row, 5)? })
}

pub(super) async fn begin_finish(session: &Session, id: &UploadId, blob: BlobId) -> Done<Finish> {
    let standing = standing(session, id).await?;
    if let Some(finish) = standing.finish {
        return Ok(finish);
    }
    match standing.size_of_file(id)? {
        Some(size) if covers(session, id, size).await? => {}
        _ => return Err(parts_missing().into()),
    }
    set_finishing(session, id, blob).await?;
    Ok(Finish::Begun)
}

pub(super) async fn set_finishing(session: &Session, id: &UploadId, blob: BlobId) -> Done<()> {
    let sql = "UPDATE upload SET state = 1, blob_id = $2 WHERE id = $1";
    session.execute(sql, params![bytes(id.as_bytes()), bytes(blob.as_bytes())]).await?;
    Ok(())
}

pub(super) async fn abandon_finish(session: &Session, id: &UploadId, blob: BlobId) -> Done<()> {
    let sql = "UPDATE upload SET state = 0, blob_id = NULL WHERE id = $1 AND state = 1 AND blob_id = $2";
    let id = bytes(id.as_bytes());
    if session.execute(sql, params![id, bytes(blob.as_bytes())]).await? > 0 {
        let sql = "UPDATE upload SET state = 0, blob_id = NULL WHERE state = 1 \
             AND id IN (SELECT partial_id FROM member WHERE joined_id = $1)";
        session.execute(sql, params![id]).await?;
    }
    Ok(())
}

/// What is reserved for an upload that is finishing under `blob`, and for its partial uploads; `upload_not_found` for
/// any other.
pub(super) async fn finishing(session: &Session, id: &UploadId, blob: BlobId) -> Done<Vec<Reservation>> {
    let sql = "SELECT bucket, size FROM upload WHERE id = $1 AND state = 1 AND blob_id = $2";
    let row = session.row(sql, params![bytes(id.as_bytes()), bytes(blob.as_bytes())]).await?;
    let mut reservations = vec![reservation(&row.ok_or_else(|| not_being_completed(id))?)?];
    reservations.extend(of_partials(session, id).await?);
    Ok(reservations)
}

/// What the partial uploads of a joined one have reserved; nothing for any other.
pub(super) async fn of_partials(session: &Session, id: &UploadId) -> Done<Vec<Reservation>> {
    let sql =
        "SELECT bucket, size FROM upload WHERE id IN (SELECT partial_id FROM member WHERE joined_id = $1)";
    session.rows(sql, params![bytes(id.as_bytes())]).await?.iter().map(reservation).collect()
}

fn reservation(row: &Row) -> Done<Reservation> {
    Ok(Reservation { bucket: get(row, 0)?, size: get(row, 1)? })
}

/// Notes the file the upload has become. Partial uploads end here: the file has their bytes.
pub(super) async fn complete(session: &Session, id: &UploadId, file: &File, outcome: Outcome) -> Done<()> {
    let sql = "UPDATE upload SET state = 2, blob_id = NULL, file = $2, \
         length = CASE shape WHEN 3 THEN $3 ELSE length END WHERE id = $1";
    let id = bytes(id.as_bytes());
    session.execute(sql, params![id, file_text(file, outcome), signed(file.blob.size)?]).await?;
    let sql = "DELETE FROM upload WHERE id IN (SELECT partial_id FROM member WHERE joined_id = $1)";
    session.execute(sql, params![id]).await?;
    Ok(())
}

pub(super) async fn delete(session: &Session, id: &UploadId) -> Done<()> {
    let sql = "SELECT state, size, bucket FROM upload WHERE id = $1";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?.ok_or_else(|| not_found(id))?;
    match get::<i64>(&row, 0)? {
        OPEN => buckets::reserve(session, get(&row, 2)?, -get::<i64>(&row, 1)?).await?,
        FINISHING => return Err(being_completed().into()),
        _ => {}
    }
    session.execute("DELETE FROM upload WHERE id = $1", params![bytes(id.as_bytes())]).await?;
    Ok(())
}
