//! Deflated forms of blobs, and the packs they lie in.

use super::error::Done;
use super::jobs;
use super::rows::{blob_id, bytes, count, fixed, get, number, some_number};
use super::session::{Session, params};
use crate::common::values::signed;
use crate::{Claim, ENCODING_ROW_BYTES, Encoding, NewPack};
use carrack_domain::{BlobId, EncodingId, Timestamp};
use std::collections::HashMap;

pub(super) async fn find(session: &Session, ids: &[EncodingId]) -> Done<Vec<Option<Encoding>>> {
    let wanted: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
    let sql = "SELECT pack_id, size, begins, bytes, encoding.id FROM encoding JOIN pack ON pack.id = pack_id \
         WHERE encoding.id = ANY ($1)";
    let mut found = HashMap::new();
    for row in session.rows(sql, params![wanted]).await? {
        let pack = blob_id(&row, 0)?;
        let encoding = match some_number(&row, 2)? {
            None => Encoding::Stored { pack },
            Some(offset) => {
                Encoding::Deflated { pack, pack_size: number(&row, 1)?, offset, size: number(&row, 3)? }
            }
        };
        found.insert(get::<Vec<u8>>(&row, 4)?, encoding);
    }
    Ok(ids.iter().map(|id| found.get(&id.as_bytes()[..]).copied()).collect())
}

pub(super) async fn put(session: &Session, claim: &Claim, pack: &NewPack, now: Timestamp) -> Done<()> {
    jobs::check(session, claim).await?;
    let charged = pack.size + ENCODING_ROW_BYTES * pack.encodings.len() as u64;
    let id = bytes(pack.id.as_bytes());
    let sql = "INSERT INTO pack (id, size, charged, used_at) VALUES ($1, $2, $3, $4)";
    session.execute(sql, params![id, signed(pack.size)?, signed(charged)?, now.as_millis()]).await?;
    let (mut ids, mut begins, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (id, place) in &pack.encodings {
        ids.push(&id.as_bytes()[..]);
        begins.push(place.map(|(offset, _)| signed(offset)).transpose()?);
        sizes.push(signed(place.map_or(0, |(_, size)| size))?);
    }
    let sql = "INSERT INTO encoding (id, pack_id, begins, bytes) \
         SELECT e.id, $1, e.begins, e.bytes FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS e (id, begins, bytes) \
         ON CONFLICT (id) DO NOTHING";
    session.execute(sql, params![id, ids, begins, sizes]).await?;
    link(session, claim, &pack.id).await
}

async fn link(session: &Session, claim: &Claim, pack: &BlobId) -> Done<()> {
    let sql = "INSERT INTO archive_pack (archive_id, pack_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    session.execute(sql, params![bytes(claim.job.as_bytes()), bytes(pack.as_bytes())]).await?;
    Ok(())
}

/// Notes the moment; whether the pack is there.
async fn touch_one(session: &Session, pack: &BlobId, now: Timestamp) -> Done<bool> {
    let sql = "UPDATE pack SET used_at = $2 WHERE id = $1";
    Ok(session.execute(sql, params![bytes(pack.as_bytes()), now.as_millis()]).await? == 1)
}

pub(super) async fn use_all(
    session: &Session,
    claim: &Claim,
    packs: &[BlobId],
    now: Timestamp,
) -> Done<Vec<BlobId>> {
    jobs::check(session, claim).await?;
    let mut gone = Vec::new();
    for pack in packs {
        if touch_one(session, pack, now).await? {
            link(session, claim, pack).await?;
        } else {
            gone.push(*pack);
        }
    }
    Ok(gone)
}

pub(super) async fn touch(session: &Session, packs: &[BlobId], now: Timestamp) -> Done<()> {
    for pack in packs {
        touch_one(session, pack, now).await?;
    }
    Ok(())
}

pub(super) async fn charged(session: &Session) -> Done<u64> {
    let row = session.row("SELECT coalesce(sum(charged), 0)::bigint FROM pack", &[]).await?;
    Ok(row.map(|row| number(&row, 0)).transpose()?.unwrap_or(0))
}

pub(super) async fn evict(session: &Session, quota: u64, skip: &[BlobId], limit: usize) -> Done<Vec<BlobId>> {
    let mut left = charged(session).await?;
    let mut evicted = Vec::new();
    if left <= quota {
        return Ok(evicted);
    }
    let skip: Vec<&[u8]> = skip.iter().map(|id| bytes(id.as_bytes())).collect();
    let sql = "SELECT id, charged FROM pack WHERE NOT EXISTS (SELECT 1 FROM archive_pack WHERE pack_id = pack.id) \
         AND id <> ALL ($1) ORDER BY used_at, id LIMIT $2";
    for row in session.rows(sql, params![skip, count(limit)]).await? {
        if left <= quota {
            break;
        }
        left = left.saturating_sub(number(&row, 1)?);
        let id = blob_id(&row, 0)?;
        session.execute("DELETE FROM pack WHERE id = $1", params![bytes(id.as_bytes())]).await?;
        evicted.push(id);
    }
    Ok(evicted)
}

pub(super) async fn is_archived(session: &Session, run: &BlobId) -> Done<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM archive WHERE manifest = $1) OR EXISTS (SELECT 1 FROM pack WHERE id = $1)";
    let row = session.row(sql, params![bytes(run.as_bytes())]).await?;
    Ok(row.map(|row| get(&row, 0)).transpose()?.unwrap_or(false))
}

pub(super) async fn runs(session: &Session, after: Option<BlobId>, limit: usize) -> Done<Vec<(BlobId, u64)>> {
    let sql = "SELECT id, size FROM pack WHERE id > $1 AND size > 0 \
         UNION ALL SELECT manifest, manifest_bytes FROM archive WHERE manifest > $1 ORDER BY 1 LIMIT $2";
    // The empty byte string is below every id.
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let found = session.rows(sql, params![after, count(limit)]).await?;
    found.iter().map(|row| Ok((BlobId::from_bytes(fixed(row, 0)?), number(row, 1)?))).collect()
}
