//! `/v1/files`: whole files and listings.

use crate::call::{self, Call};
use crate::render::{self, Response};
use crate::resumable::{self, fields::Draft};
use crate::rope::{self, Answer, Outgoing};
use crate::{compress, conditional, digests, disposition};
use carrack_api::headers::{METADATA_PREFIX, REPR_DIGEST};
use carrack_api::{Chunk, Chunks, FileList};
use carrack_domain::access::{DeleteFile, ListFiles, ReadFile, WriteFile, authorize};
use carrack_domain::file::{File, Metadata};
use carrack_domain::id::hex;
use carrack_domain::{BucketName, Code, Error, Grant, Key, Result, Rope};
use carrack_service::Outcome;
use carrack_service::download::{Kind, Transfer};
use carrack_service::file::PAGE_MAX;
use carrack_service::upload::Put;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// Entries of a page unless the client wishes fewer.
const PAGE_DEFAULT: usize = 1000;

/// Lists files.
#[utoipa::path(
    get, path = "/v1/files/{bucket}", tag = "files",
    params(
        ("bucket" = String, Path, description = "The bucket."),
        ("prefix" = Option<String>, Query, description = "Only keys that begin with this."),
        ("delimiter" = Option<String>, Query, description = "Fold keys with this character after the prefix into one common prefix; usually `/`."),
        ("limit" = Option<usize>, Query, description = "The most files and prefixes of a page, 1 to 1000."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, body = FileList), (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<ListFiles>(&call.principal, call.prefix()?)?;
    let delimiter = match call.query("delimiter").map(|text| (text, text.chars().next())) {
        None | Some(("", _)) => None,
        Some((text, Some(first))) if text.chars().count() == 1 => Some(first),
        Some(_) => {
            return Err(Error::new(Code::InvalidRequest, "The delimiter is one character, usually '/'."));
        }
    };
    let limit = match call.query("limit") {
        None => PAGE_DEFAULT,
        Some(text) => text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
            Error::new(Code::InvalidRequest, format!("limit is a number from 1 to {PAGE_MAX}."))
        })?,
    };
    let after = call.query("cursor").filter(|text| !text.is_empty()).map(call::parse_cursor).transpose()?;
    let page = call.app.service.files.list(&grant, delimiter, after, limit).await?;
    let list = FileList {
        files: page.files.iter().map(render::file).collect(),
        prefixes: page.prefixes,
        next_cursor: page.next.as_deref().map(call::cursor),
    };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &list)).await
}

/// A file's content; with `meta` its facts, with `chunks` the hashes of its pieces.
#[utoipa::path(
    get, path = "/v1/files/{bucket}/{key}", tag = "files",
    params(
        ("bucket" = String, Path, description = "The bucket."),
        ("key" = String, Path, description = "The key; `/` needs no encoding."),
        ("meta" = Option<String>, Query, description = "Present: the file's facts as JSON."),
        ("chunks" = Option<String>, Query, description = "Present: BLAKE3 of each piece, for parallel clients."),
        ("download" = Option<String>, Query, description = "Present: `Content-Disposition: attachment`."),
        ("filename" = Option<String>, Query, description = "Another name in `Content-Disposition`."),
        ("Range" = Option<String>, Header, description = "One or several byte ranges (RFC 9110 §14)."),
        ("If-Range" = Option<String>, Header, description = "Honour Range only for this ETag or date."),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header),
        ("If-Modified-Since" = Option<String>, Header), ("If-Unmodified-Since" = Option<String>, Header),
        ("Want-Repr-Digest" = Option<String>, Header, description = "`sha-256=1`: answer with `Repr-Digest`."),
    ),
    responses(
        (status = 200, description = "The content, or JSON with `meta` or `chunks`.", body = carrack_api::File),
        (status = 206, description = "The ranges."), (status = 304, description = "The client has it."),
        (status = 404, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem),
        (status = 416, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let grant = authorize::<ReadFile>(&call.principal, call.file()?)?;
    if call.query("meta").is_some() {
        let file = call.app.service.files.with_blake3(&grant).await?;
        return Ok(render::json(StatusCode::OK, &render::file(&file)));
    }
    if call.query("chunks").is_some() {
        return chunks(&call, &grant).await;
    }
    let digest = if digests::wants_sha256(&call.headers) {
        Some(call.app.service.files.sha256(&grant).await?)
    } else {
        None
    };
    if call.method == Method::HEAD {
        let file = call.app.service.files.get(&grant).await?;
        let rope = Rope::of_blob(file.blob.clone(), file.etag(), file.created_at);
        let (Answer::Head(response) | Answer::Content(response, ..)) = content(&call, &file, &rope, digest)?;
        return Ok(response);
    }
    let open = call.app.service.downloads.open(&grant, call.form).await?;
    Ok(match content(&call, &open.file, &open.rope, digest)? {
        Answer::Head(response) => response,
        Answer::Content(response, slice, kind) => {
            let length = slice.len();
            let name = || format!("{}/{}", open.file.bucket, open.file.key);
            let watched = call.app.service.transfers.begin(call.principal.subject(), kind, length, name);
            let transfer = Transfer::new(call.traffic()?, slice, open.reader, call.form, kind, open.hold);
            rope::with_transfer(response, transfer.watched(watched), length)
        }
    })
}

/// The same as GET without the content; a range is ignored.
#[utoipa::path(
    head, path = "/v1/files/{bucket}/{key}", tag = "files",
    params(("bucket" = String, Path), ("key" = String, Path)),
    responses((status = 200, description = "The head that GET would have."), (status = 404, description = "There is no such file.")),
    security(("bearer" = []))
)]
#[expect(dead_code, reason = "documents what `get` serves")]
fn head() {}

fn content(call: &Call, file: &Arc<File>, rope: &Rope, sha256: Option<[u8; 32]>) -> Result<Answer> {
    let mut headers = call.app.representations.of(file, rope)?;
    let name = call.query("filename").filter(|name| !name.is_empty());
    let attached = call.query("download").is_some() || call.saved_as.is_some();
    if name.is_some() || attached {
        let name = call.saved_as.as_deref().or(name).unwrap_or(file.key.file_name());
        headers.insert(CONTENT_DISPOSITION, disposition::header(attached, name));
    }
    if let Some(sha256) = sha256.filter(|digest| file.blob.digest.sha256.is_none_or(|known| known == *digest))
        && let Ok(value) = HeaderValue::try_from(digests::repr_digest(&sha256))
    {
        headers.insert(REPR_DIGEST, value);
    }
    rope::answer(call, Outgoing { rope, content_type: &file.content_type, kind: Kind::Full, headers })
}

async fn chunks(call: &Call, grant: &Grant<ReadFile>) -> Result<Response> {
    let (file, list) = call.app.service.files.chunks(grant).await?;
    let size = file.blob.size;
    let chunks = list.hashes.iter().zip(0u64..).map(|(hash, index)| {
        let offset = index * list.chunk_size;
        Chunk { offset, size: list.chunk_size.min(size - offset), blake3: hex(hash) }
    });
    let body = Chunks {
        size,
        blake3: file.blob.blake3().map(|blake3| hex(&blake3)).unwrap_or_default(),
        chunk_size: list.chunk_size,
        chunks: chunks.collect(),
    };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &body)).await
}

/// Stores the body as a file, replacing the one that was there at once and as a whole.
#[utoipa::path(
    put, path = "/v1/files/{bucket}/{key}", tag = "files",
    params(
        ("bucket" = String, Path), ("key" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create."),
        ("If-Match" = Option<String>, Header, description = "Only replace this content."),
        ("Content-Digest" = Option<String>, Header, description = "sha-256 or sha-512 of the body (RFC 9530)."),
        ("Repr-Digest" = Option<String>, Header, description = "The same for a whole body."),
        ("Content-MD5" = Option<String>, Header),
        ("Carrack-Meta-NAME" = Option<String>, Header, description = "One of the uploader's own facts, kept as metadata NAME."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, body = carrack_api::File), (status = 200, description = "Replaced.", body = carrack_api::File),
        (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem),
        (status = 408, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem),
        (status = 413, body = carrack_api::Problem), (status = 415, body = carrack_api::Problem),
        (status = 422, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn put(call: Call) -> Result<Response> {
    if let Some(last) = Draft::of(&call.headers).completes(&call.headers) {
        return resumable::create(call, last).await;
    }
    let length = content_length(&call.headers)?;
    let (file, outcome) = store(call, length, false).await?;
    Ok(stored(&file, outcome))
}

/// Stores the body, of `length` bytes if that is known, perhaps with its SHA-256 among its facts.
pub(crate) async fn store(
    mut call: Call,
    length: Option<u64>,
    wants_sha256: bool,
) -> Result<(File, Outcome)> {
    let grant = authorize::<WriteFile>(&call.principal, call.file()?)?;
    check_plain(&call.headers)?;
    let facts = facts(&call)?;
    let put = Put {
        content_type: facts.content_type,
        metadata: facts.metadata,
        length,
        precondition: conditional::of_write(&call.headers)?,
        digests: digests::announced(&call)?,
        wants_sha256,
    };
    let uploads = call.app.service.uploads.clone();
    uploads.put(&grant, put, call.receive()?).await
}

/// What an uploader says about a file besides its bytes.
pub(crate) struct Facts {
    pub(crate) content_type: String,
    pub(crate) metadata: Metadata,
}

pub(crate) fn facts(call: &Call) -> Result<Facts> {
    Ok(Facts {
        content_type: call::check_content_type(call.header(CONTENT_TYPE.as_str()))?,
        metadata: call::check_metadata(header_metadata(&call.headers)?)?,
    })
}

/// The answer to a file that exists now.
pub(crate) fn stored(file: &File, outcome: Outcome) -> Response {
    let status = match outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Replaced => StatusCode::OK,
    };
    let mut response = render::json(status, &render::file(file));
    if let Ok(value) = HeaderValue::try_from(file.etag().as_str()) {
        response.headers_mut().insert(ETAG, value);
    }
    if let Ok(value) = HeaderValue::try_from(path_of(&file.bucket, &file.key)) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// The path of a file's URL.
pub(crate) fn path_of(bucket: &BucketName, key: &Key) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const PATH: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    format!("/v1/files/{bucket}/{}", utf8_percent_encode(key.as_str(), PATH))
}

/// Deletes a file.
#[utoipa::path(
    delete, path = "/v1/files/{bucket}/{key}", tag = "files",
    params(("bucket" = String, Path), ("key" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    let grant = authorize::<DeleteFile>(&call.principal, call.file()?)?;
    let precondition = conditional::of_write(&call.headers)?;
    call.app.service.files.delete(&grant, &precondition).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

/// Refuses bodies that are not the plain, whole content.
pub(crate) fn check_plain(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Error::new(
            Code::InvalidRequest,
            "A PUT with Content-Range would store a piece as the whole (RFC 9110 §14.5): upload in parts instead (POST /v1/uploads).",
        ));
    }
    match headers.get(CONTENT_ENCODING) {
        None => Ok(()),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => Err(Error::new(
            Code::UnsupportedMediaType,
            "Content-Encoding is not taken: send the bytes as they are to be stored.",
        )),
    }
}

/// `Content-Length`, which hyper has compared with the framing already.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>> {
    headers
        .get(CONTENT_LENGTH)
        .map(|value| {
            value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Error::new(Code::InvalidRequest, "The Content-Length is not a number of bytes.")
            })
        })
        .transpose()
}

fn header_metadata(headers: &HeaderMap) -> Result<Metadata> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(METADATA_PREFIX)?, value)))
        .map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                Error::new(Code::InvalidRequest, format!("The header {METADATA_PREFIX}{name} is not UTF-8."))
            })?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}
