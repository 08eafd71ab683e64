//! Writing past the page cache (`O_DIRECT`, open(2)): what has to reach the disk before it is acknowledged goes there
//! without being copied into pages that are written out, and thrown away, later.
//!
//! Direct writes begin and end where blocks do, in the file and in memory. What lies before the first and behind the last
//! whole block of a run goes through the page cache, so that two extents that meet within a block can be
//! written at once; no block is ever written both ways at the same time.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A multiple of what disks ask for, which is 512 or 4,096 bytes.
pub(super) const BLOCK_BYTES: usize = 4 << 10;
/// Batches below this go through the page cache: a disk takes as long for a few bytes as for many.
pub(super) const DIRECT_BYTES_MIN: usize = 128 << 10;
/// The most that is written at once.
const RUN_BYTES: usize = 1 << 20;
/// Buffers in use at once, and of those how many are kept for later.
const BUFFERS_MAX: usize = 32;
const BUFFERS_KEPT: usize = 4;

/// Opens a stage for direct writes; `InvalidInput` where the filesystem has none.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed()).open(path)
}

/// Memory for runs, bounded.
pub(super) struct Buffers {
    permits: Arc<Semaphore>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { permits: Arc::new(Semaphore::new(BUFFERS_MAX)), kept: Arc::default() }
    }
}

impl Buffers {
    /// An empty run at `offset` of a file, once there is memory for it. Whoever waits here must hold no run that is not
    /// being written. `None`: never, as nobody closes the semaphore.
    pub(super) async fn run(&self, offset: u64) -> Option<Run> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Not filled with zeros: of what is never written to, no page takes memory, and many runs are short.
        let mut memory = kept.unwrap_or_else(|| Vec::with_capacity(RUN_BYTES + BLOCK_BYTES));
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        let lead = (offset % BLOCK_BYTES as u64) as usize;
        memory.clear();
        memory.resize(begin + lead, 0);
        Some(Run { memory, begin, lead, end: lead, offset, kept: self.kept.clone(), _permit: permit })
    }
}

/// Consecutive bytes of a file, lying in memory as to blocks as they will lie in the file.
pub(super) struct Run {
    /// Filled up to its end; it never grows beyond what was reserved, so it stays where it is.
    memory: Vec<u8>,
    /// Where in the memory the first block begins.
    begin: usize,
    /// Where in its first block the run begins, and where it ends, counted from the same place.
    lead: usize,
    end: usize,
    /// Where in the file it begins.
    pub(super) offset: u64,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Run {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.end - self.lead
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.end == RUN_BYTES
    }

    /// Takes what fits of these bytes; how many that was.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(RUN_BYTES - self.end);
        self.memory.extend_from_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Cuts off what lies behind the last whole block.
    pub(super) fn cut_rest(&mut self) -> Vec<u8> {
        let whole = (self.end - self.end % BLOCK_BYTES).max(self.lead);
        let rest = self.memory[self.begin + whole..self.begin + self.end].to_vec();
        self.end = whole;
        self.memory.truncate(self.begin + whole);
        rest
    }

    /// Writes it, whole blocks to `direct` and the rest to `cached`; how much went to the latter.
    pub(super) fn write(&self, direct: &File, cached: &File) -> io::Result<u64> {
        let first = self.lead.next_multiple_of(BLOCK_BYTES).min(self.end);
        let last = (self.end - self.end % BLOCK_BYTES).max(first);
        cached.write_all_at(self.between(self.lead, first), self.offset)?;
        direct.write_all_at(self.between(first, last), self.at(first))?;
        cached.write_all_at(self.between(last, self.end), self.at(last))?;
        Ok((first - self.lead + self.end - last) as u64)
    }

    /// Writes all of it through the page cache.
    pub(super) fn write_cached(&self, cached: &File) -> io::Result<u64> {
        cached.write_all_at(self.between(self.lead, self.end), self.offset)?;
        Ok(self.len() as u64)
    }

    fn between(&self, from: usize, to: usize) -> &[u8] {
        &self.memory[self.begin + from..self.begin + to]
    }

    fn at(&self, place: usize) -> u64 {
        self.offset + (place - self.lead) as u64
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes pieces one after the other from `offset` on into a file full of ones.
    fn write(file: &Path, offset: u64, pieces: &[Vec<u8>], cached: bool) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut run = runtime.block_on(Buffers::default().run(offset)).unwrap();
        for piece in pieces {
            assert_eq!(run.push(piece), piece.len());
        }
        let rest = run.cut_rest();
        assert!(rest.len() < BLOCK_BYTES);
        let plain = File::options().write(true).open(file).unwrap();
        if cached {
            assert_eq!(run.write_cached(&plain).unwrap(), run.len() as u64);
        } else {
            let through = run.write(&open(file).unwrap(), &plain).unwrap();
            assert!(through < BLOCK_BYTES as u64, "only what is before the first whole block");
        }
        plain.write_all_at(&rest, run.offset + run.len() as u64).unwrap();
        std::fs::read(file).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn runs_are_written_where_they_belong_and_nothing_else_is_touched(
            offset in 0..20_000_u64,
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 1..12),
            cached: bool,
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().write_all_at(&[1; 200_000], 0).unwrap();
            let mut expected = vec![1; 200_000];
            let bytes = pieces.concat();
            expected[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            prop_assert!(write(file.path(), offset, &pieces, cached) == expected);
        }
    }

    #[test]
    fn a_run_takes_no_more_than_fits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let buffers = Buffers::default();
        let mut run = runtime.block_on(buffers.run(4097)).unwrap();
        assert_eq!(run.push(&vec![7; RUN_BYTES]), RUN_BYTES - 1);
        assert!(run.is_full() && run.push(&[7]) == 0 && run.cut_rest().is_empty());
        drop(run);
        let runs: Vec<Run> = (0..BUFFERS_MAX).map(|_| runtime.block_on(buffers.run(0)).unwrap()).collect();
        assert_eq!(buffers.permits.available_permits(), 0);
        drop(runs);
        assert_eq!(buffers.kept.lock().unwrap().len(), BUFFERS_KEPT);
    }
}
