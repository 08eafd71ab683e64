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
