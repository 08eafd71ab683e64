//! Blobs: how many files point at them, and what was learnt of them.

use super::archives;
use super::contents;
use super::error::Done;
use super::rows::{self, damaged, signed, unsigned};
use crate::ChunkList;
use crate::common::values::is_news;
use bytes::Bytes;
use carrack_domain::digest::ContentDigest;
use carrack_domain::file::Blob;
use carrack_domain::{BlobId, Error};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;

/// Counts one more file that points at the blob, and records the blob when it is new. Returns it with all that is
/// known of it. A blob that nothing points at any more is not taken back: its bytes may be going this moment.
pub(super) fn refer(connection: &Connection, new: &Blob, content: Option<&Bytes>) -> Done<Blob> {
    let Some((mut blob, files)) = find(connection, &new.id)? else {
        insert(connection, new, content)?;
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
    connection
        .prepare_cached("UPDATE blob SET file_count = file_count + 1 WHERE id = ?1")?
        .execute([new.id.as_bytes()])?;
    if let (None, Some(sha256)) = (blob.digest.sha256, new.digest.sha256) {
        put_sha256(connection, &new.id, sha256)?;
        blob.digest.sha256 = Some(sha256);
    }
    Ok(blob)
}

fn insert(connection: &Connection, new: &Blob, content: Option<&Bytes>) -> Done<()> {
    let content = content.map(|bytes| contents::keep(connection, new, bytes)).transpose()?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO blob (id, size, crc32, blake3, sha256, file_count, pieces, whole_blake3, content) \
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8)",
    )?;
    let ContentDigest { crc32, blake3, sha256 } = new.digest;
    let pieces = new.pieces.as_deref();
    statement.execute(params![
        new.id.as_bytes(),
        signed(new.size)?,
        crc32,
        blake3,
        sha256,
        pieces.map(rows::pieces_bytes),
        pieces.and_then(|pieces| pieces.blake3),
        content,
    ])?;
    if pieces.is_some() {
        let mut statement = connection.prepare_cached("INSERT INTO piece (id, blob_id) VALUES (?1, ?2)")?;
        for (id, _) in new.stored() {
            statement.execute([id.as_bytes(), new.id.as_bytes()])?;
        }
    }
    Ok(())
}

/// Half of the pages that are free: contents do not fill theirs, and their records need some too.
pub(super) fn spare_bytes(connection: &Connection) -> Done<u64> {
    let number = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0));
    let pages = unsigned(number("PRAGMA freelist_count")?)?;
    Ok(pages.saturating_mul(unsigned(number("PRAGMA page_size")?)?) / 2)
}

/// Counts one file less; whether that was the last.
pub(super) fn release(connection: &Connection, id: &BlobId) -> Done<bool> {
    let mut statement = connection.prepare_cached(
        "UPDATE blob SET file_count = file_count - 1 WHERE id = ?1 RETURNING file_count = 0",
    )?;
    Ok(statement.query_row([id.as_bytes()], |row| row.get(0))?)
}

fn find(connection: &Connection, id: &BlobId) -> Done<Option<(Blob, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, size, crc32, blake3, sha256, pieces, whole_blake3, file_count FROM blob WHERE id = ?1",
    )?;
    let mut found = statement.query([id.as_bytes()])?;
    match found.next()? {
        Some(row) => Ok(Some((rows::blob(row, 0, 5)?, row.get(7)?))),
        None => Ok(None),
    }
}

pub(super) fn get(connection: &Connection, id: &BlobId) -> Done<Option<Blob>> {
    Ok(find(connection, id)?.map(|(blob, _)| blob))
}

pub(super) fn unreferenced(
    connection: &Connection,
    skip: &HashSet<BlobId>,
    limit: usize,
) -> Done<Vec<BlobId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM blob WHERE file_count = 0 ORDER BY id")?;
    let mut found = statement.query([])?;
    let mut ids = Vec::new();
    while ids.len() < limit
        && let Some(row) = found.next()?
    {
        let id = rows::blob_id(row, 0)?;
        if !skip.contains(&id) && !archives::is_held(connection, &id)? {
            ids.push(id);
        }
    }
    Ok(ids)
}

pub(super) fn forget(connection: &Connection, id: &BlobId) -> Done<()> {
    connection
        .prepare_cached("DELETE FROM blob WHERE id = ?1 AND file_count = 0")?
        .execute([id.as_bytes()])?;
    Ok(())
}

pub(super) fn forget_contents(connection: &Connection, ids: &[BlobId]) -> Done<Vec<BlobId>> {
    let mut delete = connection
        .prepare_cached("DELETE FROM blob WHERE id = ?1 AND file_count = 0 AND content IS NOT NULL")?;
    let mut others = Vec::new();
    for id in ids {
        if archives::is_held(connection, id)? || delete.execute([id.as_bytes()])? == 0 {
            others.push(*id);
        }
    }
    Ok(others)
}

pub(super) fn referenced(connection: &Connection, after: Option<BlobId>, limit: usize) -> Done<Vec<Blob>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, size, crc32, blake3, sha256, pieces, whole_blake3 FROM blob \
         WHERE id > ?1 AND file_count > 0 ORDER BY id LIMIT ?2",
    )?;
    // The empty byte string is below every id.
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let mut found = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut blobs = Vec::new();
    while let Some(row) = found.next()? {
        blobs.push(rows::blob(row, 0, 5)?);
    }
    Ok(blobs)
}

pub(super) fn is_stored(connection: &Connection, run: &BlobId) -> Done<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM blob WHERE id = ?1 AND pieces IS NULL AND content IS NULL) \
         OR EXISTS (SELECT 1 FROM piece WHERE id = ?1)",
    )?;
    Ok(statement.query_row([run.as_bytes()], |row| row.get(0))?)
}

pub(super) fn chunks(connection: &Connection, id: &BlobId) -> Done<Option<ChunkList>> {
    let mut statement =
        connection.prepare_cached("SELECT chunk_size, hashes FROM chunk_list WHERE blob_id = ?1")?;
    let found = statement.query_row([id.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
    let Some((chunk_size, bytes)) = found.optional()? else { return Ok(None) };
    let bytes: Vec<u8> = bytes;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(damaged("a chunk list"));
    }
    Ok(Some(ChunkList { chunk_size: unsigned(chunk_size)?, hashes: hashes.to_vec() }))
}

pub(super) fn put_chunks(connection: &Connection, id: &BlobId, chunks: &ChunkList) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO chunk_list (blob_id, chunk_size, hashes) SELECT id, ?2, ?3 FROM blob WHERE id = ?1 \
         ON CONFLICT DO UPDATE SET chunk_size = excluded.chunk_size, hashes = excluded.hashes",
    )?;
    statement.execute(params![id.as_bytes(), signed(chunks.chunk_size)?, chunks.hashes.as_flattened()])?;
    Ok(())
}

/// The files that point at the blob carry its facts, so they and their buckets' generations change with it.
pub(super) fn put_sha256(connection: &Connection, id: &BlobId, sha256: [u8; 32]) -> Done<()> {
    let Some((blob, _)) = find(connection, id)? else { return Ok(()) };
    learn(connection, id, "sha256", blob.digest.sha256, sha256)
}

/// As [`put_sha256`], for a blob in pieces.
pub(super) fn put_blake3(connection: &Connection, id: &BlobId, blake3: [u8; 32]) -> Done<()> {
    let Some((blob, _)) = find(connection, id)? else { return Ok(()) };
    let Some(pieces) = &blob.pieces else { return Ok(()) };
    learn(connection, id, "whole_blake3", pieces.blake3, blake3)
}

fn learn(
    connection: &Connection,
    id: &BlobId,
    column: &'static str,
    known: Option<[u8; 32]>,
    digest: [u8; 32],
) -> Done<()> {
    if !is_news(id, column, known, digest)? {
        return Ok(());
    }
    for sql in [
        format!("UPDATE blob SET {column} = ?2 WHERE id = ?1"),
        format!("UPDATE file SET {column} = ?2 WHERE blob_id = ?1"),
        format!(
            "UPDATE bucket SET generation = generation + 1 \
             WHERE id IN (SELECT bucket_id FROM file WHERE blob_id = ?1 AND {column} = ?2)"
        ),
    ] {
        connection.prepare_cached(&sql)?.execute(params![id.as_bytes(), digest])?;
    }
    Ok(())
}
