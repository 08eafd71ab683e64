//! Blobs and stages as objects of an S3 bucket.
//!
//! - `blobs/ab/ID` is a blob, `ab` being the id's first byte: made by a multipart upload of that key, or put at once.
//! - `sessions/ID` says what the stage of a session is: how it is cut into parts, and the name of its multipart upload.
//! - `loose/ID/...` holds bytes of a stage that do not fill a part yet, each object under a random name.
//!
//! No object is ever written over, so S3 needs no conditional writes. What of a stage counts is in the receipts, which the
//! ledger keeps (see [`receipt`]). Nothing is on a local disk. Decision 0043.

mod budget;
mod client;
mod direct;
mod fault;
mod plan;
mod probe;
mod publish;
mod read;
mod receipt;
mod sign;
mod stage;
mod sweep;
mod write;

use crate::{
    Address, Arrived, ExtentWriter, Form, Hand, Observer, Part, Reader, Room, Shown, StageKind, Storage,
    Whole,
};
use async_trait::async_trait;
use budget::Budget;
use bytes::Bytes;
use carrack_domain::{BlobId, Clock, Code, Entropy, Error, Result, UploadId};
use client::{Client, Target};
use quick_cache::sync::Cache;
use sign::Credentials;
use stage::{Stage, blob_key};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod xml;

/// Stages that are remembered; others are read again.
const STAGES_MAX: usize = 16_384;
/// Blobs whose ETag is remembered.
const FACTS_MAX: usize = 65_536;
/// The largest part, if the memory allows.
const PART_BYTES_MAX: u64 = 512 << 20;
/// Parts that the memory has to hold at once.
const PARTS_IN_MEMORY: u64 = 4;
/// The least memory: so many of the smallest parts.
pub const MEMORY_BYTES_MIN: u64 = PARTS_IN_MEMORY * plan::PART_BYTES_MIN;

/// How an [`S3Store`] is opened. It has no `Debug`: there is a secret in it.
#[derive(Clone)]
pub struct S3Options {
    /// `http://host:port` or `https://host`, without a path.
    pub endpoint: String,
    /// The same as clients reach it, for what is signed for them; empty where they do so as we do.
    pub public_endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What every key begins with: `""`, or letters, digits, `-`, `_`, `.` and `/`.
    pub prefix: String,
    /// Whose requests they are.
    pub access_key_id: String,
    /// With what they are signed.
    pub secret_access_key: String,
    /// Whether the bucket is in the path instead of the host's name.
    pub path_style: bool,
    /// Bytes of memory for what is on its way to S3, at least [`MEMORY_BYTES_MIN`].
    pub memory_bytes: u64,
    /// Whether parts of an upload may be sent to S3 past this process.
    pub direct_parts: bool,
    /// Whether blobs may be fetched from S3 past this process.
    pub direct_downloads: bool,
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    client: Client,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    budget: Budget,
    part_max: u64,
    direct_parts: bool,
    direct_downloads: bool,
    /// Whether S3 keeps the CRC-32 of parts, and that of a whole made of them.
    checksums: bool,
    full_object: bool,
    stages: Cache<UploadId, Arc<Stage>>,
    /// The stages of requests under way here.
    brief: Mutex<HashMap<UploadId, Arc<Stage>>>,
    facts: Cache<BlobId, read::Facts>,
    /// Blobs that are read here. Bounded by the requests being served.
    readings: Mutex<HashMap<BlobId, Readers>>,
}

/// How many read a blob, and whether it is to be deleted when they have ended.
#[derive(Default)]
struct Readers {
    count: usize,
    is_deleted: bool,
}

/// One who reads a blob, until dropped.
struct Reading {
    inner: Arc<Inner>,
    blob: BlobId,
}

impl Reading {
    /// `None` when the blob is deleted.
    fn begin(inner: &Arc<Inner>, blob: BlobId) -> Option<Reading> {
        let mut readings = inner.readings();
        let readers = readings.entry(blob).or_default();
        if readers.is_deleted {
            return None;
        }
        readers.count += 1;
        Some(Reading { inner: inner.clone(), blob })
    }

    fn blob(&self) -> BlobId {
        self.blob
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readings = self.inner.readings();
        if let Some(readers) = readings.get_mut(&self.blob) {
            readers.count -= 1;
            if readers.count == 0 && !readers.is_deleted {
                readings.remove(&self.blob);
            }
        }
    }
}

/// The answer to more than can be stored.
fn too_much() -> Error {
    Error::new(Code::StorageFull, "These are more bytes than the server's storage can take as one file.")
}

impl Inner {
    fn readings(&self) -> MutexGuard<'_, HashMap<BlobId, Readers>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn brief(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Stage>>> {
        self.brief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size_max(&self) -> u64 {
        self.part_max * 10_000
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn forget(&self, blob: BlobId) {
        self.facts.remove(&blob);
    }

    /// Deletes blobs whose last reader has gone since.
    async fn delete_unread(&self) -> Result<()> {
        let unread: Vec<BlobId> = {
            let readings = self.readings();
            let unread = readings.iter().filter(|(_, readers)| readers.count == 0);
            unread.map(|(blob, _)| *blob).collect()
        };
        for blob in unread {
            self.remove("delete_blob", blob_key(blob)).await?;
            self.readings().remove(&blob);
        }
        Ok(())
    }
}

#[async_trait]
impl Storage for S3Store {
    async fn create_stage(&self, stage: UploadId, size: Option<u64>, kind: StageKind) -> Result<()> {
        self.0.create(stage, size, kind).await
    }

    async fn extent_writer(
        &self,
        stage: UploadId,
        offset: u64,
        hand: Hand,
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>> {
        let stage = self.0.stage(stage).await?;
        write::S3Writer::open(self.0.clone(), stage, offset, (hand.writer, hand.before), observer)
    }

    async fn part_address(&self, stage: UploadId, part: Part, good_for: Duration) -> Result<Option<Address>> {
        self.0.part_address(stage, part, good_for).await
    }

    async fn arrived(&self, stage: UploadId) -> Result<Option<Vec<Arrived>>> {
        self.0.arrived(stage).await
    }

    fn blob_address(&self, blob: BlobId, shown: &Shown, good_for: Duration) -> Option<Address> {
        self.0.blob_address(blob, shown, good_for)
    }

    async fn publish(&self, stage: UploadId, whole: &Whole) -> Result<()> {
        self.0.seal(stage, whole).await?;
        self.0.tidy(stage, whole).await;
        Ok(())
    }

    fn admit(&self, bytes: u64) -> Result<Room> {
        if bytes > self.0.size_max() { Err(too_much()) } else { Ok(Box::new(())) }
    }

    async fn store(&self, stage: UploadId, bytes: Bytes) -> Result<()> {
        self.0.put("store", blob_key(stage.blob()), bytes).await
    }

    async fn read_stage(&self, stage: UploadId, whole: &Whole, offset: u64, len: usize) -> Result<Bytes> {
        let (blob, size) = (stage.blob(), whole.size);
        if self.0.facts.get(&blob).is_none_or(|facts| facts.size != size) {
            self.0.seal(stage, whole).await?;
        }
        let mut reader = self.reader(Form::Copied);
        if self.0.facts.get(&blob).is_none() {
            reader.open(blob, size).await?;
        }
        reader.read(vec![carrack_domain::rope::Extent::Blob { blob, size, offset, len: len as u64 }]).await
    }

    async fn discard_stage(&self, stage: UploadId) -> Result<()> {
        self.0.discard(stage).await
    }

    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.0.forget(blob);
        self.0.delete_unread().await?;
        {
            let mut readings = self.0.readings();
            if let Some(readers) = readings.get_mut(&blob) {
                // Whoever reads it shall not be disturbed. A crash before leaves an object without a record.
                readers.is_deleted = true;
                return Ok(());
            }
        }
        self.0.remove("delete_blob", blob_key(blob)).await
    }

    async fn blob_size(&self, blob: BlobId) -> Result<Option<u64>> {
        if self.0.readings().get(&blob).is_some_and(|readers| readers.is_deleted) {
            return Ok(None);
        }
        Ok(self.0.look(blob).await?.map(|facts| facts.size))
    }

    fn reader(&self, _form: Form) -> Box<dyn Reader> {
        Box::new(read::S3Reader::new(self.0.clone()))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn part_sizes(&self) -> RangeInclusive<u64> {
        plan::PART_BYTES_MIN..=self.0.part_max
    }

    async fn stages(&self) -> Result<Vec<(UploadId, u64)>> {
        self.0.stages().await
    }

    async fn blobs(&self, shard: u8) -> Result<Vec<(BlobId, u64)>> {
        self.0.delete_unread().await?;
        self.0.blobs(shard).await
    }

    async fn available(&self) -> Result<u64> {
        self.0.delete_unread().await?;
        // S3 does not say.
        Ok(self.0.size_max())
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}
