//! The words on the wire: bodies, header names and paths, shared by server, client and the OpenAPI document.
//!
//! Times are RFC 3339 in UTC with milliseconds; digests are lower-case hex; sizes and offsets are bytes.

mod access;
mod audit;
mod cluster;
pub mod headers;

pub use access::*;
pub use audit::*;
pub use cluster::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An error as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:carrack:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status's name.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to change.
    pub detail: String,
    /// The stable code, `snake_case`.
    pub code: String,
    /// Ties the answer to the server's log; also in `X-Request-Id`.
    pub trace_id: String,
    /// `parts_missing`: the parts that are not stored, `2-4,7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What was expected, where something else came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// Resumable uploads, `offset_mismatch`: where the upload ends.
    #[serde(default, rename = "expected-offset", skip_serializing_if = "Option::is_none")]
    pub expected_offset: Option<u64>,
    /// Resumable uploads, `offset_mismatch`: where the request began.
    #[serde(default, rename = "provided-offset", skip_serializing_if = "Option::is_none")]
    pub provided_offset: Option<u64>,
}

/// A file's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// The bucket it is in.
    pub bucket: String,
    /// Its name there.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// The strong tag with its quotes, as in the `ETag` header.
    pub etag: String,
    /// BLAKE3 of the content, 64 hex digits. Absent in listings and answers to uploads of a file that was put together
    /// from partial uploads, until somebody asked for its facts (`?meta`) or chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// CRC-32 of the content, 8 hex digits.
    pub crc32: String,
    /// SHA-256 of the content, when the uploader named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When this content became the file.
    pub created_at: String,
    /// Who uploaded it.
    pub created_by: String,
    /// The uploader's own facts.
    pub metadata: BTreeMap<String, String>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// Files in byte order of their keys.
    pub files: Vec<File>,
    /// Common prefixes up to the delimiter.
    pub prefixes: Vec<String>,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// What each piece of a file hashes to, so that a parallel client can verify pieces by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Chunks {
    /// Bytes of the file.
    pub size: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// Bytes of every chunk but the last.
    pub chunk_size: u64,
    /// The chunks in order.
    pub chunks: Vec<Chunk>,
}

/// One piece of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Chunk {
    /// Where it begins.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Plain BLAKE3 of these bytes.
    pub blake3: String,
}

/// What to make of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutBucket {
    /// The most bytes its files and open uploads may have together; absent or null: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// How long a file is kept, in seconds: it is deleted within a minute after. Absent or null: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<u64>,
    /// Who may do what: `{"rules": [{"effect": "allow" | "deny", "actions": ["read", "write", "delete", "list",
    /// "archive", "share"] | ["*"], "prefix": "a/b/", "to": ["everyone" | "role:guest" | "role:user" | "user:NAME"],
    /// "when": {"ip": ["10.0.0.0/8"], "tls": true, "after": TIME, "before": TIME}}]}`. What no rule allows is denied, and
    /// a rule that denies wins. Administrators are not bound. Absent or null: users may do everything in `default`, and
    /// nobody anything elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<serde_json::Value>,
}

/// A bucket's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// The most bytes its files and open uploads may have together; null: no limit.
    pub quota_bytes: Option<u64>,
    /// How long a file is kept, in seconds; null: for ever.
    pub retention_seconds: Option<u64>,
    /// Who may do what, as in [`PutBucket::policy`]; null: the default.
    #[schema(value_type = Option<Object>)]
    pub policy: Option<serde_json::Value>,
    /// Bytes of its files.
    pub used_bytes: u64,
    /// Bytes promised to open uploads.
    pub reserved_bytes: u64,
    /// Number of its files.
    pub file_count: u64,
    /// When it was made.
    pub created_at: String,
}

/// All buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BucketList {
    /// By name.
    pub buckets: Vec<Bucket>,
}

/// An upload to be made in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUpload {
    /// The bucket the file will be in.
    pub bucket: String,
    /// Its key there.
    pub key: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Bytes of every part but the last; the server chooses when absent. At most 10,000 parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_size: Option<u64>,
    /// Media type; `application/octet-stream` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The uploader's own facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Digests of the whole by algorithm (`sha-256`, `sha-512`, `md5`, `blake3`, `crc32`), in hex: checked at
    /// completion. `blake3` and `crc32` cost nothing; for the others the server reads the file once more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// `"*"`: only create, never replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

/// An upload that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadCreated {
    /// Its unguessable name.
    pub upload_id: String,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// How many parts.
    pub part_count: u64,
    /// When it is swept unless a part arrives before.
    pub expires_at: String,
    /// Where it is.
    pub url: String,
}

/// Where an upload stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Its name.
    pub upload_id: String,
    /// The bucket the file will be in.
    pub bucket: String,
    /// Its key there.
    pub key: String,
    /// `open`, `finishing` or `complete`.
    pub state: String,
    /// Bytes of the whole file; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes of every part but the last; absent when it does not come in numbered parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_size: Option<u64>,
    /// How many parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_count: Option<u64>,
    /// The parts that are stored, `1-4,7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// Bytes that are stored.
    pub received_bytes: u64,
    /// When it was made.
    pub created_at: String,
    /// When it is swept unless a part arrives before.
    pub expires_at: String,
}

/// Uploads of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadList {
    /// Oldest first.
    pub uploads: Vec<Upload>,
}

/// A part that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Its number, from 1.
    pub part: u64,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of the part, 8 hex digits.
    pub crc32: String,
    /// BLAKE3 of the part by itself.
    pub blake3: String,
}

/// What completing an upload may demand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// Digests of the whole by algorithm, in hex, as in [`CreateUpload::digest`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

/// An archive to be made: of `prefix`, of `keys`, or of `entries`; of the whole bucket when none is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateArchive {
    /// The name of the download; the prefix's last folder, or the bucket, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The bucket of all files whose entry names no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// All files whose keys begin with this; entry names are what follows its last `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// These files; entry names are the keys without the folder they all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// These files, of any buckets, under names of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<ArchiveEntry>>,
    /// `zip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `store` (the default), `deflate`, or `auto`: deflate what looks worth it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Seconds that it is to live, at most a year; `archives.ttl` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveEntry {
    /// Its key.
    pub key: String,
    /// Its bucket; the archive's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Its name in the archive; its key when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How much of an archive is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArchiveProgress {
    /// Entries that are done.
    pub entries_done: u64,
    /// Entries in all.
    pub entries_total: u64,
    /// Bytes of content that are done.
    pub bytes_done: u64,
    /// Bytes of content in all.
    pub bytes_total: u64,
}

/// A download under way, or one that has ended within the last seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Download {
    /// Tells it from others.
    pub id: u64,
    /// What it is of: bucket and key, or the name of an archive.
    pub name: String,
    /// `full`, `range` or `zip`.
    pub kind: String,
    /// Bytes that it is to send; absent when nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that were handed to the connection.
    pub sent: u64,
    /// `running`, `completed`, `aborted` by the client, `failed`.
    pub state: String,
    /// Who asked for it, or made the link or signed the URL that it came by.
    pub owner: String,
    /// When it began.
    pub began_at: String,
}

/// Why an archive failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArchiveError {
    /// The stable code.
    pub code: String,
    /// A sentence for a person.
    pub detail: String,
    /// The entry it failed at, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// An entry whose name is not the one it would have had: that was not safe, or taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenamedEntry {
    /// The file's key.
    pub key: String,
    /// The entry's name.
    pub name: String,
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Archive {
    /// Its unguessable name.
    pub id: String,
    /// The name of the download.
    pub name: String,
    /// `zip`.
    pub format: String,
    /// `store`, `deflate` or `auto`.
    pub compression: String,
    /// `waiting`, `running`, `paused`, `completed`, `failed` or `cancelled`.
    pub state: String,
    /// How much is done.
    pub progress: ArchiveProgress,
    /// Bytes of the ZIP, once it is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its strong tag with its quotes, once it is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Why it failed; in state `waiting`, why the last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ArchiveError>,
    /// Entries that were renamed, at most 1,000 of them.
    pub renamed: Vec<RenamedEntry>,
    /// How many were.
    pub renamed_total: u64,
    /// When it was asked for: files are in it as they were then.
    pub created_at: String,
    /// When it goes.
    pub expires_at: String,
    /// Where its bytes are, once it is completed.
    pub content_url: String,
}

/// A page of the caller's archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArchiveList {
    /// Newest first.
    pub archives: Vec<Archive>,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}
