//! Files and buckets as facts.

use crate::clock::Timestamp;
use crate::digest::ContentDigest;
use crate::etag::ETag;
use crate::id::BlobId;
use crate::key::{BucketName, Key};
use crate::policy::Policy;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What the uploader says about a file besides its bytes: names and values of their own.
pub type Metadata = BTreeMap<String, String>;

/// Bytes that are stored and never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name; never names other bytes.
    pub id: BlobId,
    /// Its length in bytes.
    pub size: u64,
    /// Its digests. Of a blob in pieces the BLAKE3 here is [`Pieces::tag`]: ask [`Blob::blake3`] and [`Blob::tag`].
    pub digest: ContentDigest,
    /// What it is put together from; `None` when its bytes are stored under its own name, as they mostly are.
    pub pieces: Option<Arc<Pieces>>,
}

impl Blob {
    /// 32 bytes that tell its content from every other, for tags: its BLAKE3, or that of its pieces' BLAKE3s.
    pub fn tag(&self) -> &[u8; 32] {
        &self.digest.blake3
    }

    /// BLAKE3 of the content; `None` while nobody has read a blob in pieces from end to end.
    pub fn blake3(&self) -> Option<[u8; 32]> {
        match &self.pieces {
            None => Some(self.digest.blake3),
            Some(pieces) => pieces.blake3,
        }
    }

    /// The runs of bytes in storage that it needs, with their sizes; each once.
    pub fn stored(&self) -> Vec<(BlobId, u64)> {
        let Some(pieces) = &self.pieces else { return vec![(self.id, self.size)] };
        let mut seen = HashSet::new();
        pieces.runs().filter(|(id, _)| seen.insert(*id)).collect()
    }
}

/// What a blob is put together from: runs of bytes in storage, one after the other. The same may come more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// Each with the offset at which it ends. None is empty.
    ends: Vec<(BlobId, u64)>,
    /// BLAKE3 of the whole, once it was read.
    pub blake3: Option<[u8; 32]>,
}

impl Pieces {
    /// These runs, in this order; empty ones are left out.
    pub fn new(runs: impl IntoIterator<Item = (BlobId, u64)>, blake3: Option<[u8; 32]>) -> Pieces {
        let mut end = 0;
        let ends = runs.into_iter().filter(|(_, size)| *size > 0);
        Pieces {
            ends: ends
                .map(|(id, size)| {
                    end += size;
                    (id, end)
                })
                .collect(),
            blake3,
        }
    }

    /// The runs with their sizes.
    pub fn runs(&self) -> impl Iterator<Item = (BlobId, u64)> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(begins).map(|((id, end), begin)| (*id, end - begin))
    }

    /// Bytes of all.
    pub fn size(&self) -> u64 {
        self.ends.last().map_or(0, |(_, end)| *end)
    }

    /// The run that has the byte at `offset`: its name, its size, and where in it that byte is. `None` at the end.
    pub fn at(&self, offset: u64) -> Option<(BlobId, u64, u64)> {
        let index = self.ends.partition_point(|(_, end)| *end <= offset);
        let (id, end) = *self.ends.get(index)?;
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((id, end - begin, offset - begin))
    }

    /// What names the content of pieces with these BLAKE3s and sizes. A subtree of BLAKE3 depends on where it stands
    /// in the whole (chunk counters, BLAKE3 paper §2.1), so the BLAKE3 of pieces that were hashed from 0 on does not
    /// follow from theirs; this does, and is as good at telling contents apart.
    pub fn tag(pieces: impl IntoIterator<Item = ([u8; 32], u64)>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("carrack 2026 content of pieces");
        for (blake3, size) in pieces {
            hasher.update(&blake3);
            hasher.update(&size.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// A name that points at a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The bucket it is in.
    pub bucket: BucketName,
    /// Its name there.
    pub key: Key,
    /// Its content.
    pub blob: Blob,
    /// The media type the uploader named, else `application/octet-stream`.
    pub content_type: String,
    /// The uploader's own facts.
    pub metadata: Metadata,
    /// When this content became the file.
    pub created_at: Timestamp,
    /// The subject who uploaded it.
    pub created_by: String,
}

impl File {
    /// The strong tag of the content.
    pub fn etag(&self) -> ETag {
        ETag::of_content(self.blob.tag())
    }
}

/// A bucket: a namespace of files with a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// What was set for it.
    pub settings: BucketSettings,
    /// Bytes of its files.
    pub used_bytes: u64,
    /// Bytes promised to open uploads of known size.
    pub reserved_bytes: u64,
    /// Number of its files.
    pub file_count: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What an administrator sets for a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// The most bytes its files and open uploads may have together; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// How long a file is kept, in seconds, at least 1; `None` for ever.
    pub retention_seconds: Option<u64>,
    /// Who may do what; `None` where the default goes.
    pub policy: Option<Policy>,
}

impl BucketSettings {
    /// A quota and nothing else.
    pub fn of_quota(quota_bytes: Option<u64>) -> BucketSettings {
        BucketSettings { quota_bytes, ..BucketSettings::default() }
    }
}

/// What must hold of the file that is replaced or deleted (RFC 9110 §13.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// `If-None-Match: *`: there must be no file yet.
    Absent,
    /// `If-Match: *`: there must be a file.
    Present,
    /// `If-Match`: the present file's tag must be one of these.
    Match(Vec<String>),
    /// `If-None-Match` with tags: the present file's tag must be none of these.
    NoneMatch(Vec<String>),
}

impl Precondition {
    /// Whether it holds of the present file's tag (`None`: no file).
    pub fn holds(&self, present: Option<&ETag>) -> bool {
        match self {
            Precondition::None => true,
            Precondition::Absent => present.is_none(),
            Precondition::Present => present.is_some(),
            Precondition::Match(tags) => present.is_some_and(|tag| tags.iter().any(|t| t == tag.as_str())),
            Precondition::NoneMatch(tags) => {
                !present.is_some_and(|tag| tags.iter().any(|t| t == tag.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_by_offset() {
        let id = |n| BlobId::from_bytes([n; 16]);
        let pieces = Pieces::new([(id(1), 3), (id(2), 0), (id(3), 1), (id(1), 3)], None);
        assert_eq!((pieces.size(), pieces.runs().count()), (7, 3));
        assert_eq!(pieces.at(0), Some((id(1), 3, 0)));
        assert_eq!(pieces.at(2), Some((id(1), 3, 2)));
        assert_eq!(pieces.at(3), Some((id(3), 1, 0)));
        assert_eq!(pieces.at(4), Some((id(1), 3, 0)));
        assert_eq!(pieces.at(6), Some((id(1), 3, 2)));
        assert_eq!(pieces.at(7), None);
        let blob = |pieces| {
            let digest = ContentDigest { crc32: 0, blake3: [7; 32], sha256: None };
            Blob { id: id(9), size: 7, digest, pieces }
        };
        assert_eq!(blob(Some(Arc::new(pieces.clone()))).stored(), [(id(1), 3), (id(3), 1)]);
        assert_eq!(blob(Some(Arc::new(pieces))).blake3(), None);
        assert_eq!((blob(None).stored(), blob(None).blake3()), (vec![(id(9), 7)], Some([7; 32])));
    }

    #[test]
    fn tags_of_pieces_tell_them_apart() {
        let of = |pieces: &[([u8; 32], u64)]| Pieces::tag(pieces.iter().copied());
        let (a, b) = (([1; 32], 4), ([2; 32], 4));
        assert_eq!(of(&[a, b]), of(&[a, b]));
        assert!(of(&[a, b]) != of(&[b, a]) && of(&[a]) != of(&[a, a]) && of(&[a]) != [1; 32]);
    }
}
