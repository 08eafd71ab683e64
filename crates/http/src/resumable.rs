//! Resumable uploads of the IETF (draft-ietf-httpbis-resumable-upload, interop versions 3 to 8): a PUT or POST to a file
//! with `Upload-Complete` begins one, and `/v1/resumable/{id}` is where it goes on.

pub(crate) mod dialect;
pub(crate) mod fields;

use crate::call::Call;
use crate::conditional;
use crate::digests;
use crate::files::{self, check_plain, content_length, stored};
use crate::render::{self, Response};
use carrack_api::headers::{REPR_DIGEST, UPLOAD_DRAFT_INTEROP_VERSION, UPLOAD_LENGTH, UPLOAD_OFFSET};
use carrack_domain::access::{UseUploads, WriteFile, authorize};
use carrack_domain::error::Fact;
use carrack_domain::upload::UploadState;
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use carrack_interim::Interim;
use carrack_service::upload::{Append, Checksum, End, NewAppend, NewTold, Progress, Report, Told};
use fields::{Draft, PARTIAL_TYPE};
use http::header::{CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// What a field says as a structured item: an integer, a boolean, or neither.
pub(crate) fn items(headers: &HeaderMap, name: &str) -> (Option<u64>, Option<bool>) {
    (fields::integer(headers, name), fields::boolean(headers, name))
}

/// `Upload Resumption Supported`.
const RESUMPTION_SUPPORTED: u16 = 104;
/// How often a client is told how much of its body is stored, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How large uploads may be, and that they can be resumed.
#[utoipa::path(
    options, path = "/v1/files/{bucket}/{key}", tag = "resumable", operation_id = "options_of_file",
    params(("bucket" = String, Path), ("key" = String, Path)),
    responses((status = 204, description = "Upload-Limit, Accept-Patch."))
)]
pub(crate) async fn options(call: Call) -> Result<Response> {
    let mut response = render::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let uploads = &call.app.service.uploads;
    Draft::of(&HeaderMap::new()).set_limit(headers, uploads.size_max(), Some(uploads.ttl()));
    headers.insert(HeaderName::from_static("accept-patch"), HeaderValue::from_static(PARTIAL_TYPE));
    Ok(response)
}

/// The same for the URL of an upload.
#[utoipa::path(
    options, path = "/v1/resumable/{id}", tag = "resumable", operation_id = "options_of_upload", params(("id" = String, Path)),
    responses((status = 204, description = "As of a file."))
)]
#[expect(dead_code, reason = "documents what `options` serves")]
fn options_of_upload() {}

/// Begins a resumable upload of a file, as PUT with `Upload-Complete` does.
#[utoipa::path(
    post, path = "/v1/files/{bucket}/{key}", tag = "resumable", operation_id = "create",
    params(
        ("bucket" = String, Path), ("key" = String, Path),
        ("Upload-Complete" = String, Header, description = "`?1`: the body is all of it; `?0`: more will come. Version 3: `Upload-Incomplete`, inverted."),
        ("Upload-Draft-Interop-Version" = Option<u8>, Header, description = "3 to 8. Without it there is no 104."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole."),
        ("Content-Digest" = Option<String>, Header, description = "sha-256 or sha-512 of this body."),
        ("Repr-Digest" = Option<String>, Header, description = "The same of the whole, compared at the end."),
        ("Want-Repr-Digest" = Option<String>, Header, description = "`sha-256=1`: the last answer has `Repr-Digest`."),
        ("If-None-Match" = Option<String>, Header, description = "As of PUT."), ("If-Match" = Option<String>, Header),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 104, description = "Location of the upload, Upload-Limit; later Upload-Offset."),
        (status = 201, description = "With `?0` an upload was begun: Location, Upload-Limit. With `?1` the file.", body = carrack_api::File),
        (status = 200, description = "The file replaced another.", body = carrack_api::File),
        (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem), (status = 405, body = carrack_api::Problem),
        (status = 412, body = carrack_api::Problem), (status = 413, body = carrack_api::Problem), (status = 415, body = carrack_api::Problem),
        (status = 422, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn post(call: Call) -> Result<Response> {
    match Draft::of(&call.headers).completes(&call.headers) {
        Some(last) => create(call, last).await,
        None => Err(Error::new(
            Code::MethodNotAllowed,
            "A file is stored by PUT. POST begins a resumable upload of one, with 'Upload-Complete: ?1' or '?0'.",
        )
        .with_fact(Fact::Allowed("GET, HEAD, PUT, DELETE, OPTIONS".to_owned()))),
    }
}

/// Begins an upload, `last` with all its bytes.
pub(crate) async fn create(mut call: Call, last: bool) -> Result<Response> {
    let draft = Draft::of(&call.headers);
    let grant = authorize::<WriteFile>(&call.principal, call.file()?)?;
    let own = authorize::<UseUploads>(&call.principal, ())?;
    check_plain(&call.headers)?;
    let announced = announced(&call)?;
    let length = fields::length(&call.headers, 0, announced, last)?;
    let interim = call.interim.clone().filter(|_| draft.is_named());
    if last && (interim.is_none() || announced == Some(0)) {
        return at_once(call, draft, length).await;
    }
    let (content, mut whole) = (digests::of_content(&call.headers)?, digests::of_whole(&call.headers)?);
    let checksum = if last {
        // A digest of all the bytes: those of a body that breaks off can be kept until the rest is there.
        whole.extend(content);
        Checksum::None
    } else {
        checksum(content)
    };
    let facts = files::facts(&call)?;
    let new = NewTold {
        append: NewAppend {
            length,
            partial: false,
            content_type: facts.content_type,
            metadata: facts.metadata,
            echo: carrack_domain::upload::Echo::default(),
        },
        precondition: conditional::of_write(&call.headers)?,
        digests: whole,
        wants_sha256: digests::wants_sha256(&call.headers),
    };
    let id = call.app.service.uploads.name();
    let location = location(&call, id)?;
    let report = interim.map(|interim| report(&call, draft, interim, Some(location.clone())));
    let append = Append { offset: 0, announced, length: None, checksum, report };
    let end = if last { End::Now(Vec::new()) } else { End::Later };
    let service = call.app.service.clone();
    let body = call.receive()?;
    let told = service.uploads.create_told(&grant, &own, id, new, end, (append, body)).await?;
    answer(&call, draft, &told, StatusCode::CREATED, location)
}

/// Stores a body that need not, or could not, be resumed: its client cannot learn where.
async fn at_once(call: Call, draft: Draft, length: Option<u64>) -> Result<Response> {
    let wants_sha256 = digests::wants_sha256(&call.headers);
    let (file, outcome) = files::store(call, length, wants_sha256).await.map_err(Error::finally)?;
    let mut response = stored(&file, outcome);
    let headers = response.headers_mut();
    draft.set_complete(headers, true);
    if draft.is_old() {
        headers.insert(HeaderName::from_static(UPLOAD_OFFSET), HeaderValue::from(file.blob.size));
    }
    set_repr_digest(headers, &file, wants_sha256);
    Ok(response)
}

/// Where an upload stands. Whoever is writing to it is stopped first.
#[utoipa::path(
    head, path = "/v1/resumable/{id}", tag = "resumable", params(("id" = String, Path)),
    responses(
        (status = 204, description = "Upload-Offset, Upload-Complete, Upload-Length if it is known, Upload-Limit."),
        (status = 404, description = "There is no such upload."), (status = 410, description = "It ran out of time."),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn head(call: Call) -> Result<Response> {
    let draft = Draft::of(&call.headers);
    draft.refuse_state(&call.headers)?;
    let own = authorize::<UseUploads>(&call.principal, ())?;
    let progress = progress(&call, &own, call.upload_id()?).await?;
    let mut response = render::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    draft.set_complete(headers, progress.upload.state == UploadState::Complete);
    if let Some(length) = progress.upload.length() {
        headers.insert(HeaderName::from_static(UPLOAD_LENGTH), HeaderValue::from(length));
    }
    set_standing(&call, draft, headers, &progress);
    Ok(response)
}

/// The same as HEAD.
#[utoipa::path(
    get, path = "/v1/resumable/{id}", tag = "resumable", params(("id" = String, Path)),
    responses((status = 204, description = "As of HEAD."), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
#[expect(dead_code, reason = "documents what `head` serves")]
fn get() {}

async fn progress(call: &Call, own: &Grant<UseUploads>, id: UploadId) -> Result<Progress> {
    let progress = call.app.service.uploads.progress(own, id).await?;
    if progress.upload.told {
        return Ok(progress);
    }
    Err(Error::new(Code::UploadNotFound, "There is no such upload: this one goes on elsewhere."))
}

/// Appends bytes, or ends the upload, or both.
#[utoipa::path(
    patch, path = "/v1/resumable/{id}", tag = "resumable",
    params(
        ("id" = String, Path),
        ("Upload-Offset" = u64, Header, description = "Where the upload ends."),
        ("Upload-Complete" = String, Header, description = "`?1`: it ends with these bytes; `?0`: more will come."),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole."),
        ("Content-Digest" = Option<String>, Header, description = "sha-256 or sha-512 of this body."),
        ("Repr-Digest" = Option<String>, Header, description = "The same of the whole."),
    ),
    request_body(content = Vec<u8>, content_type = "application/partial-upload"),
    responses(
        (status = 104, description = "Upload-Offset."),
        (status = 204, description = "With `?0`: Upload-Complete, Upload-Offset, Upload-Limit."),
        (status = 201, description = "With `?1`: the file.", body = carrack_api::File),
        (status = 200, description = "The file replaced another.", body = carrack_api::File),
        (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem),
        (status = 410, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem), (status = 413, body = carrack_api::Problem),
        (status = 415, body = carrack_api::Problem), (status = 422, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn patch(mut call: Call) -> Result<Response> {
    let draft = Draft::of(&call.headers);
    let own = authorize::<UseUploads>(&call.principal, ())?;
    check_plain(&call.headers)?;
    if draft.has_media_type() && !is_partial(&call.headers) {
        let detail = format!("The body has to be sent as 'Content-Type: {PARTIAL_TYPE}'.");
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    let last = draft.append_completes(&call.headers)?;
    let offset = fields::integer(&call.headers, UPLOAD_OFFSET).ok_or_else(|| {
        Error::new(
            Code::InvalidRequest,
            "Upload-Offset is missing or no number: say where these bytes begin.",
        )
    })?;
    let (id, announced) = (call.upload_id()?, announced(&call)?);
    let length = match fields::length(&call.headers, offset, announced, last) {
        Ok(length) => length,
        Err(error) => return Err(explain(&call, &own, id, offset, error).await?),
    };
    let (content, mut whole) = (digests::of_content(&call.headers)?, digests::of_whole(&call.headers)?);
    let checksum = if last && offset == 0 {
        whole.extend(content);
        Checksum::None
    } else {
        checksum(content)
    };
    let interim = call.interim.clone().filter(|_| draft.is_named());
    let report = interim.map(|interim| report(&call, draft, interim, None));
    let append = Append { offset, announced, length, checksum, report };
    let end = if last { End::Now(whole) } else { End::Later };
    let (location, body) = (location(&call, id)?, call.receive()?);
    let told = call.app.service.uploads.append_told(&own, id, append, end, body).await?;
    let appended = if draft.is_old() { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    answer(&call, draft, &told, appended, location)
}

/// Gives an upload up. A file that it has become stays.
#[utoipa::path(
    delete, path = "/v1/resumable/{id}", tag = "resumable", params(("id" = String, Path)),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    Draft::of(&call.headers).refuse_state(&call.headers)?;
    let own = authorize::<UseUploads>(&call.principal, ())?;
    call.app.service.uploads.delete(&own, call.upload_id()?).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

/// What is wrong with a request whose lengths contradict each other: a wrong offset comes first.
async fn explain(
    call: &Call,
    own: &Grant<UseUploads>,
    id: UploadId,
    given: u64,
    error: Error,
) -> Result<Error> {
    let expected = progress(call, own, id).await?.offset.unwrap_or(0);
    if expected == given {
        return Ok(error);
    }
    let detail =
        format!("The upload has {expected} bytes, the request begins at {given}: go on at {expected}.");
    Ok(Error::new(Code::OffsetMismatch, detail).with_fact(Fact::Offset { expected, given }))
}

/// The answer to what a request came to; `incomplete` is the status while more is expected.
fn answer(
    call: &Call,
    draft: Draft,
    told: &Told,
    incomplete: StatusCode,
    location: HeaderValue,
) -> Result<Response> {
    let mut response = match &told.file {
        Some((file, outcome)) => stored(file, *outcome),
        None => render::empty(incomplete),
    };
    let headers = response.headers_mut();
    draft.set_complete(headers, told.file.is_some());
    if let Some((file, _)) = &told.file {
        if draft.is_old()
            && let Some(file) = headers.insert(LOCATION, location)
        {
            headers.insert(CONTENT_LOCATION, file);
        }
        set_repr_digest(headers, file, told.progress.upload.wants_sha256);
    } else if incomplete == StatusCode::CREATED {
        headers.insert(LOCATION, location);
    }
    set_standing(call, draft, headers, &told.progress);
    Ok(response)
}

/// How far an upload is, and what it may become.
fn set_standing(call: &Call, draft: Draft, headers: &mut HeaderMap, progress: &Progress) {
    if let Some(offset) = progress.offset {
        headers.insert(HeaderName::from_static(UPLOAD_OFFSET), HeaderValue::from(offset));
    }
    let uploads = &call.app.service.uploads;
    draft.set_limit(headers, uploads.size_max(), Some(uploads.lives(&progress.upload)));
}

fn set_repr_digest(headers: &mut HeaderMap, file: &carrack_domain::file::File, wanted: bool) {
    if let Some(sha256) = file.blob.digest.sha256.filter(|_| wanted)
        && let Ok(value) = HeaderValue::try_from(digests::repr_digest(&sha256))
    {
        headers.insert(HeaderName::from_static(REPR_DIGEST), value);
    }
}

/// Bytes of the body, when that is known.
fn announced(call: &Call) -> Result<Option<u64>> {
    if call.body.is_empty() { Ok(Some(0)) } else { content_length(&call.headers) }
}

fn checksum(digests: Vec<carrack_domain::digest::Digest>) -> Checksum {
    if digests.is_empty() { Checksum::None } else { Checksum::Now(digests) }
}

fn is_partial(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.map(|value| value.split_once(';').map_or(value, |(kind, _)| kind).trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(PARTIAL_TYPE))
}

fn location(call: &Call, id: UploadId) -> Result<HeaderValue> {
    let url = format!("{}/v1/resumable/{id}", call.base_url());
    HeaderValue::try_from(url).map_err(|error| Error::internal("make a header", error))
}

/// Tells the client how far the upload is, and at its beginning where.
fn report(call: &Call, draft: Draft, interim: Interim, location: Option<HeaderValue>) -> Report {
    let (size_max, ttl) = (call.app.service.uploads.size_max(), call.app.service.uploads.ttl());
    let status = StatusCode::from_u16(RESUMPTION_SUPPORTED);
    let mut told: Option<Instant> = None;
    Box::new(move |offset| {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(UPLOAD_DRAFT_INTEROP_VERSION), draft.version());
        match &location {
            Some(location) if offset == 0 => {
                headers.insert(LOCATION, location.clone());
                draft.set_limit(&mut headers, size_max, Some(ttl));
            }
            _ if told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY) => return,
            _ => told = Some(Instant::now()),
        }
        headers.insert(HeaderName::from_static(UPLOAD_OFFSET), HeaderValue::from(offset));
        if let Ok(status) = status {
            interim.send(status, "Upload Resumption Supported", &headers);
        }
    })
}
