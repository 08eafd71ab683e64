//! URLs that need no credentials: `/v1/sign`, and those of an upload's parts.

use crate::call::Call;
use crate::credentials::SIGNATURE;
use crate::files;
use crate::render::{self, Response};
use carrack_api::{PartUrl, PartUrls, SignParts, SignUrl, SignedUrl};
use carrack_domain::access::{FileRef, ReadFile, ShareFile, UseUploads, WriteFile, authorize};
use carrack_domain::policy::AddressRange;
use carrack_domain::upload::{PartPlan, parse_ranges};
use carrack_domain::{BucketName, Code, Error, Grant, Key, Result, UploadId};
use carrack_service::limit::RATE_MIN;
use carrack_service::signed::{FileMethod, Signature, Terms};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

/// The longest name a download may be given.
const FILENAME_BYTES_MAX: usize = 255;

/// Makes a URL that needs no credentials, for one method on one file.
#[utoipa::path(
    post, path = "/v1/sign", tag = "access", request_body = SignUrl,
    responses(
        (status = 200, body = SignedUrl), (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn sign(mut call: Call) -> Result<Response> {
    let wished: SignUrl = call.json().await?;
    let place = file_of(&wished.path)?;
    let method = match wished.method.as_str() {
        "GET" => FileMethod::Get(authorize::<ReadFile>(&call.principal, place.clone())?),
        "HEAD" => FileMethod::Head(authorize::<ReadFile>(&call.principal, place.clone())?),
        "PUT" => FileMethod::Put(authorize::<WriteFile>(&call.principal, place.clone())?),
        _ => return Err(Error::new(Code::InvalidRequest, "method is one of GET, HEAD and PUT.")),
    };
    let path = files::path_of(&place.bucket, &place.key);
    call.about(&place);
    let share = authorize::<ShareFile>(&call.principal, place)?;
    let terms = Terms {
        expires_in: wished.expires_in.map(Duration::from_secs),
        ip: wished.ip.as_deref().map(address_range).transpose()?,
        filename: wished.filename.map(check_filename).transpose()?,
        rate_limit: wished.rate_limit.map(check_rate).transpose()?,
    };
    let signature = call.app.service.access.sign_file(&share, &method, &path, terms)?;
    let signed = SignedUrl {
        url: url(&call, &path, &signature),
        method: wished.method,
        expires_at: signature.expires_at.to_string(),
    };
    Ok(render::json(StatusCode::OK, &signed))
}

/// The file that a path names, written as in a URL.
fn file_of(path: &str) -> Result<FileRef> {
    let wrong = || {
        let detail = "path is that of a file, /v1/files/BUCKET/KEY, as in a URL and without a query.";
        Error::new(Code::InvalidRequest, detail)
    };
    let rest = path.strip_prefix("/v1/files/").filter(|rest| !rest.contains(['?', '#'])).ok_or_else(wrong)?;
    let (bucket, key) = rest.split_once('/').ok_or_else(wrong)?;
    let key = percent_decode_str(key).decode_utf8().map_err(|_| wrong())?;
    Ok(FileRef { bucket: BucketName::parse(bucket)?, key: Key::parse(&key)? })
}

/// A range of addresses in a JSON body.
pub(crate) fn address_range(text: &str) -> Result<AddressRange> {
    AddressRange::parse(text).ok_or_else(|| {
        Error::new(Code::InvalidRequest, "ip is an address, or a range of addresses such as 10.0.0.0/8.")
    })
}

/// A rate in a JSON body.
pub(crate) fn check_rate(rate: u64) -> Result<NonZeroU64> {
    let detail = || format!("rate_limit is a number of bytes per second, at least {RATE_MIN}, or absent.");
    NonZeroU64::new(rate)
        .filter(|rate| (RATE_MIN..=i64::MAX as u64).contains(&rate.get()))
        .ok_or_else(|| Error::new(Code::InvalidRequest, detail()))
}

/// A name to save a download under.
pub(crate) fn check_filename(name: String) -> Result<String> {
    if !name.is_empty() && name.len() <= FILENAME_BYTES_MAX && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    Err(Error::new(
        Code::InvalidRequest,
        format!("filename has 1 to {FILENAME_BYTES_MAX} bytes and no control character."),
    ))
}

fn url(call: &Call, path: &str, signature: &Signature) -> String {
    format!("{}{path}?{SIGNATURE}={}", call.base_url(), signature.sealed)
}

/// Makes a URL for one part that needs no credentials.
#[utoipa::path(
    get, path = "/v1/uploads/{id}/parts/{number}/url", tag = "uploads",
    params(
        ("id" = String, Path), ("number" = u64, Path, description = "From 1."),
        ("expires_in" = Option<u64>, Query, description = "Seconds for which it is good, 1 to 604800; 900 when absent."),
    ),
    responses(
        (status = 200, body = PartUrl), (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem),
        (status = 409, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn part_url(call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let (id, number) = (call.upload_id()?, call.part_number()?);
    let expires_in = match call.query("expires_in") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Error::new(Code::InvalidRequest, "expires_in is a number of seconds, such as 900.")
        })?),
    };
    let plan = call.app.service.uploads.open_parts(&grant, id).await?;
    let signed = signed_part(&call, &grant, (id, plan), number, expires_in)?;
    Ok(render::json(StatusCode::OK, &signed))
}

/// Makes URLs for many parts.
#[utoipa::path(
    post, path = "/v1/uploads/{id}/part-urls", tag = "uploads", params(("id" = String, Path)), request_body = SignParts,
    responses(
        (status = 200, body = PartUrls), (status = 400, body = carrack_api::Problem), (status = 404, body = carrack_api::Problem),
        (status = 409, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn part_urls(mut call: Call) -> Result<Response> {
    let grant = authorize::<UseUploads>(&call.principal, ())?;
    let id = call.upload_id()?;
    let wished: SignParts = call.json().await?;
    let plan = call.app.service.uploads.open_parts(&grant, id).await?;
    let numbers = parse_ranges(&wished.parts, plan.count())?;
    let one = |number| signed_part(&call, &grant, (id, plan), number, wished.expires_in);
    let urls = numbers.into_iter().map(one).collect::<Result<_>>()?;
    Ok(render::json(StatusCode::OK, &PartUrls { urls }))
}

fn signed_part(
    call: &Call,
    grant: &Grant<UseUploads>,
    (id, plan): (UploadId, PartPlan),
    number: u64,
    expires_in: Option<u64>,
) -> Result<PartUrl> {
    let (_, size) = plan.extent(number)?;
    let path = format!("/v1/uploads/{id}/parts/{number}");
    let signature = call.app.service.access.sign_part(grant, &path, expires_in.map(Duration::from_secs))?;
    Ok(PartUrl {
        part: number,
        size,
        url: url(call, &path, &signature),
        method: "PUT".to_owned(),
        headers: BTreeMap::new(),
        expires_at: signature.expires_at.to_string(),
    })
}
