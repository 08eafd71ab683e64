//! Between rows and domain types. What cannot be converted back is damage, and an error: never a guess.

use super::error::{Done, Failed};
use crate::common::values;
pub(super) use crate::common::values::{
    APPEND, JOINED, PARTIAL, PARTS, condition, digests_text, file_of_text, file_text, metadata_text,
    pieces_bytes, policy_text, signed, successor, unsigned,
};
use carrack_domain::digest::ContentDigest;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Precondition};
use carrack_domain::upload::{Echo, Shape, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BlobId, BucketName, Key, Timestamp, UploadId};
use rusqlite::Row;
use std::sync::Arc;

/// Columns of [`bucket`].
pub(super) const BUCKET: &str = "name, quota_bytes, used_bytes, reserved_bytes, file_count, created_at, \
     retention_seconds, policy";
/// Columns of [`file()`], of a table or join in which no other has the same names.
pub(super) const FILE: &str = "key, blob_id, size, crc32, blake3, sha256, file.created_at, created_by, content_type, metadata, pieces, \
     whole_blake3";
/// Columns of [`upload`].
pub(super) const UPLOAD: &str = "id, owner, bucket, key, size, part_size, only_create, state, blob_id, \
     created_at, expires_at, expected, content_type, metadata, shape, length, echo_metadata, echo_concat, told, condition, \
     wants_sha256, direct";
/// Columns of [`extent`].
pub(super) const EXTENT: &str = "begins, ends, crc32, blake3, fragment, receipt";

pub(super) fn damaged(what: &str) -> Failed {
    values::damaged(what).into()
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Done<u64> {
    Ok(unsigned(row.get(column)?)?)
}

pub(super) fn key_text<'a>(row: &'a Row<'_>, column: usize) -> Done<&'a str> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|_| damaged("a key"))?;
    std::str::from_utf8(bytes).map_err(|_| damaged("a key"))
}

pub(super) fn key(row: &Row<'_>, column: usize) -> Done<Key> {
    Key::parse(key_text(row, column)?).map_err(|_| damaged("a key"))
}

pub(super) fn blob_id(row: &Row<'_>, column: usize) -> Done<BlobId> {
    Ok(BlobId::from_bytes(row.get(column)?))
}

pub(super) fn upload_id(row: &Row<'_>, column: usize) -> Done<UploadId> {
    Ok(UploadId::from_bytes(row.get(column)?))
}

/// A blob from id, size, crc32, blake3, sha256, which stand side by side, and pieces, whole_blake3 at `rest`.
pub(super) fn blob(row: &Row<'_>, first: usize, rest: usize) -> Done<Blob> {
    let digest = ContentDigest {
        crc32: row.get(first + 2)?,
        blake3: row.get(first + 3)?,
        sha256: row.get(first + 4)?,
    };
    let size = number(row, first + 1)?;
    let pieces = match row.get_ref(rest)?.as_blob_or_null().map_err(|_| damaged("pieces"))? {
        None => None,
        Some(bytes) => Some(Arc::new(values::pieces(bytes, size, row.get(rest + 1)?)?)),
    };
    Ok(Blob { id: blob_id(row, first)?, size, digest, pieces })
}

pub(super) fn bucket(row: &Row<'_>) -> Done<Bucket> {
    let quota: Option<i64> = row.get(1)?;
    Ok(Bucket {
        name: bucket_name(row, 0)?,
        settings: BucketSettings {
            quota_bytes: quota.map(unsigned).transpose()?,
            retention_seconds: row.get::<_, Option<i64>>(6)?.map(unsigned).transpose()?,
            policy: row.get::<_, Option<String>>(7)?.map(|text| values::policy(&text)).transpose()?,
        },
        used_bytes: number(row, 2)?,
        reserved_bytes: number(row, 3)?,
        file_count: number(row, 4)?,
        created_at: Timestamp::from_millis(row.get(5)?),
    })
}

/// A file from the columns [`FILE`].
pub(super) fn file(row: &Row<'_>, bucket: &BucketName) -> Done<File> {
    Ok(File {
        bucket: bucket.clone(),
        key: key(row, 0)?,
        blob: blob(row, 1, 10)?,
        created_at: Timestamp::from_millis(row.get(6)?),
        created_by: row.get(7)?,
        content_type: row.get(8)?,
        metadata: values::metadata(text(row, 9)?)?,
    })
}

pub(super) fn upload(row: &Row<'_>) -> Done<Upload> {
    let state = match row.get(7)? {
        0 => UploadState::Open,
        1 => UploadState::Finishing(blob_id(row, 8)?),
        2 => UploadState::Complete,
        _ => return Err(damaged("an upload's state")),
    };
    Ok(Upload {
        id: upload_id(row, 0)?,
        owner: row.get(1)?,
        target: Target {
            bucket: bucket_name(row, 2)?,
            key: key(row, 3)?,
            content_type: row.get(12)?,
            metadata: values::metadata(text(row, 13)?)?,
        },
        shape: shape(row)?,
        echo: Echo { metadata: row.get(16)?, concat: row.get(17)? },
        expected: values::digests(text(row, 11)?)?,
        precondition: precondition(row)?,
        told: row.get(18)?,
        wants_sha256: row.get(20)?,
        direct: row.get(21)?,
        state,
        created_at: Timestamp::from_millis(row.get(9)?),
        expires_at: Timestamp::from_millis(row.get(10)?),
    })
}

fn precondition(row: &Row<'_>) -> Done<Precondition> {
    let text = row.get_ref(19)?.as_str_or_null().map_err(|_| damaged("a condition"))?;
    Ok(values::precondition(row.get(6)?, text)?)
}

fn shape(row: &Row<'_>) -> Done<Shape> {
    let length = row.get::<_, Option<i64>>(15)?.map(unsigned).transpose()?;
    Ok(values::shape(row.get(14)?, number(row, 4)?, number(row, 5)?, length)?)
}

pub(super) fn extent(row: &Row<'_>) -> Done<StoredExtent> {
    let bytes = row.get_ref(4)?.as_blob().map_err(|_| damaged("an extent"))?;
    let receipt = row.get_ref(5)?.as_blob().map_err(|_| damaged("a receipt"))?;
    Ok(values::extent((number(row, 0)?, number(row, 1)?), row.get(2)?, row.get(3)?, bytes, receipt)?)
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Done<&'a str> {
    row.get_ref(column)?.as_str().map_err(|_| damaged("a text"))
}

pub(super) fn bucket_name(row: &Row<'_>, column: usize) -> Done<BucketName> {
    BucketName::parse(text(row, column)?).map_err(|_| damaged("a bucket's name"))
}
