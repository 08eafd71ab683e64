//! A ZIP that is written from front to back, when compressed sizes are known too late for arithmetic.
//!
//! An entry that is ready when it begins has the same headers as in a [`crate::Manifest`]. One that is not says so (bit 3), and
//! its CRC and sizes follow its data in a descriptor.

use crate::manifest::Columns;
use crate::record::{End, MARK32, Record};
use crate::{Method, NewEntry, ZipError};

/// Bytes of directory that are made at once.
const PIECE_BYTES: usize = 64 << 10;
/// A stream may be a little longer than its content: from this size on an entry without sizes gets 64 bits for them.
const WIDE_FROM: u64 = MARK32 - (64 << 20);

/// See the module's documentation. It takes the memory of a manifest.
#[derive(Default)]
pub struct ZipStream {
    columns: Columns,
    /// Where each local header lies, and whether the entry has a descriptor.
    placed: Vec<(u64, bool)>,
    at: u64,
}

impl ZipStream {
    /// A ZIP without entries so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins an entry all of whose facts are known: its local header. Its `compressed` bytes follow.
    ///
    /// # Errors
    /// Those of [`crate::ManifestBuilder::push`].
    pub fn ready(&mut self, entry: &NewEntry<'_>) -> Result<Vec<u8>, ZipError> {
        entry.check()?;
        let header = self.begin(entry, false)?;
        self.at += entry.compressed;
        Ok(header)
    }

    /// Begins an entry that is deflated as it is sent, whatever `compressed` says: its local header.
    ///
    /// # Errors
    /// As [`ZipStream::ready`].
    pub fn open(&mut self, entry: &NewEntry<'_>) -> Result<Vec<u8>, ZipError> {
        let entry = NewEntry { method: Method::Deflate, compressed: 2, ..*entry };
        entry.check()?;
        self.begin(&entry, true)
    }

    /// Ends the entry that was opened, whose stream had `compressed` bytes: its descriptor.
    pub fn close(&mut self, compressed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(last) = self.columns.len().checked_sub(1) else { return out };
        self.columns.set_compressed(last, compressed);
        self.at += compressed;
        let record = self.record(last);
        record.write_descriptor(&mut out, record.size >= WIDE_FROM);
        self.at += out.len() as u64;
        out
    }

    fn begin(&mut self, entry: &NewEntry<'_>, described: bool) -> Result<Vec<u8>, ZipError> {
        self.columns.push(entry)?;
        self.placed.push((self.at, described));
        let mut out = Vec::new();
        let mut record = self.record(self.columns.len() - 1);
        if described {
            // The width of the sizes is settled here: what is too wide for 32 bits makes the header a Zip64 one.
            record.size = if record.size >= WIDE_FROM { MARK32 } else { record.size };
        }
        record.write_local(&mut out);
        self.at += out.len() as u64;
        Ok(out)
    }

    fn record(&self, at: usize) -> Record<'_> {
        Record { described: self.placed[at].1, ..self.columns.record(at) }
    }

    /// What follows the last entry: the central directory and the end records, piece by piece.
    pub fn finish(self) -> impl Iterator<Item = Vec<u8>> + Send {
        let (mut entry, mut length, mut over) = (0, 0, false);
        std::iter::from_fn(move || {
            let mut out = Vec::new();
            while entry < self.columns.len() && out.len() < PIECE_BYTES {
                self.record(entry).write_central(&mut out, self.placed[entry].0);
                entry += 1;
            }
            length += out.len() as u64;
            if entry == self.columns.len() && !over {
                over = true;
                let entries = self.columns.len() as u64;
                End { entries, directory_at: self.at, directory_len: length }.write(&mut out);
            }
            (!out.is_empty()).then_some(out)
        })
    }
}
