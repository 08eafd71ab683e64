//! Deflated forms of blobs, and the packs they lie in.

use super::error::Done;
use super::jobs;
use super::rows::{blob_id, number, signed, unsigned};
use crate::{Claim, ENCODING_ROW_BYTES, Encoding, NewPack};
use carrack_domain::{BlobId, EncodingId, Timestamp};
use rusqlite::{Connection, params};
use std::collections::HashSet;

pub(super) fn get(connection: &Connection, ids: &[EncodingId]) -> Done<Vec<Option<Encoding>>> {
    let mut statement = connection.prepare_cached(
        "SELECT pack_id, size, begins, bytes FROM encoding JOIN pack ON pack.id = pack_id WHERE encoding.id = ?1",
    )?;
    let mut encodings = Vec::with_capacity(ids.len());
    for id in ids {
        let mut found = statement.query([id.as_bytes()])?;
        let Some(row) = found.next()? else {
            encodings.push(None);
            continue;
        };
        let (pack, begins) = (blob_id(row, 0)?, row.get::<_, Option<i64>>(2)?);
        encodings.push(Some(match begins {
            None => Encoding::Stored { pack },
            Some(offset) => Encoding::Deflated {
                pack,
                pack_size: number(row, 1)?,
                offset: unsigned(offset)?,
                size: number(row, 3)?,
            },
        }));
    }
    Ok(encodings)
}

pub(super) fn put(connection: &Connection, claim: &Claim, pack: &NewPack, now: Timestamp) -> Done<()> {
    jobs::check(connection, claim)?;
    let charged = pack.size + ENCODING_ROW_BYTES * pack.encodings.len() as u64;
    connection
        .prepare_cached("INSERT INTO pack (id, size, charged, used_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![pack.id.as_bytes(), signed(pack.size)?, signed(charged)?, now.as_millis()])?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO encoding (id, pack_id, begins, bytes) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    for (id, place) in &pack.encodings {
        let begins = place.map(|(offset, _)| signed(offset)).transpose()?;
        let bytes = signed(place.map_or(0, |(_, size)| size))?;
        statement.execute(params![id.as_bytes(), pack.id.as_bytes(), begins, bytes])?;
    }
    link(connection, claim, &pack.id)
}

fn link(connection: &Connection, claim: &Claim, pack: &BlobId) -> Done<()> {
    connection
        .prepare_cached(
            "INSERT INTO archive_pack (archive_id, pack_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute([claim.job.as_bytes(), pack.as_bytes()])?;
    Ok(())
}

/// Notes the moment; whether the pack is there.
fn touch_one(connection: &Connection, pack: &BlobId, now: Timestamp) -> Done<bool> {
    let sql = "UPDATE pack SET used_at = ?2 WHERE id = ?1";
    Ok(connection.prepare_cached(sql)?.execute(params![pack.as_bytes(), now.as_millis()])? == 1)
}

pub(super) fn use_all(
    connection: &Connection,
    claim: &Claim,
    packs: &[BlobId],
    now: Timestamp,
) -> Done<Vec<BlobId>> {
    jobs::check(connection, claim)?;
    let mut gone = Vec::new();
    for pack in packs {
        if touch_one(connection, pack, now)? {
            link(connection, claim, pack)?;
        } else {
            gone.push(*pack);
        }
    }
    Ok(gone)
}

pub(super) fn touch(connection: &Connection, packs: &[BlobId], now: Timestamp) -> Done<()> {
    for pack in packs {
        touch_one(connection, pack, now)?;
    }
    Ok(())
}

pub(super) fn charged(connection: &Connection) -> Done<u64> {
    let sql = "SELECT coalesce(sum(charged), 0) FROM pack";
    Ok(unsigned(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)?)
}

pub(super) fn evict(
    connection: &Connection,
    quota: u64,
    skip: &HashSet<BlobId>,
    limit: usize,
) -> Done<Vec<BlobId>> {
    let mut left = charged(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT id, charged FROM pack WHERE NOT EXISTS (SELECT 1 FROM archive_pack WHERE pack_id = pack.id) \
         ORDER BY used_at, id",
    )?;
    let mut found = statement.query([])?;
    let mut evicted = Vec::new();
    while left > quota
        && evicted.len() < limit
        && let Some(row) = found.next()?
    {
        let id = blob_id(row, 0)?;
        if !skip.contains(&id) {
            left = left.saturating_sub(number(row, 1)?);
            evicted.push(id);
        }
    }
    drop(found);
    for id in &evicted {
        connection.prepare_cached("DELETE FROM pack WHERE id = ?1")?.execute([id.as_bytes()])?;
    }
    Ok(evicted)
}

pub(super) fn is_archived(connection: &Connection, run: &BlobId) -> Done<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM archive WHERE manifest = ?1) OR EXISTS (SELECT 1 FROM pack WHERE id = ?1)",
    )?;
    Ok(statement.query_row([run.as_bytes()], |row| row.get(0))?)
}

pub(super) fn runs(connection: &Connection, after: Option<BlobId>, limit: usize) -> Done<Vec<(BlobId, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, size FROM pack WHERE id > ?1 AND size > 0 \
         UNION ALL SELECT manifest, manifest_bytes FROM archive WHERE manifest > ?1 ORDER BY 1 LIMIT ?2",
    )?;
    // The empty byte string is below every id.
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let mut found = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut runs = Vec::new();
    while let Some(row) = found.next()? {
        runs.push((blob_id(row, 0)?, number(row, 1)?));
    }
    Ok(runs)
}
