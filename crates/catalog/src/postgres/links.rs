//! Links and the uses that were claimed of them.

use super::error::Done;
use super::rows::{bytes, count, fixed, get, number, some_number, some_time, time};
use super::session::{Session, params};
use crate::common::links::{covered_text, gone, not_found, refusal, target_of, target_text};
use crate::common::values::{damaged, signed};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::policy::AddressRange;
use carrack_domain::{ClaimId, LinkId, Role, Timestamp};
use std::num::NonZeroU64;
use tokio_postgres::Row;

const LINK: &str = "id, owner, role, target, expires_at, not_before, max_downloads, uses, ip, password, filename, \
     created_at, revoked_at, last_used_at, rate_limit";
const CLAIM: &str = "id, link_id, address, created_at, deadline, sent, forgiven, covered, done_at";

pub(super) async fn create(session: &Session, link: &Link) -> Done<()> {
    let sql = format!(
        "INSERT INTO link ({LINK}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
    );
    let values = params![
        bytes(link.id.as_bytes()),
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
    ];
    session.execute(&sql, values).await?;
    Ok(())
}

pub(super) async fn find(session: &Session, id: &LinkId) -> Done<Link> {
    let sql = format!("SELECT {LINK} FROM link WHERE id = $1");
    link(&session.row(&sql, params![bytes(id.as_bytes())]).await?.ok_or_else(not_found)?)
}

pub(super) async fn list(session: &Session, owner: &str, limit: usize) -> Done<Vec<Link>> {
    let sql = format!("SELECT {LINK} FROM link WHERE owner = $1 ORDER BY created_at DESC, id LIMIT $2");
    session.rows(&sql, params![owner, count(limit)]).await?.iter().map(link).collect()
}

pub(super) async fn revoke(session: &Session, id: &LinkId, now: Timestamp) -> Done<()> {
    find(session, id).await?;
    let id = bytes(id.as_bytes());
    let sql = "UPDATE link SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1";
    session.execute(sql, params![id, now.as_millis()]).await?;
    session.execute("DELETE FROM claim WHERE link_id = $1", params![id]).await?;
    Ok(())
}

pub(super) async fn take_use(
    session: &Session,
    id: &LinkId,
    claim: Option<&LinkClaim>,
    now: Timestamp,
) -> Done<()> {
    let sql = "UPDATE link SET uses = uses + 1, last_used_at = $2 WHERE id = $1 AND revoked_at IS NULL \
         AND expires_at > $2 AND (max_downloads IS NULL OR uses < max_downloads)";
    if session.execute(sql, params![bytes(id.as_bytes()), now.as_millis()]).await? == 0 {
        return Err(refusal(&find(session, id).await?, now).into());
    }
    let Some(claim) = claim else { return Ok(()) };
    let sql = format!("INSERT INTO claim ({CLAIM}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    let values = params![
        bytes(claim.id.as_bytes()),
        bytes(claim.link.as_bytes()),
        claim.address.map(|address| address.to_string()),
        claim.created_at.as_millis(),
        claim.deadline.as_millis(),
        signed(claim.sent)?,
        signed(claim.forgiven)?,
        covered_text(claim)?,
        claim.done_at.map(Timestamp::as_millis),
    ];
    session.execute(&sql, values).await?;
    Ok(())
}

pub(super) async fn claim(session: &Session, link: &LinkId, id: &ClaimId) -> Done<LinkClaim> {
    let sql = format!("SELECT {CLAIM} FROM claim WHERE id = $1 AND link_id = $2");
    let row = session.row(&sql, params![bytes(id.as_bytes()), bytes(link.as_bytes())]).await?;
    one_claim(&row.ok_or_else(gone)?)
}

pub(super) async fn claims(session: &Session, link: &LinkId, limit: usize) -> Done<Vec<LinkClaim>> {
    let sql = format!("SELECT {CLAIM} FROM claim WHERE link_id = $1 ORDER BY created_at DESC, id LIMIT $2");
    let found = session.rows(&sql, params![bytes(link.as_bytes()), count(limit)]).await?;
    found.iter().map(one_claim).collect()
}

pub(super) async fn save(session: &Session, claim: &LinkClaim) -> Done<()> {
    let sql = "UPDATE claim SET sent = $2, forgiven = $3, covered = $4, done_at = $5 WHERE id = $1";
    let values = params![
        bytes(claim.id.as_bytes()),
        signed(claim.sent)?,
        signed(claim.forgiven)?,
        covered_text(claim)?,
        claim.done_at.map(Timestamp::as_millis),
    ];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn expire(session: &Session, now: Timestamp, before: Timestamp) -> Done<()> {
    session.execute("DELETE FROM claim WHERE deadline <= $1", params![now.as_millis()]).await?;
    session.execute("DELETE FROM link WHERE expires_at < $1", params![before.as_millis()]).await?;
    Ok(())
}

fn link(row: &Row) -> Done<Link> {
    let ip: Option<&str> = get(row, 8)?;
    Ok(Link {
        id: LinkId::from_bytes(fixed(row, 0)?),
        owner: get(row, 1)?,
        role: Role::parse(get(row, 2)?).ok_or_else(|| damaged("a link"))?,
        target: target_of(get(row, 3)?)?,
        expires_at: time(row, 4)?,
        not_before: some_time(row, 5)?,
        max_downloads: some_number(row, 6)?,
        uses: number(row, 7)?,
        ip: ip.map(|ip| AddressRange::parse(ip).ok_or_else(|| damaged("a link"))).transpose()?,
        password: get(row, 9)?,
        filename: get(row, 10)?,
        created_at: time(row, 11)?,
        revoked_at: some_time(row, 12)?,
        last_used_at: some_time(row, 13)?,
        rate_limit: some_number(row, 14)?.and_then(NonZeroU64::new),
    })
}

fn one_claim(row: &Row) -> Done<LinkClaim> {
    let address: Option<&str> = get(row, 2)?;
    Ok(LinkClaim {
        id: ClaimId::from_bytes(fixed(row, 0)?),
        link: LinkId::from_bytes(fixed(row, 1)?),
        address: address.map(|text| text.parse().map_err(|_| damaged("a claim"))).transpose()?,
        created_at: time(row, 3)?,
        deadline: time(row, 4)?,
        sent: number(row, 5)?,
        forgiven: number(row, 6)?,
        covered: serde_json::from_str(get(row, 7)?).map_err(|_| damaged("a claim"))?,
        done_at: some_time(row, 8)?,
    })
}
