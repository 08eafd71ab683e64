//! Opening: what the server must be like, and migrations.
//!
//! *Versions side by side.* A migration only adds what the binary before it does not mind: columns with a default, tables,
//! indexes. What that one would mind comes a version later, once none of it runs. Each migration says which is the oldest
//! binary that may go on after it (`needs`); an older one refuses to start.

use super::error::{Done, Failed, PostgresError, said};
use super::rows::get;
use super::session::{Server, Session, VERSION_LEAST, params};
use super::writer::TURN;
use std::time::{Duration, Instant};

/// A change of the schema.
struct Migration {
    name: &'static str,
    sql: &'static str,
    /// The schema version that the oldest binary knows which can work with what this one leaves.
    needs: i64,
}

/// In order; the schema version is how many of them a database has seen.
const MIGRATIONS: [Migration; 4] = [
    Migration { name: "facts", sql: include_str!("../../migrations/postgres/0001_facts.sql"), needs: 1 },
    Migration { name: "events", sql: include_str!("../../migrations/postgres/0002_events.sql"), needs: 1 },
    Migration {
        name: "receipts",
        sql: include_str!("../../migrations/postgres/0003_receipts.sql"),
        needs: 1,
    },
    Migration { name: "direct", sql: include_str!("../../migrations/postgres/0004_direct.sql"), needs: 1 },
];

/// How long a server that is starting, or changing its primary, is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long between two attempts.
const POLL: Duration = Duration::from_millis(250);

/// What [`super::PostgresCatalog::migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The schema version that was found; 0 for an empty database.
    pub from: i64,
    /// The schema version that is there now.
    pub to: i64,
    /// The names of the migrations that were applied, in order.
    pub applied: Vec<&'static str>,
}

/// A session with a server that is as it must be.
pub(super) async fn reach(server: &Server) -> Result<Session, PostgresError> {
    let begun = Instant::now();
    let session = loop {
        match server.open().await {
            Ok(session) => break session,
            Err(error) if error.is_passing() && begun.elapsed() < PATIENCE => {
                tracing::warn!(error = error.to_string(), "waiting for the catalog");
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error),
        }
    };
    let at = || server.at();
    let sql = "SELECT current_setting('server_version_num')::bigint, current_setting('server_version'), \
         pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean, \
         current_setting('server_encoding')";
    let row = session.row(sql, &[]).await.map_err(|failed| unreachable(at(), failed))?;
    let row = row.ok_or_else(|| unreachable(at(), Failed::Silent))?;
    let facts = || -> Done<(i64, String, bool, String)> {
        Ok((get(&row, 0)?, get(&row, 1)?, get(&row, 2)?, get(&row, 3)?))
    };
    let (number, found, read_only, encoding) = facts().map_err(|failed| unreachable(at(), failed))?;
    if number < i64::from(VERSION_LEAST) * 10_000 {
        return Err(PostgresError::TooOld { at: at(), found, least: VERSION_LEAST });
    }
    if read_only {
        return Err(PostgresError::ReadOnly { at: at() });
    }
    if encoding != "UTF8" {
        return Err(PostgresError::Encoding { at: at(), found: encoding });
    }
    Ok(session)
}

fn unreachable(at: String, failed: Failed) -> PostgresError {
    let reason = match failed {
        Failed::Postgres(error) => said(&error),
        Failed::Rule(error) => error.chain(),
        Failed::Silent => "no answer in time".to_owned(),
    };
    PostgresError::Unreachable { at, reason }
}

/// Applies what is outstanding, or, unless `apply`, refuses to work without it. Of several nodes that start at once one
/// applies, the others wait for it.
pub(super) async fn migrate(
    server: &Server,
    session: &Session,
    apply: bool,
) -> Result<Migrated, PostgresError> {
    let at = || server.at();
    let seen = seen(session).await.map_err(|failed| cannot_migrate(at(), failed))?;
    let known = MIGRATIONS.len() as i64;
    refuse_newer(&at(), seen)?;
    if seen.found >= known {
        return Ok(Migrated { from: seen.found, to: seen.found, applied: Vec::new() });
    }
    if !apply {
        return Err(PostgresError::Outdated { at: at(), found: seen.found, known });
    }
    // A large table takes its time.
    let begin = format!(
        "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         BEGIN; SELECT pg_advisory_xact_lock({TURN})"
    );
    session.batch_slowly(&begin).await.map_err(|failed| cannot_migrate(at(), failed))?;
    let applied = apply_all(server, session).await;
    let end = if applied.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.batch_slowly(end).await.map_err(|failed| cannot_migrate(at(), failed));
    let migrated = applied?;
    ended?;
    Ok(migrated)
}

/// Under the lock: another node may have been faster.
async fn apply_all(server: &Server, session: &Session) -> Result<Migrated, PostgresError> {
    let failed = |failed| cannot_migrate(server.at(), failed);
    let table = "CREATE TABLE IF NOT EXISTS carrack_migration ( \
         version bigint NOT NULL PRIMARY KEY, name text NOT NULL, needs bigint NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now())";
    session.batch_slowly(table).await.map_err(failed)?;
    let seen = seen(session).await.map_err(failed)?;
    refuse_newer(&server.at(), seen)?;
    let mut applied = Vec::new();
    let first = usize::try_from(seen.found).unwrap_or(usize::MAX);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(first) {
        session.batch_slowly(migration.sql).await.map_err(failed)?;
        let sql = "INSERT INTO carrack_migration (version, name, needs) VALUES ($1, $2, $3)";
        let values = params![index as i64 + 1, migration.name, migration.needs];
        session.execute(sql, values).await.map_err(failed)?;
        applied.push(migration.name);
    }
    let to = seen.found.max(MIGRATIONS.len() as i64);
    Ok(Migrated { from: seen.found, to, applied })
}

/// What a database has seen.
#[derive(Clone, Copy)]
struct Seen {
    found: i64,
    needs: i64,
}

async fn seen(session: &Session) -> Done<Seen> {
    let table = session.row("SELECT to_regclass('carrack_migration') IS NOT NULL", &[]).await?;
    if !table.map(|row| get(&row, 0)).transpose()?.unwrap_or(false) {
        return Ok(Seen { found: 0, needs: 0 });
    }
    let sql = "SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM carrack_migration";
    match session.row(sql, &[]).await? {
        Some(row) => Ok(Seen { found: get(&row, 0)?, needs: get(&row, 1)? }),
        None => Ok(Seen { found: 0, needs: 0 }),
    }
}

fn refuse_newer(at: &str, seen: Seen) -> Result<(), PostgresError> {
    let known = MIGRATIONS.len() as i64;
    if seen.needs <= known {
        return Ok(());
    }
    Err(PostgresError::Newer { at: at.to_owned(), found: seen.found, needs: seen.needs, known })
}

fn cannot_migrate(at: String, failed: Failed) -> PostgresError {
    let (reason, state) = match &failed {
        Failed::Postgres(error) => (said(error), super::error::code(error).to_owned()),
        Failed::Rule(error) => (error.chain(), String::new()),
        Failed::Silent => ("no answer in time".to_owned(), String::new()),
    };
    let remedy = match state.as_str() {
        "42501" => "make the user the owner of the database, or GRANT it CREATE on the schema public",
        "42P07" | "42723" => "the database is used by another program: make one for Carrack alone",
        _ => "the server's log says more",
    };
    PostgresError::Migration { at, reason, remedy }
}
