//! `/v1/archives`: archives that keep their promise until they expire.

use crate::call::Call;
use crate::compress;
use crate::render::{self, Response};
use crate::zip;
use carrack_api::{
    Archive, ArchiveEntry, ArchiveError, ArchiveList, ArchiveProgress, CreateArchive, RenamedEntry,
};
use carrack_domain::access::{ArchiveFile, ArchivePrefix, FileRef, PrefixRef, UseArchives, authorize};
use carrack_domain::archive::{self, Compression};
use carrack_domain::job::{JobState, JobWish, Progress};
use carrack_domain::{ArchiveId, BucketName, Code, Error, Grant, Key, KeyPrefix, Result, Timestamp};
use carrack_service::archive::{Entry, NewArchive, Selection};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use std::collections::BTreeSet;
use std::time::Duration;

/// The largest selection that is read: some hundred thousand keys. Folders have prefixes.
const SELECTION_BYTES_MAX: usize = 16 << 20;
/// Archives on a page, unless fewer are wished for.
const PAGE: usize = 100;

/// Makes an archive of a selection as it is now. Files that are replaced or deleted later change nothing in it.
#[utoipa::path(
    post, path = "/v1/archives", tag = "archives", request_body = CreateArchive,
    responses(
        (status = 201, description = "It is completed.", body = Archive), (status = 202, description = "It is being made.", body = Archive),
        (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem),
        (status = 404, body = carrack_api::Problem), (status = 413, body = carrack_api::Problem),
        (status = 422, body = carrack_api::Problem), (status = 507, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn create(mut call: Call) -> Result<Response> {
    let grant = authorize::<UseArchives>(&call.principal, ())?;
    let wished: CreateArchive = call.json_up_to(SELECTION_BYTES_MAX).await?;
    if let Some(format) = wished.format.as_deref().filter(|format| *format != "zip") {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("Format '{}' is not offered: use zip, or leave it out.", format.escape_default()),
        ));
    }
    let compression = wished.compression.as_deref().map_or(Ok(Compression::Store), Compression::parse)?;
    let new = NewArchive {
        name: name(&wished),
        life: wished.expires_in.map(Duration::from_secs),
        compression,
        selection: selection(&call, wished)?,
    };
    let archive = call.app.service.archives.create(&grant, new).await?;
    let ready = archive.state == JobState::Completed;
    let status = if ready { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let mut response = render::json(status, &shown(&call, archive.clone()));
    if let Ok(value) = HeaderValue::try_from(format!("{}/v1/archives/{}", call.base_url(), archive.id)) {
        response.headers_mut().insert(LOCATION, value);
    }
    Ok(response)
}

/// What the client wishes, else the prefix's last folder, else the bucket.
fn name(wished: &CreateArchive) -> String {
    let prefix = wished.prefix.as_deref().unwrap_or("");
    zip::name(wished.name.as_deref(), prefix, wished.bucket.as_deref().unwrap_or("archive"))
}

fn selection(call: &Call, wished: CreateArchive) -> Result<Selection> {
    let bucket = wished.bucket.as_deref().map(BucketName::parse).transpose()?;
    let needed =
        || Error::new(Code::InvalidRequest, "Name the bucket: in 'bucket', or with each of the entries.");
    let ways = [wished.prefix.is_some(), wished.keys.is_some(), wished.entries.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Error::new(Code::InvalidRequest, "Select by one of prefix, keys and entries."));
    }
    if let Some(entries) = wished.entries {
        let entry = |ArchiveEntry { key, bucket: own, name }: ArchiveEntry| {
            let own = own.as_deref().map(BucketName::parse).transpose()?;
            let bucket = own.or_else(|| bucket.clone()).ok_or_else(needed)?;
            if name.as_deref() == Some("") {
                return Err(Error::new(
                    Code::InvalidRequest,
                    "An entry's name is empty: leave it out to get the key.",
                ));
            }
            let file = FileRef { bucket, key: Key::parse(&key)? };
            Ok(Entry { grant: authorize::<ArchiveFile>(&call.principal, file)?, name })
        };
        return Ok(Selection::Entries(entries.into_iter().map(entry).collect::<Result<_>>()?));
    }
    let bucket = bucket.ok_or_else(needed)?;
    if let Some(keys) = wished.keys {
        let mut seen = BTreeSet::new();
        let mut grants = Vec::with_capacity(keys.len());
        for key in &keys {
            let key = Key::parse(key)?;
            if seen.insert(key.clone()) {
                let file = FileRef { bucket: bucket.clone(), key };
                grants.push(authorize::<ArchiveFile>(&call.principal, file)?);
            }
        }
        return Ok(Selection::Files(grants));
    }
    let prefix = KeyPrefix::parse(wished.prefix.as_deref().unwrap_or(""))?;
    let place = PrefixRef { bucket, prefix };
    Ok(Selection::Prefix(authorize::<ArchivePrefix>(&call.principal, place)?))
}

fn mine(call: &Call) -> Result<Grant<UseArchives>> {
    authorize::<UseArchives>(&call.principal, ())
}

/// The caller's archives.
#[utoipa::path(
    get, path = "/v1/archives", tag = "archives",
    params(("limit" = Option<u64>, Query, description = "At most so many, 1 to 100."), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ArchiveList), (status = 400, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = mine(&call)?;
    let limit = match call.query("limit") {
        None => PAGE,
        Some(text) => text.parse().ok().filter(|limit| (1..=PAGE).contains(limit)).ok_or_else(|| {
            Error::new(Code::InvalidRequest, format!("limit is a number from 1 to {PAGE}."))
        })?,
    };
    let after = call.query("cursor").map(parse_cursor).transpose()?;
    let mut archives = call.app.service.archives.list(&grant, after, limit + 1).await?;
    let more = archives.len() > limit;
    archives.truncate(limit);
    let last = archives.last().filter(|_| more);
    let next_cursor =
        last.map(|last| crate::call::cursor(&format!("{} {}", last.created_at.as_millis(), last.id)));
    let archives = archives.into_iter().map(|archive| shown(&call, archive)).collect();
    compress::fresh(&call.headers, render::json(StatusCode::OK, &ArchiveList { archives, next_cursor })).await
}

fn parse_cursor(text: &str) -> Result<(Timestamp, ArchiveId)> {
    let text = crate::call::parse_cursor(text)?;
    let parsed = text
        .split_once(' ')
        .and_then(|(time, id)| Some((Timestamp::from_millis(time.parse().ok()?), ArchiveId::parse(id)?)));
    parsed.ok_or_else(|| {
        Error::new(Code::InvalidRequest, "This cursor is none: pass 'next_cursor' of the page before.")
    })
}

/// Where an archive stands.
#[utoipa::path(
    get, path = "/v1/archives/{id}", tag = "archives", params(("id" = String, Path)),
    responses((status = 200, body = Archive), (status = 404, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn get(call: Call) -> Result<Response> {
    let archive = call.app.service.archives.get(&mine(&call)?, call.archive_id()?).await?;
    Ok(render::json(StatusCode::OK, &shown(&call, archive)))
}

/// Lets an archive's job rest; what is done is kept.
#[utoipa::path(
    post, path = "/v1/archives/{id}/pause", tag = "archives", params(("id" = String, Path)),
    responses((status = 200, body = Archive), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn pause(call: Call) -> Result<Response> {
    wish(call, JobWish::Pause).await
}

/// Lets it go on.
#[utoipa::path(
    post, path = "/v1/archives/{id}/resume", tag = "archives", params(("id" = String, Path)),
    responses((status = 200, body = Archive), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn resume(call: Call) -> Result<Response> {
    wish(call, JobWish::Resume).await
}

/// Stops it for good; the archive stays to be looked at until it expires or is deleted.
#[utoipa::path(
    post, path = "/v1/archives/{id}/cancel", tag = "archives", params(("id" = String, Path)),
    responses((status = 200, body = Archive), (status = 404, body = carrack_api::Problem), (status = 409, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn cancel(call: Call) -> Result<Response> {
    wish(call, JobWish::Cancel).await
}

async fn wish(call: Call, wish: JobWish) -> Result<Response> {
    let archive = call.app.service.archives.wish(&mine(&call)?, call.archive_id()?, wish).await?;
    Ok(render::json(StatusCode::OK, &shown(&call, archive)))
}

/// Deletes an archive; downloads under way go on to their end.
#[utoipa::path(
    delete, path = "/v1/archives/{id}", tag = "archives", params(("id" = String, Path)),
    responses((status = 204, description = "It is gone."), (status = 404, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn delete(call: Call) -> Result<Response> {
    call.app.service.archives.delete(&mine(&call)?, call.archive_id()?).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

/// The ZIP, like any file: a length, a strong ETag, ranges. The same bytes until it expires.
#[utoipa::path(
    get, path = "/v1/archives/{id}/content", tag = "archives",
    params(
        ("id" = String, Path),
        ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "The archive.", content_type = "application/zip"), (status = 206, description = "The ranges."),
        (status = 304, description = "The client has it."), (status = 404, body = carrack_api::Problem),
        (status = 409, body = carrack_api::Problem), (status = 412, body = carrack_api::Problem), (status = 416, body = carrack_api::Problem),
    ),
    security(("bearer" = []))
)]
pub(crate) async fn content(call: Call) -> Result<Response> {
    let (grant, id) = (mine(&call)?, call.archive_id()?);
    let archives = &call.app.service.archives;
    let outgoing = archives.content(&grant, id, call.form).await?;
    let name = archives.get(&grant, id).await?.file_name();
    zip::send(&call, &name, outgoing)
}

/// The same as GET without the content.
#[utoipa::path(
    head, path = "/v1/archives/{id}/content", tag = "archives", params(("id" = String, Path)),
    responses((status = 200, description = "The head that GET would have.")), security(("bearer" = []))
)]
#[expect(dead_code, reason = "documents what `content` serves")]
fn head() {}

/// An archive's progress as it is told.
pub(crate) fn progress(archive: &archive::Archive, progress: Progress) -> ArchiveProgress {
    ArchiveProgress {
        entries_done: progress.entries.min(archive.entries),
        entries_total: archive.entries,
        bytes_done: progress.bytes.min(archive.bytes),
        bytes_total: archive.bytes,
    }
}

/// An archive as it is shown.
pub(crate) fn shown(call: &Call, archive: archive::Archive) -> Archive {
    render_archive(&call.base_url(), archive)
}

/// The same, for who has no call at hand.
pub(crate) fn render_archive(base_url: &str, archive: archive::Archive) -> Archive {
    let progress = progress(&archive, archive.progress);
    Archive {
        id: archive.id.to_string(),
        name: archive.name,
        format: "zip".to_owned(),
        compression: archive.compression.as_str().to_owned(),
        state: archive.state.to_string(),
        progress,
        size: archive.content.as_ref().map(|content| content.size),
        etag: archive.content.map(|content| format!("\"{}\"", content.etag)),
        error: archive.failure.map(|failure| ArchiveError {
            code: failure.code,
            detail: failure.detail,
            entry: failure.entry,
        }),
        renamed: archive
            .renamed
            .into_iter()
            .map(|renamed| RenamedEntry { key: renamed.key, name: renamed.name })
            .collect(),
        renamed_total: archive.renamed_total,
        created_at: archive.created_at.to_string(),
        expires_at: archive.expires_at.to_string(),
        content_url: format!("{base_url}/v1/archives/{}/content", archive.id),
    }
}
