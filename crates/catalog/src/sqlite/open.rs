//! Opening: checks, pragmas, migrations.

use super::error::OpenError;
use super::{contents, events, jobs};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// The first SQLite without the WAL reset race that damages databases.
const SQLITE_LEAST: i32 = 3_051_003;
/// "CRCK": marks a database as ours.
const APPLICATION_ID: i64 = 0x4352_434b;
/// Schema changes, in order; the schema version is how many of them a database has seen.
const MIGRATIONS: [&str; 13] = [
    include_str!("../../migrations/sqlite/0001_facts.sql"),
    include_str!("../../migrations/sqlite/0002_append.sql"),
    include_str!("../../migrations/sqlite/0003_archives.sql"),
    include_str!("../../migrations/sqlite/0004_resumable.sql"),
    include_str!("../../migrations/sqlite/0005_access.sql"),
    include_str!("../../migrations/sqlite/0006_links.sql"),
    include_str!("../../migrations/sqlite/0007_audit.sql"),
    include_str!("../../migrations/sqlite/0008_owners.sql"),
    include_str!("../../migrations/sqlite/0009_contents.sql"),
    include_str!("../../migrations/sqlite/0010_shared_archives.sql"),
    include_str!("../../migrations/sqlite/0011_events.sql"),
    include_str!("../../migrations/sqlite/0012_receipts.sql"),
    include_str!("../../migrations/sqlite/0013_direct.sql"),
];
/// What a whole check may read at most: the start may not take longer than 2 s.
const QUICK_CHECK_BYTES_MAX: u64 = 256 << 20;
/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(1);
/// Distinct statements kept ready on each connection; there are about 145.
const STATEMENTS: usize = 176;
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 8 << 10;
/// Page cache of all readers together, in KiB.
const READERS_CACHE_KIB: i64 = 16 << 10;

/// Opens the one connection that writes, creates or migrates the schema, and notes that the catalog is in use.
pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_LEAST {
        return Err(OpenError::SqliteTooOld { found: rusqlite::version().to_owned() });
    }
    probe_directory(path).map_err(|error| OpenError::io(path, &error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(path, &error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    if connection.is_readonly("main").map_err(sqlite)? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    refuse_foreign(&connection, path)?;
    pragmas(&connection, WRITER_CACHE_KIB).map_err(sqlite)?;
    migrate(&mut connection).map_err(sqlite)?;
    check_after_unclean_stop(&connection, path)?;
    contents::give_numbers(&connection).map_err(sqlite)?;
    set_clean(&connection, false).map_err(sqlite)?;
    jobs::free_all(&connection).map_err(sqlite)?;
    events::free_all(&connection).map_err(sqlite)?;
    sync_directory(path).map_err(|error| OpenError::io(path, &error))?;
    Ok(connection)
}

/// Opens a connection that only reads; `of` of them share the readers' page cache.
pub(super) fn reader(path: &Path, of: usize) -> Result<Connection, OpenError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(path, &error);
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    let share = READERS_CACHE_KIB / i64::try_from(of).unwrap_or(i64::MAX).max(1);
    pragmas(&connection, share.max(1 << 10)).map_err(sqlite)?;
    Ok(connection)
}

/// Sets whether the catalog was closed in order.
pub(super) fn set_clean(connection: &Connection, clean: bool) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET value = ?1 WHERE name = 'clean'", [i64::from(clean)])?;
    Ok(())
}

fn pragmas(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on bound values: else SQLite (built with STAT4) prepares a statement anew for every value,
    // which makes the read of a file six times as dear.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if connection.is_readonly("main")? {
        return Ok(());
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(mode, "the file system does not allow a write-ahead log");
    }
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Refuses databases of others and of the future before anything in them is changed.
fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| OpenError::sqlite(path, &error))
    };
    let found = number("PRAGMA user_version")?;
    let known = MIGRATIONS.len() as i64;
    let ours = number("PRAGMA application_id")? == APPLICATION_ID;
    if !ours && (found != 0 || number("SELECT count(*) FROM sqlite_schema")? != 0) {
        let reason = "it is the database of another program".to_owned();
        return Err(OpenError::Damaged { path: path.to_owned(), reason });
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let seen = usize::try_from(found).unwrap_or(usize::MAX);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(seen) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.commit()
}

fn check_after_unclean_stop(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(path, &error);
    let clean: i64 = connection
        .query_row("SELECT value FROM meta WHERE name = 'clean'", [], |row| row.get(0))
        .map_err(sqlite)?;
    if clean == 1 {
        return Ok(());
    }
    let bytes = std::fs::metadata(path).map_err(|error| OpenError::io(path, &error))?.len();
    if bytes > QUICK_CHECK_BYTES_MAX {
        tracing::warn!(bytes, "catalog was not closed in order; it is too large to be checked at start");
        return Ok(());
    }
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if found != "ok" {
        return Err(OpenError::Damaged { path: path.to_owned(), reason: found });
    }
    tracing::info!(bytes, "catalog was not closed in order; checked, no damage found");
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The log and its index are made beside the database: its directory must be writable, and only a file made there
/// tells. The database itself is not opened for that, because closing it would release SQLite's locks.
fn probe_directory(path: &Path) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".probe");
    let probe = directory(path).join(name);
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)
}

/// Makes the names of a new database survive a power cut.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory(path))?.sync_all()
}
