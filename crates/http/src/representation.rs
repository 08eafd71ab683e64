//! What every answer about a file says, made once: a hot file's headers cost a copy.

use crate::{disposition, rope};
use carrack_api::headers::{METADATA_PREFIX, REQUEST_ID};
use carrack_domain::file::File;
use carrack_domain::{BlobId, Result, Rope};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Files whose headers are kept: up to some 2 KiB each.
const FILES_MAX: usize = 4096;

/// Headers of files that were asked for lately.
pub struct Representations(Cache<BlobId, Arc<Known>>);

/// Headers, and the very facts they were made from: other facts of the same content have other headers.
struct Known {
    file: Arc<File>,
    headers: HeaderMap,
}

impl Default for Representations {
    fn default() -> Representations {
        Representations(Cache::new(FILES_MAX))
    }
}

impl Representations {
    /// The headers of the whole file, shown under its own name.
    pub(crate) fn of(&self, file: &Arc<File>, rope: &Rope) -> Result<HeaderMap> {
        if let Some(known) = self.0.get(&file.blob.id).filter(|known| Arc::ptr_eq(&known.file, file)) {
            return Ok(known.headers.clone());
        }
        let headers = headers(file, rope)?;
        let known = Known { file: file.clone(), headers: headers.clone() };
        self.0.insert(file.blob.id, Arc::new(known));
        Ok(headers)
    }
}

fn headers(file: &File, rope: &Rope) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_DISPOSITION, disposition::header(false, file.key.file_name()));
    if disposition::is_active(&file.content_type) {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    }
    for (name, value) in &file.metadata {
        let name = HeaderName::try_from(format!("{METADATA_PREFIX}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    let mut headers = rope::representation(headers, rope, &file.content_type)?;
    // What every answer has besides gets its place now: a copy that grows costs more than the copy.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(rope.len()));
    headers.insert(HeaderName::from_static(REQUEST_ID), HeaderValue::from_static(""));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(headers)
}
