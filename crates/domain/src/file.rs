//! Files and buckets as facts.

use crate::clock::Timestamp;
use crate::digest::ContentDigest;
use crate::etag::ETag;
use crate::id::BlobId;
use crate::key::{BucketName, Key};
use std::collections::BTreeMap;

/// What the uploader says about a file besides its bytes: names and values of their own.
pub type Metadata = BTreeMap<String, String>;

/// Bytes that are stored and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its name; never names other bytes.
    pub id: BlobId,
    /// Its length in bytes.
    pub size: u64,
    /// Its digests.
    pub digest: ContentDigest,
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
        ETag::of_content(&self.blob.digest.blake3)
    }
}

/// A bucket: a namespace of files with a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// The most bytes its files and open uploads may have together; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of its files.
    pub used_bytes: u64,
    /// Bytes promised to open uploads of known size.
    pub reserved_bytes: u64,
    /// Number of its files.
    pub file_count: u64,
    /// When it was made.
    pub created_at: Timestamp,
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
