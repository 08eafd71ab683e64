//! `/v1/tus`: the tus resumable upload protocol 1.0 (<https://tus.io/protocols/resumable-upload>), with its extensions
//! creation, creation-with-upload, creation-defer-length, expiration, checksum, checksum-trailer, termination,
//! concatenation and concatenation-unfinished.

pub(crate) mod dialect;
mod fields;
mod metadata;

use crate::call::{self, Call};
use crate::conditional;
use crate::files::{check_plain, content_length};
use crate::render::{self, Response};
use carrack_api::headers::{
    METHOD_OVERRIDE, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_VERSION, UPLOAD_CONCAT,
    UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET,
};
use carrack_domain::access::{DEFAULT_BUCKET, FileRef, UseUploads, WriteFile, authorize};
use carrack_domain::error::Fact;
use carrack_domain::upload::{Echo, Shape, Upload, UploadState};
use carrack_domain::{BucketName, Code, Error, Grant, Key, Result, UploadId};
use carrack_service::upload::{Append, NewAppend, Progress};
use fields::Concat;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use metadata::Metadata;

/// The pairs of `Upload-Metadata`, if it can be read.
pub(crate) fn metadata_pairs(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    Some(Metadata::parse(text).ok()?.into_pairs())
}

/// The version of the protocol, the only one there is.
const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,\
     termination,concatenation,concatenation-unfinished";

/// What this endpoint can do.
#[utoipa::path(
    options, path = "/v1/tus", tag = "tus",
    responses((status = 204, description = "Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm."))
)]
pub(crate) async fn options(call: Call) -> Result<Response> {
    let mut response = render::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    set(headers, TUS_VERSION, VERSION);
    set(headers, TUS_EXTENSION, EXTENSIONS);
    set(headers, TUS_MAX_SIZE, &call.app.service.uploads.size_max().to_string());
    set(headers, TUS_CHECKSUM_ALGORITHM, &fields::checksum_algorithms());
    Ok(response)
}

/// The same for the URL of an upload.
#[utoipa::path(
    options, path = "/v1/tus/{id}", tag = "tus", operation_id = "options_of_upload", params(("id" = String, Path)),
    responses((status = 204, description = "As of `/v1/tus`."))
)]
#[expect(dead_code, reason = "documents what `options` serves")]
fn options_of_upload() {}

/// `/v1/tus` by the method that is meant.
pub(crate) async fn collection(call: Call) -> Result<Response> {
    match meant(&call)? {
        Method::POST => create(call).await,
        Method::OPTIONS => options(call).await,
        _ => Err(not_allowed("OPTIONS, POST")),
    }
}

/// `/v1/tus/{id}` by the method that is meant.
#[utoipa::path(
    post, path = "/v1/tus/{id}", tag = "tus", operation_id = "overridden",
    params(
        ("id" = String, Path),
        ("X-HTTP-Method-Override" = String, Header, description = "The method that is meant: HEAD, PATCH or DELETE."),
    ),
    responses((status = 204, description = "As of the method that is meant."), (status = 405, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn resource(call: Call) -> Result<Response> {
    match meant(&call)? {
        Method::HEAD => head(call).await,
        Method::PATCH => patch(call).await,
        Method::DELETE => delete(call).await,
        Method::OPTIONS => options(call).await,
        _ => Err(not_allowed("OPTIONS, HEAD, PATCH, DELETE, POST")),
    }
}

fn meant(call: &Call) -> Result<Method> {
    match fields::single(&call.headers, METHOD_OVERRIDE)? {
        None => Ok(call.method.clone()),
        Some(name) => Method::from_bytes(name.trim().to_ascii_uppercase().as_bytes()).map_err(|_| {
            Error::new(
                Code::InvalidRequest,
                "X-HTTP-Method-Override is no method: use PATCH, HEAD or DELETE.",
            )
        }),
    }
}

fn not_allowed(allowed: &str) -> Error {
    Error::new(Code::MethodNotAllowed, format!("This resource takes {allowed}."))
        .with_fact(Fact::Allowed(allowed.to_owned()))
}

/// Begins an upload, perhaps with its first bytes; or joins partial uploads.
#[utoipa::path(
    post, path = "/v1/tus", tag = "tus",
    params(
        ("Tus-Resumable" = String, Header, description = "`1.0.0`."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole; or `Upload-Defer-Length: 1`."),
        ("Upload-Defer-Length" = Option<String>, Header, description = "`1`: a later request says the length."),
        ("Upload-Metadata" = Option<String>, Header, description = "`filename` (or `name`, `relativePath`), `filetype`, `bucket`, `key`, and what the uploader likes; values in base64."),
        ("Upload-Concat" = Option<String>, Header, description = "`partial`, or `final;` and the URLs of partial uploads."),
        ("Upload-Checksum" = Option<String>, Header, description = "Algorithm and base64 digest of the body; may be a trailer."),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 201, description = "Location, Upload-Expires, and with a body Upload-Offset."),
        (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem),
        (status = 413, body = carrack_api::Problem), (status = 415, body = carrack_api::Problem), (status = 460, body = carrack_api::Problem),
        (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn create(call: Call) -> Result<Response> {
    dialect::check_version(&call)?;
    check_plain(&call.headers)?;
    let echo = Echo {
        metadata: fields::single(&call.headers, UPLOAD_METADATA)?.map(str::to_owned),
        concat: fields::single(&call.headers, UPLOAD_CONCAT)?.map(str::to_owned),
    };
    let metadata = Metadata::parse(echo.metadata.as_deref().unwrap_or(""))?;
    let concat = Concat::parse(echo.concat.as_deref())?;
    let id = call.app.service.uploads.name();
    let place = target(&metadata, id)?;
    call.about(&place);
    let grant = authorize::<WriteFile>(&call.principal, place)?;
    let mut new = NewAppend {
        length: None,
        partial: matches!(concat, Concat::Partial),
        content_type: metadata.content_type(),
        metadata: call::check_metadata(metadata.into_facts())?,
        echo,
    };
    let (progress, with_body) = match concat {
        Concat::Final(partials) => {
            fields::no_length(&call.headers)?;
            if !call.body.is_empty() {
                let detail = "A final upload takes no bytes: its partial uploads have them.";
                return Err(Error::new(Code::InvalidRequest, detail));
            }
            (call.app.service.uploads.create_joined(&grant, id, new, partials).await?, false)
        }
        Concat::Partial | Concat::None => {
            new.length = fields::length_at_creation(&call.headers)?;
            return begin(call, &grant, id, new).await;
        }
    };
    created(&call, &progress, with_body)
}

/// Where the file will be: `bucket` and `key`, else the default bucket and whatever name there is.
fn target(metadata: &Metadata, id: UploadId) -> Result<FileRef> {
    let bucket = BucketName::parse(metadata.text("bucket")?.unwrap_or(DEFAULT_BUCKET))?;
    for name in ["key", "filename", "name", "relativePath"] {
        if let Some(key) = metadata.text(name)?.filter(|key| !key.is_empty()) {
            return Ok(FileRef { bucket, key: Key::parse(key)? });
        }
    }
    Ok(FileRef { bucket, key: Key::parse(&format!("tus/{id}"))? })
}

async fn begin(mut call: Call, grant: &Grant<WriteFile>, id: UploadId, new: NewAppend) -> Result<Response> {
    let with_body = fields::has_offset_type(&call.headers);
    if !with_body && !call.body.is_empty() {
        return Err(fields::wrong_type());
    }
    let length = new.length;
    let append = if with_body { Some(append(&mut call, 0, None)?) } else { None };
    if let (Some(length), Some(announced)) = (length, append.as_ref().and_then(|append| append.announced))
        && announced > length
    {
        let detail = format!("The upload is to have {length} bytes, the request brings {announced}.");
        return Err(Error::new(Code::LengthExceeded, detail));
    }
    let service = call.app.service.clone();
    let uploads = &service.uploads;
    let progress = match append {
        None => uploads.create_append(grant, id, new).await?,
        Some(append) => {
            let own = authorize::<UseUploads>(&call.principal, ())?;
            uploads.create_with_body(grant, &own, id, new, (append, call.receive()?)).await?
        }
    };
    created(&call, &progress, with_body)
}

fn created(call: &Call, progress: &Progress, with_body: bool) -> Result<Response> {
    let mut response = render::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let url = format!("{}/v1/tus/{}", call.base_url(), progress.upload.id);
    headers.insert(
        LOCATION,
        HeaderValue::try_from(url).map_err(|error| Error::internal("make a header", error))?,
    );
    if with_body && let Some(offset) = progress.offset {
        set(headers, UPLOAD_OFFSET, &offset.to_string());
    }
    expires(headers, progress);
    Ok(response)
}

/// The bytes of this request, as they are announced.
fn append(call: &mut Call, offset: u64, length: Option<u64>) -> Result<Append> {
    let announced = content_length(&call.headers)?;
    Ok(Append { offset, announced, length, checksum: fields::checksum(call)?, report: None })
}

/// Where an upload stands. Whoever is writing to it is stopped first.
#[utoipa::path(
    head, path = "/v1/tus/{id}", tag = "tus", params(("id" = String, Path)),
    responses(
        (status = 200, description = "Upload-Offset, Upload-Length or Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires."),
        (status = 404, description = "There is no such upload."), (status = 410, description = "It ran out of time."),
        (status = 423, description = "It cannot be told now: ask again."),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn head(call: Call) -> Result<Response> {
    dialect::check_version(&call)?;
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let progress = call.app.service.uploads.progress(&grant, call.upload_id()?).await?;
    if progress.upload.told {
        return Err(Error::new(Code::UploadNotFound, "There is no such upload: this one goes on elsewhere."));
    }
    let mut response = render::empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(offset) = progress.offset {
        set(headers, UPLOAD_OFFSET, &offset.to_string());
    }
    let Upload { shape, echo, .. } = &progress.upload;
    match (progress.upload.length(), shape) {
        (Some(length), _) => set(headers, UPLOAD_LENGTH, &length.to_string()),
        (None, Shape::Append { .. }) => set(headers, UPLOAD_DEFER_LENGTH, "1"),
        (None, Shape::Joined { .. } | Shape::Parts(_)) => {}
    }
    for (name, value) in [(UPLOAD_METADATA, &echo.metadata), (UPLOAD_CONCAT, &echo.concat)] {
        if let Some(value) = value {
            set(headers, name, value);
        }
    }
    expires(headers, &progress);
    Ok(response)
}

/// Appends bytes.
#[utoipa::path(
    patch, path = "/v1/tus/{id}", tag = "tus",
    params(
        ("id" = String, Path), ("Tus-Resumable" = String, Header, description = "`1.0.0`."),
        ("Upload-Offset" = u64, Header, description = "Where the upload ends."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole, of an upload that did not say so before."),
        ("Upload-Checksum" = Option<String>, Header, description = "Algorithm and base64 digest of the body; may be a trailer."),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "Upload-Offset, Upload-Expires."), (status = 400, body = carrack_api::Problem),
        (status = 403, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem),
        (status = 410, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem), (status = 413, body = carrack_api::Problem),
        (status = 415, body = carrack_api::Problem), (status = 460, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn patch(mut call: Call) -> Result<Response> {
    dialect::check_version(&call)?;
    check_plain(&call.headers)?;
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    if !fields::has_offset_type(&call.headers) {
        return Err(fields::wrong_type());
    }
    let id = call.upload_id()?;
    let offset = fields::number(&call.headers, UPLOAD_OFFSET)?.ok_or_else(|| {
        Error::new(Code::InvalidRequest, "Upload-Offset is missing: say where these bytes begin.")
    })?;
    let length = fields::number(&call.headers, UPLOAD_LENGTH)?;
    let append = append(&mut call, offset, length)?;
    let (uploads, body) = (call.app.service.uploads.clone(), call.receive()?);
    // The request's head takes a buffer of the connection: it goes while the body comes.
    drop(call);
    let progress = uploads.append(&grant, id, append, body).await?;
    let mut response = render::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    if let Some(offset) = progress.offset {
        set(headers, UPLOAD_OFFSET, &offset.to_string());
    }
    expires(headers, &progress);
    Ok(response)
}

/// Gives an upload up. A file that it has become stays.
#[utoipa::path(
    delete, path = "/v1/tus/{id}", tag = "tus",
    params(("id" = String, Path), ("Tus-Resumable" = String, Header, description = "`1.0.0`.")),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    dialect::check_version(&call)?;
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    call.app.service.uploads.delete(&grant, call.upload_id()?).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

/// `Upload-Expires` of an upload that is not finished.
fn expires(headers: &mut HeaderMap, progress: &Progress) {
    if progress.upload.state == UploadState::Open {
        set(headers, UPLOAD_EXPIRES, &conditional::http_date(progress.upload.expires_at));
    }
}

/// Sets a header of ours; what cannot stand in one is left out.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
