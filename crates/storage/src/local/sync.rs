//! Waiting for the disk. An error here is final: the kernel may have thrown dirty pages away, so a second fsync that
//! succeeds proves nothing.

use super::failure;
use super::group::{Disk, Folder, Group};
use crate::metrics::FSYNC_DURATION;
use carrack_domain::Result;
use carrack_domain::id::hex;
use rustix::fs::{fdatasync, fsync, syncfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is larger is synced by itself: nobody else is to wait for it.
const SHARED_BYTES_MAX: u64 = 1 << 20;

/// `syncfs` waits for what anybody wrote to the filesystem. This much takes some 200 ms
/// on a disk that writes 300 MiB a second, once; with more everybody waits for what is their own.
const DIRTY_KIB_MAX: u64 = 64 << 10;

/// The syncs of a store, done together where several wait.
pub(super) struct Syncs(Group<LocalDisk>);

impl Syncs {
    /// For the store in `folder`, before anything is written to it.
    pub(super) fn open(folder: &Path) -> io::Result<Syncs> {
        Ok(Syncs(Group::new(LocalDisk::open(folder)?)))
    }

    /// Data and metadata of a file into which `bytes` may have been written lately.
    pub(super) fn file(&self, op: &'static str, file: &File, bytes: u64) -> Result<()> {
        self.own(op, bytes, || timed(|| fsync(file)))
    }

    /// Data of a file into which `bytes` have been written, and what is needed to read it back.
    pub(super) fn data(&self, op: &'static str, file: &File, bytes: u64) -> Result<()> {
        self.own(op, bytes, || timed(|| fdatasync(file)))
    }

    fn own(
        &self,
        op: &'static str,
        bytes: u64,
        alone: impl FnOnce() -> std::result::Result<(), Errno>,
    ) -> Result<()> {
        let synced = if bytes > SHARED_BYTES_MAX { alone() } else { self.0.data(alone) };
        synced.map_err(|error| failure(op, error.into()))
    }

    /// The names in two folders, which may be the same.
    pub(super) fn names(&self, op: &'static str, folders: [Folder; 2]) -> Result<()> {
        self.0.names(folders).map_err(|error| failure(op, error.into()))
    }
}

/// The filesystem below a store.
struct LocalDisk {
    folder: PathBuf,
    /// Through this every error since it was opened is reported, once.
    filesystem: File,
    /// The kernel's account of what waits to be written; `None` where `syncfs` is not to be used.
    account: Option<File>,
}

impl LocalDisk {
    fn open(folder: &Path) -> io::Result<LocalDisk> {
        let filesystem = File::open(folder)?;
        let account = if reports_errors(&filesystem) { File::open("/proc/meminfo").ok() } else { None };
        Ok(LocalDisk { folder: folder.to_owned(), filesystem, account })
    }
}

impl Disk for LocalDisk {
    fn covers_all(&self) -> bool {
        let Some(account) = &self.account else { return false };
        let mut text = [0; 4096];
        let len = account.read_at(&mut text, 0).unwrap_or(0);
        waiting_kib(&String::from_utf8_lossy(&text[..len])).is_some_and(|kib| kib <= DIRTY_KIB_MAX)
    }

    fn sync_all(&self) -> std::result::Result<(), Errno> {
        timed(|| syncfs(&self.filesystem))
    }

    fn sync_folder(&self, folder: Folder) -> std::result::Result<(), Errno> {
        let path = match folder {
            Folder::Staging => self.folder.join("staging"),
            Folder::Shard(shard) => self.folder.join("blobs").join(hex(&[shard])),
        };
        let opened = File::open(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        timed(|| fsync(&opened))
    }
}

/// Whether `syncfs` tells of every failure to write: since Linux 5.8 of data (`errseq_t` of the superblock), since 5.17
/// also of the journal. Stacked and network filesystems keep accounts of their own, so only those are used that were
/// looked at.
fn reports_errors(filesystem: &File) -> bool {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    let known = rustix::fs::fstatfs(filesystem).is_ok_and(|stat| matches!(stat.f_type as u64, EXT4 | XFS));
    known && version(&rustix::system::uname().release().to_string_lossy()) >= Some((5, 17))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// KiB that wait to be written or are being written, as `/proc/meminfo` has it.
fn waiting_kib(meminfo: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(value("Dirty")? + value("Writeback")?)
}

fn timed(work: impl FnOnce() -> rustix::io::Result<()>) -> std::result::Result<(), Errno> {
    let start = Instant::now();
    let result = work();
    metrics::histogram!(FSYNC_DURATION).record(start.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.17"), Some((5, 17)));
        assert!(version("5.16.20") < Some((5, 17)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn what_waits_to_be_written() {
        let text = "MemTotal:       24000000 kB\nDirty:               120 kB\nWriteback:             4 kB\nWritebackTmp:          9 kB\n";
        assert_eq!(waiting_kib(text), Some(124));
        assert_eq!(waiting_kib("Dirty: 1 kB\n"), None);
        assert!(waiting_kib(&std::fs::read_to_string("/proc/meminfo").unwrap()).is_some());
    }
}
