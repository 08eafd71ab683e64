//! Access tokens and sessions, and tokens of others that are good no more.

use super::error::Done;
use super::rows::{bytes, count, fixed, get, some_fixed, some_time, time};
use super::session::{Session, params};
use crate::common::tokens::{self, buckets_text, not_found};
use crate::common::values::damaged;
use carrack_domain::access::Identity;
use carrack_domain::token::{Carrier, Denial, Token};
use carrack_domain::{ForeignTokenId, Role, Timestamp, TokenId};
use tokio_postgres::Row;

const TOKEN: &str =
    "hash, id, parent, session, subject, role, buckets, created_at, created_by, expires_at, made_with";

pub(super) async fn create(session: &Session, token: &Token) -> Done<()> {
    if let Some(parent) = &token.parent {
        // The foreign key would say so too, but not in words.
        find(session, parent).await?;
    }
    let identity = &token.identity;
    let sql = format!("INSERT INTO token ({TOKEN}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
    let values = params![
        bytes(&token.hash),
        bytes(token.id.as_bytes()),
        token.parent.as_ref().map(|parent| bytes(parent.as_bytes())),
        token.carrier == Carrier::Cookie,
        identity.subject,
        identity.role.as_str(),
        buckets_text(identity),
        token.created_at.as_millis(),
        token.created_by,
        identity.expires_at.map(Timestamp::as_millis),
        identity.foreign.as_ref().map(|foreign| bytes(foreign.as_bytes())),
    ];
    session.execute(&sql, values).await?;
    Ok(())
}

pub(super) async fn by_hash(session: &Session, hash: &[u8; 32]) -> Done<Token> {
    one(session, "hash", hash).await
}

pub(super) async fn find(session: &Session, id: &TokenId) -> Done<Token> {
    one(session, "id", id.as_bytes()).await
}

async fn one(session: &Session, column: &'static str, value: &[u8]) -> Done<Token> {
    let sql = format!("SELECT {TOKEN} FROM token WHERE {column} = $1");
    token(&session.row(&sql, params![value]).await?.ok_or_else(not_found)?)
}

pub(super) async fn list(session: &Session, limit: usize) -> Done<Vec<Token>> {
    let sql = format!("SELECT {TOKEN} FROM token WHERE NOT session ORDER BY created_at, id LIMIT $1");
    session.rows(&sql, params![count(limit)]).await?.iter().map(token).collect()
}

pub(super) async fn delete(session: &Session, id: &TokenId) -> Done<Vec<Token>> {
    let mut gone = vec![find(session, id).await?];
    // One generation only: a session makes no further tokens.
    let sql = format!("SELECT {TOKEN} FROM token WHERE parent = $1");
    let id = bytes(id.as_bytes());
    for row in session.rows(&sql, params![id]).await? {
        gone.push(token(&row)?);
    }
    session.execute("DELETE FROM token WHERE id = $1", params![id]).await?;
    Ok(gone)
}

pub(super) async fn deny(session: &Session, denial: &Denial) -> Done<()> {
    let sql = "INSERT INTO denied (issuer, jti, until, denied_at, denied_by) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (issuer, jti) DO UPDATE SET until = excluded.until";
    let values = params![
        denial.issuer,
        denial.jti,
        denial.until.map(Timestamp::as_millis),
        denial.denied_at.as_millis(),
        denial.denied_by,
    ];
    session.execute(sql, values).await?;
    Ok(())
}

pub(super) async fn denied(session: &Session, limit: usize) -> Done<Vec<Denial>> {
    let sql = "SELECT issuer, jti, until, denied_at, denied_by FROM denied ORDER BY denied_at, issuer, jti LIMIT $1";
    let one = |row: &Row| {
        Ok(Denial {
            issuer: get(row, 0)?,
            jti: get(row, 1)?,
            until: some_time(row, 2)?,
            denied_at: time(row, 3)?,
            denied_by: get(row, 4)?,
        })
    };
    session.rows(sql, params![count(limit)]).await?.iter().map(one).collect()
}

pub(super) async fn expire(session: &Session, now: Timestamp) -> Done<u64> {
    let now = now.as_millis();
    session.execute("DELETE FROM denied WHERE until <= $1", params![now]).await?;
    session.execute("DELETE FROM token WHERE expires_at IS NOT NULL AND expires_at <= $1", params![now]).await
}

fn token(row: &Row) -> Done<Token> {
    let id = TokenId::from_bytes(fixed(row, 1)?);
    Ok(Token {
        hash: fixed(row, 0)?,
        id,
        parent: some_fixed(row, 2)?.map(TokenId::from_bytes),
        carrier: if get(row, 3)? { Carrier::Cookie } else { Carrier::Bearer },
        identity: Identity {
            subject: get(row, 4)?,
            role: Role::parse(get(row, 5)?).ok_or_else(|| damaged("a token"))?,
            buckets: tokens::buckets(get(row, 6)?)?,
            token: Some(id),
            foreign: some_fixed(row, 10)?.map(ForeignTokenId::from_bytes),
            expires_at: some_time(row, 9)?,
        },
        created_at: time(row, 7)?,
        created_by: get(row, 8)?,
    })
}
