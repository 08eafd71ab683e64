//! The audit log's chain of blocks, as who writes it sees it, and pages of it.

use super::values::unsigned;
use crate::audit::{AuditPage, AuditQuery, Position};
use crate::events::{NewEvent, of_change};
use carrack_domain::audit::chain::{Hash, Head, Header};
use carrack_domain::audit::{Change, Context, Lines};
use carrack_domain::{Clock, Code, Error, Result, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Bodies that are shorter are kept as they are.
const WORTH_BYTES: usize = 1 << 10;
/// The least work, which on such text is enough.
const LEVEL: i32 = 1;
/// What a body may have at most, unpacked: more is no block of ours.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// Text that is looked at for one page, or given out at once.
pub(crate) const LOOKED_AT_BYTES: u64 = 16 << 20;
/// Blocks that are looked at for one page: small ones are cheap, but not free.
pub(crate) const LOOKED_AT_BLOCKS: usize = 4096;
/// How much older than its block a record may be.
const LATE: Duration = Duration::from_secs(3600);

/// Lines, ready to be a block.
pub(crate) struct Packed {
    pub(crate) content: Hash,
    pub(crate) records: u64,
    pub(crate) at: Timestamp,
    pub(crate) size: usize,
    pub(crate) zstd: bool,
    pub(crate) body: Vec<u8>,
}

/// Hashes and compresses: some milliseconds for each MiB.
pub(crate) fn pack(lines: &Lines) -> Result<Packed> {
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

/// What who writes knows of the log.
pub(crate) struct Journal {
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
pub(crate) struct Mark {
    head: Head,
    text: usize,
    count: u64,
    at: Timestamp,
    events: usize,
}

impl Journal {
    /// For a chain that ends with `head`.
    pub(crate) fn new(
        clock: Option<Arc<dyn Clock>>,
        event_clock: Option<Arc<dyn Clock>>,
        head: Head,
    ) -> Journal {
        let (changes, events) = (Lines::default(), Vec::new());
        Journal { clock, head, committed: head, changes, event_clock, events }
    }

    /// A transaction begins.
    pub(crate) fn begin(&mut self) {
        self.head = self.committed;
        self.changes = Lines::default();
        self.events.clear();
    }

    /// A transaction begins, and found the chain to end here.
    pub(crate) fn begin_after(&mut self, head: Head) {
        self.committed = head;
        self.begin();
    }

    /// Blocks have come otherwise, in this transaction: the chain ends here.
    pub(crate) fn go_on_after(&mut self, head: Head) {
        self.head = head;
    }

    /// The transaction is on disk.
    pub(crate) fn keep(&mut self) {
        self.committed = self.head;
    }

    pub(crate) fn mark(&self) -> Mark {
        let Lines { text, count, at } = &self.changes;
        Mark { head: self.head, text: text.len(), count: *count, at: *at, events: self.events.len() }
    }

    /// What a command did since `mark` was rolled back.
    pub(crate) fn rewind(&mut self, mark: &Mark) {
        self.head = mark.head;
        self.changes.text.truncate(mark.text);
        (self.changes.count, self.changes.at) = (mark.count, mark.at);
        self.events.truncate(mark.events);
    }

    /// Takes down what a command has changed.
    pub(crate) fn note(&mut self, by: Option<&Context>, changes: &[Change]) {
        if self.event_clock.is_some() {
            self.events.extend(changes.iter().flat_map(|change| of_change(change, by)));
        }
        let Some(clock) = &self.clock else { return };
        let now = clock.now();
        for change in changes {
            self.changes.push(&change.record(by, now));
        }
    }

    /// Adds a block, which is then to be written.
    pub(crate) fn add(&mut self, packed: &Packed) -> Header {
        let header = self.head.next(packed.content, packed.records, packed.at);
        metrics::counter!("carrack_audit_records_total").increment(header.records);
        self.head = header.head();
        header
    }

    /// Before a commit: the events of the transaction, if there are any, and when they happened.
    pub(crate) fn events(&self) -> Option<(Timestamp, &[NewEvent])> {
        let clock = self.event_clock.as_ref().filter(|_| !self.events.is_empty())?;
        Some((clock.now(), &self.events))
    }

    /// Before a commit: the changes of the transaction, to become a block; `None` when there was none.
    pub(crate) fn seal(&mut self) -> Result<Option<Packed>> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        pack(&std::mem::take(&mut self.changes)).map(Some)
    }
}

/// The lines of a block whose body this is; `None` when they cannot be unpacked.
pub(crate) fn unpack(size: i64, zstd: bool, body: &[u8]) -> Result<Option<Vec<u8>>> {
    if !zstd {
        return Ok(Some(body.to_vec()));
    }
    let size = unsigned(size)?.min(BODY_BYTES_MAX);
    Ok(zstd::bulk::decompress(body, usize::try_from(size).unwrap_or(usize::MAX)).ok())
}

/// A page of records, filled block by block.
pub(crate) struct Filling<'q> {
    query: &'q AuditQuery,
    from: Position,
    limit: usize,
    end: i64,
    bytes: u64,
    blocks: usize,
    pub(crate) page: AuditPage,
}

impl<'q> Filling<'q> {
    pub(crate) fn new(query: &'q AuditQuery, from: Option<Position>, limit: usize) -> Filling<'q> {
        let from = from.unwrap_or(Position { block: 0, line: 0 });
        let end = query.until.map_or(i64::MAX, |until| until.after(LATE).as_millis());
        Filling { query, from, limit, end, bytes: 0, blocks: 0, page: AuditPage::default() }
    }

    /// Whether this block, which is the next, is still to be looked at.
    pub(crate) fn wants(&mut self, block: u64, at: i64) -> bool {
        if at > self.end && self.blocks > 0 {
            return false;
        }
        if self.bytes >= LOOKED_AT_BYTES || self.blocks >= LOOKED_AT_BLOCKS {
            self.page.next = Some(Position { block, line: 0 });
            return false;
        }
        true
    }

    /// Takes the lines of a block; whether there is room for more.
    pub(crate) fn take(&mut self, block: u64, text: Option<Vec<u8>>) -> Result<bool> {
        let text = text.ok_or_else(|| lost(block))?;
        (self.bytes, self.blocks) = (self.bytes + text.len() as u64, self.blocks + 1);
        let skip = if block == self.from.block { self.from.line } else { 0 };
        for (line, text) in text.split(|byte| *byte == b'\n').enumerate().skip(skip as usize) {
            if text.is_empty() || !self.query.matches(text) {
                continue;
            }
            let position = Position { block, line: line as u64 };
            if self.page.records.len() >= self.limit {
                self.page.next = Some(position);
                return Ok(false);
            }
            self.page.records.push((position, String::from_utf8_lossy(text).into_owned()));
        }
        Ok(true)
    }
}

fn lost(block: u64) -> Error {
    let detail = "A part of the audit log is damaged: 'carrack audit verify' says which.";
    Error::new(Code::DataLost, detail).with_source(format!("block {block}"))
}
