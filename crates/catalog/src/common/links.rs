//! Links and their claims as plain values, and why one is refused.

use super::values::{damaged, file_of_text, file_text};
use crate::Outcome;
use carrack_domain::link::{Link, LinkClaim, LinkedArchive, Target};
use carrack_domain::{ArchiveId, Code, ETag, Error, Result, Timestamp};
use serde_json::{Value, json};

/// Why a link has no use to give.
pub(crate) fn refusal(link: &Link, now: Timestamp) -> Error {
    if link.revoked_at.is_some() {
        Error::new(Code::LinkRevoked, "This link was revoked.")
    } else if link.expires_at <= now {
        Error::new(Code::LinkExpired, "This link has expired.")
    } else {
        Error::new(Code::LinkUsed, "This link has been used as often as it may be.")
    }
}

pub(crate) fn target_text(target: &Target) -> String {
    match target {
        Target::File(file) => file_text(file, Outcome::Created),
        Target::Archive(archive) => json!({
            "archive": archive.id.to_string(),
            "name": archive.name,
            "size": archive.size,
            "etag": archive.etag.as_str().trim_matches('"'),
        })
        .to_string(),
    }
}

pub(crate) fn target_of(text: &str) -> Result<Target> {
    let value: Value = serde_json::from_str(text).map_err(|_| damaged("a link"))?;
    if value.get("archive").is_none() {
        return Ok(Target::File(file_of_text(text)?.0));
    }
    let read = || {
        Some(LinkedArchive {
            id: ArchiveId::parse(value["archive"].as_str()?)?,
            name: value["name"].as_str()?.to_owned(),
            size: value["size"].as_u64()?,
            etag: ETag::new(value["etag"].as_str()?)?,
        })
    };
    Ok(Target::Archive(read().ok_or_else(|| damaged("a link"))?))
}

pub(crate) fn covered_text(claim: &LinkClaim) -> Result<String> {
    serde_json::to_string(&claim.covered).map_err(|error| Error::internal("write a claim", error))
}

pub(crate) fn not_found() -> Error {
    Error::new(Code::LinkNotFound, "There is no such link (any more).")
}

pub(crate) fn gone() -> Error {
    Error::new(Code::LinkUsed, "This use of the link is over.")
}
