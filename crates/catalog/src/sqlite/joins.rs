//! Uploads that join partial uploads.

use super::buckets;
use super::error::Done;
use super::rows;
use super::uploads::{self, parts_missing};
use crate::common::uploads::not_joinable;
use crate::{Finish, Partial};
use carrack_domain::upload::{Upload, UploadState};
use carrack_domain::{BlobId, Error, UploadId};
use rusqlite::{Connection, params};
use std::collections::HashSet;

pub(super) fn create(connection: &Connection, upload: &Upload, partials: &[UploadId]) -> Done<UploadId> {
    if let Some(present) = same(connection, upload, partials)? {
        return Ok(present);
    }
    let mut seen = HashSet::new();
    for partial in partials.iter().filter(|partial| seen.insert(**partial)) {
        let found = uploads::query(connection, "id = ?1", [partial.as_bytes()])?.pop();
        let joined = joined_of(connection, partial)?.is_some();
        not_joinable(upload, partial, found.as_ref(), joined)?;
    }
    uploads::create(connection, upload)?;
    let mut statement = connection
        .prepare_cached("INSERT INTO member (joined_id, position, partial_id) VALUES (?1, ?2, ?3)")?;
    for (position, partial) in partials.iter().enumerate() {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        statement.execute(params![upload.id.as_bytes(), position, partial.as_bytes()])?;
    }
    Ok(upload.id)
}

/// The upload that joins these already, into the same target. A partial upload is in one list at most, so the first
/// leads to it.
fn same(connection: &Connection, upload: &Upload, partials: &[UploadId]) -> Done<Option<UploadId>> {
    let Some(first) = partials.first() else { return Ok(None) };
    let Some(joined) = joined_of(connection, first)? else { return Ok(None) };
    let present = uploads::get(connection, &joined)?;
    let same = present.owner == upload.owner
        && present.target == upload.target
        && members(connection, &joined)? == partials;
    Ok(same.then_some(joined))
}

fn members(connection: &Connection, joined: &UploadId) -> Done<Vec<UploadId>> {
    let mut statement =
        connection.prepare_cached("SELECT partial_id FROM member WHERE joined_id = ?1 ORDER BY position")?;
    let mut found = statement.query([joined.as_bytes()])?;
    let mut ids = Vec::new();
    while let Some(row) = found.next()? {
        ids.push(rows::upload_id(row, 0)?);
    }
    Ok(ids)
}

pub(super) fn joined_of(connection: &Connection, partial: &UploadId) -> Done<Option<UploadId>> {
    let mut statement =
        connection.prepare_cached("SELECT joined_id FROM member WHERE partial_id = ?1 LIMIT 1")?;
    let mut found = statement.query([partial.as_bytes()])?;
    found.next()?.map(|row| rows::upload_id(row, 0)).transpose()
}

pub(super) fn partials(connection: &mut Connection, joined: &UploadId) -> Done<Vec<Partial>> {
    let transaction = connection.transaction()?;
    listed(&transaction, joined)
}

fn listed(connection: &Connection, joined: &UploadId) -> Done<Vec<Partial>> {
    let mut partials = Vec::new();
    for id in members(connection, joined)? {
        if let Some(upload) = uploads::query(connection, "id = ?1", [id.as_bytes()])?.pop() {
            partials.push(Partial { upload, stored: uploads::extent(connection, &id, 0)? });
        }
    }
    Ok(partials)
}

pub(super) fn begin(
    connection: &Connection,
    id: &UploadId,
    blob: BlobId,
    pieces: &[(UploadId, BlobId)],
) -> Done<Finish> {
    let standing = uploads::standing(connection, id)?;
    if let Some(finish) = standing.finish {
        return Ok(finish);
    }
    if standing.shape != rows::JOINED {
        return Err(Error::broken(format!("upload {id} joins no others")).into());
    }
    let partials = listed(connection, id)?;
    let whole = |partial: &Partial| partial.is_whole() && partial.upload.state == UploadState::Open;
    if partials.len() != members(connection, id)?.len() || !partials.iter().all(whole) {
        return Err(parts_missing().into());
    }
    let size = partials.iter().filter_map(|partial| partial.upload.length()).sum();
    let target = uploads::get(connection, id)?.target;
    let held = uploads::of_partials(connection, id)?;
    let here = held.iter().filter(|held| held.bucket == target.bucket.as_str());
    let freed = here.map(|held| held.size).sum();
    buckets::check_quota_once_freed(connection, &target.bucket, &target.key, size, freed)?;
    for partial in &partials {
        let named = pieces.iter().find(|(upload, _)| *upload == partial.upload.id);
        let (_, piece) =
            named.ok_or_else(|| Error::broken("a partial upload without a name for its bytes"))?;
        uploads::set_finishing(connection, &partial.upload.id, *piece)?;
    }
    uploads::set_finishing(connection, id, blob)?;
    Ok(Finish::Begun)
}
