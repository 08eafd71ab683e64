//! Blobs and stages as files below one folder of a local disk.
//!
//! `staging/ID` holds the bytes of an upload, `blobs/ab/ID` a blob, `ab` being the id's first byte. The 256 folders are
//! made and synced when the store is first opened, so publishing a blob never has to make one durable. Names are ids
//! that were parsed, never text from a client.

mod direct;
mod group;
mod read;
mod sync;
mod write;

use crate::{Durability, ExtentWriter, Form, Observer, Reader, Room, StageKind, Storage, metrics};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::id::hex;
use carrack_domain::{BlobId, Code, Error, Result, UploadId};
use group::Folder;
use rustix::fs::{FallocateFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How a [`LocalStore`] is opened.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The folder; made when it is not there.
    pub folder: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Bytes of the disk that stay free, so that a full disk can still be cleaned up: the catalog has to write to
    /// record a deletion.
    pub reserve_bytes: u64,
    /// Blobs that are kept open for the next request: each costs a descriptor.
    pub open_blobs_max: usize,
}

/// Why a store could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// The path that made trouble.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot use the storage folder {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    durability: Durability,
    reserve_bytes: u64,
    staging: File,
    syncs: sync::Syncs,
    open_blobs: read::OpenBlobs,
    buffers: direct::Buffers,
    /// Whether large batches go past the page cache.
    writes_direct: AtomicBool,
    /// Bytes that are being allocated at this moment.
    pledged: Arc<AtomicU64>,
    /// Stages whose fsync failed: the kernel may have dropped dirty pages, so nothing more may be promised of them
    /// (PostgreSQL's lesson of 2018). Bounded by the number of open uploads.
    poisoned: Mutex<HashSet<UploadId>>,
}

impl LocalStore {
    /// Opens the store, making its folders on the first start.
    pub fn open(options: LocalOptions) -> std::result::Result<LocalStore, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError { path, source }
        };
        let staging = options.folder.join("staging");
        let blobs = options.folder.join("blobs");
        for folder in [&staging, &blobs] {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        for shard in 0..=u8::MAX {
            let folder = blobs.join(hex(&[shard]));
            match std::fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&folder)(error)),
            }
        }
        // Every time: a start that was killed here may have made the folders and not waited for the disk.
        for folder in [&blobs, &options.folder] {
            File::open(folder).and_then(|dir| dir.sync_all()).map_err(failed(folder))?;
        }
        let syncs = sync::Syncs::open(&options.folder).map_err(failed(&options.folder))?;
        let staging_dir = File::open(&staging).map_err(failed(&staging))?;
        let probe = staging.join("probe");
        File::create(&probe).and_then(|_| std::fs::remove_file(&probe)).map_err(failed(&staging))?;
        Ok(LocalStore(Arc::new(Inner {
            folder: options.folder,
            durability: options.durability,
            reserve_bytes: options.reserve_bytes,
            staging: staging_dir,
            syncs,
            open_blobs: read::OpenBlobs::new(options.open_blobs_max),
            buffers: direct::Buffers::default(),
            writes_direct: AtomicBool::new(true),
            pledged: Arc::default(),
            poisoned: Mutex::new(HashSet::new()),
        })))
    }

    /// Runs `work` on the pool of threads that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        let run = move || metrics::timed(op, || work(&inner));
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal("storage task", error)),
        }
    }
}

/// See [`Inner::pledge`].
struct Pledge {
    pledged: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Pledge {
    fn drop(&mut self) {
        self.pledged.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl Inner {
    fn stage_path(&self, stage: UploadId) -> PathBuf {
        self.folder.join("staging").join(stage.to_string())
    }

    fn shard_path(&self, shard: u8) -> PathBuf {
        self.folder.join("blobs").join(hex(&[shard]))
    }

    fn blob_path(&self, blob: BlobId) -> PathBuf {
        self.shard_path(blob.as_bytes()[0]).join(blob.to_string())
    }

    /// Free bytes beyond the reserve.
    fn available(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.staging).map_err(|e| failure("statvfs", e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(self.reserve_bytes))
    }

    /// Room for `bytes` that are about to be allocated; `storage_full` unless they fit. Held until they are: many who
    /// come at once would otherwise all find the same space free, and eat up the reserve together.
    fn pledge(&self, bytes: u64) -> Result<Pledge> {
        let pledge = Pledge { pledged: self.pledged.clone(), bytes };
        let all = self.pledged.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        if self.available()? < all { Err(full("reserve", Errno::NOSPC.into())) } else { Ok(pledge) }
    }

    fn check_poison(&self, stage: UploadId) -> Result<()> {
        if self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).contains(&stage) {
            return Err(Error::broken(format!(
                "stage {stage} failed to sync before: its bytes cannot be trusted"
            )));
        }
        Ok(())
    }

    fn poison(&self, stage: UploadId) {
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).insert(stage);
    }

    fn create_stage(&self, stage: UploadId, size: Option<u64>, kind: StageKind) -> Result<()> {
        let _pledge = self.pledge(size.unwrap_or(0))?;
        let path = self.stage_path(stage);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| failure("create_stage", e))?;
        let prepared = self.reserve(&file, size).and_then(|()| match (kind, self.durability) {
            (StageKind::Session, Durability::Power) => {
                self.syncs.names("create_stage", [Folder::Staging, Folder::Staging])
            }
            (StageKind::Request, _) | (_, Durability::Process) => Ok(()),
        });
        if prepared.is_err()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(%error, %stage, "a stage that could not be prepared is left over");
        }
        prepared
    }

    /// Takes the space of a known size from the disk now, so that no later write can fail for want of it.
    fn reserve(&self, file: &File, size: Option<u64>) -> Result<()> {
        /// Below this the system calls cost more than an early answer is worth.
        const WORTH_RESERVING_BYTES: u64 = 128 << 10;
        let Some(size) = size.filter(|size| *size >= WORTH_RESERVING_BYTES) else { return Ok(()) };
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // The filesystem cannot reserve; a full disk will then be noticed while writing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(failure("reserve_space", errno.into())),
        }
    }

    fn publish(&self, stage: UploadId, blob: BlobId, size: u64) -> Result<()> {
        self.check_poison(stage)?;
        let from = self.stage_path(stage);
        let file = match File::options().write(true).open(&from) {
            Ok(file) => file,
            // Published before a crash, or never there: the blob itself tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.confirm(blob, size),
            Err(error) => return Err(failure("open_stage", error)),
        };
        let found = file.metadata().map_err(|e| failure("stat_stage", e))?.len();
        if found < size {
            return Err(lost(format!("stage {stage} has {found} bytes instead of {size}")));
        }
        if found > size {
            // Left by a request whose bytes were never recorded.
            file.set_len(size).map_err(|e| failure("cut_stage", e))?;
        }
        self.name(&file, stage, blob, size)
    }

    /// Syncs a stage of `size` bytes and gives it the blob's name, durably.
    fn name(&self, file: &File, stage: UploadId, blob: BlobId, size: u64) -> Result<()> {
        let (from, to) = (self.stage_path(stage), self.blob_path(blob));
        if self.durability == Durability::Power
            && let Err(error) = self.syncs.file("publish", file, size)
        {
            self.poison(stage);
            return Err(error);
        }
        rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, RenameFlags::NOREPLACE)
            .map_err(|e| failure("name_blob", e.into()))?;
        if self.durability == Durability::Power {
            self.syncs.names("publish", [Folder::Shard(blob.as_bytes()[0]), Folder::Staging])?;
        }
        Ok(())
    }

    fn store(&self, stage: UploadId, blob: BlobId, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let _pledge = self.pledge(size)?;
        let path = self.stage_path(stage);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| failure("create_stage", e))?;
        let written = file.write_all_at(bytes, 0).map_err(|e| failure("write_extent", e));
        let stored = written.and_then(|()| self.name(&file, stage, blob, size));
        if stored.is_err()
            && let Err(error) = self.discard(stage)
        {
            tracing::warn!(%stage, error = error.chain(), "a stage is left over until the next start");
        }
        stored
    }

    fn discard(&self, stage: UploadId) -> Result<()> {
        self.remove("discard_stage", &self.stage_path(stage))?;
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).remove(&stage);
        Ok(())
    }

    /// Makes sure a blob that was named before a crash is whole and durable.
    fn confirm(&self, blob: BlobId, size: u64) -> Result<()> {
        read::open(self, blob, size)?;
        if self.durability == Durability::Power {
            let file = File::open(self.blob_path(blob)).map_err(|e| failure("open_blob", e))?;
            self.syncs.file("publish", &file, size)?;
            self.syncs.names("publish", [Folder::Shard(blob.as_bytes()[0]), Folder::Staging])?;
        }
        Ok(())
    }

    fn remove(&self, op: &'static str, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure(op, error)),
        }
    }

    fn names<T>(&self, folder: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, u64)>> {
        let read = |e| failure("list_folder", e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let Some(id) = entry.file_name().to_str().and_then(&parse) else { continue };
            // A file that goes away while the folder is read is no longer there to be listed.
            let Ok(metadata) = entry.metadata() else { continue };
            found.push((id, age_secs(&metadata)));
        }
        Ok(found)
    }
}

#[async_trait]
impl Storage for LocalStore {
    async fn create_stage(&self, stage: UploadId, size: Option<u64>, kind: StageKind) -> Result<()> {
        self.blocking("create_stage", move |inner| inner.create_stage(stage, size, kind)).await
    }

    async fn extent_writer(
        &self,
        stage: UploadId,
        offset: u64,
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>> {
        let inner = self.0.clone();
        self.blocking("open_stage", move |_| write::LocalWriter::open(inner, stage, offset, observer)).await
    }

    async fn publish(&self, stage: UploadId, blob: BlobId, size: u64) -> Result<()> {
        self.blocking("publish", move |inner| inner.publish(stage, blob, size)).await
    }

    fn admit(&self, bytes: u64) -> Result<Room> {
        Ok(Box::new(self.0.pledge(bytes)?))
    }

    async fn store(&self, stage: UploadId, blob: BlobId, bytes: Bytes) -> Result<()> {
        self.blocking("store", move |inner| inner.store(stage, blob, &bytes)).await
    }

    async fn read_stage(&self, stage: UploadId, offset: u64, len: usize) -> Result<Bytes> {
        self.blocking("read_stage", move |inner| {
            let file = File::open(inner.stage_path(stage)).map_err(|e| failure("open_stage", e))?;
            let mut buffer = vec![0; len];
            file.read_exact_at(&mut buffer, offset).map_err(|e| failure("read_stage", e))?;
            Ok(buffer.into())
        })
        .await
    }

    async fn discard_stage(&self, stage: UploadId) -> Result<()> {
        self.blocking("discard_stage", move |inner| inner.discard(stage)).await
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.blocking("delete", move |inner| {
            // In this order, see `read::open`.
            let removed = inner.remove("delete_blob", &inner.blob_path(blob));
            inner.open_blobs.remove(&blob);
            removed
        })
        .await
    }

    async fn blob_size(&self, blob: BlobId) -> Result<Option<u64>> {
        self.blocking("stat", move |inner| match std::fs::metadata(inner.blob_path(blob)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure("stat_blob", error)),
        })
        .await
    }

    fn reader(&self, form: Form) -> Box<dyn Reader> {
        Box::new(read::LocalReader::new(self.clone(), form))
    }

    async fn stages(&self) -> Result<Vec<(UploadId, u64)>> {
        self.blocking("list", |inner| inner.names(&inner.folder.join("staging"), UploadId::parse)).await
    }

    async fn blobs(&self, shard: u8) -> Result<Vec<(BlobId, u64)>> {
        self.blocking("list", move |inner| inner.names(&inner.shard_path(shard), BlobId::parse)).await
    }

    async fn available(&self) -> Result<u64> {
        self.blocking("statvfs", Inner::available).await
    }

    async fn check(&self) -> Result<()> {
        self.blocking("check", |inner| {
            let path = inner.folder.join("staging").join("probe");
            File::create(&path).and_then(|_| std::fs::remove_file(&path)).map_err(|e| failure("probe", e))
        })
        .await
    }
}

/// Seconds since a file got its present name or content. The change time it is, since renaming leaves the time of the
/// last write as it was.
fn age_secs(metadata: &std::fs::Metadata) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    u64::try_from(now.saturating_sub(metadata.ctime())).unwrap_or(0)
}

/// The domain's word for what the system said; a full disk is the caller's to know, all else the operator's.
fn failure(op: &'static str, error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => full(op, error),
        _ => {
            ::metrics::counter!(metrics::ERRORS, "op" => op, "kind" => "io").increment(1);
            Error::internal(op, error)
        }
    }
}

fn full(op: &'static str, error: io::Error) -> Error {
    ::metrics::counter!(metrics::ERRORS, "op" => op, "kind" => "full").increment(1);
    Error::new(
        Code::StorageFull,
        "The server's disk is full. Nothing that was stored is lost; delete files or ask the operator for space, then send this again.",
    )
    .with_source(error)
}

/// Bytes that a record promises are not there: a message that a person has to see.
fn lost(what: String) -> Error {
    tracing::error!(what, "stored bytes are missing or damaged");
    Error::new(
        Code::DataLost,
        "The stored bytes of this file are missing or damaged. The operator has been alarmed.",
    )
    .with_source(what)
}
