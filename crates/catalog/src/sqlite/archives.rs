//! Archives: what they are, and which blobs they hold.

use super::error::Done;
use super::jobs;
use super::rows::{blob_id, damaged, number, signed, unsigned};
use crate::Claim;
use crate::common::archives::{
    ROWS_MAX, RUN_IDS, compression, compression_number, not_found, origins, origins_text, renamed,
    renamed_text,
};
use carrack_domain::archive::{Archive, Content};
use carrack_domain::job::{JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Columns of [`archive()`].
const ARCHIVE: &str = "a.id, owner, name, compression, entries, bytes, renamed, renamed_total, manifest, \
     manifest_bytes, size, etag, modified, created_at, expires_at, state, entries_done, bytes_done, failure, origins";

pub(super) fn prepare(connection: &Connection, id: &ArchiveId, holds: usize, now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO archive (id, large, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)";
    // It does not expire while it is being prepared: who prepares it may take its time.
    connection.prepare_cached(sql)?.execute(params![
        id.as_bytes(),
        holds > ROWS_MAX,
        now.as_millis(),
        i64::MAX
    ])?;
    Ok(())
}

pub(super) fn hold(connection: &Connection, id: &ArchiveId, blobs: &[BlobId]) -> Done<()> {
    let mut statement = connection.prepare_cached("SELECT large FROM archive WHERE id = ?1")?;
    let large: bool =
        statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?.ok_or_else(not_found)?;
    if !large {
        let mut statement =
            connection.prepare_cached("INSERT INTO hold (blob_id, archive_id) VALUES (?1, ?2)")?;
        for blob in blobs {
            statement.execute([blob.as_bytes(), id.as_bytes()])?;
        }
        return Ok(());
    }
    let mut statement =
        connection.prepare_cached("INSERT INTO hold_run (archive_id, first, ids) VALUES (?1, ?2, ?3)")?;
    for run in blobs.chunks(RUN_IDS) {
        let ids: Vec<u8> = run.iter().flat_map(|blob| *blob.as_bytes()).collect();
        statement.execute(params![id.as_bytes(), run[0].as_bytes(), ids])?;
    }
    Ok(())
}

/// Whether any archive holds the blob.
pub(super) fn is_held(connection: &Connection, blob: &BlobId) -> Done<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM hold WHERE blob_id = ?1 LIMIT 1")?;
    if statement.exists([blob.as_bytes()])? {
        return Ok(true);
    }
    let mut large = connection.prepare_cached("SELECT id FROM archive WHERE large = 1")?;
    let mut run = connection.prepare_cached(
        "SELECT ids FROM hold_run WHERE archive_id = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
    )?;
    let mut found = large.query([])?;
    while let Some(row) = found.next()? {
        let archive: [u8; 16] = row.get(0)?;
        let mut ids = run.query([&archive, blob.as_bytes()])?;
        if let Some(row) = ids.next()? {
            let ids = row.get_ref(0)?.as_blob().map_err(|_| damaged("a run of ids"))?;
            if ids.as_chunks::<16>().0.binary_search(blob.as_bytes()).is_ok() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The archive holds nothing any more.
pub(super) fn let_go(connection: &Connection, id: &ArchiveId) -> Done<()> {
    for sql in [
        "DELETE FROM hold WHERE archive_id = ?1",
        "DELETE FROM hold_run WHERE archive_id = ?1",
        "DELETE FROM archive_pack WHERE archive_id = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    }
    Ok(())
}

pub(super) fn commit(connection: &Connection, archive: &Archive) -> Done<()> {
    let sql = "UPDATE archive SET ready = 1, owner = ?2, name = ?3, compression = ?4, entries = ?5, bytes = ?6, \
         manifest = ?7, manifest_bytes = ?8, renamed = ?9, renamed_total = ?10, created_at = ?11, expires_at = ?12, \
         origins = ?13 \
         WHERE id = ?1 AND ready = 0";
    let (manifest, manifest_bytes) = archive.manifest;
    let changed = connection.prepare_cached(sql)?.execute(params![
        archive.id.as_bytes(),
        archive.owner,
        archive.name,
        compression_number(archive.compression),
        signed(archive.entries)?,
        signed(archive.bytes)?,
        manifest.as_bytes(),
        signed(manifest_bytes)?,
        renamed_text(archive),
        signed(archive.renamed_total)?,
        archive.created_at.as_millis(),
        archive.expires_at.as_millis(),
        origins_text(&archive.origins),
    ])?;
    if changed == 0 {
        return Err(not_found().into());
    }
    if let Some(content) = &archive.content {
        put_content(connection, &archive.id, content)?;
    }
    jobs::insert(connection, &archive.id, archive.state)?;
    let sql = "UPDATE job SET entries_done = ?2, bytes_done = ?3 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        archive.id.as_bytes(),
        signed(archive.progress.entries)?,
        signed(archive.progress.bytes)?
    ])?;
    Ok(())
}

fn put_content(connection: &Connection, id: &ArchiveId, content: &Content) -> Done<()> {
    let sql = "UPDATE archive SET size = ?2, etag = ?3, modified = ?4 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        id.as_bytes(),
        signed(content.size)?,
        content.etag,
        content.modified.as_millis()
    ])?;
    Ok(())
}

pub(super) fn complete(
    connection: &Connection,
    claim: &Claim,
    content: &Content,
    manifest: (BlobId, u64),
) -> Done<BlobId> {
    jobs::complete(connection, claim)?;
    let plan = get(connection, &claim.job)?.manifest.0;
    put_content(connection, &claim.job, content)?;
    let sql = "UPDATE archive SET manifest = ?2, manifest_bytes = ?3 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        claim.job.as_bytes(),
        manifest.0.as_bytes(),
        signed(manifest.1)?
    ])?;
    Ok(plan)
}

pub(super) fn get(connection: &Connection, id: &ArchiveId) -> Done<Archive> {
    let sql = format!("SELECT {ARCHIVE} FROM archive a JOIN job USING (id) WHERE a.id = ?1 AND ready = 1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([id.as_bytes()])?;
    match found.next()? {
        Some(row) => archive(row),
        None => Err(not_found().into()),
    }
}

pub(super) fn of_owner(
    connection: &Connection,
    owner: &str,
    now: Timestamp,
    after: Option<(Timestamp, ArchiveId)>,
    limit: usize,
) -> Done<Vec<Archive>> {
    let sql = format!(
        "SELECT {ARCHIVE} FROM archive a JOIN job USING (id) WHERE ready = 1 AND owner = ?1 \
         AND (created_at, a.id) < (?2, ?3) AND expires_at >= ?5 ORDER BY created_at DESC, a.id DESC LIMIT ?4"
    );
    let (time, id) = after.map_or((i64::MAX, [0; 16]), |(time, id)| (time.as_millis(), *id.as_bytes()));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![
        owner,
        time,
        id,
        i64::try_from(limit).unwrap_or(i64::MAX),
        now.as_millis()
    ])?;
    let mut archives = Vec::new();
    while let Some(row) = found.next()? {
        archives.push(archive(row)?);
    }
    Ok(archives)
}

pub(super) fn delete(connection: &Connection, id: &ArchiveId) -> Done<BlobId> {
    let manifest = get(connection, id)?.manifest.0;
    remove(connection, id)?;
    Ok(manifest)
}

fn remove(connection: &Connection, id: &ArchiveId) -> Done<()> {
    for sql in ["DELETE FROM job WHERE id = ?1", "DELETE FROM archive WHERE id = ?1"] {
        connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    }
    Ok(())
}

pub(super) fn expire(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
) -> Done<Vec<(ArchiveId, Option<BlobId>)>> {
    let mut statement =
        connection.prepare_cached("SELECT id, manifest FROM archive WHERE expires_at < ?1 LIMIT ?2")?;
    let mut found = statement.query(params![now.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut expired = Vec::new();
    while let Some(row) = found.next()? {
        let manifest: Option<[u8; 16]> = row.get(1)?;
        expired.push((ArchiveId::from_bytes(row.get(0)?), manifest.map(BlobId::from_bytes)));
    }
    for (id, _) in &expired {
        remove(connection, id)?;
    }
    Ok(expired)
}

pub(super) fn forget_prepared(connection: &Connection, before: Timestamp) -> Done<usize> {
    let sql = "DELETE FROM archive WHERE ready = 0 AND created_at < ?1";
    Ok(connection.prepare_cached(sql)?.execute([before.as_millis()])?)
}

pub(super) fn wish(connection: &Connection, id: &ArchiveId, wish: JobWish) -> Done<Archive> {
    let archive = get(connection, id)?;
    jobs::wish(connection, id, archive.state, wish)?;
    get(connection, id)
}

fn archive(row: &Row<'_>) -> Done<Archive> {
    let content = match (row.get::<_, Option<i64>>(10)?, row.get(11)?, row.get(12)?) {
        (Some(size), Some(etag), Some(modified)) => {
            Some(Content { size: unsigned(size)?, etag, modified: Timestamp::from_millis(modified) })
        }
        _ => None,
    };
    let failure: Option<String> = row.get(18)?;
    Ok(Archive {
        id: ArchiveId::from_bytes(row.get(0)?),
        owner: row.get(1)?,
        name: row.get(2)?,
        compression: compression(row.get(3)?)?,
        entries: number(row, 4)?,
        bytes: number(row, 5)?,
        renamed: renamed(&row.get::<_, String>(6)?)?,
        renamed_total: number(row, 7)?,
        origins: origins(&row.get::<_, String>(19)?)?,
        manifest: (blob_id(row, 8)?, number(row, 9)?),
        content,
        created_at: Timestamp::from_millis(row.get(13)?),
        expires_at: Timestamp::from_millis(row.get(14)?),
        state: jobs::state(row.get(15)?)?,
        progress: Progress { entries: number(row, 16)?, bytes: number(row, 17)? },
        failure: failure.as_deref().map(jobs::failure).transpose()?,
    })
}
