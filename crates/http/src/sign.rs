//! URLs that need no credentials: `/v1/sign`, and those of an upload's parts.

use crate::call::Call;
use crate::credentials::SIGNATURE;
use crate::render::{self, Response};
use crate::{disposition, files};
use carrack_api::{PartUrl, PartUrls, SignParts, SignUrl, SignedUrl};
use carrack_domain::access::{FileRef, ReadFile, ShareFile, UseUploads, WriteFile, authorize};
use carrack_domain::policy::AddressRange;
use carrack_domain::upload::{PartPlan, parse_ranges, ranges};
use carrack_domain::{BucketName, Code, Error, Grant, Key, Result, UploadId};
use carrack_service::limit::RATE_MIN;
use carrack_service::signed::{FileMethod, Signature, Terms};
use carrack_service::upload::DirectPart;
use carrack_service::{Address, Shown};
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
    if wished.direct
        && let Some(signed) = direct_file(&call, &method, &terms).await?
    {
        return Ok(render::json(StatusCode::OK, &signed));
    }
    let signature = call.app.service.access.sign_file(&share, &method, &path, terms)?;
    let signed = SignedUrl {
        url: url(&call, &path, &signature),
        method: wished.method,
        direct: false,
        expires_at: signature.expires_at.to_string(),
    };
    Ok(render::json(StatusCode::OK, &signed))
}

/// A URL of the storage itself for a file; `None` where its bytes have to pass the server.
async fn direct_file(call: &Call, method: &FileMethod, terms: &Terms) -> Result<Option<SignedUrl>> {
    let FileMethod::Get(grant) = method else { return Err(no_direct()) };
    if terms.ip.is_some() || terms.rate_limit.is_some() {
        return Err(no_direct());
    }
    let (service, identity) = (&call.app.service, call.principal.identity());
    let (good_for, expires_at) = service.access.direct_lifetime(identity, terms.expires_in)?;
    if service.limiter.is_paced(identity.role) {
        return Ok(None);
    }
    let file = service.files.get(grant).await?;
    let name = terms.filename.as_deref().unwrap_or(file.key.file_name());
    let disposition = disposition::header(true, name);
    let shown = Shown {
        content_type: file.content_type.clone(),
        disposition: disposition.to_str().unwrap_or("attachment").to_owned(),
    };
    let Some(address) = service.downloads.address(&file, &shown, good_for) else { return Ok(None) };
    call.handed_out("file.direct", file.blob.size, &format!("good until {expires_at}"));
    Ok(Some(SignedUrl {
        url: address.url,
        method: "GET".to_owned(),
        direct: true,
        expires_at: expires_at.to_string(),
    }))
}

fn no_direct() -> Error {
    let detail = "direct goes with GET, and without ip and rate_limit: nobody could see to those.";
    Error::new(Code::InvalidRequest, detail)
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
        ("crc32" = Option<String>, Query, description = "CRC-32 of the part in hex: where the server allows it, the URL leads to the storage itself, for 900 seconds at most."),
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
    let crc32 = call.query("crc32").map(|text| crc32_of(number, text)).transpose()?;
    let mut urls = signed_parts(&call, &grant, id, vec![(number, crc32)], expires_in).await?;
    let signed = urls.pop().ok_or_else(|| Error::broken("a part without a URL"))?;
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
    let crc32s = wished.crc32.iter().map(|(number, text)| Ok((*number, crc32_of(*number, text)?)));
    let crc32s = crc32s.collect::<Result<BTreeMap<u64, u32>>>()?;
    if let Some(other) = crc32s.keys().find(|number| numbers.binary_search(number).is_err()) {
        let detail =
            format!("crc32 has part {other}, which is not among the parts that URLs are wished for.");
        return Err(Error::new(Code::InvalidRequest, detail));
    }
    let numbers = numbers.into_iter().map(|number| (number, crc32s.get(&number).copied())).collect();
    let urls = signed_parts(&call, &grant, id, numbers, wished.expires_in).await?;
    Ok(render::json(StatusCode::OK, &PartUrls { urls }))
}

fn crc32_of(number: u64, text: &str) -> Result<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| plain).ok_or_else(|| {
        let detail = format!("The crc32 of part {number} is none: it has 8 hexadecimal digits.");
        Error::new(Code::InvalidDigest, detail)
    })
}

/// URLs of parts: of those with a CRC-32 they lead to the storage itself, if it takes them and nothing has to be slowed down.
async fn signed_parts(
    call: &Call,
    grant: &Grant<UseUploads>,
    id: UploadId,
    parts: Vec<(u64, Option<u32>)>,
    expires_in: Option<u64>,
) -> Result<Vec<PartUrl>> {
    let service = &call.app.service;
    let plan = service.uploads.open_parts(grant, id).await?;
    let expires_in = expires_in.map(Duration::from_secs);
    let identity = grant.principal().identity();
    let (good_for, expires_at) = service.access.direct_lifetime(identity, expires_in)?;
    let is_free = !service.limiter.is_paced(identity.role);
    let direct = |(number, crc32): &(u64, Option<u32>)| {
        let (number, crc32) = (*number, crc32.filter(|_| is_free)?);
        Some(DirectPart { number, crc32 })
    };
    let direct: Vec<DirectPart> = parts.iter().filter_map(direct).collect();
    let mut addresses: BTreeMap<u64, Address> = BTreeMap::new();
    if !direct.is_empty() {
        let found = service.uploads.addresses(grant, id, &direct, good_for).await?;
        let found = direct.iter().zip(found).filter_map(|(part, found)| Some((part.number, found?)));
        addresses.extend(found);
    }
    if !addresses.is_empty() {
        let bytes = addresses.keys().filter_map(|number| plan.extent(*number).ok()).map(|(_, len)| len).sum();
        let parts = ranges(addresses.keys().copied());
        call.handed_out("upload.direct", bytes, &format!("parts {parts}, good until {expires_at}"));
    }
    let one = |(number, _)| match addresses.remove(&number) {
        None => signed_part(call, grant, (id, plan), number, expires_in),
        Some(Address { url, headers }) => Ok(PartUrl {
            part: number,
            size: plan.extent(number)?.1,
            url,
            method: "PUT".to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            direct: true,
            expires_at: expires_at.to_string(),
        }),
    };
    parts.into_iter().map(one).collect()
}

fn signed_part(
    call: &Call,
    grant: &Grant<UseUploads>,
    (id, plan): (UploadId, PartPlan),
    number: u64,
    expires_in: Option<Duration>,
) -> Result<PartUrl> {
    let (_, size) = plan.extent(number)?;
    let path = format!("/v1/uploads/{id}/parts/{number}");
    let signature = call.app.service.access.sign_part(grant, &path, expires_in)?;
    Ok(PartUrl {
        part: number,
        size,
        url: url(call, &path, &signature),
        method: "PUT".to_owned(),
        headers: BTreeMap::new(),
        direct: false,
        expires_at: signature.expires_at.to_string(),
    })
}
