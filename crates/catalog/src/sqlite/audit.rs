//! The audit log: blocks in a table, and the thread's view of where their chain ends. What others are told of the same
//! changes goes the same way.

use super::error::{Done, Failed, sqlite_error};
use super::events;
use super::rows::{damaged, signed, unsigned};
use crate::audit::{AuditBlock, AuditPage, AuditQuery, Position};
use crate::events::{NewEvent, of_change};
use carrack_domain::audit::chain::{ChainId, Hash, Head, Header};
use carrack_domain::audit::{Change, Context, Lines};
use carrack_domain::{Clock, Code, Error, Result, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;
use std::time::Duration;

/// Bodies that are shorter are kept as they are.
const WORTH_BYTES: usize = 1 << 10;
/// The least work, which on such text is enough.
const LEVEL: i32 = 1;
/// What a body may have at most, unpacked: more is no block of ours.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// Text that is looked at for one page, or given out at once.
const LOOKED_AT_BYTES: u64 = 16 << 20;
/// Blocks that are looked at for one page: small ones are cheap, but not free.
const LOOKED_AT_BLOCKS: usize = 4096;
/// How much older than its block a record may be.
const LATE: Duration = Duration::from_secs(3600);

const BLOCK: &str = "seq, at, records, prev, content, hash, size, zstd, body";

/// Lines, ready to be a block.
pub(super) struct Packed {
    content: Hash,
    records: u64,
    at: Timestamp,
    size: usize,
    zstd: bool,
    body: Vec<u8>,
}

/// Hashes and compresses: some milliseconds for each MiB.
pub(super) fn pack(lines: &Lines) -> Result<Packed> {
    let Lines { text, count, at } = lines;
    let (content, size) = (Hash::of(text), text.len());
    let zstd = size >= WORTH_BYTES;
    let body = if zstd {
        zstd::bulk::compress(text, LEVEL).map_err(|error| Error::internal("compress records", error))?
    } else {
        text.clone()
    };
    Ok(Packed { content, records: *count, at: *at, size, zstd, body })
}

/// What the one thread that writes knows of the log.
pub(super) struct Journal {
    /// `None`: nothing is recorded.
    clock: Option<Arc<dyn Clock>>,
    /// Where the chain ends, with what the present transaction has added.
    head: Head,
    /// Where it ended before.
    committed: Head,
    /// Changes of the present transaction.
    changes: Lines,
    /// `None`: no events are kept.
    event_clock: Option<Arc<dyn Clock>>,
    /// Events of the present transaction.
    events: Vec<NewEvent>,
}

/// How far a transaction was before a command.
pub(super) struct Mark {
    head: Head,
    text: usize,
    count: u64,
    at: Timestamp,
    events: usize,
}

impl Journal {
    pub(super) fn open(
        connection: &Connection,
        clock: Option<Arc<dyn Clock>>,
        event_clock: Option<Arc<dyn Clock>>,
    ) -> Result<Journal> {
        let head = head(connection).map_err(|failed| failed.into_error("read the audit log"))?;
        Ok(Journal {
            clock,
            head,
            committed: head,
            changes: Lines::default(),
            event_clock,
            events: Vec::new(),
        })
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.head = self.committed;
        self.changes = Lines::default();
        self.events.clear();
    }

    /// The transaction is on disk.
    pub(super) fn keep(&mut self) {
        self.committed = self.head;
    }

    pub(super) fn mark(&self) -> Mark {
        let Lines { text, count, at } = &self.changes;
        Mark { head: self.head, text: text.len(), count: *count, at: *at, events: self.events.len() }
    }

    /// What a command did since `mark` was rolled back.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        self.head = mark.head;
        self.changes.text.truncate(mark.text);
        (self.changes.count, self.changes.at) = (mark.count, mark.at);
        self.events.truncate(mark.events);
    }

    /// Takes down what a command has changed.
    pub(super) fn note(&mut self, by: Option<&Context>, changes: &[Change]) {
        if self.event_clock.is_some() {
            self.events.extend(changes.iter().flat_map(|change| of_change(change, by)));
        }
        let Some(clock) = &self.clock else { return };
        let now = clock.now();
        for change in changes {
            self.changes.push(&change.record(by, now));
        }
    }

    /// Adds a block.
    pub(super) fn append(&mut self, connection: &Connection, packed: &Packed) -> rusqlite::Result<()> {
        let header = self.head.next(packed.content, packed.records, packed.at);
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
        metrics::counter!("carrack_audit_records_total").increment(header.records);
        self.head = header.head();
        Ok(())
    }

    /// Before a commit: the changes of the transaction become a block, and events.
    pub(super) fn seal(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(clock) = self.event_clock.as_ref().filter(|_| !self.events.is_empty()) {
            events::insert(connection, clock.now(), &self.events)?;
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        match pack(&std::mem::take(&mut self.changes)) {
            Ok(packed) => self.append(connection, &packed),
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.chain().into())),
        }
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
    let (size, zstd): (i64, bool) = (row.get(6)?, row.get(7)?);
    let body = row.get_ref(8)?.as_blob().map_err(rusqlite::Error::from)?;
    if !zstd {
        return Ok(Some(body.to_vec()));
    }
    let size = unsigned(size)?.min(BODY_BYTES_MAX);
    Ok(zstd::bulk::decompress(body, usize::try_from(size).unwrap_or(usize::MAX)).ok())
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
    let from = from.unwrap_or(Position { block: 0, line: 0 });
    let end = query.until.map_or(i64::MAX, |until| until.after(LATE).as_millis());
    let mut statement = connection
        .prepare_cached(&format!("SELECT {BLOCK} FROM audit_block WHERE seq >= ?1 ORDER BY seq"))?;
    let mut found = statement.query([signed(from.block)?.max(since)])?;
    let mut page = AuditPage::default();
    let (mut bytes, mut blocks) = (0, 0);
    while let Some(row) = found.next()? {
        let (block, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        let block = unsigned(block)?;
        if at > end && blocks > 0 {
            break;
        }
        if bytes >= LOOKED_AT_BYTES || blocks >= LOOKED_AT_BLOCKS {
            page.next = Some(Position { block, line: 0 });
            break;
        }
        let text = unpack(row)?.ok_or_else(|| lost(block))?;
        (bytes, blocks) = (bytes + text.len() as u64, blocks + 1);
        let skip = if block == from.block { from.line } else { 0 };
        for (line, text) in text.split(|byte| *byte == b'\n').enumerate().skip(skip as usize) {
            if text.is_empty() || !query.matches(text) {
                continue;
            }
            let position = Position { block, line: line as u64 };
            if page.records.len() >= limit {
                page.next = Some(position);
                return Ok(page);
            }
            page.records.push((position, String::from_utf8_lossy(text).into_owned()));
        }
    }
    Ok(page)
}

fn lost(block: u64) -> Failed {
    let detail = "A part of the audit log is damaged: 'carrack audit verify' says which.";
    Error::new(Code::DataLost, detail).with_source(format!("block {block}")).into()
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
