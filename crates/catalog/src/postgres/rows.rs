//! Between rows and domain types. What cannot be converted back is damage, and an error: never a guess.

use super::error::Done;
use crate::common::values::{self, damaged, unsigned};
use carrack_domain::digest::ContentDigest;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File};
use carrack_domain::upload::{Echo, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BlobId, BucketName, Key, Timestamp, UploadId};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// Columns of [`bucket`].
pub(super) const BUCKET: &str = "name, quota_bytes, used_bytes, reserved_bytes, file_count, created_at, \
     retention_seconds, policy";
/// Columns of [`file()`], of a table or join in which no other has the same names.
pub(super) const FILE: &str = "key, blob_id, size, crc32, blake3, sha256, file.created_at, created_by, content_type, \
     metadata, pieces, whole_blake3";
/// Columns of [`upload`].
pub(super) const UPLOAD: &str = "id, owner, bucket, key, size, part_size, only_create, state, blob_id, \
     created_at, expires_at, expected, content_type, metadata, shape, length, echo_metadata, echo_concat, told, condition, \
     wants_sha256, direct";
/// Columns of [`extent`].
pub(super) const EXTENT: &str = "begins, ends, crc32, blake3, fragment, receipt";

/// A value of a column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Done<T> {
    Ok(row.try_get(column)?)
}

pub(super) fn number(row: &Row, column: usize) -> Done<u64> {
    Ok(unsigned(get(row, column)?)?)
}

pub(super) fn some_number(row: &Row, column: usize) -> Done<Option<u64>> {
    Ok(get::<Option<i64>>(row, column)?.map(unsigned).transpose()?)
}

pub(super) fn time(row: &Row, column: usize) -> Done<Timestamp> {
    Ok(Timestamp::from_millis(get(row, column)?))
}

pub(super) fn some_time(row: &Row, column: usize) -> Done<Option<Timestamp>> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

/// An id or a hash.
pub(super) fn fixed<const N: usize>(row: &Row, column: usize) -> Done<[u8; N]> {
    Ok(get::<&[u8]>(row, column)?.try_into().map_err(|_| damaged("an id or a hash"))?)
}

pub(super) fn some_fixed<const N: usize>(row: &Row, column: usize) -> Done<Option<[u8; N]>> {
    let bytes: Option<&[u8]> = get(row, column)?;
    Ok(bytes.map(|bytes| bytes.try_into().map_err(|_| damaged("an id or a hash"))).transpose()?)
}

fn crc32(row: &Row, column: usize) -> Done<u32> {
    Ok(u32::try_from(get::<i64>(row, column)?).map_err(|_| damaged("a CRC-32"))?)
}

pub(super) fn key_text(row: &Row, column: usize) -> Done<&str> {
    Ok(std::str::from_utf8(get(row, column)?).map_err(|_| damaged("a key"))?)
}

fn key(row: &Row, column: usize) -> Done<Key> {
    Ok(Key::parse(key_text(row, column)?).map_err(|_| damaged("a key"))?)
}

pub(super) fn blob_id(row: &Row, column: usize) -> Done<BlobId> {
    Ok(BlobId::from_bytes(fixed(row, column)?))
}

pub(super) fn upload_id(row: &Row, column: usize) -> Done<UploadId> {
    Ok(UploadId::from_bytes(fixed(row, column)?))
}

pub(super) fn bucket_name(row: &Row, column: usize) -> Done<BucketName> {
    Ok(BucketName::parse(get(row, column)?).map_err(|_| damaged("a bucket's name"))?)
}

/// A blob from id, size, crc32, blake3, sha256, which stand side by side, and pieces, whole_blake3 at `rest`.
pub(super) fn blob(row: &Row, first: usize, rest: usize) -> Done<Blob> {
    let digest = ContentDigest {
        crc32: crc32(row, first + 2)?,
        blake3: fixed(row, first + 3)?,
        sha256: some_fixed(row, first + 4)?,
    };
    let size = number(row, first + 1)?;
    let pieces = match get::<Option<&[u8]>>(row, rest)? {
        None => None,
        Some(bytes) => Some(Arc::new(values::pieces(bytes, size, some_fixed(row, rest + 1)?)?)),
    };
    Ok(Blob { id: blob_id(row, first)?, size, digest, pieces })
}

pub(super) fn bucket(row: &Row) -> Done<Bucket> {
    Ok(Bucket {
        name: bucket_name(row, 0)?,
        settings: BucketSettings {
            quota_bytes: some_number(row, 1)?,
            retention_seconds: some_number(row, 6)?,
            policy: get::<Option<&str>>(row, 7)?.map(values::policy).transpose()?,
        },
        used_bytes: number(row, 2)?,
        reserved_bytes: number(row, 3)?,
        file_count: number(row, 4)?,
        created_at: time(row, 5)?,
    })
}

/// A file from the columns [`FILE`].
pub(super) fn file(row: &Row, bucket: &BucketName) -> Done<File> {
    Ok(File {
        bucket: bucket.clone(),
        key: key(row, 0)?,
        blob: blob(row, 1, 10)?,
        created_at: time(row, 6)?,
        created_by: get(row, 7)?,
        content_type: get(row, 8)?,
        metadata: values::metadata(get(row, 9)?)?,
    })
}

pub(super) fn upload(row: &Row) -> Done<Upload> {
    let state = match get::<i64>(row, 7)? {
        0 => UploadState::Open,
        1 => UploadState::Finishing(blob_id(row, 8)?),
        2 => UploadState::Complete,
        _ => return Err(damaged("an upload's state").into()),
    };
    Ok(Upload {
        id: upload_id(row, 0)?,
        owner: get(row, 1)?,
        target: Target {
            bucket: bucket_name(row, 2)?,
            key: key(row, 3)?,
            content_type: get(row, 12)?,
            metadata: values::metadata(get(row, 13)?)?,
        },
        shape: values::shape(get(row, 14)?, number(row, 4)?, number(row, 5)?, some_number(row, 15)?)?,
        echo: Echo { metadata: get(row, 16)?, concat: get(row, 17)? },
        expected: values::digests(get(row, 11)?)?,
        precondition: values::precondition(get(row, 6)?, get(row, 19)?)?,
        told: get(row, 18)?,
        wants_sha256: get(row, 20)?,
        direct: get(row, 21)?,
        state,
        created_at: time(row, 9)?,
        expires_at: time(row, 10)?,
    })
}

pub(super) fn extent(row: &Row) -> Done<StoredExtent> {
    let span = (number(row, 0)?, number(row, 1)?);
    Ok(values::extent(span, crc32(row, 2)?, fixed(row, 3)?, get(row, 4)?, get(row, 5)?)?)
}

/// A number of rows.
pub(super) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// As many bytes as there are, for a placeholder.
pub(super) fn bytes<const N: usize>(array: &[u8; N]) -> &[u8] {
    array
}
