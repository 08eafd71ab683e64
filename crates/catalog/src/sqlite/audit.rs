//! The audit log: blocks in a table, and the thread's view of where their chain ends. What others are told of the same
//! changes goes the same way.

use super::error::{Done, Failed, sqlite_error};
use super::events;
use super::rows::{damaged, signed, unsigned};
use crate::audit::{AuditBlock, AuditPage, AuditQuery, Position};
use crate::common::journal::{self, Filling, LOOKED_AT_BLOCKS, LOOKED_AT_BYTES};
pub(super) use crate::common::journal::{Journal, Packed, pack};
use carrack_domain::audit::chain::{ChainId, Hash, Head, Header};
use carrack_domain::{Clock, Result, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

const BLOCK: &str = "seq, at, records, prev, content, hash, size, zstd, body";

/// The writer's view of the log.
pub(super) fn journal(
    connection: &Connection,
    clock: Option<Arc<dyn Clock>>,
    event_clock: Option<Arc<dyn Clock>>,
) -> Result<Journal> {
    let head = head(connection).map_err(|failed| failed.into_error("read the audit log"))?;
    Ok(Journal::new(clock, event_clock, head))
}

/// Adds a block.
pub(super) fn append(
    connection: &Connection,
    journal: &mut Journal,
    packed: &Packed,
) -> rusqlite::Result<()> {
    let header = journal.add(packed);
    connection
        .prepare_cached(&format!(
            "INSERT INTO audit_block ({BLOCK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute(params![
            header.block as i64,
            header.at.as_millis(),
            header.records as i64,
            header.prev.0,
            header.content.0,
            header.hash.0,
            packed.size as i64,
            packed.zstd,
            packed.body,
        ])?;
    Ok(())
}

/// Before a commit: the changes of the transaction become a block, and events.
pub(super) fn seal(connection: &Connection, journal: &mut Journal) -> rusqlite::Result<()> {
    if let Some((at, events)) = journal.events() {
        events::insert(connection, at, events)?;
    }
    match journal.seal() {
        Ok(None) => Ok(()),
        Ok(Some(packed)) => append(connection, journal, &packed),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.chain().into())),
    }
}

fn chain(connection: &Connection) -> Done<ChainId> {
    let id = connection.query_row("SELECT id FROM audit_chain", [], |row| row.get(0)).optional()?;
    Ok(ChainId(id.ok_or_else(|| damaged("audit_chain"))?))
}

pub(super) fn head(connection: &Connection) -> Done<Head> {
    Ok(last(connection, i64::MAX)?.map_or(Head::new(chain(connection)?), |header| header.head()))
}

/// The header of the last block up to `seq`.
fn last(connection: &Connection, seq: i64) -> Done<Option<Header>> {
    let chain = chain(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, records, prev, content, hash FROM audit_block WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
    )?;
    let mut found = statement.query([seq])?;
    found.next()?.map(|row| header(row, chain)).transpose()
}

fn header(row: &Row<'_>, chain: ChainId) -> Done<Header> {
    Ok(Header {
        block: unsigned(row.get(0)?)?,
        chain,
        prev: Hash(row.get(3)?),
        at: Timestamp::from_millis(row.get(1)?),
        records: unsigned(row.get(2)?)?,
        content: Hash(row.get(4)?),
        hash: Hash(row.get(5)?),
    })
}

/// The lines of a block; `None` when they cannot be unpacked.
fn unpack(row: &Row<'_>) -> Done<Option<Vec<u8>>> {
    let body = row.get_ref(8)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(journal::unpack(row.get(6)?, row.get(7)?, body)?)
}

/// The first block whose time is not before `since`. Times never go back along the chain.
fn first_since(connection: &Connection, since: Timestamp) -> Done<i64> {
    let ends = connection.query_row("SELECT min(seq), max(seq) FROM audit_block", [], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let (Some(mut low), Some(high)) = ends else { return Ok(1) };
    let mut high = high + 1;
    let mut statement = connection.prepare_cached("SELECT at FROM audit_block WHERE seq = ?1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let at: Option<i64> = statement.query_row([middle], |row| row.get(0)).optional()?;
        if at.is_some_and(|at| at < since.as_millis()) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

pub(super) fn page(
    connection: &Connection,
    query: &AuditQuery,
    from: Option<Position>,
    limit: usize,
) -> Done<AuditPage> {
    let since = query.since.map(|since| first_since(connection, since)).transpose()?.unwrap_or(1);
    let first = from.map_or(0, |from| from.block);
    let mut filling = Filling::new(query, from, limit);
    let mut statement = connection
        .prepare_cached(&format!("SELECT {BLOCK} FROM audit_block WHERE seq >= ?1 ORDER BY seq"))?;
    let mut found = statement.query([signed(first)?.max(since)])?;
    while let Some(row) = found.next()? {
        let block = unsigned(row.get(0)?)?;
        if !filling.wants(block, row.get(1)?) || !filling.take(block, unpack(row)?)? {
            break;
        }
    }
    Ok(filling.page)
}

pub(super) fn blocks(connection: &Connection, after: u64) -> Done<Vec<AuditBlock>> {
    let chain = chain(connection)?;
    let mut statement =
        connection.prepare_cached(&format!("SELECT {BLOCK} FROM audit_block WHERE seq > ?1 ORDER BY seq"))?;
    let mut found = statement.query([signed(after)?])?;
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while bytes < LOOKED_AT_BYTES
        && blocks.len() < LOOKED_AT_BLOCKS
        && let Some(row) = found.next()?
    {
        let text = unpack(row)?;
        bytes += text.as_ref().map_or(0, Vec::len) as u64;
        blocks.push(AuditBlock { header: header(row, chain)?, text });
    }
    Ok(blocks)
}

pub(super) fn older(connection: &Connection, before: Timestamp) -> Done<Option<Head>> {
    let first = first_since(connection, before)?;
    let end = head(connection)?.block;
    let last = last(connection, (first - 1).min(signed(end)? - 1))?;
    Ok(last.map(|header| header.head()))
}

pub(super) fn drop_through(connection: &Connection, through: u64) -> Done<u64> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM audit_block WHERE seq <= ?1 AND seq < (SELECT max(seq) FROM audit_block)",
        )?
        .execute([signed(through)?])?;
    Ok(gone as u64)
}

/// The log in the database of a server, which may be running or not, to be read alone.
pub struct AuditFile {
    connection: Connection,
}

impl AuditFile {
    /// Opens it. The error is a sentence for the operator.
    pub fn open(path: &std::path::Path) -> std::result::Result<AuditFile, super::OpenError> {
        let connection = super::open::reader(path, 1)?;
        let known = connection.prepare("SELECT id FROM audit_chain").map(drop);
        known.map_err(|error| super::OpenError::sqlite(path, &error))?;
        Ok(AuditFile { connection })
    }

    /// Blocks after this one, as [`crate::AuditCatalog::audit_blocks`].
    pub fn blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        blocks(&self.connection, after).map_err(|failed| match failed {
            Failed::Rule(error) => error,
            Failed::Sqlite(error) => sqlite_error("read the audit log", error),
        })
    }
}
