//! Domain types as the plain values of a row, and back. What cannot be converted back is damage, and an error: never a guess.

use crate::Outcome;
use carrack_domain::digest::{Algorithm, ContentDigest, Digest, Piece};
use carrack_domain::file::{Blob, File, Metadata, Pieces, Precondition};
use carrack_domain::id::{hex, unhex};
use carrack_domain::tree::Fragment;
use carrack_domain::upload::{PartPlan, Shape, StoredExtent, Upload};
use carrack_domain::{BlobId, BucketName, Error, Key, Policy, Result, Timestamp};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::sync::Arc;

/// Above every key, since UTF-8 has no byte 0xFF.
const ABOVE_ALL_KEYS: &[u8] = &[0xff];

/// Values of the column `shape`.
pub(crate) const PARTS: i64 = 0;
pub(crate) const APPEND: i64 = 1;
pub(crate) const PARTIAL: i64 = 2;
pub(crate) const JOINED: i64 = 3;

/// A number for a database, whose integers end at 2^63-1.
pub(crate) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::broken(format!("{number} does not fit into the catalog")))
}

/// What is said when a row does not hold what was written.
pub(crate) fn damaged(what: &str) -> Error {
    Error::broken(format!("the catalog holds {what} that cannot be read"))
}

pub(crate) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged("a number"))
}

/// The least byte string above everything that begins with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        return ABOVE_ALL_KEYS.to_vec();
    };
    let mut bound = prefix[..=last].to_vec();
    bound[last] += 1;
    bound
}

/// Names and sizes of a blob's pieces.
pub(crate) fn pieces_bytes(pieces: &Pieces) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, size) in pieces.runs() {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    bytes
}

/// Reads what [`pieces_bytes`] wrote, of a blob of `size` bytes.
pub(crate) fn pieces(bytes: &[u8], size: u64, blake3: Option<[u8; 32]>) -> Result<Pieces> {
    let (lines, rest) = bytes.as_chunks::<24>();
    let run = |line: &[u8; 24]| {
        let (id, size) = line.split_first_chunk::<16>()?;
        Some((BlobId::from_bytes(*id), u64::from_le_bytes(*size.first_chunk()?)))
    };
    let runs = lines.iter().map(run).collect::<Option<Vec<_>>>().ok_or_else(|| damaged("pieces"))?;
    let pieces = Pieces::new(runs, blake3);
    if rest.is_empty() && pieces.size() == size { Ok(pieces) } else { Err(damaged("pieces")) }
}

pub(crate) fn policy_text(policy: &Policy) -> Result<String> {
    serde_json::to_string(policy).map_err(|error| Error::internal("write a policy", error))
}

pub(crate) fn policy(text: &str) -> Result<Policy> {
    serde_json::from_str(text).map_err(|_| damaged("a policy"))
}

/// The columns `only_create` and `condition` of a precondition.
pub(crate) fn condition(precondition: &Precondition) -> (bool, Option<String>) {
    match precondition {
        Precondition::None => (false, None),
        Precondition::Absent => (true, None),
        Precondition::Present => (false, Some("present".to_owned())),
        Precondition::Match(tags) => (false, Some(format!("match\n{}", tags.join("\n")))),
        Precondition::NoneMatch(tags) => (false, Some(format!("none\n{}", tags.join("\n")))),
    }
}

/// Metadata as JSON.
/// What [`condition`] wrote.
pub(crate) fn precondition(only_create: bool, text: Option<&str>) -> Result<Precondition> {
    let Some(text) = text else {
        return Ok(if only_create { Precondition::Absent } else { Precondition::None });
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

/// The shape of an upload from the columns of that name, `size`, `part_size` and `length`.
pub(crate) fn shape(shape: i64, size: u64, part_size: u64, length: Option<u64>) -> Result<Shape> {
    Ok(match shape {
        PARTS => {
            let plan = PartPlan::new(size, Some(part_size), NonZeroU64::MIN);
            Shape::Parts(plan.map_err(|_| damaged("a part size"))?)
        }
        APPEND => Shape::Append { length, partial: false },
        PARTIAL => Shape::Append { length, partial: true },
        JOINED => Shape::Joined { length },
        _ => return Err(damaged("an upload's shape")),
    })
}

/// The column `shape` of an upload, and `part_size`.
pub(crate) fn shape_numbers(upload: &Upload) -> (i64, u64) {
    match upload.shape {
        Shape::Parts(plan) => (PARTS, plan.part_size()),
        Shape::Append { partial: false, .. } => (APPEND, 1),
        Shape::Append { partial: true, .. } => (PARTIAL, 1),
        Shape::Joined { .. } => (JOINED, 1),
    }
}

/// A line of the ledger from its columns.
pub(crate) fn extent(
    (begins, ends): (u64, u64),
    crc32: u32,
    blake3: [u8; 32],
    fragment: &[u8],
    receipt: &[u8],
) -> Result<StoredExtent> {
    let fragment = Fragment::decode(fragment).ok_or_else(|| damaged("an extent"))?;
    if fragment.start() != begins || fragment.end() != ends {
        return Err(damaged("an extent"));
    }
    Ok(StoredExtent { piece: Piece { crc32, fragment }, blake3, receipt: receipt.to_vec().into() })
}

pub(crate) fn metadata_text(metadata: &Metadata) -> Result<String> {
    serde_json::to_string(metadata).map_err(|error| Error::internal("write metadata", error))
}

pub(crate) fn metadata(text: &str) -> Result<Metadata> {
    if text == "{}" {
        return Ok(Metadata::new());
    }
    serde_json::from_str(text).map_err(|_| damaged("metadata"))
}

/// Digests as `sha-256:HEX,md5:HEX`.
pub(crate) fn digests_text(digests: &[Digest]) -> String {
    let each = digests.iter().map(|digest| format!("{}:{}", digest.algorithm().name(), hex(digest.value())));
    each.collect::<Vec<_>>().join(",")
}

pub(crate) fn digests(text: &str) -> Result<Vec<Digest>> {
    text.split(',').filter(|one| !one.is_empty()).map(digest).collect()
}

pub(crate) fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| unhex::<1>(pair?).map(|[byte]| byte)).collect()
}

pub(crate) fn digest(text: &str) -> Result<Digest> {
    let read = || {
        let (name, value) = text.split_once(':')?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
        Digest::new(algorithm, unhex_all(value)?).ok()
    };
    read().ok_or_else(|| damaged("a digest"))
}

/// A file as it was, and whether it replaced another, as JSON: independent of the tables of today.
pub(crate) fn file_text(file: &File, outcome: Outcome) -> String {
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
pub(crate) fn file_of_text(text: &str) -> Result<(File, Outcome)> {
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

/// Whether a digest that was learnt of a blob is news; another one than is known is a fault.
pub(crate) fn is_news(id: &BlobId, column: &str, known: Option<[u8; 32]>, digest: [u8; 32]) -> Result<bool> {
    match known {
        Some(known) if known == digest => Ok(false),
        Some(_) => Err(Error::broken(format!("{id} has another {column} already"))),
        None => Ok(true),
    }
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
