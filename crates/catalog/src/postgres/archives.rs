//! Archives: what they are, and which blobs they hold.

use super::error::Done;
use super::jobs;
use super::rows::{blob_id, bytes, count, fixed, get, number, some_fixed, some_number, some_time, time};
use super::session::{Session, params};
use crate::Claim;
use crate::common::archives::{
    ROWS_MAX, RUN_IDS, compression, compression_number, not_found, origins, origins_text, renamed,
    renamed_text,
};
use crate::common::values::signed;
use carrack_domain::archive::{Archive, Content};
use carrack_domain::job::{JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, Timestamp};
use std::collections::HashSet;
use tokio_postgres::Row;

/// Columns of [`archive()`].
const ARCHIVE: &str = "a.id, owner, name, compression, entries, bytes, renamed, renamed_total, manifest, \
     manifest_bytes, size, etag, modified, created_at, expires_at, state, entries_done, bytes_done, failure, origins";

pub(super) async fn prepare(session: &Session, id: &ArchiveId, holds: usize, now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO archive (id, large, created_at, expires_at) VALUES ($1, $2, $3, $4)";
    // It does not expire while it is being prepared: who prepares it may take its time.
    let values = params![bytes(id.as_bytes()), holds > ROWS_MAX, now.as_millis(), i64::MAX];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn hold(session: &Session, id: &ArchiveId, blobs: &[BlobId]) -> Done<()> {
    let archive = bytes(id.as_bytes());
    let row = session.row("SELECT large FROM archive WHERE id = $1", params![archive]).await?;
    if !get::<bool>(&row.ok_or_else(not_found)?, 0)? {
        let sql = "INSERT INTO hold (blob_id, archive_id) SELECT blob, $2 FROM unnest($1::bytea[]) AS blob";
        let blobs: Vec<&[u8]> = blobs.iter().map(|blob| bytes(blob.as_bytes())).collect();
        session.execute(sql, params![blobs, archive]).await?;
        return Ok(());
    }
    let firsts: Vec<&[u8]> = blobs.chunks(RUN_IDS).map(|run| bytes(run[0].as_bytes())).collect();
    let run = |run: &[BlobId]| -> Vec<u8> { run.iter().flat_map(|blob| *blob.as_bytes()).collect() };
    let runs: Vec<Vec<u8>> = blobs.chunks(RUN_IDS).map(run).collect();
    let sql = "INSERT INTO hold_run (archive_id, first, ids) \
         SELECT $1, first, ids FROM unnest($2::bytea[], $3::bytea[]) AS runs (first, ids)";
    session.execute(sql, params![archive, firsts, runs]).await?;
    Ok(())
}

/// Whether any archive holds the blob.
pub(super) async fn is_held(session: &Session, blob: &BlobId) -> Done<bool> {
    Ok(!held(session, &[*blob]).await?.is_empty())
}

/// Those of these blobs that an archive holds.
pub(super) async fn held(session: &Session, blobs: &[BlobId]) -> Done<HashSet<BlobId>> {
    let wanted: Vec<&[u8]> = blobs.iter().map(|blob| bytes(blob.as_bytes())).collect();
    let sql = "SELECT blob_id FROM hold WHERE blob_id = ANY ($1)";
    let found = session.rows(sql, params![wanted]).await?;
    let mut held = found.iter().map(|row| blob_id(row, 0)).collect::<Done<HashSet<_>>>()?;
    // Of each large archive the one run that may name a blob.
    let sql = "SELECT blob, run.ids FROM archive CROSS JOIN unnest($1::bytea[]) AS blob \
         CROSS JOIN LATERAL (SELECT ids FROM hold_run WHERE archive_id = archive.id AND first <= blob \
         ORDER BY first DESC LIMIT 1) AS run WHERE large";
    for row in session.rows(sql, params![wanted]).await? {
        let blob = blob_id(&row, 0)?;
        if get::<&[u8]>(&row, 1)?.as_chunks::<16>().0.binary_search(blob.as_bytes()).is_ok() {
            held.insert(blob);
        }
    }
    Ok(held)
}

/// The archive holds nothing any more.
pub(super) async fn let_go(session: &Session, id: &ArchiveId) -> Done<()> {
    for sql in [
        "DELETE FROM hold WHERE archive_id = $1",
        "DELETE FROM hold_run WHERE archive_id = $1",
        "DELETE FROM archive_pack WHERE archive_id = $1",
    ] {
        session.execute(sql, params![bytes(id.as_bytes())]).await?;
    }
    Ok(())
}

pub(super) async fn commit(session: &Session, archive: &Archive) -> Done<()> {
    let sql = "UPDATE archive SET ready = true, owner = $2, name = $3, compression = $4, entries = $5, bytes = $6, \
         manifest = $7, manifest_bytes = $8, renamed = $9, renamed_total = $10, created_at = $11, expires_at = $12, \
         origins = $13 WHERE id = $1 AND NOT ready";
    let (manifest, manifest_bytes) = archive.manifest;
    let values = params![
        bytes(archive.id.as_bytes()),
        archive.owner,
        archive.name,
        compression_number(archive.compression),
        signed(archive.entries)?,
        signed(archive.bytes)?,
        bytes(manifest.as_bytes()),
        signed(manifest_bytes)?,
        renamed_text(archive),
        signed(archive.renamed_total)?,
        archive.created_at.as_millis(),
        archive.expires_at.as_millis(),
        origins_text(&archive.origins),
    ];
    if session.execute(sql, values).await? == 0 {
        return Err(not_found().into());
    }
    if let Some(content) = &archive.content {
        put_content(session, &archive.id, content).await?;
    }
    jobs::insert(session, &archive.id, archive.state).await?;
    let sql = "UPDATE job SET entries_done = $2, bytes_done = $3 WHERE id = $1";
    let Progress { entries, bytes: done } = archive.progress;
    session.execute(sql, params![bytes(archive.id.as_bytes()), signed(entries)?, signed(done)?]).await?;
    Ok(())
}

async fn put_content(session: &Session, id: &ArchiveId, content: &Content) -> Done<()> {
    let sql = "UPDATE archive SET size = $2, etag = $3, modified = $4 WHERE id = $1";
    let values =
        params![bytes(id.as_bytes()), signed(content.size)?, content.etag, content.modified.as_millis()];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn complete(
    session: &Session,
    claim: &Claim,
    content: &Content,
    manifest: (BlobId, u64),
) -> Done<BlobId> {
    jobs::complete(session, claim).await?;
    let plan = find(session, &claim.job).await?.manifest.0;
    put_content(session, &claim.job, content).await?;
    let sql = "UPDATE archive SET manifest = $2, manifest_bytes = $3 WHERE id = $1";
    let values = params![bytes(claim.job.as_bytes()), bytes(manifest.0.as_bytes()), signed(manifest.1)?];
    session.execute(sql, values).await?;
    Ok(plan)
}

pub(super) async fn find(session: &Session, id: &ArchiveId) -> Done<Archive> {
    let sql = format!("SELECT {ARCHIVE} FROM archive a JOIN job USING (id) WHERE a.id = $1 AND ready");
    archive(&session.row(&sql, params![bytes(id.as_bytes())]).await?.ok_or_else(not_found)?)
}

pub(super) async fn of_owner(
    session: &Session,
    owner: &str,
    now: Timestamp,
    after: Option<(Timestamp, ArchiveId)>,
    limit: usize,
) -> Done<Vec<Archive>> {
    let sql = format!(
        "SELECT {ARCHIVE} FROM archive a JOIN job USING (id) WHERE ready AND owner = $1 \
         AND (created_at, a.id) < ($2, $3) AND expires_at >= $5 ORDER BY created_at DESC, a.id DESC LIMIT $4"
    );
    let (time, id) = after.map_or((i64::MAX, [0; 16]), |(time, id)| (time.as_millis(), *id.as_bytes()));
    let values = params![owner, time, bytes(&id), count(limit), now.as_millis()];
    session.rows(&sql, values).await?.iter().map(archive).collect()
}

pub(super) async fn delete(session: &Session, id: &ArchiveId) -> Done<BlobId> {
    let manifest = find(session, id).await?.manifest.0;
    remove(session, id).await?;
    Ok(manifest)
}

async fn remove(session: &Session, id: &ArchiveId) -> Done<()> {
    for sql in ["DELETE FROM job WHERE id = $1", "DELETE FROM archive WHERE id = $1"] {
        session.execute(sql, params![bytes(id.as_bytes())]).await?;
    }
    Ok(())
}

pub(super) async fn expire(
    session: &Session,
    now: Timestamp,
    limit: usize,
) -> Done<Vec<(ArchiveId, Option<BlobId>)>> {
    let sql = "SELECT id, manifest FROM archive WHERE expires_at < $1 LIMIT $2";
    let mut expired = Vec::new();
    for row in session.rows(sql, params![now.as_millis(), count(limit)]).await? {
        let id = ArchiveId::from_bytes(fixed(&row, 0)?);
        expired.push((id, some_fixed(&row, 1)?.map(BlobId::from_bytes)));
        remove(session, &id).await?;
    }
    Ok(expired)
}

pub(super) async fn forget_prepared(session: &Session, before: Timestamp) -> Done<usize> {
    let sql = "DELETE FROM archive WHERE NOT ready AND created_at < $1";
    Ok(session.execute(sql, params![before.as_millis()]).await? as usize)
}

pub(super) async fn wish(session: &Session, id: &ArchiveId, wish: JobWish) -> Done<Archive> {
    let archive = find(session, id).await?;
    jobs::wish(session, id, archive.state, wish).await?;
    find(session, id).await
}

fn archive(row: &Row) -> Done<Archive> {
    let content = match (some_number(row, 10)?, get(row, 11)?, some_time(row, 12)?) {
        (Some(size), Some(etag), Some(modified)) => Some(Content { size, etag, modified }),
        _ => None,
    };
    Ok(Archive {
        id: ArchiveId::from_bytes(fixed(row, 0)?),
        owner: get(row, 1)?,
        name: get(row, 2)?,
        compression: compression(get(row, 3)?)?,
        entries: number(row, 4)?,
        bytes: number(row, 5)?,
        renamed: renamed(get(row, 6)?)?,
        renamed_total: number(row, 7)?,
        origins: origins(get(row, 19)?)?,
        manifest: (blob_id(row, 8)?, number(row, 9)?),
        content,
        created_at: time(row, 13)?,
        expires_at: time(row, 14)?,
        state: jobs::state(get(row, 15)?)?,
        progress: Progress { entries: number(row, 16)?, bytes: number(row, 17)? },
        failure: get::<Option<&str>>(row, 18)?.map(jobs::failure).transpose()?,
    })
}
