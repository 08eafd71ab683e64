//! Append uploads: the one line of their ledger that grows, and who may write it.

use super::buckets;
use super::error::Done;
use super::rows::{bytes, get, number};
use super::session::{Session, params};
use super::uploads::{self, OPEN, finished, not_found};
use crate::common::uploads::{
    contradicted, end_of, length_exceeded, no_appends, offset_mismatch, superseded,
};
use crate::common::values::{APPEND, PARTIAL, damaged, signed};
use crate::{Announced, Taken};
use carrack_domain::digest::Piece;
use carrack_domain::upload::{Receipt, Shape, StoredExtent, UploadState};
use carrack_domain::{BucketName, Error, Timestamp, UploadId};

pub(super) async fn take_over(session: &Session, id: &UploadId, announced: Option<Announced>) -> Done<Taken> {
    let mut upload = uploads::find(session, id).await?;
    let Shape::Append { length: known, partial } = upload.shape else { return Err(no_appends().into()) };
    let line = uploads::extent(session, id, 0).await?;
    let offset = match (upload.state, known) {
        // What came at once has no ledger.
        (UploadState::Complete, Some(length)) => length,
        _ => end_of(line.as_ref()),
    };
    if let Some(Announced { length, .. }) = announced.filter(|announced| announced.offset == offset) {
        contradicted(known, length, offset)?;
        if known.is_none() {
            announce(session, id, &upload.target.bucket, length, offset).await?;
        }
        upload.shape = Shape::Append { length: Some(length), partial };
    }
    let sql = match upload.state {
        UploadState::Open => "UPDATE upload SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch",
        UploadState::Finishing(_) | UploadState::Complete => "SELECT epoch FROM upload WHERE id = $1",
    };
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?.ok_or_else(|| not_found(id))?;
    let receipt = line.map_or_else(Receipt::new, |line| line.receipt);
    Ok(Taken { upload, offset, epoch: number(&row, 0)?, receipt })
}

/// A length that a client says for the first time.
async fn announce(
    session: &Session,
    id: &UploadId,
    bucket: &BucketName,
    length: u64,
    offset: u64,
) -> Done<()> {
    let more = length - offset;
    buckets::account(session, bucket).await?.admit(more, 0)?;
    buckets::reserve(session, bucket.as_str(), signed(more)?).await?;
    let sql = "UPDATE upload SET length = $2, size = $2 WHERE id = $1";
    session.execute(sql, params![bytes(id.as_bytes()), signed(length)?]).await?;
    Ok(())
}

pub(super) async fn append(
    session: &Session,
    id: &UploadId,
    epoch: u64,
    piece: &Piece,
    receipt: &Receipt,
    expires_at: Timestamp,
) -> Done<()> {
    let sql = "SELECT state, shape, epoch, length, bucket FROM upload WHERE id = $1";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?.ok_or_else(|| not_found(id))?;
    if get::<i64>(&row, 0)? != OPEN {
        return Err(finished().into());
    }
    if !matches!(get::<i64>(&row, 1)?, APPEND | PARTIAL) {
        return Err(Error::broken(format!("upload {id} takes no bytes in order")).into());
    }
    if number(&row, 2)? != epoch {
        return Err(superseded().into());
    }
    let line = uploads::extent(session, id, 0).await?;
    let (offset, end) = (end_of(line.as_ref()), piece.fragment.end());
    if piece.fragment.start() != offset {
        return Err(offset_mismatch(offset, piece.fragment.start()).into());
    }
    let (length, end_signed): (Option<i64>, i64) = (get(&row, 3)?, signed(end)?);
    if length.is_some_and(|length| end_signed > length) {
        return Err(length_exceeded().into());
    }
    if length.is_none() {
        grow(session, id, get(&row, 4)?, end - offset).await?;
    }
    let before = line.map_or_else(|| Piece::empty(0), |line| line.piece);
    let whole = before.join(piece).ok_or_else(|| damaged("an extent"))?;
    let blake3 = whole.fragment.root().ok_or_else(|| damaged("an extent"))?;
    let sql = "UPDATE upload SET expires_at = $2 WHERE id = $1";
    session.execute(sql, params![bytes(id.as_bytes()), expires_at.as_millis()]).await?;
    uploads::put_line(session, id, &StoredExtent { piece: whole, blake3, receipt: receipt.clone() }).await
}

pub(super) async fn new_writer(session: &Session, id: &UploadId) -> Done<u32> {
    let sql = "UPDATE upload SET writers = writers + 1 WHERE id = $1 RETURNING writers";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?.ok_or_else(|| not_found(id))?;
    Ok(u32::try_from(get::<i64>(&row, 0)?).map_err(|_| damaged("a writer's number"))?)
}

/// Reserves what an upload of unknown length has grown by.
async fn grow(session: &Session, id: &UploadId, bucket: &str, more: u64) -> Done<()> {
    let bucket = BucketName::parse(bucket).map_err(|_| damaged("a bucket's name"))?;
    buckets::account(session, &bucket).await?.admit(more, 0)?;
    buckets::reserve(session, bucket.as_str(), signed(more)?).await?;
    let sql = "UPDATE upload SET size = size + $2 WHERE id = $1";
    session.execute(sql, params![bytes(id.as_bytes()), signed(more)?]).await?;
    Ok(())
}
