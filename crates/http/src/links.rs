//! Links: `/v1/links` for those who make them, `/d/...` for those who have one.

mod page;

use crate::call::Call;
use crate::render::{self, Response};
use crate::rope::{self, Answer, Outgoing};
use crate::{compress, credentials, disposition, sign, zip};
use carrack_api::{CreateLink, LinkList};
use carrack_domain::access::{FileRef, ReadFile, ShareFile, UseArchives, UseLinks, authorize};
use carrack_domain::link::{Link, Target};
use carrack_domain::{
    ArchiveId, BucketName, ClaimId, Code, Error, Identity, Key, LinkId, Result, Rope, Timestamp,
};
use carrack_service::archive::Archive;
use carrack_service::download::{Kind, OpenFile, Reader, Transfer};
use carrack_service::limit::{LinkRate, Traffic, Unit, Who};
use carrack_service::link::{Content, EXPIRES_MAX, NewLink, PASSWORD_BYTES_MAX, UNLOCKED, Use};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, LOCATION, RANGE, REFERRER_POLICY, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// The cookie that shows that a link's password was given; its path says which.
const UNLOCKED_COOKIE: &str = "carrack_link";
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// Makes a link to a file's present content, or to a completed archive, with which it ends.
#[utoipa::path(
    post, path = "/v1/links", tag = "links", request_body = CreateLink,
    responses(
        (status = 201, body = carrack_api::Link), (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem),
        (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn create(mut call: Call) -> Result<Response> {
    let wished: CreateLink = call.json().await?;
    let links = &call.app.service.links;
    let link = match target(&wished)? {
        Wished::File(place) => {
            call.about(&place);
            let read = authorize::<ReadFile>(&call.principal, place.clone())?;
            let share = authorize::<ShareFile>(&call.principal, place)?;
            links.create(&read, &share, new_link(wished)?).await?
        }
        Wished::Archive(id) => {
            let archives = authorize::<UseArchives>(&call.principal, ())?;
            let share = authorize::<UseLinks>(&call.principal, ())?;
            links.create_to_archive(&archives, &share, id, new_link(wished)?).await?
        }
    };
    Ok(render::json(StatusCode::CREATED, &render_link(&call, &link)?))
}

/// What a link is wished to.
enum Wished {
    File(FileRef),
    Archive(ArchiveId),
}

fn target(wished: &CreateLink) -> Result<Wished> {
    match (&wished.bucket, &wished.key, &wished.archive) {
        (Some(bucket), Some(key), None) => {
            Ok(Wished::File(FileRef { bucket: BucketName::parse(bucket)?, key: Key::parse(key)? }))
        }
        (None, None, Some(id)) => {
            let id = ArchiveId::parse(id);
            Ok(Wished::Archive(
                id.ok_or_else(|| Error::new(Code::ArchiveNotFound, "There is no such archive."))?,
            ))
        }
        _ => Err(Error::new(
            Code::InvalidRequest,
            "A link is to a file, by bucket and key, or to an archive, by archive: name one of them.",
        )),
    }
}

fn new_link(wished: CreateLink) -> Result<NewLink> {
    let wrong = |detail: String| Error::new(Code::InvalidRequest, detail);
    let expires_in = Duration::from_secs(wished.expires_in);
    if expires_in.is_zero() || expires_in > EXPIRES_MAX {
        return Err(wrong(format!("expires_in is a number of seconds from 1 to {}.", EXPIRES_MAX.as_secs())));
    }
    if wished.max_downloads == Some(0) || wished.max_downloads > Some(i64::MAX as u64) {
        return Err(wrong("max_downloads is a number from 1 on, or absent.".to_owned()));
    }
    let begins = |text: &String| {
        Timestamp::parse(text)
            .ok_or_else(|| wrong("not_before is a time such as 2026-11-21T18:00:00Z.".to_owned()))
    };
    if wished.password.as_ref().is_some_and(|text| text.is_empty() || text.len() > PASSWORD_BYTES_MAX) {
        return Err(wrong(format!("password has 1 to {PASSWORD_BYTES_MAX} bytes, or is absent.")));
    }
    Ok(NewLink {
        expires_in,
        max_downloads: wished.max_downloads,
        not_before: wished.not_before.as_ref().map(begins).transpose()?,
        ip: wished.ip.as_deref().map(sign::address_range).transpose()?,
        password: wished.password,
        filename: wished.filename.map(sign::check_filename).transpose()?,
        rate_limit: wished.rate_limit.map(sign::check_rate).transpose()?,
    })
}

fn render_link(call: &Call, link: &Link) -> Result<carrack_api::Link> {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let (file, archive) = match &link.target {
        Target::File(file) => (Some(file), None),
        Target::Archive(archive) => (None, Some(archive)),
    };
    Ok(carrack_api::Link {
        id: link.id.to_string(),
        url: format!("{}/d/{}", call.base_url(), call.app.service.links.token(link)?),
        bucket: file.map(|file| file.bucket.to_string()),
        key: file.map(|file| file.key.to_string()),
        archive: archive.map(|archive| archive.id.to_string()),
        size: link.target.size(),
        etag: link.target.etag().to_string(),
        expires_at: link.expires_at.to_string(),
        not_before: time(link.not_before),
        max_downloads: link.max_downloads,
        uses: link.uses,
        last_used_at: time(link.last_used_at),
        ip: link.ip.map(String::from),
        password: link.password.is_some(),
        filename: link.filename.clone(),
        rate_limit: link.rate_limit.map(NonZeroU64::get),
        created_at: link.created_at.to_string(),
        created_by: link.owner.clone(),
        revoked_at: time(link.revoked_at),
    })
}

/// The caller's links.
#[utoipa::path(
    get, path = "/v1/links", tag = "links", responses((status = 200, body = LinkList)), security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<UseLinks>(&call.principal, ())?;
    let links = call.app.service.links.list(&grant).await?;
    let links = links.iter().map(|link| render_link(&call, link)).collect::<Result<_>>()?;
    compress::fresh(&call.headers, render::json(StatusCode::OK, &LinkList { links })).await
}

/// A link of the caller, with its uses so far.
#[utoipa::path(
    get, path = "/v1/links/{id}", tag = "links", params(("id" = String, Path)),
    responses((status = 200, body = carrack_api::Link), (status = 404, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let grant = authorize::<UseLinks>(&call.principal, ())?;
    let link = call.app.service.links.get(&grant, link_id(&call)?).await?;
    Ok(render::json(StatusCode::OK, &render_link(&call, &link)?))
}

/// Revokes a link, at once.
#[utoipa::path(
    delete, path = "/v1/links/{id}", tag = "links", params(("id" = String, Path)),
    responses((status = 204, description = "It leads nowhere from now on."), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn revoke(call: Call) -> Result<Response> {
    let grant = authorize::<UseLinks>(&call.principal, ())?;
    call.app.service.links.revoke(&grant, link_id(&call)?).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

fn link_id(call: &Call) -> Result<LinkId> {
    LinkId::parse(call.id())
        .ok_or_else(|| Error::new(Code::LinkNotFound, "There is no such link (any more)."))
}

/// A link. One that is not counted answers with the content. Of a counted one, a GET takes one use and is sent on to a URL
/// of its own, on which the download may be resumed; a browser is shown a page with a button first (`dl=1` skips it).
#[utoipa::path(
    get, path = "/d/{token}", tag = "links",
    params(("token" = String, Path), ("dl" = Option<String>, Query, description = "Present: no page.")),
    responses(
        (status = 200, description = "The content, or a page."), (status = 206, description = "A range of it."),
        (status = 307, description = "A use was taken; it is at `Location`."), (status = 403, body = carrack_api::Problem),
        (status = 410, body = carrack_api::Problem),
    )
)]
pub(crate) async fn open(call: Call) -> Result<Response> {
    let links = &call.app.service.links;
    let here = *call.principal.circumstances();
    let link = links.open(call.token(), &here).await?;
    call.came_by(&link);
    let browser = call.method == Method::GET && wants_page(&call);
    if let Err(locked) =
        links.check_unlocked(&link, credentials::cookie(&call.headers, UNLOCKED_COOKIE), &here)
    {
        links.check_uses(&link, &here)?;
        return if browser { Ok(page::ask(&link, false)) } else { Err(locked) };
    }
    let continued = continues(&call);
    if link.max_downloads.is_none() {
        links.check_time(&link, &here)?;
        let opened = links.content(&link, call.form, &here).await?;
        if call.method == Method::GET && !continued {
            links.note_use(&link, &here).await?;
        }
        return content(&call, &link, opened, None);
    }
    if call.method == Method::HEAD {
        links.check_uses(&link, &here)?;
        let opened = links.content(&link, call.form, &here).await?;
        return content(&call, &link, opened, None);
    }
    if continued && let Some(claim) = links.unfinished(&link, &here).await? {
        return sent_on(&call, StatusCode::TEMPORARY_REDIRECT, claim);
    }
    links.check_uses(&link, &here)?;
    // Asked for before a use is taken for nothing.
    drop(links.content(&link, call.form, &here).await?);
    if browser {
        return Ok(page::offer(&link));
    }
    let claim = links.claim(&link, &here).await?;
    sent_on(&call, StatusCode::TEMPORARY_REDIRECT, claim)
}

/// What the page of a link sends: the password, or the wish to download.
#[utoipa::path(
    post, path = "/d/{token}", tag = "links", params(("token" = String, Path)),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`password=...`, or nothing."),
    responses(
        (status = 303, description = "With a cookie that shows that the password was given, or to the use that was taken."),
        (status = 403, body = carrack_api::Problem), (status = 410, body = carrack_api::Problem),
    )
)]
pub(crate) async fn answer(mut call: Call) -> Result<Response> {
    let here = *call.principal.circumstances();
    let form = call.form().await?;
    let links = &call.app.service.links;
    let link = links.open(call.token(), &here).await?;
    call.came_by(&link);
    links.check_uses(&link, &here)?;
    let password = form.into_iter().find_map(|(name, value)| (name == "password").then_some(value));
    if let Some(password) = password.filter(|_| link.password.is_some()) {
        call.app.service.limiter.guess(link.id, here.address).await?;
        return match links.check_password(&link, password).await {
            Ok(()) => unlocked(&call, &links.unlock(&link, &here)?),
            Err(error) if error.code() == Code::WrongPassword && wants_page(&call) => {
                Ok(page::ask(&link, true))
            }
            Err(error) => Err(error),
        };
    }
    links.check_unlocked(&link, credentials::cookie(&call.headers, UNLOCKED_COOKIE), &here)?;
    drop(links.content(&link, call.form, &here).await?);
    if link.max_downloads.is_none() {
        return redirect(StatusCode::SEE_OTHER, &format!("/d/{}?dl=1", call.token()));
    }
    let claim = links.claim(&link, &here).await?;
    sent_on(&call, StatusCode::SEE_OTHER, claim)
}

/// One use of a counted link: whole, in ranges, over many connections, again after a cut, until all of it was delivered.
#[utoipa::path(
    get, path = "/d/{token}/c/{claim}", tag = "links", params(("token" = String, Path), ("claim" = String, Path)),
    responses(
        (status = 200, description = "The content."), (status = 206, description = "A range of it."),
        (status = 403, body = carrack_api::Problem), (status = 410, body = carrack_api::Problem),
    )
)]
pub(crate) async fn use_claim(mut call: Call) -> Result<Response> {
    let here = *call.principal.circumstances();
    // Several ranges in one answer would have to be told apart when they are counted; a server may send the whole
    // instead (RFC 9110 §14.2).
    if call.headers.get(RANGE).is_some_and(|range| range.as_bytes().contains(&b',')) {
        call.headers.remove(RANGE);
    }
    let links = &call.app.service.links;
    let link = links.open(call.token(), &here).await?;
    call.came_by(&link);
    let begun = links.begin(&link, call.claim(), &here).await?;
    let opened = links.content(&link, call.form, &here).await?;
    content(&call, &link, opened, Some(begun))
}

/// What a link is to, whatever that is.
struct Opened {
    rope: Rope,
    reader: Box<dyn Reader>,
    hold: Option<Arc<dyn Send + Sync>>,
    content_type: String,
    kind: Kind,
    headers: HeaderMap,
}

impl Opened {
    fn of(call: &Call, content: Content) -> Result<Opened> {
        match content {
            Content::File(OpenFile { file, rope, reader, hold }) => {
                let headers = call.app.representations.of(&file, &rope)?;
                let content_type = file.content_type.clone();
                Ok(Opened { rope, reader, hold, content_type, kind: Kind::Full, headers })
            }
            Content::Archive(Archive { rope, reader, hold }) => {
                let headers = zip::headers(&rope)?;
                let content_type = zip::CONTENT_TYPE.to_owned();
                Ok(Opened { rope, reader, hold: Some(hold), content_type, kind: Kind::Zip, headers })
            }
        }
    }
}

/// The content, counted as part of a use if it is one.
fn content(call: &Call, link: &Link, opened: Content, begun: Option<Use>) -> Result<Response> {
    let Opened { rope, reader, hold, content_type, kind, mut headers } = Opened::of(call, opened)?;
    let name = link.filename.as_deref().unwrap_or(link.target.file_name());
    headers.insert(CONTENT_DISPOSITION, disposition::header(true, name));
    let out = Outgoing { rope: &rope, content_type: &content_type, kind, headers };
    let mut response = match (rope::answer(call, out)?, begun) {
        (Answer::Head(response), _) => response,
        (Answer::Content(response, slice, kind), begun) => {
            let length = slice.len();
            let traffic = traffic(call, link, begun.as_ref())?;
            let watched = call.app.service.transfers.begin(&link.owner, kind, length, || name.to_owned());
            let mut transfer = Transfer::new(traffic, slice, reader, call.form, kind, hold).watched(watched);
            if let Some(begun) = begun {
                begun.admit(length)?;
                transfer = transfer.counted(begun.deliver(offset(&response)));
            }
            rope::with_transfer(response, transfer, length)
        }
    };
    discreet(&mut response);
    Ok(response)
}

/// The right to send a link's content: counted as a transfer of whoever gets it, and as bytes of whoever made the link.
fn traffic(call: &Call, link: &Link, begun: Option<&Use>) -> Result<Traffic> {
    let receiver = Who::of(&call.principal);
    let address = call.principal.circumstances().address;
    let unit = begun.map_or(Unit::Link(link.id, address), |begun| Unit::Claim(begun.claim()));
    let owner = Who::named(Arc::new(Identity::new(link.owner.clone(), link.role)));
    let rate = link.rate_limit.map(|rate| LinkRate { name: *link.id.as_bytes(), rate });
    call.app.service.limiter.traffic(&receiver, unit, owner, rate, call.peer)
}

/// Where the bytes of an answer begin.
fn offset(response: &Response) -> u64 {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first.unwrap_or(0)
}

/// Whether a request goes on with a download: its range begins past the first byte.
fn continues(call: &Call) -> bool {
    let range = call.header(RANGE.as_str()).and_then(|text| text.strip_prefix("bytes="));
    let first = range.and_then(|text| text.split_once('-')?.0.parse::<u64>().ok());
    first.is_some_and(|first| first > 0)
}

/// Whether a browser's navigation asks, and is to be shown a page.
fn wants_page(call: &Call) -> bool {
    call.query("dl").is_none()
        && call.header(ACCEPT.as_str()).is_some_and(|types| types.contains("text/html"))
}

fn sent_on(call: &Call, status: StatusCode, claim: ClaimId) -> Result<Response> {
    redirect(status, &format!("/d/{}/c/{claim}", call.token()))
}

fn redirect(status: StatusCode, to: &str) -> Result<Response> {
    let mut response = render::empty(status);
    let to = HeaderValue::try_from(to).map_err(|error| Error::internal("make a header", error))?;
    response.headers_mut().insert(LOCATION, to);
    discreet(&mut response);
    Ok(response)
}

fn unlocked(call: &Call, sealed: &str) -> Result<Response> {
    let path = format!("/d/{}", call.token());
    let mut response = redirect(StatusCode::SEE_OTHER, &path)?;
    let secure = if call.principal.circumstances().tls { "; Secure" } else { "" };
    let seconds = UNLOCKED.as_secs();
    let cookie =
        format!("{UNLOCKED_COOKIE}={sealed}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut cookie =
        HeaderValue::try_from(cookie).map_err(|error| Error::internal("make a header", error))?;
    cookie.set_sensitive(true);
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// Whoever has a link may use it: it is neither to be kept on the way, nor told to others, nor found by searching.
fn discreet(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(ROBOTS, HeaderValue::from_static("noindex"));
}
