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
mod s3;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::upload::Receipt;
use carrack_domain::{BlobId, Error, Result, UploadId};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::watch;

pub use local::{LocalOptions, LocalStore, OpenError};
pub use s3::{MEMORY_BYTES_MIN, S3Options, S3Store};

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
    /// The same, and it is filled in extents that begin at multiples of so many bytes.
    Parts(NonZeroU64),
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

/// Who writes an extent.
#[derive(Debug, Clone, Default)]
pub struct Hand {
    /// Its number among those who write to the stage: two that may write at the same time, or while what the other had
    /// under way may still arrive, have different ones. Who made the stage is 0.
    pub writer: u32,
    /// What was said of the bytes before, where they are followed; empty for an extent by itself.
    pub before: Before,
}

/// A receipt that may be yet to come: of bytes that are made durable while those that follow them are received.
#[derive(Debug, Clone)]
pub struct Before(watch::Receiver<Option<Receipt>>);

impl Default for Before {
    fn default() -> Before {
        Before::from(Receipt::new())
    }
}

impl From<Receipt> for Before {
    fn from(receipt: Receipt) -> Before {
        Before(watch::channel(Some(receipt)).1)
    }
}

impl Before {
    /// One that is yet to come, and what it is given to.
    pub fn promised() -> (watch::Sender<Option<Receipt>>, Before) {
        let (sender, receiver) = watch::channel(None);
        (sender, Before(receiver))
    }

    /// The receipt, once it is there; an error when it never will be.
    pub async fn get(&mut self) -> Result<Receipt> {
        let there = self.0.wait_for(Option::is_some).await.map(|receipt| receipt.clone());
        let lost = || Error::broken("the bytes before an extent were given up");
        there.ok().flatten().ok_or_else(lost)
    }
}

/// The bytes of a stage that are to be a blob.
#[derive(Debug, Clone)]
pub struct Whole {
    /// How many there are.
    pub size: u64,
    /// Their CRC-32, where it is known.
    pub crc32: Option<u32>,
    /// What was said of the extents that make them up, in any order.
    pub receipts: Vec<Receipt>,
}

/// A part that is to be sent to the storage past this process: it has exactly so many bytes, of this CRC-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

/// Where somebody else may send or fetch bytes past this process, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The URL, to be used exactly as it is.
    pub url: String,
    /// Headers that have to be sent with it, in lower case.
    pub headers: Vec<(&'static str, String)>,
}

/// A part that has come to the storage past this process, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes, which may be others than were wished.
    pub len: u64,
    /// Their CRC-32.
    pub crc32: u32,
    /// What the ledger is to know: it tells this part from another that takes its place later.
    pub receipt: Receipt,
}

/// What a storage that answers a download itself says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The media type.
    pub content_type: String,
    /// `Content-Disposition`.
    pub disposition: String,
}

/// What a reader will be asked for, in this order.
pub type Coming = Box<dyn Iterator<Item = Extent> + Send>;

/// Room on the disk that nobody else is given until this is dropped.
pub type Room = Box<dyn Send + Sync>;

/// See the module's documentation.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Makes an empty stage and, when the size is known, reserves its space: `storage_full` comes here, before the
    /// first byte. The name must be new.
    async fn create_stage(&self, stage: UploadId, size: Option<u64>, kind: StageKind) -> Result<()>;

    /// A writer of consecutive bytes of a stage from `offset` on. One extent has one writer at a time in this process; the
    /// caller sees to that. Of one in another process, which may not know yet that it was displaced, nothing can get into
    /// what this one is acknowledged for.
    async fn extent_writer(
        &self,
        stage: UploadId,
        offset: u64,
        hand: Hand,
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>>;

    /// Where somebody else may send this part of the stage; `None` where parts have to pass this process. Nothing of it counts
    /// before it is found by [`Storage::arrived`] and its receipt is in the ledger.
    async fn part_address(
        &self,
        _stage: UploadId,
        _part: Part,
        _good_for: Duration,
    ) -> Result<Option<Address>> {
        Ok(None)
    }

    /// What has come to the stage past this process, by offset; `None` when no more can come, because the stage is a blob or
    /// gone.
    async fn arrived(&self, _stage: UploadId) -> Result<Option<Vec<Arrived>>> {
        Ok(None)
    }

    /// Where somebody else may fetch the bytes of a blob, whole or any range of them; `None` where they have to pass this
    /// process.
    fn blob_address(&self, _blob: BlobId, _shown: &Shown, _good_for: Duration) -> Option<Address> {
        None
    }

    /// Makes these bytes of the stage the blob of its name ([`UploadId::blob`]), durably; what lies behind was never
    /// acknowledged. Doing it again after a crash at any point is fine. `data_lost` when neither stage nor blob has these
    /// bytes; `superseded` when somebody has sent other bytes past this process meanwhile.
    async fn publish(&self, stage: UploadId, whole: &Whole) -> Result<()>;

    /// Room for `bytes` that somebody else is about to write to the same disk; `storage_full` unless they fit now. A look
    /// at what the filesystem keeps in memory, so it does not wait.
    fn admit(&self, bytes: u64) -> Result<Room>;

    /// Makes bytes in memory the blob of this stage's name at once: what creating the stage, writing to it and publishing come
    /// to, in one go. When it fails nothing is left but, after a failure of the disk, perhaps a blob without a record.
    async fn store(&self, stage: UploadId, bytes: Bytes) -> Result<()>;

    /// `len` bytes at `offset` of a stage that has all its bytes, as they were written: for digests that cannot be joined
    /// from extents. No more may be written to it then.
    async fn read_stage(&self, stage: UploadId, whole: &Whole, offset: u64, len: usize) -> Result<Bytes>;

    /// Deletes a stage and gives its space back. Nothing when there is none; a blob that it has become stays.
    async fn discard_stage(&self, stage: UploadId) -> Result<()>;

    /// Deletes a blob's bytes. Readers that opened it before are not disturbed. Nothing when there is none.
    async fn delete(&self, blob: BlobId) -> Result<()>;

    /// The size of a stored blob; `None` when it is not there.
    async fn blob_size(&self, blob: BlobId) -> Result<Option<u64>>;

    /// A reader, which keeps what it has opened.
    fn reader(&self, form: Form) -> Box<dyn Reader>;

    /// Whether other processes may be using the same store.
    fn is_shared(&self) -> bool {
        false
    }

    /// How long a numbered part should be: others are kept too, at a price.
    fn part_sizes(&self) -> RangeInclusive<u64> {
        1..=u64::MAX
    }

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

    /// Has what was taken written: for one who waits for more. May be dropped at any time, nothing is lost by that. It may also
    /// wait until others need the memory of what could as well wait for more.
    async fn settle(&mut self) -> Result<()>;

    /// Waits until everything is written and, with [`Flush::Now`], as durable as configured. Only then may the
    /// extent be acknowledged. What is returned is of this extent and of what came before it in [`Hand::before`]. After an
    /// error, bytes may still arrive: the next writer needs another number.
    async fn finish(self: Box<Self>, flush: Flush) -> Result<Receipt>;

    /// Gives the extent up, keeping nothing: it is free for another writer. `false` when something that was under way may
    /// still arrive, so that the next one needs another number.
    async fn abandon(self: Box<Self>) -> bool;
}

/// Reads extents of blobs.
#[async_trait]
pub trait Reader: Send {
    /// Says what will be read, for a reader that can fetch it meanwhile. Nothing is promised by that.
    fn follow(&mut self, _coming: Coming) {}

    /// Whether large runs may come as mappings where that is wished; a reader whose bytes come from elsewhere is asked for
    /// less at once.
    fn maps(&self) -> bool {
        true
    }

    /// Opens a blob that must have `size` bytes: `data_lost` when it is gone or has another size.
    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()>;

    /// The bytes of these extents in one run, of exactly their total length. Only a single extent of more than
    /// [`INLINE_BYTES_MAX`] may come as a mapping. A blob that is gone or has changed its
    /// size is an error, never fewer bytes.
    async fn read(&mut self, extents: Vec<Extent>) -> Result<Bytes>;
}
