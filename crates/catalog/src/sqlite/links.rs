//! Links and the uses that were claimed of them.

use super::error::Done;
use super::rows::{self, damaged, signed, unsigned};
use crate::common::links::{covered_text, gone, not_found, refusal, target_of, target_text};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::policy::AddressRange;
use carrack_domain::{ClaimId, LinkId, Role, Timestamp};
use rusqlite::{Connection, Row, params};
use std::num::NonZeroU64;

const LINK: &str = "id, owner, role, target, expires_at, not_before, max_downloads, uses, ip, password, filename, \
     created_at, revoked_at, last_used_at, rate_limit";
const CLAIM: &str = "id, link_id, address, created_at, deadline, sent, forgiven, covered, done_at";

pub(super) fn create(connection: &Connection, link: &Link) -> Done<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO link ({LINK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
        ))?
        .execute(params![
            link.id.as_bytes(),
            link.owner,
            link.role.as_str(),
            target_text(&link.target),
            link.expires_at.as_millis(),
            link.not_before.map(Timestamp::as_millis),
            link.max_downloads.map(signed).transpose()?,
            signed(link.uses)?,
            link.ip.map(String::from),
            link.password,
            link.filename,
            link.created_at.as_millis(),
            link.revoked_at.map(Timestamp::as_millis),
            link.last_used_at.map(Timestamp::as_millis),
            link.rate_limit.map(|rate| signed(rate.get())).transpose()?,
        ])?;
    Ok(())
}

pub(super) fn get(connection: &Connection, id: &LinkId) -> Done<Link> {
    let mut statement = connection.prepare_cached(&format!("SELECT {LINK} FROM link WHERE id = ?1"))?;
    let mut found = statement.query([id.as_bytes()])?;
    match found.next()? {
        Some(row) => link(row),
        None => Err(not_found().into()),
    }
}

pub(super) fn list(connection: &Connection, owner: &str, limit: usize) -> Done<Vec<Link>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {LINK} FROM link WHERE owner = ?1 ORDER BY created_at DESC, id LIMIT ?2"
    ))?;
    let mut found = statement.query(params![owner, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut links = Vec::new();
    while let Some(row) = found.next()? {
        links.push(link(row)?);
    }
    Ok(links)
}

pub(super) fn revoke(connection: &Connection, id: &LinkId, now: Timestamp) -> Done<()> {
    get(connection, id)?;
    connection
        .prepare_cached("UPDATE link SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1")?
        .execute(params![id.as_bytes(), now.as_millis()])?;
    connection.prepare_cached("DELETE FROM claim WHERE link_id = ?1")?.execute([id.as_bytes()])?;
    Ok(())
}

pub(super) fn take_use(
    connection: &Connection,
    id: &LinkId,
    claim: Option<&LinkClaim>,
    now: Timestamp,
) -> Done<()> {
    let taken = connection
        .prepare_cached(
            "UPDATE link SET uses = uses + 1, last_used_at = ?2 WHERE id = ?1 AND revoked_at IS NULL \
             AND expires_at > ?2 AND (max_downloads IS NULL OR uses < max_downloads)",
        )?
        .execute(params![id.as_bytes(), now.as_millis()])?;
    if taken == 0 {
        return Err(refusal(&get(connection, id)?, now).into());
    }
    let Some(claim) = claim else { return Ok(()) };
    connection
        .prepare_cached(&format!("INSERT INTO claim ({CLAIM}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"))?
        .execute(params![
            claim.id.as_bytes(),
            claim.link.as_bytes(),
            claim.address.map(|address| address.to_string()),
            claim.created_at.as_millis(),
            claim.deadline.as_millis(),
            signed(claim.sent)?,
            signed(claim.forgiven)?,
            covered_text(claim)?,
            claim.done_at.map(Timestamp::as_millis),
        ])?;
    Ok(())
}

pub(super) fn claim(connection: &Connection, link: &LinkId, id: &ClaimId) -> Done<LinkClaim> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {CLAIM} FROM claim WHERE id = ?1 AND link_id = ?2"))?;
    let mut found = statement.query(params![id.as_bytes(), link.as_bytes()])?;
    match found.next()? {
        Some(row) => one_claim(row),
        None => Err(gone().into()),
    }
}

pub(super) fn claims(connection: &Connection, link: &LinkId, limit: usize) -> Done<Vec<LinkClaim>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CLAIM} FROM claim WHERE link_id = ?1 ORDER BY created_at DESC, id LIMIT ?2"
    ))?;
    let mut found = statement.query(params![link.as_bytes(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut claims = Vec::new();
    while let Some(row) = found.next()? {
        claims.push(one_claim(row)?);
    }
    Ok(claims)
}

pub(super) fn save(connection: &Connection, claim: &LinkClaim) -> Done<()> {
    connection
        .prepare_cached(
            "UPDATE claim SET sent = ?2, forgiven = ?3, covered = ?4, done_at = ?5 WHERE id = ?1",
        )?
        .execute(params![
            claim.id.as_bytes(),
            signed(claim.sent)?,
            signed(claim.forgiven)?,
            covered_text(claim)?,
            claim.done_at.map(Timestamp::as_millis),
        ])?;
    Ok(())
}

pub(super) fn expire(connection: &Connection, now: Timestamp, before: Timestamp) -> Done<()> {
    connection.prepare_cached("DELETE FROM claim WHERE deadline <= ?1")?.execute([now.as_millis()])?;
    connection.prepare_cached("DELETE FROM link WHERE expires_at < ?1")?.execute([before.as_millis()])?;
    Ok(())
}

fn time(row: &Row<'_>, column: usize) -> Done<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

fn link(row: &Row<'_>) -> Done<Link> {
    let role: String = row.get(2)?;
    let target: String = row.get(3)?;
    let ip: Option<String> = row.get(8)?;
    Ok(Link {
        id: LinkId::from_bytes(row.get(0)?),
        owner: row.get(1)?,
        role: Role::parse(&role).ok_or_else(|| damaged("a link"))?,
        target: target_of(&target)?,
        expires_at: Timestamp::from_millis(row.get(4)?),
        not_before: time(row, 5)?,
        max_downloads: row.get::<_, Option<i64>>(6)?.map(unsigned).transpose()?,
        uses: rows::number(row, 7)?,
        ip: ip.map(|ip| AddressRange::parse(&ip).ok_or_else(|| damaged("a link"))).transpose()?,
        password: row.get(9)?,
        filename: row.get(10)?,
        created_at: Timestamp::from_millis(row.get(11)?),
        revoked_at: time(row, 12)?,
        last_used_at: time(row, 13)?,
        rate_limit: row.get::<_, Option<i64>>(14)?.map(unsigned).transpose()?.and_then(NonZeroU64::new),
    })
}

fn one_claim(row: &Row<'_>) -> Done<LinkClaim> {
    let address: Option<String> = row.get(2)?;
    let covered: String = row.get(7)?;
    Ok(LinkClaim {
        id: ClaimId::from_bytes(row.get(0)?),
        link: LinkId::from_bytes(row.get(1)?),
        address: address.map(|text| text.parse().map_err(|_| damaged("a claim"))).transpose()?,
        created_at: Timestamp::from_millis(row.get(3)?),
        deadline: Timestamp::from_millis(row.get(4)?),
        sent: rows::number(row, 5)?,
        forgiven: rows::number(row, 6)?,
        covered: serde_json::from_str(&covered).map_err(|_| damaged("a claim"))?,
        done_at: time(row, 8)?,
    })
}
