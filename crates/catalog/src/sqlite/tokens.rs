//! Access tokens and sessions, and tokens of others that are good no more.

use super::error::Done;
use super::rows::damaged;
use crate::common::tokens::{self, buckets_text, not_found};
use carrack_domain::access::Identity;
use carrack_domain::token::{Carrier, Denial, Token};
use carrack_domain::{ForeignTokenId, Role, Timestamp, TokenId};
use rusqlite::{Connection, Row, params};

const TOKEN: &str =
    "hash, id, parent, session, subject, role, buckets, created_at, created_by, expires_at, made_with";

pub(super) fn create(connection: &Connection, token: &Token) -> Done<()> {
    if let Some(parent) = &token.parent {
        // The foreign key would say so too, but not in words.
        get(connection, parent)?;
    }
    let identity = &token.identity;
    let buckets = buckets_text(identity);
    connection
        .prepare_cached(&format!(
            "INSERT INTO token ({TOKEN}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        ))?
        .execute(params![
            token.hash,
            token.id.as_bytes(),
            token.parent.as_ref().map(|parent| parent.as_bytes()),
            token.carrier == Carrier::Cookie,
            identity.subject,
            identity.role.as_str(),
            buckets,
            token.created_at.as_millis(),
            token.created_by,
            identity.expires_at.map(Timestamp::as_millis),
            identity.foreign.as_ref().map(|foreign| foreign.as_bytes()),
        ])?;
    Ok(())
}

pub(super) fn by_hash(connection: &Connection, hash: &[u8; 32]) -> Done<Token> {
    one(connection, "hash", hash)
}

pub(super) fn get(connection: &Connection, id: &TokenId) -> Done<Token> {
    one(connection, "id", id.as_bytes())
}

fn one(connection: &Connection, column: &'static str, value: &[u8]) -> Done<Token> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {TOKEN} FROM token WHERE {column} = ?1"))?;
    let mut found = statement.query([value])?;
    match found.next()? {
        Some(row) => token(row),
        None => Err(not_found().into()),
    }
}

pub(super) fn list(connection: &Connection, limit: usize) -> Done<Vec<Token>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {TOKEN} FROM token WHERE session = 0 ORDER BY created_at, id LIMIT ?1"
    ))?;
    let mut found = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut tokens = Vec::new();
    while let Some(row) = found.next()? {
        tokens.push(token(row)?);
    }
    Ok(tokens)
}

pub(super) fn delete(connection: &Connection, id: &TokenId) -> Done<Vec<Token>> {
    let mut gone = vec![get(connection, id)?];
    // One generation only: a session makes no further tokens.
    let mut statement = connection.prepare_cached(&format!("SELECT {TOKEN} FROM token WHERE parent = ?1"))?;
    let mut found = statement.query([id.as_bytes()])?;
    while let Some(row) = found.next()? {
        gone.push(token(row)?);
    }
    drop(found);
    drop(statement);
    connection.prepare_cached("DELETE FROM token WHERE id = ?1")?.execute([id.as_bytes()])?;
    Ok(gone)
}

pub(super) fn deny(connection: &Connection, denial: &Denial) -> Done<()> {
    connection
        .prepare_cached(
            "INSERT INTO denied (issuer, jti, until, denied_at, denied_by) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (issuer, jti) DO UPDATE SET until = excluded.until",
        )?
        .execute(params![
            denial.issuer,
            denial.jti,
            denial.until.map(Timestamp::as_millis),
            denial.denied_at.as_millis(),
            denial.denied_by,
        ])?;
    Ok(())
}

pub(super) fn denied(connection: &Connection, limit: usize) -> Done<Vec<Denial>> {
    let mut statement = connection.prepare_cached(
        "SELECT issuer, jti, until, denied_at, denied_by FROM denied ORDER BY denied_at, issuer, jti LIMIT ?1",
    )?;
    let mut found = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut denied = Vec::new();
    while let Some(row) = found.next()? {
        denied.push(Denial {
            issuer: row.get(0)?,
            jti: row.get(1)?,
            until: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
            denied_at: Timestamp::from_millis(row.get(3)?),
            denied_by: row.get(4)?,
        });
    }
    Ok(denied)
}

pub(super) fn expire(connection: &Connection, now: Timestamp) -> Done<u64> {
    connection.prepare_cached("DELETE FROM denied WHERE until <= ?1")?.execute([now.as_millis()])?;
    let gone = connection
        .prepare_cached("DELETE FROM token WHERE expires_at IS NOT NULL AND expires_at <= ?1")?
        .execute([now.as_millis()])?;
    Ok(gone as u64)
}

fn token(row: &Row<'_>) -> Done<Token> {
    let id = TokenId::from_bytes(row.get(1)?);
    let role: String = row.get(5)?;
    let buckets: Option<String> = row.get(6)?;
    let buckets = tokens::buckets(buckets.as_deref())?;
    let expires_at: Option<i64> = row.get(9)?;
    Ok(Token {
        hash: row.get(0)?,
        id,
        parent: row.get::<_, Option<[u8; 16]>>(2)?.map(TokenId::from_bytes),
        carrier: if row.get(3)? { Carrier::Cookie } else { Carrier::Bearer },
        identity: Identity {
            subject: row.get(4)?,
            role: Role::parse(&role).ok_or_else(|| damaged("a token"))?,
            buckets,
            token: Some(id),
            foreign: row.get::<_, Option<[u8; 16]>>(10)?.map(ForeignTokenId::from_bytes),
            expires_at: expires_at.map(Timestamp::from_millis),
        },
        created_at: Timestamp::from_millis(row.get(7)?),
        created_by: row.get(8)?,
    })
}
