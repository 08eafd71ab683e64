//! Uploads, their ledgers and their reservations.

use super::buckets;
use super::error::Done;
use super::rows::{self, damaged, signed};
pub(super) use crate::common::uploads::{FINISHING, OPEN, Reservation, finished, not_found, parts_missing};
use crate::common::uploads::{Standing, being_completed, not_being_completed, reserved};
use crate::common::values;
use crate::{Finish, Outcome};
use carrack_domain::file::File;
use carrack_domain::upload::{StoredExtent, Upload};
use carrack_domain::{BlobId, BucketName, Timestamp, UploadId};
use rusqlite::{Connection, OptionalExtension, Params, params};

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn create(connection: &Connection, upload: &Upload) -> Done<()> {
    let account = buckets::account(connection, &upload.target.bucket)?;
    let size = reserved(upload);
    account.admit(size, 0)?;
    insert(connection, upload)?;
    buckets::reserve(connection, upload.target.bucket.as_str(), signed(size)?)
}

/// Records an open upload, reserving nothing.
pub(super) fn insert(connection: &Connection, upload: &Upload) -> Done<()> {
    let (shape, part_size) = values::shape_numbers(upload);
    let (only_create, condition) = rows::condition(&upload.precondition);
    let length = upload.length().filter(|_| shape != rows::PARTS).map(signed).transpose()?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO upload (id, owner, bucket, key, size, part_size, only_create, state, created_at, expires_at, \
         expected, content_type, metadata, shape, length, echo_metadata, echo_concat, told, condition, wants_sha256, direct) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    statement.execute(params![
        upload.id.as_bytes(),
        upload.owner,
        upload.target.bucket.as_str(),
        upload.target.key.as_str().as_bytes(),
        signed(reserved(upload))?,
        signed(part_size)?,
        only_create,
        upload.created_at.as_millis(),
        upload.expires_at.as_millis(),
        rows::digests_text(&upload.expected),
        upload.target.content_type,
        rows::metadata_text(&upload.target.metadata)?,
        shape,
        length,
        upload.echo.metadata,
        upload.echo.concat,
        upload.told,
        condition,
        upload.wants_sha256,
        upload.direct,
    ])?;
    Ok(())
}

pub(super) fn query(connection: &Connection, rest: &str, params: impl Params) -> Done<Vec<Upload>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM upload WHERE {rest}", rows::UPLOAD))?;
    let mut found = statement.query(params)?;
    let mut uploads = Vec::new();
    while let Some(row) = found.next()? {
        uploads.push(rows::upload(row)?);
    }
    Ok(uploads)
}

pub(super) fn get(connection: &Connection, id: &UploadId) -> Done<Upload> {
    let found = query(connection, "id = ?1", [id.as_bytes()])?.pop();
    Ok(found.ok_or_else(|| not_found(id))?)
}

pub(super) fn of_owner(
    connection: &Connection,
    owner: &str,
    bucket: Option<&BucketName>,
    limit: usize,
) -> Done<Vec<Upload>> {
    let rest = "owner = ?1 AND state = 0 AND (?2 IS NULL OR bucket = ?2) ORDER BY created_at, id LIMIT ?3";
    query(connection, rest, params![owner, bucket.map(BucketName::as_str), count(limit)])
}

pub(super) fn all_finishing(connection: &Connection) -> Done<Vec<Upload>> {
    query(connection, "state = 1 ORDER BY id", [])
}

pub(super) fn active(connection: &Connection) -> Done<u64> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM upload WHERE state < 2")?;
    Ok(rows::unsigned(statement.query_row([], |row| row.get(0))?)?)
}

pub(super) fn exists(connection: &Connection, id: &UploadId) -> Done<bool> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM upload WHERE id = ?1)")?;
    Ok(statement.query_row([id.as_bytes()], |row| row.get(0))?)
}

pub(super) fn expire(connection: &Connection, now: Timestamp, limit: usize) -> Done<Vec<UploadId>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM upload WHERE expires_at < ?1 AND state <> 1 ORDER BY expires_at, id LIMIT ?2",
    )?;
    let mut found = statement.query([now.as_millis(), count(limit)])?;
    let mut ids = Vec::new();
    while let Some(row) = found.next()? {
        ids.push(rows::upload_id(row, 0)?);
    }
    for id in &ids {
        delete(connection, id)?;
    }
    Ok(ids)
}

pub(super) fn record_extent(
    connection: &Connection,
    id: &UploadId,
    extent: &StoredExtent,
    expires_at: Timestamp,
) -> Done<()> {
    let sql = "UPDATE upload SET expires_at = ?2 WHERE id = ?1 AND state = 0";
    touch(connection, sql, id, expires_at)?;
    let start = extent.piece.fragment.start();
    if !extent.is_seen() && self::extent(connection, id, start)?.is_some_and(|present| present.is_seen()) {
        return Ok(());
    }
    put_line(connection, id, extent)
}

pub(super) fn note_direct(connection: &Connection, id: &UploadId, expires_at: Timestamp) -> Done<()> {
    let sql = "UPDATE upload SET expires_at = ?2, direct = 1 WHERE id = ?1 AND state = 0";
    touch(connection, sql, id, expires_at)
}

/// Changes an open upload.
fn touch(connection: &Connection, sql: &str, id: &UploadId, expires_at: Timestamp) -> Done<()> {
    let mut statement = connection.prepare_cached(sql)?;
    if statement.execute(params![id.as_bytes(), expires_at.as_millis()])? > 0 {
        return Ok(());
    }
    Err(if exists(connection, id)? { finished() } else { not_found(id) }.into())
}

/// Writes a line of the ledger over the one that begins at the same offset.
pub(super) fn put_line(connection: &Connection, id: &UploadId, extent: &StoredExtent) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO extent (upload_id, begins, ends, crc32, blake3, fragment, receipt) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT DO UPDATE SET ends = excluded.ends, crc32 = excluded.crc32, blake3 = excluded.blake3, \
         fragment = excluded.fragment, receipt = excluded.receipt",
    )?;
    let fragment = &extent.piece.fragment;
    statement.execute(params![
        id.as_bytes(),
        signed(fragment.start())?,
        signed(fragment.end())?,
        extent.piece.crc32,
        extent.blake3,
        fragment.encode(),
        &extent.receipt[..],
    ])?;
    Ok(())
}

pub(super) fn extents(connection: &Connection, id: &UploadId) -> Done<Vec<StoredExtent>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM extent WHERE upload_id = ?1 ORDER BY begins",
        rows::EXTENT
    ))?;
    let mut found = statement.query([id.as_bytes()])?;
    let mut extents = Vec::new();
    while let Some(row) = found.next()? {
        extents.push(rows::extent(row)?);
    }
    Ok(extents)
}

pub(super) fn extent(connection: &Connection, id: &UploadId, offset: u64) -> Done<Option<StoredExtent>> {
    let Ok(offset) = i64::try_from(offset) else { return Ok(None) };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM extent WHERE upload_id = ?1 AND begins = ?2",
        rows::EXTENT
    ))?;
    let mut found = statement.query(params![id.as_bytes(), offset])?;
    found.next()?.map(rows::extent).transpose()
}

/// Whether the extents are neighbours from 0 to `size`.
fn covers(connection: &Connection, id: &UploadId, size: i64) -> Done<bool> {
    let mut statement =
        connection.prepare_cached("SELECT begins, ends FROM extent WHERE upload_id = ?1 ORDER BY begins")?;
    let mut found = statement.query([id.as_bytes()])?;
    let mut covered: i64 = 0;
    while let Some(row) = found.next()? {
        if row.get::<_, i64>(0)? != covered {
            return Ok(false);
        }
        covered = row.get(1)?;
    }
    Ok(covered == size)
}

pub(super) fn standing(connection: &Connection, id: &UploadId) -> Done<Standing> {
    let mut statement = connection
        .prepare_cached("SELECT state, size, blob_id, file, shape, length FROM upload WHERE id = ?1")?;
    let mut found = statement.query([id.as_bytes()])?;
    let Some(row) = found.next()? else { return Err(not_found(id).into()) };
    let finish = match row.get::<_, i64>(0)? {
        OPEN => None,
        FINISHING => Some(Finish::Underway(rows::blob_id(row, 2)?)),
        _ => {
            let text = row.get_ref(3)?.as_str().map_err(|_| damaged("a complete upload"))?;
            let (file, outcome) = rows::file_of_text(text)?;
            Some(Finish::Done(Box::new(file), outcome))
        }
    };
    Ok(Standing { finish, shape: row.get(4)?, size: row.get(1)?, length: row.get(5)? })
}

pub(super) fn begin_finish(connection: &Connection, id: &UploadId, blob: BlobId) -> Done<Finish> {
    let standing = standing(connection, id)?;
    if let Some(finish) = standing.finish {
        return Ok(finish);
    }
    match standing.size_of_file(id)? {
        Some(size) if covers(connection, id, size)? => {}
        _ => return Err(parts_missing().into()),
    }
    set_finishing(connection, id, blob)?;
    Ok(Finish::Begun)
}

pub(super) fn set_finishing(connection: &Connection, id: &UploadId, blob: BlobId) -> Done<()> {
    connection
        .prepare_cached("UPDATE upload SET state = 1, blob_id = ?2 WHERE id = ?1")?
        .execute([id.as_bytes(), blob.as_bytes()])?;
    Ok(())
}

pub(super) fn abandon_finish(connection: &Connection, id: &UploadId, blob: BlobId) -> Done<()> {
    let abandoned = connection
        .prepare_cached(
            "UPDATE upload SET state = 0, blob_id = NULL WHERE id = ?1 AND state = 1 AND blob_id = ?2",
        )?
        .execute([id.as_bytes(), blob.as_bytes()])?;
    if abandoned > 0 {
        connection
            .prepare_cached(
                "UPDATE upload SET state = 0, blob_id = NULL WHERE state = 1 \
                 AND id IN (SELECT partial_id FROM member WHERE joined_id = ?1)",
            )?
            .execute([id.as_bytes()])?;
    }
    Ok(())
}

/// What is reserved for an upload that is finishing under `blob`, and for its partial uploads; `upload_not_found` for
/// any other.
pub(super) fn finishing(connection: &Connection, id: &UploadId, blob: BlobId) -> Done<Vec<Reservation>> {
    let mut statement = connection
        .prepare_cached("SELECT bucket, size FROM upload WHERE id = ?1 AND state = 1 AND blob_id = ?2")?;
    let found = statement.query_row([id.as_bytes(), blob.as_bytes()], reservation);
    let mut reservations = vec![found.optional()?.ok_or_else(|| not_being_completed(id))?];
    reservations.extend(of_partials(connection, id)?);
    Ok(reservations)
}

/// What the partial uploads of a joined one have reserved; nothing for any other.
pub(super) fn of_partials(connection: &Connection, id: &UploadId) -> Done<Vec<Reservation>> {
    let mut statement = connection.prepare_cached(
        "SELECT bucket, size FROM upload WHERE id IN (SELECT partial_id FROM member WHERE joined_id = ?1)",
    )?;
    let found = statement.query_map([id.as_bytes()], reservation)?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn reservation(row: &rusqlite::Row<'_>) -> rusqlite::Result<Reservation> {
    Ok(Reservation { bucket: row.get(0)?, size: row.get(1)? })
}

/// Notes the file the upload has become. Partial uploads end here: the file has their bytes.
pub(super) fn complete(connection: &Connection, id: &UploadId, file: &File, outcome: Outcome) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE upload SET state = 2, blob_id = NULL, file = ?2, \
         length = CASE shape WHEN 3 THEN ?3 ELSE length END WHERE id = ?1",
    )?;
    statement.execute(params![id.as_bytes(), rows::file_text(file, outcome), signed(file.blob.size)?])?;
    connection
        .prepare_cached(
            "DELETE FROM upload WHERE id IN (SELECT partial_id FROM member WHERE joined_id = ?1)",
        )?
        .execute([id.as_bytes()])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: &UploadId) -> Done<()> {
    let mut statement = connection.prepare_cached("SELECT state, size, bucket FROM upload WHERE id = ?1")?;
    let found = statement
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
        .optional()?;
    let (state, size, bucket): (i64, i64, String) = found.ok_or_else(|| not_found(id))?;
    match state {
        OPEN => buckets::reserve(connection, &bucket, -size)?,
        FINISHING => return Err(being_completed().into()),
        _ => {}
    }
    connection.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id.as_bytes()])?;
    Ok(())
}
