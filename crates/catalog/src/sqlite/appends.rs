//! Append uploads: the one line of their ledger that grows, and who may write it.

use super::buckets;
use super::error::Done;
use super::rows::{self, damaged, signed, unsigned};
use super::uploads::{self, OPEN, finished, not_found};
use crate::common::uploads::{
    contradicted, end_of, length_exceeded, no_appends, offset_mismatch, superseded,
};
use crate::{Announced, Taken};
use carrack_domain::digest::Piece;
use carrack_domain::upload::{Receipt, Shape, StoredExtent, UploadState};
use carrack_domain::{BucketName, Error, Timestamp, UploadId};
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn take_over(connection: &Connection, id: &UploadId, announced: Option<Announced>) -> Done<Taken> {
    let mut upload = uploads::get(connection, id)?;
    let Shape::Append { length: known, partial } = upload.shape else { return Err(no_appends().into()) };
    let line = uploads::extent(connection, id, 0)?;
    let offset = match (upload.state, known) {
        // What came at once has no ledger.
        (UploadState::Complete, Some(length)) => length,
        _ => end_of(line.as_ref()),
    };
    if let Some(Announced { length, .. }) = announced.filter(|announced| announced.offset == offset) {
        contradicted(known, length, offset)?;
        if known.is_none() {
            announce(connection, id, &upload.target.bucket, length, offset)?;
        }
        upload.shape = Shape::Append { length: Some(length), partial };
    }
    let mut statement = connection.prepare_cached(match upload.state {
        UploadState::Open => "UPDATE upload SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch",
        UploadState::Finishing(_) | UploadState::Complete => "SELECT epoch FROM upload WHERE id = ?1",
    })?;
    let epoch: i64 = statement.query_row([id.as_bytes()], |row| row.get(0))?;
    let receipt = line.map_or_else(Receipt::new, |line| line.receipt);
    Ok(Taken { upload, offset, epoch: unsigned(epoch)?, receipt })
}

/// A length that a client says for the first time.
fn announce(
    connection: &Connection,
    id: &UploadId,
    bucket: &BucketName,
    length: u64,
    offset: u64,
) -> Done<()> {
    let more = length - offset;
    buckets::account(connection, bucket)?.admit(more, 0)?;
    buckets::reserve(connection, bucket.as_str(), signed(more)?)?;
    connection
        .prepare_cached("UPDATE upload SET length = ?2, size = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), signed(length)?])?;
    Ok(())
}

/// The row of an upload as far as an append asks for it.
struct Row {
    state: i64,
    shape: i64,
    epoch: i64,
    length: Option<i64>,
    bucket: String,
}

fn row(connection: &Connection, id: &UploadId) -> Done<Row> {
    let mut statement =
        connection.prepare_cached("SELECT state, shape, epoch, length, bucket FROM upload WHERE id = ?1")?;
    let found = statement.query_row([id.as_bytes()], |row| {
        Ok(Row {
            state: row.get(0)?,
            shape: row.get(1)?,
            epoch: row.get(2)?,
            length: row.get(3)?,
            bucket: row.get(4)?,
        })
    });
    Ok(found.optional()?.ok_or_else(|| not_found(id))?)
}

pub(super) fn append(
    connection: &Connection,
    id: &UploadId,
    epoch: u64,
    piece: &Piece,
    receipt: &Receipt,
    expires_at: Timestamp,
) -> Done<()> {
    let row = row(connection, id)?;
    if row.state != OPEN {
        return Err(finished().into());
    }
    if !matches!(row.shape, rows::APPEND | rows::PARTIAL) {
        return Err(Error::broken(format!("upload {id} takes no bytes in order")).into());
    }
    if unsigned(row.epoch)? != epoch {
        return Err(superseded().into());
    }
    let line = uploads::extent(connection, id, 0)?;
    let (offset, end) = (end_of(line.as_ref()), piece.fragment.end());
    if piece.fragment.start() != offset {
        return Err(offset_mismatch(offset, piece.fragment.start()).into());
    }
    let end_signed = signed(end)?;
    if row.length.is_some_and(|length| end_signed > length) {
        return Err(length_exceeded().into());
    }
    if row.length.is_none() {
        grow(connection, id, &row.bucket, end - offset)?;
    }
    let before = line.map_or_else(|| Piece::empty(0), |line| line.piece);
    let whole = before.join(piece).ok_or_else(|| damaged("an extent"))?;
    let blake3 = whole.fragment.root().ok_or_else(|| damaged("an extent"))?;
    connection
        .prepare_cached("UPDATE upload SET expires_at = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), expires_at.as_millis()])?;
    uploads::put_line(connection, id, &StoredExtent { piece: whole, blake3, receipt: receipt.clone() })
}

pub(super) fn new_writer(connection: &Connection, id: &UploadId) -> Done<u32> {
    let mut statement = connection
        .prepare_cached("UPDATE upload SET writers = writers + 1 WHERE id = ?1 RETURNING writers")?;
    let writer = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    Ok(writer.ok_or_else(|| not_found(id))?)
}

/// Reserves what an upload of unknown length has grown by.
fn grow(connection: &Connection, id: &UploadId, bucket: &str, bytes: u64) -> Done<()> {
    let bucket = BucketName::parse(bucket).map_err(|_| damaged("a bucket's name"))?;
    buckets::account(connection, &bucket)?.admit(bytes, 0)?;
    buckets::reserve(connection, bucket.as_str(), signed(bytes)?)?;
    connection
        .prepare_cached("UPDATE upload SET size = size + ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), signed(bytes)?])?;
    Ok(())
}
