//! Header names that are not in the `http` crate, in lower case.

/// The trace id of a request, on every answer.
pub const REQUEST_ID: &str = "x-request-id";
/// Digest of the message content (RFC 9530 §2).
pub const CONTENT_DIGEST: &str = "content-digest";
/// Digest of the selected representation (RFC 9530 §3).
pub const REPR_DIGEST: &str = "repr-digest";
/// Which representation digests a client wants (RFC 9530 §4).
pub const WANT_REPR_DIGEST: &str = "want-repr-digest";
/// MD5 of the content, base64 (RFC 1864).
pub const CONTENT_MD5: &str = "content-md5";
/// Begins the name of a header that carries one of the uploader's own facts.
pub const METADATA_PREFIX: &str = "carrack-meta-";
/// tus and resumable uploads: where the bytes of a request begin, or where an upload ends.
pub const UPLOAD_OFFSET: &str = "upload-offset";
/// Resumable uploads (draft-ietf-httpbis-resumable-upload): whether the upload ends with this.
pub const UPLOAD_COMPLETE: &str = "upload-complete";
/// The same inverted, in version 3.
pub const UPLOAD_INCOMPLETE: &str = "upload-incomplete";
/// Resumable uploads: how large and how old one may become.
pub const UPLOAD_LIMIT: &str = "upload-limit";
/// Resumable uploads: the iteration of the draft.
pub const UPLOAD_DRAFT_INTEROP_VERSION: &str = "upload-draft-interop-version";
/// tus and resumable uploads: bytes of the whole.
pub const UPLOAD_LENGTH: &str = "upload-length";
/// tus: `1` while the length of the whole is not known.
pub const UPLOAD_DEFER_LENGTH: &str = "upload-defer-length";
/// tus: names and base64 values, comma-separated.
pub const UPLOAD_METADATA: &str = "upload-metadata";
/// tus: `partial`, or `final;` and URLs.
pub const UPLOAD_CONCAT: &str = "upload-concat";
/// tus: when an unfinished upload is swept.
pub const UPLOAD_EXPIRES: &str = "upload-expires";
/// tus: algorithm and base64 digest of a request's bytes.
pub const UPLOAD_CHECKSUM: &str = "upload-checksum";
/// tus: the protocol's version in use.
pub const TUS_RESUMABLE: &str = "tus-resumable";
/// tus: the versions that the server speaks.
pub const TUS_VERSION: &str = "tus-version";
/// tus: the extensions that the server has.
pub const TUS_EXTENSION: &str = "tus-extension";
/// tus: bytes of the largest upload.
pub const TUS_MAX_SIZE: &str = "tus-max-size";
/// tus: what `Upload-Checksum` may name.
pub const TUS_CHECKSUM_ALGORITHM: &str = "tus-checksum-algorithm";
/// The method that is meant, from clients that cannot send it.
pub const METHOD_OVERRIDE: &str = "x-http-method-override";
