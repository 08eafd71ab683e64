//! A laid-out archive: its length, its ETag, and the bytes at any offset.

mod columns;
mod stored;

pub(crate) use columns::Columns;

use crate::record::{End, local_len};
use crate::tally::Tally;
use crate::{Method, ZipError};

/// Entries per stored pair of offsets: the walk from a pair to the entry sought stays this short.
const BLOCK: usize = 64;
/// Most bytes of central directory and end records made at once.
const TAIL_PIECE: usize = 64 * 1024;
/// Local headers of entries without data are joined until they reach this length.
const HEADERS_PIECE: usize = 32 * 1024;

/// A run of the archive's bytes, as [`Manifest::piece_at`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes made here: the rest of a local header (and of the headers after it, as long as entries have no data),
    /// or up to 64 KiB of central directory and end records. Never empty.
    Bytes(Vec<u8>),
    /// The rest of an entry's bytes in the archive. Never empty.
    Data {
        /// Index of the entry in the archive, from 0.
        entry: usize,
        /// Where the bytes lie, from [`crate::NewEntry::content`].
        content: [u8; 16],
        /// Offset within the entry's bytes (for a deflated entry: within its compressed form).
        offset: u64,
        /// Bytes from `offset` to their end.
        len: u64,
    },
}

/// A frozen archive. It holds names, sizes, CRCs, times and blob ids (40 bytes per entry and its name, 48 if any
/// entry is deflated); headers are made when they are asked for.
pub struct Manifest {
    columns: Columns,
    /// Where every 64th entry begins, in the archive and in the central directory.
    blocks: Vec<Tally>,
    end: End,
    etag: String,
    modified: i64,
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest").field("etag", &self.etag).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Manifest {
    /// Finds where each entry lies: [`ZipError::TooLarge`] if the archive exceeds `i64::MAX` bytes.
    pub(crate) fn laid_out(columns: Columns, etag: String, modified: i64) -> Result<Self, ZipError> {
        let entries = columns.len();
        let mut tally = Tally::default();
        let mut blocks = Vec::with_capacity(entries.div_ceil(BLOCK));
        for at in 0..entries {
            if at % BLOCK == 0 {
                blocks.push(tally);
            }
            tally.try_step(columns.name_len(at), columns.size(at), columns.compressed(at))?;
        }
        let end = tally.end(entries as u64);
        Ok(Self { columns, blocks, end, etag, modified })
    }

    /// Length of the archive in bytes, at most `i64::MAX`; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty archive")]
    pub fn len(&self) -> u64 {
        self.end.directory_at + self.end.directory_len + self.end.len()
    }

    /// Number of entries, folders included; never 0.
    pub fn entries(&self) -> usize {
        self.columns.len()
    }

    /// Strong ETag without quotes: `z1-` and 32 letters or digits. Two archives that differ in a byte differ in it.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The latest modification time of all entries, in Unix seconds, as given (not clamped).
    pub fn modified(&self) -> i64 {
        self.modified
    }

    /// Bytes of memory this manifest holds.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.columns.memory()
            + self.blocks.capacity() * size_of::<Tally>()
            + self.etag.capacity()
    }

    /// Name of entry `at`; `None` beyond the last.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.holds(at).then(|| self.columns.name(at))
    }

    /// Uncompressed size of entry `at` in bytes.
    pub fn size(&self, at: usize) -> Option<u64> {
        self.holds(at).then(|| self.columns.size(at))
    }

    /// Bytes of entry `at` in the archive, without headers.
    pub fn compressed(&self, at: usize) -> Option<u64> {
        self.holds(at).then(|| self.columns.compressed(at))
    }

    /// Method of entry `at`.
    pub fn method(&self, at: usize) -> Option<Method> {
        self.holds(at).then(|| self.columns.method(at))
    }

    /// CRC-32 of the uncompressed content of entry `at`.
    pub fn crc32(&self, at: usize) -> Option<u32> {
        self.holds(at).then(|| self.columns.crc32(at))
    }

    /// Modification time of entry `at` in Unix seconds, as given.
    pub fn entry_modified(&self, at: usize) -> Option<i64> {
        self.holds(at).then(|| self.columns.modified(at))
    }

    /// Id of the blob spliced in for entry `at`.
    pub fn content(&self, at: usize) -> Option<[u8; 16]> {
        self.holds(at).then(|| self.columns.content(at))
    }

    /// BLAKE3 of the content of entry `at`, if [`crate::ManifestBuilder::keep_digests`] was asked for.
    pub fn digest(&self, at: usize) -> Option<[u8; 32]> {
        self.columns.digest(at)
    }

    fn holds(&self, at: usize) -> bool {
        at < self.columns.len()
    }

    /// The piece that holds the byte at `offset`, trimmed to begin there; `None` from [`Self::len`] on.
    ///
    /// Takes a binary search over every 64th entry and a walk of at most 63 entries, whatever the offset.
    pub fn piece_at(&self, offset: u64) -> Option<Piece> {
        if offset >= self.len() {
            return None;
        }
        if offset >= self.end.directory_at {
            return Some(Piece::Bytes(self.tail_from(offset - self.end.directory_at)));
        }
        let (entry, start) = self.entry_at(|tally| tally.local <= offset);
        let within = offset - start.local;
        let header = self.local_len(entry);
        if within < header {
            return Some(Piece::Bytes(self.headers_from(entry, within as usize)));
        }
        let offset = within - header;
        let len = self.columns.compressed(entry) - offset;
        Some(Piece::Data { entry, content: self.columns.content(entry), offset, len })
    }

    /// The last entry whose beginning satisfies `begun`, and that beginning; `begun` holds for a first part of the
    /// entries, the very first included.
    fn entry_at(&self, begun: impl Fn(&Tally) -> bool) -> (usize, Tally) {
        let block = self.blocks.partition_point(&begun).saturating_sub(1);
        let mut entry = block * BLOCK;
        let mut tally = self.blocks[block];
        let last = self.columns.len().min(entry + BLOCK) - 1;
        while entry < last {
            let mut next = tally;
            next.step(self.columns.name_len(entry), self.columns.size(entry), self.columns.compressed(entry));
            if !begun(&next) {
                break;
            }
            (entry, tally) = (entry + 1, next);
        }
        (entry, tally)
    }

    fn local_len(&self, entry: usize) -> u64 {
        local_len(self.columns.name_len(entry), self.columns.size(entry), self.columns.compressed(entry))
    }

    /// The local header of `entry` from its byte `skip` on, and the ones after it while no data lies between.
    fn headers_from(&self, mut entry: usize, skip: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.local_len(entry) as usize);
        self.columns.record(entry).write_local(&mut out);
        while self.columns.compressed(entry) == 0
            && entry + 1 < self.columns.len()
            && out.len() < HEADERS_PIECE
        {
            entry += 1;
            self.columns.record(entry).write_local(&mut out);
        }
        out.drain(..skip);
        out
    }

    /// Central directory and end records from byte `from` of the directory on, at most [`TAIL_PIECE`] bytes.
    fn tail_from(&self, from: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let skip = if from < self.end.directory_len {
            let (mut entry, mut tally) = self.entry_at(|tally| tally.central <= from);
            let skip = (from - tally.central) as usize;
            let left = (self.end.directory_len - tally.central + self.end.len()) as usize;
            out.reserve(left.min(skip + TAIL_PIECE + 1024));
            while entry < self.columns.len() && out.len() < skip + TAIL_PIECE {
                let record = self.columns.record(entry);
                record.write_central(&mut out, tally.local);
                tally.step(record.name.len() as u64, record.size, record.compressed);
                entry += 1;
            }
            if entry == self.columns.len() {
                self.end.write(&mut out);
            }
            skip
        } else {
            self.end.write(&mut out);
            (from - self.end.directory_len) as usize
        };
        out.drain(..skip);
        out.truncate(TAIL_PIECE);
        out
    }
}
