//! `/v1/zip`: a selection as one ZIP, at once.

use crate::body::ResponseBody;
use crate::call::Call;
use crate::disposition;
use crate::render::{self, Response};
use crate::rope::{self, Answer, Outgoing};
use carrack_domain::access::{ArchiveFile, ArchivePrefix, FileRef, authorize};
use carrack_domain::archive::with_extension;
use carrack_domain::{Code, Error, Key, Result, Rope};
use carrack_service::archive::{Archive, Deflated, Selection};
use carrack_service::download::{Flow, Kind, Transfer};
use http::header::{self, CACHE_CONTROL, CONTENT_DISPOSITION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::collections::BTreeSet;

/// Files of a bucket as one ZIP with a length, an ETag and ranges; the same files make the same bytes.
#[utoipa::path(
    get, path = "/v1/zip/{bucket}", tag = "zip",
    params(
        ("bucket" = String, Path),
        ("prefix" = Option<String>, Query, description = "All files whose keys begin with this; entry names are what follows its last `/`."),
        ("key" = Option<Vec<String>>, Query, description = "These files instead, repeated; entry names are the keys without the folder they all share."),
        ("name" = Option<String>, Query, description = "The name of the download."),
        ("compression" = Option<String>, Query, description = "`store`, or `deflate`: then without length and ranges unless every file in it has been deflated before."),
        ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "The archive.", content_type = "application/zip"), (status = 206, description = "The ranges."),
        (status = 304, description = "The client has it."), (status = 400, body = carrack_api::Problem),
        (status = 404, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem),
        (status = 416, body = carrack_api::Problem), (status = 422, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let deflate = match call.query("compression") {
        None | Some("store") => false,
        Some("deflate") => true,
        Some(other) => {
            let shown = other.escape_default();
            return Err(Error::new(
                Code::InvalidRequest,
                format!("compression={shown} is not offered: use store or deflate, or leave it out."),
            ));
        }
    };
    let selection = selection(&call)?;
    let name = archive_name(&call);
    let archives = &call.app.service.archives;
    let archive = match deflate {
        false => archives.zip(selection, call.form).await?,
        true => match archives.deflated(selection, call.form).await? {
            Deflated::Ready(archive) => archive,
            Deflated::Streamed(stream) => return flow(&call, &name, stream),
        },
    };
    send(&call, &name, archive)
}

/// A ZIP that is made as it is sent: nobody knows its length, so there is nothing to resume.
fn flow(call: &Call, name: &str, stream: carrack_service::Body) -> Result<Response> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_DISPOSITION, disposition::header(true, name));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let body = if call.method == Method::HEAD {
        ResponseBody::empty()
    } else {
        let (traffic, transfers) = (call.traffic()?, &call.app.service.transfers);
        let watched = transfers.begin_flow(call.principal.subject(), Kind::Zip, || name.to_owned());
        ResponseBody::stream(Flow::new(traffic, stream, Kind::Zip, watched).into_body())
    };
    let mut response = render::empty(StatusCode::OK).map(|_| body);
    *response.headers_mut() = headers;
    Ok(response)
}

/// The media type of a ZIP.
pub(crate) const CONTENT_TYPE: &str = "application/zip";

/// What every answer with a ZIP of known length says.
pub(crate) fn headers(rope: &Rope) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    // nginx in front would keep up to 1 GiB of it on disk and then stop reading: the answer is to be passed on as it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    rope::representation(headers, rope, CONTENT_TYPE)
}

/// Sends a ZIP, or what the request wants of it.
pub(crate) fn send(call: &Call, name: &str, archive: Archive) -> Result<Response> {
    let mut headers = headers(&archive.rope)?;
    headers.insert(CONTENT_DISPOSITION, disposition::header(true, name));
    let out = Outgoing { rope: &archive.rope, content_type: CONTENT_TYPE, kind: Kind::Zip, headers };
    Ok(match rope::answer(call, out)? {
        Answer::Head(response) => response,
        Answer::Content(response, slice, kind) => {
            let length = slice.len();
            let name = || name.to_owned();
            let watched = call.app.service.transfers.begin(call.principal.subject(), kind, length, name);
            let hold = Some(archive.hold);
            let transfer = Transfer::new(call.traffic()?, slice, archive.reader, call.form, kind, hold);
            rope::with_transfer(response, transfer.watched(watched), length)
        }
    })
}

/// The same as GET without the content.
#[utoipa::path(
    head, path = "/v1/zip/{bucket}", tag = "zip", params(("bucket" = String, Path)),
    responses((status = 200, description = "The head that GET would have.")), security(("bearer" = []))
)]
#[expect(dead_code, reason = "documents what `get` serves")]
fn head() {}

fn selection(call: &Call) -> Result<Selection> {
    let place = call.prefix()?;
    let mut seen = BTreeSet::new();
    let mut grants = Vec::new();
    for text in call.queries("key") {
        let key = Key::parse(text)?;
        if seen.insert(key.clone()) {
            let file = FileRef { bucket: place.bucket.clone(), key };
            grants.push(authorize::<ArchiveFile>(&call.principal, file)?);
        }
    }
    match (grants.is_empty(), place.prefix.as_str().is_empty()) {
        (true, _) => Ok(Selection::Prefix(authorize::<ArchivePrefix>(&call.principal, place)?)),
        (false, true) => Ok(Selection::Files(grants)),
        (false, false) => Err(Error::new(Code::InvalidRequest, "Select by prefix or by key, not by both.")),
    }
}

fn archive_name(call: &Call) -> String {
    let bucket = call.bucket().map(|bucket| bucket.to_string()).unwrap_or_default();
    with_extension(&name(call.query("name"), call.query("prefix").unwrap_or(""), &bucket))
}

/// What the client wishes, else the prefix's last folder, else the bucket.
pub(crate) fn name(wished: Option<&str>, prefix: &str, bucket: &str) -> String {
    let wished = wished.filter(|name| !name.is_empty());
    let folder = prefix.trim_end_matches('/').rsplit('/').next().filter(|folder| !folder.is_empty());
    wished.or(folder).unwrap_or(bucket).to_owned()
}
