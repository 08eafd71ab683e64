//! Uploads that join partial uploads.

use super::buckets;
use super::error::Done;
use super::rows::{self, bytes};
use super::session::{Session, params};
use super::uploads::{self, parts_missing};
use crate::common::uploads::not_joinable;
use crate::common::values::JOINED;
use crate::{Finish, Partial};
use carrack_domain::upload::{Upload, UploadState};
use carrack_domain::{BlobId, Error, UploadId};
use std::collections::HashSet;

pub(super) async fn create(session: &Session, upload: &Upload, partials: &[UploadId]) -> Done<UploadId> {
    if let Some(present) = same(session, upload, partials).await? {
        return Ok(present);
    }
    let mut seen = HashSet::new();
    for partial in partials.iter().filter(|partial| seen.insert(**partial)) {
        let found = uploads::maybe(session, partial).await?;
        let joined = joined_of(session, partial).await?.is_some();
        not_joinable(upload, partial, found.as_ref(), joined)?;
    }
    uploads::create(session, upload).await?;
    for (position, partial) in partials.iter().enumerate() {
        let sql = "INSERT INTO member (joined_id, position, partial_id) VALUES ($1, $2, $3)";
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let values = params![bytes(upload.id.as_bytes()), position, bytes(partial.as_bytes())];
        session.execute(sql, values).await?;
    }
    Ok(upload.id)
}

/// The upload that joins these already, into the same target. A partial upload is in one list at most, so the first
/// leads to it.
async fn same(session: &Session, upload: &Upload, partials: &[UploadId]) -> Done<Option<UploadId>> {
    let Some(first) = partials.first() else { return Ok(None) };
    let Some(joined) = joined_of(session, first).await? else { return Ok(None) };
    let present = uploads::find(session, &joined).await?;
    let same = present.owner == upload.owner
        && present.target == upload.target
        && members(session, &joined).await? == partials;
    Ok(same.then_some(joined))
}

async fn members(session: &Session, joined: &UploadId) -> Done<Vec<UploadId>> {
    let sql = "SELECT partial_id FROM member WHERE joined_id = $1 ORDER BY position";
    let found = session.rows(sql, params![bytes(joined.as_bytes())]).await?;
    found.iter().map(|row| rows::upload_id(row, 0)).collect()
}

pub(super) async fn joined_of(session: &Session, partial: &UploadId) -> Done<Option<UploadId>> {
    let sql = "SELECT joined_id FROM member WHERE partial_id = $1 LIMIT 1";
    let row = session.row(sql, params![bytes(partial.as_bytes())]).await?;
    row.map(|row| rows::upload_id(&row, 0)).transpose()
}

/// From one snapshot.
pub(super) async fn partials(session: &Session, joined: &UploadId) -> Done<Vec<Partial>> {
    session.begin_reading().await?;
    let partials = listed(session, joined).await?;
    session.end_reading().await?;
    Ok(partials)
}

async fn listed(session: &Session, joined: &UploadId) -> Done<Vec<Partial>> {
    let mut partials = Vec::new();
    for id in members(session, joined).await? {
        if let Some(upload) = uploads::maybe(session, &id).await? {
            partials.push(Partial { upload, stored: uploads::extent(session, &id, 0).await? });
        }
    }
    Ok(partials)
}

pub(super) async fn begin(
    session: &Session,
    id: &UploadId,
    blob: BlobId,
    pieces: &[(UploadId, BlobId)],
) -> Done<Finish> {
    let standing = uploads::standing(session, id).await?;
    if let Some(finish) = standing.finish {
        return Ok(finish);
    }
    if standing.shape != JOINED {
        return Err(Error::broken(format!("upload {id} joins no others")).into());
    }
    let partials = listed(session, id).await?;
    let whole = |partial: &Partial| partial.is_whole() && partial.upload.state == UploadState::Open;
    if partials.len() != members(session, id).await?.len() || !partials.iter().all(whole) {
        return Err(parts_missing().into());
    }
    let size = partials.iter().filter_map(|partial| partial.upload.length()).sum();
    let target = uploads::find(session, id).await?.target;
    let held = uploads::of_partials(session, id).await?;
    let here = held.iter().filter(|held| held.bucket == target.bucket.as_str());
    let freed = here.map(|held| held.size).sum();
    buckets::check_quota(session, &target.bucket, &target.key, size, freed).await?;
    for partial in &partials {
        let named = pieces.iter().find(|(upload, _)| *upload == partial.upload.id);
        let (_, piece) =
            named.ok_or_else(|| Error::broken("a partial upload without a name for its bytes"))?;
        uploads::set_finishing(session, &partial.upload.id, *piece).await?;
    }
    uploads::set_finishing(session, id, blob).await?;
    Ok(Finish::Begun)
}
