//! Bytes that are a file: readable by anyone as memory, recognised by the socket writer and sent without being read.
//!
//! [`MappedFile::bytes`] hands out [`Bytes`] that lie in a read-only mapping of an immutable file. They pass through
//! everything that moves `Bytes`, an HTTP library included, without a copy. [`locate`] tells from their address which
//! file and offset they are, so that the one who writes them to a socket can call `sendfile`.
//!
//! *Soundness.* The argument for every `unsafe` block, the registry and its races is in
//! `docs/decisions/0020-soundness-of-mapped-bytes.md`; each block names the step it rests on.
//!
//! *A file that shrinks.* Reading mapped bytes beyond the end of a file is a fatal signal (SIGBUS). Files mapped here
//! are blobs, which never change; who reads bytes in user space reads the file instead (HTTP/2 by [`MappedFile::read`], TLS
//! what it was [`locate`]d at), so that even a blob damaged from outside costs an error, not the process. `sendfile` reports a short file as 0.

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// An immutable file, open, and mapped once somebody asks for its bytes in that form. Cheap to share; unmapped and
/// closed when the last owner goes.
pub struct MappedFile {
    file: File,
    /// The mapping's first byte. Mapping costs more than reading a small file, so it waits until it is wanted.
    start: OnceLock<NonNull<u8>>,
    len: usize,
    /// When the file was last seen to be whole, see [`MappedFile::is_intact`].
    seen_intact: Moment,
    /// How often in a row bytes that were asked for were in memory, see [`MappedFile::looks_cached`].
    cached_streak: AtomicU32,
}

/// How long, in seconds, a file that was seen to be whole is taken to be.
const INTACT_SECS: u32 = 2;
/// After so many looks in a row that found bytes in memory, one of so many is looked at. Should the others be gone, the
/// thread that sends them waits for the disk once.
const CACHED_STREAK: u32 = 16;

/// A second of this process's life, 0 being never; rounded down.
#[derive(Debug, Default)]
struct Moment(AtomicU32);

impl Moment {
    fn now() -> u32 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Seconds of a process's life fit for 136 years; from then on nothing is trusted any more.
        u32::try_from(BEGAN.elapsed().as_secs()).map_or(0, |secs| secs.saturating_add(1))
    }

    /// Whether it is less than so many seconds ago.
    fn is_within(&self, secs: u32, now: u32) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen > 0 && now.saturating_sub(seen) < secs
    }

    fn set(&self, now: u32) {
        self.0.store(now, Ordering::Relaxed);
    }
}

// SAFETY: only `start` keeps this from being derived: a pointer to memory that is bound to no thread, which nobody
// writes through and which `Drop`, wherever it runs, gives back once. All other fields are `Send`.
unsafe impl Send for MappedFile {}
// SAFETY: through `&self` the pointer is set at most once, by a `OnceLock` and under the registry's lock, and copied
// after that; the memory it leads to is only read. All other fields are `Sync`.
unsafe impl Sync for MappedFile {}

/// Travels with a request whose answer is written by somebody who calls [`locate`]: its body may be mapped bytes.
#[derive(Debug, Clone, Copy)]
pub struct Recognised;

/// Where a slice lies: the borrow keeps the descriptor open.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// The offset of the slice's first byte in it.
    pub offset: u64,
}

/// Start address of each mapping to its end and descriptor.
static REGISTRY: RwLock<BTreeMap<usize, (usize, RawFd)>> = RwLock::new(BTreeMap::new());
/// Bounds of all mappings there ever were, so that most slices are told apart without the lock.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

impl MappedFile {
    /// The first `len` bytes of a file, which has at least so many and is not written to any more: what [`Self::bytes`]
    /// gives is memory that Rust takes to be constant. `FileTooLarge` where they do not fit into an address space.
    pub fn new(file: File, len: u64) -> io::Result<Arc<MappedFile>> {
        // No slice may be longer than `isize::MAX`.
        let len =
            isize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?.unsigned_abs();
        Ok(Arc::new(MappedFile {
            file,
            start: OnceLock::new(),
            len,
            seen_intact: Moment::default(),
            cached_streak: AtomicU32::new(0),
        }))
    }

    /// The mapping's first byte; an empty file has none.
    fn start(&self) -> io::Result<NonNull<u8>> {
        if let Some(start) = self.start.get() {
            return Ok(*start);
        }
        // SAFETY: a null hint without `MAP_FIXED` lets the kernel choose addresses that nobody uses, so no memory of
        // ours is replaced. The length is not 0, see `bytes`, and any other is fine: bytes beyond the end of the file are
        // a fault when they are touched, not another memory.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                self.len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &self.file,
                0,
            )?
        };
        let ours = NonNull::new(mapped.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let address = ours.as_ptr() as usize;
        // Decided under the lock: of two threads that map at once, one keeps its mapping.
        let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(theirs) = self.start.get() {
            drop(registry);
            unmap(ours, self.len);
            return Ok(*theirs);
        }
        // Registered before it is published: no thread has a slice of it that `locate` does not know.
        registry.insert(address, (address + self.len, self.file.as_raw_fd()));
        LOWEST.fetch_min(address, Ordering::Relaxed);
        HIGHEST.fetch_max(address + self.len, Ordering::Relaxed);
        Ok(*self.start.get_or_init(|| ours))
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes at `offset` without a copy; `UnexpectedEof` when they do not all exist.
    pub fn bytes(self: &Arc<MappedFile>, offset: u64, len: u64) -> io::Result<Bytes> {
        let (offset, len) = self.check(offset, len).ok_or(io::ErrorKind::UnexpectedEof)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        Ok(Bytes::from_owner(Window { start: self.start()?, file: self.clone(), offset, len }))
    }

    fn check(&self, offset: u64, len: u64) -> Option<(usize, usize)> {
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        (offset.checked_add(len)? <= self.len).then_some((offset, len))
    }

    /// Copies bytes at `offset` into the whole of `buffer`; `UnexpectedEof` when the file has become shorter.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// The same, but only if it needs no waiting for the disk; `false` when it does.
    pub fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let mut done = 0;
        while done < buffer.len() {
            let target = &mut [IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.file, target, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(read) if read > 0 => done += read,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Whether sending a range will most likely not wait for the disk: a look at its first and last byte, most of which
    /// are spared while the file has been found in memory again and again. Filesystems that cannot tell count as
    /// waiting.
    pub fn looks_cached(&self, offset: u64, len: u64) -> bool {
        let streak = self.cached_streak.fetch_add(1, Ordering::Relaxed);
        if len == 0 || (streak > CACHED_STREAK && !streak.is_multiple_of(CACHED_STREAK)) {
            return true;
        }
        let byte = |at: u64| self.read_cached(at, &mut [0]);
        let cached = byte(offset) && byte(offset + len - 1);
        if !cached {
            self.cached_streak.store(0, Ordering::Relaxed);
        }
        cached
    }

    /// Brings a range into memory, waiting for the disk: for a thread that may block. `UnexpectedEof` when the file has
    /// become shorter.
    pub fn load(&self, offset: u64, len: u64) -> io::Result<()> {
        const STEP_BYTES: u64 = 1 << 20;
        let mut buffer = vec![0; STEP_BYTES.min(len) as usize];
        let mut at = offset;
        while at < offset + len {
            let step = STEP_BYTES.min(offset + len - at) as usize;
            self.read(at, &mut buffer[..step])?;
            at += step as u64;
        }
        Ok(())
    }

    /// Whether the file still has a name and its length: `false` when it was deleted, or damaged from outside. Looked
    /// at every two seconds at most: what happens in between breaks off answers that have begun, as it would anyway.
    pub fn is_intact(&self) -> bool {
        let now = Moment::now();
        if self.seen_intact.is_within(INTACT_SECS, now) {
            return true;
        }
        let intact = self.file.metadata().is_ok_and(|facts| facts.nlink() > 0 && facts.len() == self.len());
        if intact {
            self.seen_intact.set(now);
        }
        intact
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        let Some(start) = self.start.get().copied() else { return };
        // Out of the registry before the addresses can come to mean something else, and before the descriptor can: `file`
        // is closed after this has returned.
        REGISTRY.write().unwrap_or_else(PoisonError::into_inner).remove(&(start.as_ptr() as usize));
        unmap(start, self.len);
    }
}

/// Gives a whole mapping back, of which no slice may be left: every `Bytes` of one owns an `Arc` of its file.
fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: `start` and `len` are those of a mapping made in `MappedFile::start`, which is unmapped once: by the thread
    // that came too late to publish it, of which there is no slice and no entry in the registry; or when the file is
    // dropped, when every `Window` that owned it is gone and the entry is removed. No reference into it is left.
    let unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast::<c_void>(), len) };
    // It can only fail for arguments that were never mapped; there is nobody to tell and nothing to be done.
    debug_assert!(unmapped.is_ok());
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedFile({} bytes)", self.len)
    }
}

/// Part of a mapping, owning the whole.
struct Window {
    /// The mapping's first byte.
    start: NonNull<u8>,
    /// Keeps the mapping; never read.
    #[expect(dead_code, reason = "owned for its Drop alone")]
    file: Arc<MappedFile>,
    offset: usize,
    len: usize,
}

// SAFETY: the pointer leads to read-only memory, bound to no thread, that `file` keeps mapped; `file` itself is `Send`.
unsafe impl Send for Window {}
// SAFETY: as above; nothing is changed through `&self`, and `file` is `Sync`.
unsafe impl Sync for Window {}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `check` saw that offset and length lie in the mapping, of at most `isize::MAX` bytes, so the pointer
        // stays inside one allocation. `self.file` keeps it mapped as long as the slice is borrowed from `self`; moving a
        // `Window` does not move it. The kernel has initialised the memory. Nobody writes to the file: see `new`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.offset), self.len) }
    }
}

/// The file and offset of a slice that lies in a mapping; `None` for any other memory.
pub fn locate(slice: &[u8]) -> Option<Located<'_>> {
    let address = slice.as_ptr() as usize;
    if address < LOWEST.load(Ordering::Relaxed) || address >= HIGHEST.load(Ordering::Relaxed) {
        return None;
    }
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    let (start, (end, descriptor)) = registry.range(..=address).next_back()?;
    if slice.is_empty() || address + slice.len() > *end {
        return None;
    }
    // SAFETY: a slice that is not empty proves that its addresses are mapped for as long as it is borrowed. They lie in a
    // registered mapping, and an entry goes before its mapping does, so this is the very mapping the slice is borrowed
    // from: a `Window` owns it, and with it the open file. The descriptor is closed after that, hence not before the
    // borrow, which the result carries on, has ended.
    let file = unsafe { BorrowedFd::borrow_raw(*descriptor) };
    Some(Located { file, offset: (address - start) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mapped(content: &[u8]) -> Arc<MappedFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        MappedFile::new(file, content.len() as u64).unwrap()
    }

    #[test]
    fn bytes_are_the_files_and_are_recognised_wherever_they_go() {
        let content: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let file = mapped(&content);
        let bytes = file.bytes(10, 50_000).unwrap();
        assert_eq!(bytes, content[10..50_010]);
        let part = bytes.slice(100..200);
        assert_eq!(locate(&part).unwrap().offset, 110);
        drop((file, bytes));
        assert_eq!(part, content[110..210]);
        assert_eq!(locate(&part).unwrap().offset, 110);
        assert!(locate(&content).is_none() && locate(&part[..0]).is_none());
    }

    #[test]
    fn nothing_beyond_the_end() {
        let file = mapped(b"0123456789");
        assert!(file.bytes(5, 6).is_err() && file.bytes(u64::MAX, 1).is_err());
        assert_eq!(file.bytes(10, 0).unwrap(), "");
        let mut buffer = [0; 4];
        assert_eq!(file.read(8, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.read(6, &mut buffer).unwrap();
        assert_eq!(&buffer, b"6789");
        file.load(0, 10).unwrap();
        assert_eq!(mapped(b"").bytes(0, 0).unwrap(), "");
    }

    #[test]
    fn threads_that_map_at_once_share_one_mapping() {
        let file = mapped(&[7; 9000]);
        let starts: Vec<usize> = std::thread::scope(|scope| {
            let map = || file.bytes(0, 9000).unwrap().as_ptr() as usize;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(map)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(starts.iter().all(|start| *start == starts[0]));
    }

    /// The kernel gives addresses out again at once, so that an entry that outlives its mapping, or one that comes after
    /// it was published, would show as a slice of another file or of none.
    #[test]
    fn addresses_and_descriptors_that_are_used_again_are_told_apart() {
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for round in 0..300_u64 {
                        let file = mapped(&[thread; 9000]);
                        let inode = file.file.metadata().unwrap().ino();
                        std::thread::scope(|inner| {
                            for _ in 0..2 {
                                inner.spawn(|| {
                                    let bytes = file.bytes(round, 4096).unwrap();
                                    let found = locate(&bytes).unwrap();
                                    assert_eq!(found.offset, round);
                                    assert_eq!(rustix::fs::fstat(found.file).unwrap().st_ino, inode);
                                    assert!(bytes.iter().all(|byte| *byte == thread));
                                });
                            }
                        });
                    }
                });
            }
        });
    }

    #[test]
    fn gone_mappings_are_forgotten() {
        let before = REGISTRY.read().unwrap().len();
        for _ in 0..100 {
            let file = mapped(&[1; 5000]);
            let bytes = file.bytes(0, 5000).unwrap();
            drop(file);
            assert!(locate(&bytes).is_some());
        }
        // Other tests map files at the same time, a dozen at most.
        assert!(REGISTRY.read().unwrap().len() <= before + 12);
    }
}
