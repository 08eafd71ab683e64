//! The bytes: stage them, write extents, make them durable, publish them as a blob, open them again.
//!
//! [`Storage`] is implemented by [`LocalStore`]; every implementation passes [`conformance::run`].
//!
//! *Order* (invariant 2). A stage collects extents in any order. Publishing makes its bytes durable first and gives
//! them the blob's final name last, so a name that exists means bytes that are complete.
//! *Cancellation.* Methods are to be driven to their end: callers run them on tasks that outlive the connection.

pub mod conformance;
mod local;
pub mod metrics;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Result, UploadId};

pub use local::{LocalOptions, LocalStore, OpenError};

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged bytes survive a power cut.
    Power,
    /// Acknowledged bytes survive a crash of the process, not of the machine.
    Process,
}

/// How long a stage has to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageKind {
    /// As long as its upload session is recorded: its name is made durable at creation.
    Session,
    /// For one request: nothing refers to it after a crash.
    Request,
}

/// In which form a reader hands out bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In memory of their own.
    Copied,
    /// Large runs may be mappings of the blob's file (`carrack-mapped`), for a writer that passes them to the kernel
    /// without reading them. Reading one that somebody has cut short from outside would end the process.
    Mapped,
}

/// Extents up to this size are copied in either form: for them a read costs less than a `sendfile`.
pub const INLINE_BYTES_MAX: u64 = 16 << 10;

/// When the bytes of an extent become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before [`ExtentWriter::finish`] returns.
    Now,
    /// When the stage is published, which follows at once: one wait for the disk instead of two.
    AtPublish,
}

/// Sees the bytes of an extent in order, as they are taken, while they are warm in the cache.
pub type Observer = Box<dyn FnMut(&[u8]) + Send>;

/// Room on the disk that nobody else is given until this is dropped.
pub type Room = Box<dyn Send + Sync>;

/// See the module's documentation.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Makes an empty stage and, when the size is known, reserves its space: `storage_full` comes here, before the
    /// first byte. The name must be new.
    async fn create_stage(&self, stage: UploadId, size: Option<u64>, kind: StageKind) -> Result<()>;

    /// A writer of consecutive bytes of a stage from `offset` on. One extent has one writer at a time; the caller sees
    /// to that.
    async fn extent_writer(
        &self,
        stage: UploadId,
        offset: u64,
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>>;

    /// Gives the stage's first `size` bytes the blob's final name, durably; what lies behind was never acknowledged. Doing it again after a crash at any
    /// point is fine. `data_lost` when neither stage nor blob has these bytes.
    async fn publish(&self, stage: UploadId, blob: BlobId, size: u64) -> Result<()>;

    /// Room for `bytes` that somebody else is about to write to the same disk; `storage_full` unless they fit now. A look
    /// at what the filesystem keeps in memory, so it does not wait.
    fn admit(&self, bytes: u64) -> Result<Room>;

    /// Makes bytes in memory a blob at once: what creating a stage of this name, writing to it and publishing come to, in one
    /// go. When it fails nothing is left but, after a failure of the disk, perhaps a blob without a record.
    async fn store(&self, stage: UploadId, blob: BlobId, bytes: Bytes) -> Result<()>;

    /// `len` bytes of a stage at `offset`, as they were written: for digests that cannot be joined from extents.
    async fn read_stage(&self, stage: UploadId, offset: u64, len: usize) -> Result<Bytes>;

    /// Deletes a stage and gives its space back. Nothing when there is none.
    async fn discard_stage(&self, stage: UploadId) -> Result<()>;

    /// Deletes a blob's bytes. Readers that opened it before are not disturbed. Nothing when there is none.
    async fn delete(&self, blob: BlobId) -> Result<()>;

    /// The size of a stored blob; `None` when it is not there.
    async fn blob_size(&self, blob: BlobId) -> Result<Option<u64>>;

    /// A reader, which keeps what it has opened.
    fn reader(&self, form: Form) -> Box<dyn Reader>;

    /// Every stage there is, with the seconds since it was made or written to.
    async fn stages(&self) -> Result<Vec<(UploadId, u64)>>;

    /// Names of blobs whose id begins with the byte `shard`, with their age in seconds since they were published:
    /// the 256 shards together are all blobs.
    async fn blobs(&self, shard: u8) -> Result<Vec<(BlobId, u64)>>;

    /// Bytes that can still be stored, the reserve already taken off.
    async fn available(&self) -> Result<u64>;

    /// Answers when bytes can be stored and read; the cause otherwise. For readiness.
    async fn check(&self) -> Result<()>;
}

/// Writes one extent. Dropping it leaves what was written so far in the stage, unacknowledged.
#[async_trait]
pub trait ExtentWriter: Send {
    /// Takes the bytes that follow. Waits only when as many as are written at once are in hand while others are being
    /// written.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Whether all that was taken is written, except for some bytes that wait for the next.
    fn is_settled(&self) -> bool;

    /// Has what was taken written: for one who waits for more. May be dropped at any time, nothing is lost by that.
    async fn settle(&mut self) -> Result<()>;

    /// Waits until everything is written and, with [`Flush::Now`], as durable as configured. Only then may the
    /// extent be acknowledged.
    async fn finish(self: Box<Self>, flush: Flush) -> Result<()>;

    /// Waits until nothing is being written any more, keeping nothing: the extent is free for another writer.
    async fn abandon(self: Box<Self>);
}

/// Reads extents of blobs.
#[async_trait]
pub trait Reader: Send {
    /// Opens a blob that must have `size` bytes: `data_lost` when it is gone or has another size.
    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()>;

    /// The bytes of these extents in one run, of exactly their total length. Only a single extent of more than
    /// [`INLINE_BYTES_MAX`] may come as a mapping. A blob that is gone or has changed its
    /// size is an error, never fewer bytes.
    async fn read(&mut self, extents: Vec<Extent>) -> Result<Bytes>;
}
