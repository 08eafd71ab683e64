//! Answers.

use crate::body::ResponseBody;
use bytes::Bytes;
use carrack_domain::file::{Bucket, File};
use carrack_domain::id::hex;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

/// An answer on its way out.
pub(crate) type Response = http::Response<ResponseBody>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// An answer with bytes made here.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let bytes = bytes.into();
    let length = bytes.len();
    let mut response = Response::new(ResponseBody::bytes(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// An answer in JSON: facts of the moment, not to be kept by anybody on the way.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    // Our own types have string keys and no failing serializers; an empty object is the least wrong if that changes.
    let body = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    let mut response = bytes(status, "application/json", body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A file's facts as JSON.
pub(crate) fn file(file: &File) -> carrack_api::File {
    let digest = &file.blob.digest;
    carrack_api::File {
        bucket: file.bucket.to_string(),
        key: file.key.to_string(),
        size: file.blob.size,
        content_type: file.content_type.clone(),
        etag: file.etag().to_string(),
        blake3: file.blob.blake3().map(|blake3| hex(&blake3)),
        crc32: hex(&digest.crc32.to_be_bytes()),
        sha256: digest.sha256.map(|sha256| hex(&sha256)),
        created_at: file.created_at.to_string(),
        created_by: file.created_by.clone(),
        metadata: file.metadata.clone(),
    }
}

/// A bucket's facts as JSON.
pub(crate) fn bucket(bucket: &Bucket) -> carrack_api::Bucket {
    carrack_api::Bucket {
        name: bucket.name.to_string(),
        quota_bytes: bucket.settings.quota_bytes,
        retention_seconds: bucket.settings.retention_seconds,
        // Text and lists have no way to fail.
        policy: bucket.settings.policy.as_ref().and_then(|policy| serde_json::to_value(policy).ok()),
        used_bytes: bucket.used_bytes,
        reserved_bytes: bucket.reserved_bytes,
        file_count: bucket.file_count,
        created_at: bucket.created_at.to_string(),
    }
}
