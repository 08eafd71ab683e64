//! Blobs: how many files point at them, and what was learnt of them.

use super::archives;
use super::error::Done;
use super::rows::{self, bytes, count, get};
use super::session::{Session, params};
use crate::ChunkList;
use crate::common::values::{damaged, is_news, pieces_bytes, signed};
use bytes::Bytes;
use carrack_domain::digest::ContentDigest;
use carrack_domain::file::Blob;
use carrack_domain::{BlobId, Error};
use std::collections::{HashMap, HashSet};

/// Counts one more file that points at the blob, and records the blob when it is new. Returns it with all that is
/// known of it. A blob that nothing points at any more is not taken back: its bytes may be going this moment.
pub(super) async fn refer(session: &Session, new: &Blob, content: Option<&Bytes>) -> Done<Blob> {
    let Some((mut blob, files)) = find(session, &new.id).await? else {
        insert(session, new, content).await?;
        return Ok(new.clone());
    };
    if files == 0 {
        return Err(Error::broken(format!("{} is being deleted and cannot be used again", new.id)).into());
    }
    let same = blob.size == new.size
        && blob.digest.crc32 == new.digest.crc32
        && blob.tag() == new.tag()
        && (blob.digest.sha256 == new.digest.sha256
            || blob.digest.sha256.is_none()
            || new.digest.sha256.is_none());
    if !same {
        return Err(Error::broken(format!("{} names other bytes already", new.id)).into());
    }
    let sql = "UPDATE blob SET file_count = file_count + 1 WHERE id = $1";
    session.execute(sql, params![bytes(new.id.as_bytes())]).await?;
    if let (None, Some(sha256)) = (blob.digest.sha256, new.digest.sha256) {
        put_sha256(session, &new.id, sha256).await?;
        blob.digest.sha256 = Some(sha256);
    }
    Ok(blob)
}

async fn insert(session: &Session, new: &Blob, content: Option<&Bytes>) -> Done<()> {
    let ContentDigest { crc32, blake3, sha256 } = new.digest;
    let pieces = new.pieces.as_deref();
    let id = bytes(new.id.as_bytes());
    let sql = "INSERT INTO blob (id, size, crc32, blake3, sha256, file_count, pieces, whole_blake3) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $7)";
    let values = params![
        id,
        signed(new.size)?,
        i64::from(crc32),
        bytes(&blake3),
        sha256.as_ref().map(bytes),
        pieces.map(pieces_bytes),
        pieces.and_then(|pieces| pieces.blake3.as_ref()).map(bytes),
    ];
    session.execute(sql, values).await?;
    if let Some(content) = content {
        if content.len() as u64 != new.size || new.pieces.is_some() {
            let problem = format!("{} bytes are not the content of {}", content.len(), new.id);
            return Err(Error::broken(problem).into());
        }
        let sql = "INSERT INTO content (blob_id, bytes) VALUES ($1, $2)";
        session.execute(sql, params![id, &content[..]]).await?;
    }
    if pieces.is_some() {
        for (run, _) in new.stored() {
            let sql = "INSERT INTO piece (id, blob_id) VALUES ($1, $2)";
            session.execute(sql, params![bytes(run.as_bytes()), id]).await?;
        }
    }
    Ok(())
}

pub(super) async fn contents(session: &Session, ids: &[BlobId]) -> Done<Vec<Option<Bytes>>> {
    let wanted: Vec<&[u8]> = ids.iter().map(|id| bytes(id.as_bytes())).collect();
    let sql = "SELECT blob_id, bytes FROM content WHERE blob_id = ANY ($1)";
    let mut found = HashMap::new();
    for row in session.rows(sql, params![wanted]).await? {
        found.insert(rows::blob_id(&row, 0)?, Bytes::copy_from_slice(get(&row, 1)?));
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// Counts one file less; whether that was the last.
pub(super) async fn release(session: &Session, id: &BlobId) -> Done<bool> {
    let sql = "UPDATE blob SET file_count = file_count - 1 WHERE id = $1 RETURNING file_count = 0";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?;
    get(&row.ok_or_else(|| damaged("a file without its blob"))?, 0)
}

async fn find(session: &Session, id: &BlobId) -> Done<Option<(Blob, i64)>> {
    let sql =
        "SELECT id, size, crc32, blake3, sha256, pieces, whole_blake3, file_count FROM blob WHERE id = $1";
    let row = session.row(sql, params![bytes(id.as_bytes())]).await?;
    row.map(|row| Ok((rows::blob(&row, 0, 5)?, get(&row, 7)?))).transpose()
}

pub(super) async fn known(session: &Session, id: &BlobId) -> Done<Option<Blob>> {
    Ok(find(session, id).await?.map(|(blob, _)| blob))
}

pub(super) async fn unreferenced(session: &Session, skip: &[BlobId], limit: usize) -> Done<Vec<BlobId>> {
    /// Rows looked at in one go.
    const STEP: usize = 256;
    let skip: Vec<&[u8]> = skip.iter().map(|id| bytes(id.as_bytes())).collect();
    let sql = "SELECT id FROM blob WHERE file_count = 0 AND id > $1 AND id <> ALL ($2) ORDER BY id LIMIT $3";
    let (mut ids, mut after) = (Vec::new(), Vec::new());
    while ids.len() < limit {
        let found = session.rows(sql, params![after, skip, count(STEP)]).await?;
        let found = found.iter().map(|row| rows::blob_id(row, 0)).collect::<Done<Vec<_>>>()?;
        let held = archives::held(session, &found).await?;
        ids.extend(found.iter().filter(|id| !held.contains(id)));
        match found.last() {
            Some(last) if found.len() == STEP => after = last.as_bytes().to_vec(),
            _ => break,
        }
    }
    ids.truncate(limit);
    Ok(ids)
}

pub(super) async fn forget(session: &Session, id: &BlobId) -> Done<()> {
    let sql = "DELETE FROM blob WHERE id = $1 AND file_count = 0";
    session.execute(sql, params![bytes(id.as_bytes())]).await?;
    Ok(())
}

pub(super) async fn forget_contents(session: &Session, ids: &[BlobId]) -> Done<Vec<BlobId>> {
    let held = archives::held(session, ids).await?;
    let free: Vec<&[u8]> =
        ids.iter().filter(|id| !held.contains(id)).map(|id| bytes(id.as_bytes())).collect();
    let sql = "DELETE FROM blob WHERE id = ANY ($1) AND file_count = 0 \
         AND EXISTS (SELECT 1 FROM content WHERE blob_id = blob.id) RETURNING id";
    let gone = session.rows(sql, params![free]).await?;
    let gone = gone.iter().map(|row| rows::blob_id(row, 0)).collect::<Done<HashSet<_>>>()?;
    Ok(ids.iter().filter(|id| !gone.contains(id)).copied().collect())
}

pub(super) async fn referenced(session: &Session, after: Option<BlobId>, limit: usize) -> Done<Vec<Blob>> {
    let sql = "SELECT id, size, crc32, blake3, sha256, pieces, whole_blake3 FROM blob \
         WHERE id > $1 AND file_count > 0 ORDER BY id LIMIT $2";
    // The empty byte string is below every id.
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let found = session.rows(sql, params![after, count(limit)]).await?;
    found.iter().map(|row| rows::blob(row, 0, 5)).collect()
}

pub(super) async fn is_stored(session: &Session, run: &BlobId) -> Done<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM blob WHERE id = $1 AND pieces IS NULL \
         AND NOT EXISTS (SELECT 1 FROM content WHERE blob_id = $1)) OR EXISTS (SELECT 1 FROM piece WHERE id = $1)";
    let row = session.row(sql, params![bytes(run.as_bytes())]).await?;
    Ok(row.map(|row| get(&row, 0)).transpose()?.unwrap_or(false))
}

pub(super) async fn chunks(session: &Session, id: &BlobId) -> Done<Option<ChunkList>> {
    let sql = "SELECT chunk_size, hashes FROM chunk_list WHERE blob_id = $1";
    let Some(row) = session.row(sql, params![bytes(id.as_bytes())]).await? else { return Ok(None) };
    let (hashes, rest) = get::<&[u8]>(&row, 1)?.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(damaged("a chunk list").into());
    }
    Ok(Some(ChunkList { chunk_size: rows::number(&row, 0)?, hashes: hashes.to_vec() }))
}

pub(super) async fn put_chunks(session: &Session, id: &BlobId, chunks: &ChunkList) -> Done<()> {
    let sql = "INSERT INTO chunk_list (blob_id, chunk_size, hashes) SELECT id, $2, $3 FROM blob WHERE id = $1 \
         ON CONFLICT (blob_id) DO UPDATE SET chunk_size = excluded.chunk_size, hashes = excluded.hashes";
    let values = params![bytes(id.as_bytes()), signed(chunks.chunk_size)?, chunks.hashes.as_flattened()];
    session.execute(sql, values).await?;
    Ok(())
}

/// The files that point at the blob carry its facts, so they and their buckets' generations change with it.
pub(super) async fn put_sha256(session: &Session, id: &BlobId, sha256: [u8; 32]) -> Done<()> {
    let Some((blob, _)) = find(session, id).await? else { return Ok(()) };
    learn(session, id, "sha256", blob.digest.sha256, sha256).await
}

/// As [`put_sha256`], for a blob in pieces.
pub(super) async fn put_blake3(session: &Session, id: &BlobId, blake3: [u8; 32]) -> Done<()> {
    let Some((blob, _)) = find(session, id).await? else { return Ok(()) };
    let Some(pieces) = &blob.pieces else { return Ok(()) };
    learn(session, id, "whole_blake3", pieces.blake3, blake3).await
}

async fn learn(
    session: &Session,
    id: &BlobId,
    column: &'static str,
    known: Option<[u8; 32]>,
    digest: [u8; 32],
) -> Done<()> {
    if !is_news(id, column, known, digest)? {
        return Ok(());
    }
    for sql in [
        format!("UPDATE blob SET {column} = $2 WHERE id = $1"),
        format!("UPDATE file SET {column} = $2 WHERE blob_id = $1"),
        format!(
            "UPDATE bucket SET generation = generation + 1 \
             WHERE id IN (SELECT bucket_id FROM file WHERE blob_id = $1 AND {column} = $2)"
        ),
    ] {
        session.execute(&sql, params![bytes(id.as_bytes()), bytes(&digest)]).await?;
    }
    Ok(())
}
