//! Between rows and domain types. What cannot be converted back is damage, and an error: never a guess.

use super::error::{Done, Failed};
use crate::Outcome;
use carrack_domain::digest::{Algorithm, ContentDigest, Digest, Piece};
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Metadata, Pieces, Precondition};
use carrack_domain::id::{hex, unhex};
use carrack_domain::tree::Fragment;
use carrack_domain::upload::{Echo, PartPlan, Shape, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BlobId, BucketName, Error, Key, Policy, Timestamp, UploadId};
use rusqlite::Row;
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::sync::Arc;

/// Above every key, since UTF-8 has no byte 0xFF.
const ABOVE_ALL_KEYS: &[u8] = &[0xff];

/// Columns of [`bucket`].
pub(super) const BUCKET: &str = "name, quota_bytes, used_bytes, reserved_bytes, file_count, created_at, \
     retention_seconds, policy";
/// Columns of [`file()`], of a table or join in which no other has the same names.
pub(super) const FILE: &str = "key, blob_id, size, crc32, blake3, sha256, file.created_at, created_by, content_type, metadata, pieces, \
     whole_blake3";
/// Columns of [`upload`].
pub(super) const UPLOAD: &str = "id, owner, bucket, key, size, part_size, only_create, state, blob_id, \
     created_at, expires_at, expected, content_type, metadata, shape, length, echo_metadata, echo_concat, told, condition, \
     wants_sha256";
/// Columns of [`extent`].
pub(super) const EXTENT: &str = "begins, ends, crc32, blake3, fragment, receipt";

/// Values of the column `shape`.
pub(super) const PARTS: i64 = 0;
pub(super) const APPEND: i64 = 1;
pub(super) const PARTIAL: i64 = 2;
pub(super) const JOINED: i64 = 3;

/// A number for SQLite, whose integers end at 2^63-1.
pub(super) fn signed(number: u64) -> Done<i64> {
    i64::try_from(number).map_err(|_| Error::broken(format!("{number} does not fit into the catalog")).into())
}

pub(super) fn unsigned(number: i64) -> Done<u64> {
    u64::try_from(number).map_err(|_| damaged("a number"))
}

pub(super) fn damaged(what: &str) -> Failed {
    Error::broken(format!("the catalog holds {what} that cannot be read")).into()
}

/// The least byte string above everything that begins with `prefix`.
pub(super) fn successor(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        return ABOVE_ALL_KEYS.to_vec();
    };
    let mut bound = prefix[..=last].to_vec();
    bound[last] += 1;
    bound
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Done<u64> {
    unsigned(row.get(column)?)
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
        Some(bytes) => Some(Arc::new(pieces(bytes, size, row.get(rest + 1)?)?)),
    };
    Ok(Blob { id: blob_id(row, first)?, size, digest, pieces })
}

/// Names and sizes of a blob's pieces.
pub(super) fn pieces_bytes(pieces: &Pieces) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, size) in pieces.runs() {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    bytes
}

/// Reads what [`pieces_bytes`] wrote, of a blob of `size` bytes.
fn pieces(bytes: &[u8], size: u64, blake3: Option<[u8; 32]>) -> Done<Pieces> {
    let (lines, rest) = bytes.as_chunks::<24>();
    let run = |line: &[u8; 24]| {
        let (id, size) = line.split_first_chunk::<16>()?;
        Some((BlobId::from_bytes(*id), u64::from_le_bytes(*size.first_chunk()?)))
    };
    let runs = lines.iter().map(run).collect::<Option<Vec<_>>>().ok_or_else(|| damaged("pieces"))?;
    let pieces = Pieces::new(runs, blake3);
    if rest.is_empty() && pieces.size() == size { Ok(pieces) } else { Err(damaged("pieces")) }
}

pub(super) fn bucket(row: &Row<'_>) -> Done<Bucket> {
    let quota: Option<i64> = row.get(1)?;
    Ok(Bucket {
        name: bucket_name(row, 0)?,
        settings: BucketSettings {
            quota_bytes: quota.map(unsigned).transpose()?,
            retention_seconds: row.get::<_, Option<i64>>(6)?.map(unsigned).transpose()?,
            policy: row.get::<_, Option<String>>(7)?.map(|text| policy(&text)).transpose()?,
        },
        used_bytes: number(row, 2)?,
        reserved_bytes: number(row, 3)?,
        file_count: number(row, 4)?,
        created_at: Timestamp::from_millis(row.get(5)?),
    })
}

pub(super) fn policy_text(policy: &Policy) -> Done<String> {
    Ok(serde_json::to_string(policy).map_err(|error| Error::internal("write a policy", error))?)
}

fn policy(text: &str) -> Done<Policy> {
    serde_json::from_str(text).map_err(|_| damaged("a policy"))
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
        metadata: metadata(text(row, 9)?)?,
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
            metadata: metadata(text(row, 13)?)?,
        },
        shape: shape(row)?,
        echo: Echo { metadata: row.get(16)?, concat: row.get(17)? },
        expected: digests(text(row, 11)?)?,
        precondition: precondition(row)?,
        told: row.get(18)?,
        wants_sha256: row.get(20)?,
        state,
        created_at: Timestamp::from_millis(row.get(9)?),
        expires_at: Timestamp::from_millis(row.get(10)?),
    })
}

/// The columns `only_create` and `condition` of a precondition.
pub(super) fn condition(precondition: &Precondition) -> (bool, Option<String>) {
    match precondition {
        Precondition::None => (false, None),
        Precondition::Absent => (true, None),
        Precondition::Present => (false, Some("present".to_owned())),
        Precondition::Match(tags) => (false, Some(format!("match\n{}", tags.join("\n")))),
        Precondition::NoneMatch(tags) => (false, Some(format!("none\n{}", tags.join("\n")))),
    }
}

fn precondition(row: &Row<'_>) -> Done<Precondition> {
    let text = row.get_ref(19)?.as_str_or_null().map_err(|_| damaged("a condition"))?;
    let Some(text) = text else {
        return Ok(if row.get(6)? { Precondition::Absent } else { Precondition::None });
    };
    let mut lines = text.lines();
    let kind = lines.next();
    let tags = lines.map(str::to_owned).collect();
    match kind {
        Some("present") => Ok(Precondition::Present),
        Some("match") => Ok(Precondition::Match(tags)),
        Some("none") => Ok(Precondition::NoneMatch(tags)),
        _ => Err(damaged("a condition")),
    }
}

fn shape(row: &Row<'_>) -> Done<Shape> {
    let length = row.get::<_, Option<i64>>(15)?.map(unsigned).transpose()?;
    Ok(match row.get(14)? {
        PARTS => {
            let plan = PartPlan::new(number(row, 4)?, Some(number(row, 5)?), NonZeroU64::MIN);
            Shape::Parts(plan.map_err(|_| damaged("a part size"))?)
        }
        APPEND => Shape::Append { length, partial: false },
        PARTIAL => Shape::Append { length, partial: true },
        JOINED => Shape::Joined { length },
        _ => return Err(damaged("an upload's shape")),
    })
}

pub(super) fn extent(row: &Row<'_>) -> Done<StoredExtent> {
    let bytes = row.get_ref(4)?.as_blob().map_err(|_| damaged("an extent"))?;
    let fragment = Fragment::decode(bytes).ok_or_else(|| damaged("an extent"))?;
    if fragment.start() != number(row, 0)? || fragment.end() != number(row, 1)? {
        return Err(damaged("an extent"));
    }
    let receipt = row.get_ref(5)?.as_blob().map_err(|_| damaged("a receipt"))?.to_vec().into();
    Ok(StoredExtent { piece: Piece { crc32: row.get(2)?, fragment }, blake3: row.get(3)?, receipt })
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Done<&'a str> {
    row.get_ref(column)?.as_str().map_err(|_| damaged("a text"))
}

pub(super) fn bucket_name(row: &Row<'_>, column: usize) -> Done<BucketName> {
    BucketName::parse(text(row, column)?).map_err(|_| damaged("a bucket's name"))
}

/// Metadata as JSON.
pub(super) fn metadata_text(metadata: &Metadata) -> Done<String> {
    serde_json::to_string(metadata).map_err(|error| Error::internal("write metadata", error).into())
}

fn metadata(text: &str) -> Done<Metadata> {
    if text == "{}" {
        return Ok(Metadata::new());
    }
    serde_json::from_str(text).map_err(|_| damaged("metadata"))
}

/// Digests as `sha-256:HEX,md5:HEX`.
pub(super) fn digests_text(digests: &[Digest]) -> String {
    let each = digests.iter().map(|digest| format!("{}:{}", digest.algorithm().name(), hex(digest.value())));
    each.collect::<Vec<_>>().join(",")
}

fn digests(text: &str) -> Done<Vec<Digest>> {
    text.split(',').filter(|one| !one.is_empty()).map(digest).collect()
}

fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| unhex::<1>(pair?).map(|[byte]| byte)).collect()
}

fn digest(text: &str) -> Done<Digest> {
    let read = || {
        let (name, value) = text.split_once(':')?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
        Digest::new(algorithm, unhex_all(value)?).ok()
    };
    read().ok_or_else(|| damaged("a digest"))
}

/// A file as it was, and whether it replaced another, as JSON: independent of the tables of today.
pub(super) fn file_text(file: &File, outcome: Outcome) -> String {
    let digest = &file.blob.digest;
    json!({
        "bucket": file.bucket.as_str(),
        "key": file.key.as_str(),
        "blob": file.blob.id.to_string(),
        "size": file.blob.size,
        "crc32": digest.crc32,
        "blake3": hex(&digest.blake3),
        "sha256": digest.sha256.map(|sha256| hex(&sha256)),
        "pieces": file.blob.pieces.as_deref().map(|pieces| hex(&pieces_bytes(pieces))),
        "whole_blake3": file.blob.pieces.as_ref().and_then(|pieces| pieces.blake3).map(|blake3| hex(&blake3)),
        "content_type": file.content_type,
        "metadata": file.metadata,
        "created_at": file.created_at.as_millis(),
        "created_by": file.created_by,
        "replaced": outcome == Outcome::Replaced,
    })
    .to_string()
}

/// Reads what [`file_text`] wrote.
pub(super) fn file_of_text(text: &str) -> Done<(File, Outcome)> {
    let value: Value = serde_json::from_str(text).map_err(|_| damaged("a complete upload"))?;
    let read = || {
        let text = |name: &str| value.get(name)?.as_str();
        let digest32 = |name: &str| match text(name) {
            Some(digest) => unhex::<32>(digest).map(Some),
            None => Some(None),
        };
        let sha256 = digest32("sha256")?;
        let size = value.get("size")?.as_u64()?;
        let pieces = match text("pieces") {
            None => None,
            Some(runs) => Some(Arc::new(pieces(&unhex_all(runs)?, size, digest32("whole_blake3")?).ok()?)),
        };
        let digest = ContentDigest {
            crc32: u32::try_from(value.get("crc32")?.as_u64()?).ok()?,
            blake3: unhex(text("blake3")?)?,
            sha256,
        };
        let each = value.get("metadata")?.as_object()?.iter();
        // Not noted by the first versions.
        let replaced = value.get("replaced").and_then(Value::as_bool).unwrap_or(false);
        let file = File {
            bucket: BucketName::parse(text("bucket")?).ok()?,
            key: Key::parse(text("key")?).ok()?,
            blob: Blob { id: BlobId::parse(text("blob")?)?, size, digest, pieces },
            content_type: text("content_type")?.to_owned(),
            metadata: each
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<Metadata>>()?,
            created_at: Timestamp::from_millis(value.get("created_at")?.as_i64()?),
            created_by: text("created_by")?.to_owned(),
        };
        Some((file, if replaced { Outcome::Replaced } else { Outcome::Created }))
    };
    read().ok_or_else(|| damaged("a complete upload"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors() {
        assert_eq!(successor(b"a/"), b"a0");
        assert_eq!(successor(b""), [0xff]);
        assert_eq!(successor(&[b'a', 0xff, 0xff]), b"b");
        assert_eq!(successor(&[0xff, 0xff]), [0xff]);
        assert_eq!(successor("\u{7f}".as_bytes()), [0x80]);
        let last = "\u{10ffff}";
        assert!(successor(last.as_bytes()).as_slice() > format!("{last}{last}").as_bytes());
    }

    #[test]
    fn digests_have_one_text() {
        let all: Vec<Digest> = Algorithm::ALL
            .into_iter()
            .map(|algorithm| Digest::new(algorithm, vec![0xa5; algorithm.width()]).unwrap())
            .collect();
        assert_eq!(digests(&digests_text(&all)).unwrap(), all);
        assert_eq!(digests("").unwrap(), Vec::new());
        for bad in ["md5", "md5:00", "rot13:00", "crc32:0000000", "crc32:0000000g"] {
            assert!(digests(bad).is_err(), "{bad}");
        }
    }
}
