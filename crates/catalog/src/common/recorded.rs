//! What the log says of changes.

use super::values;
use crate::{Committed, Origin, Outcome};
use carrack_domain::UploadId;
use carrack_domain::audit::Change;
use carrack_domain::digest::Piece;
use carrack_domain::file::Bucket;
use carrack_domain::id::hex;
use carrack_domain::link::{Link, Target};
use carrack_domain::token::{Carrier, Token};
use carrack_domain::upload::Upload;

pub(crate) fn bucket_put((bucket, outcome): &(Bucket, Outcome)) -> Vec<Change> {
    let settings = &bucket.settings;
    let mut detail = outcome.as_str().to_owned();
    let numbers = [("quota_bytes", settings.quota_bytes), ("retention_seconds", settings.retention_seconds)];
    for (name, number) in numbers {
        detail.extend(number.map(|number| format!(" {name}={number}")));
    }
    let mut change = Change::new("bucket.put").of_bucket(&bucket.name);
    // What is too long for a record is cut off there, so the whole of it is named by its hash.
    if let Some(Ok(policy)) = settings.policy.as_ref().map(values::policy_text) {
        change.version = Some(hex(blake3::hash(policy.as_bytes()).as_bytes()));
        detail.push_str(" policy=");
        detail.push_str(&policy);
    }
    vec![change.detail(detail)]
}

/// The record of a file that is made or replaced, which the upload that brought it goes into.
pub(crate) fn file_put(origin: &Origin) -> impl FnOnce(&Committed) -> Vec<Change> + use<> {
    let upload = match origin {
        Origin::Session(id) => Some(*id),
        Origin::Whole(upload) => Some(upload.id),
        Origin::Request | Origin::Copy(_) => None,
    };
    move |Committed { file, outcome, .. }| {
        let mut change = Change::new("file.put").of_file(&file.bucket, &file.key).bytes(file.blob.size);
        change.version = Some(file.etag().to_string());
        change.place.id = upload.map(|id| id.to_string());
        vec![change.detail(outcome.as_str())]
    }
}

pub(crate) fn upload_create(upload: &Upload) -> Change {
    let change =
        Change::new("upload.create").of(upload.id).of_file(&upload.target.bucket, &upload.target.key);
    Change { bytes: upload.length(), ..change }
}

pub(crate) fn of_bytes(action: &'static str, id: &UploadId, piece: &Piece) -> Change {
    let begins = piece.fragment.end() - piece.len();
    let way = if piece.fragment.is_seen() { "" } else { ", sent to the storage directly" };
    Change::new(action).of(id).bytes(piece.len()).detail(format!("from byte {begins} on{way}"))
}

pub(crate) fn link_create(link: &Link) -> Change {
    let record = Change::new("link.create").of(link.id);
    match &link.target {
        Target::File(file) => record.of_file(&file.bucket, &file.key),
        Target::Archive(archive) => record.detail(format!("archive {}", archive.id)),
    }
}

pub(crate) fn of_token(token: &Token, bearer: &'static str, cookie: &'static str) -> Change {
    let action = match token.carrier {
        Carrier::Bearer => bearer,
        Carrier::Cookie => cookie,
    };
    let identity = &token.identity;
    Change::new(action).of(token.id).detail(format!("{} {}", identity.role.as_str(), identity.subject))
}
