//! Archives, the jobs that make them, and the deflated forms of blobs: a part of the [`crate::Catalog`].

use async_trait::async_trait;
use carrack_domain::archive::{Archive, Content};
use carrack_domain::job::{JobFailure, JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, EncodingId, Result, Timestamp};
use std::time::Duration;

/// A worker's right to a job, until its lease ends or somebody else gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The job, which makes the archive of this id.
    pub job: ArchiveId,
    /// Shown with every write; whoever had the job before has a smaller one.
    pub fence: u64,
    /// Attempts that failed in a row before this one.
    pub attempts: u32,
}

/// What is known of the deflated form of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// It lies in a pack.
    Deflated {
        /// The run of bytes in storage.
        pack: BlobId,
        /// Bytes of all of it.
        pack_size: u64,
        /// Where in it this one begins.
        offset: u64,
        /// How long it is.
        size: u64,
    },
    /// It would not be smaller. The verdict is kept with this pack.
    Stored {
        /// The pack, perhaps without bytes.
        pack: BlobId,
    },
}

impl Encoding {
    /// The pack that it is kept with.
    pub fn pack(&self) -> BlobId {
        match self {
            Encoding::Deflated { pack, .. } | Encoding::Stored { pack } => *pack,
        }
    }
}

/// A pack whose bytes, if it has any, are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPack {
    /// The run of bytes in storage.
    pub id: BlobId,
    /// Its size; 0 when there is no run.
    pub size: u64,
    /// Offset and size of each deflated form in it; `None` for a content that would not be smaller.
    pub encodings: Vec<(EncodingId, Option<(u64, u64)>)>,
}

/// What an encoding costs of the quota besides its bytes: its row, and the verdicts that have none.
pub const ENCODING_ROW_BYTES: u64 = 128;

/// The part of the catalog that archives need. One method is one transaction is one invariant, as everywhere in it.
#[async_trait]
pub trait ArchiveCatalog: Send + Sync + 'static {
    /// Makes an archive that nobody sees yet, so that it can hold `holds` blobs.
    async fn prepare_archive(&self, id: &ArchiveId, holds: usize, now: Timestamp) -> Result<()>;

    /// Holds blobs for an archive in preparation: they are not forgotten while it lives. Over all calls for one archive
    /// the ids grow, none comes twice.
    async fn hold_blobs(&self, id: &ArchiveId, blobs: &[BlobId]) -> Result<()>;

    /// Makes a prepared archive visible, with its job in the state that the archive has. Its manifest is stored.
    /// `archive_not_found` unless it is in preparation.
    async fn commit_archive(&self, archive: &Archive) -> Result<()>;

    /// An archive; `archive_not_found`.
    async fn archive(&self, id: &ArchiveId) -> Result<Archive>;

    /// The archives of `owner` that have not expired `now`, newest first, at most `limit`; after the one given.
    async fn archives(
        &self,
        owner: &str,
        now: Timestamp,
        after: Option<(Timestamp, ArchiveId)>,
        limit: usize,
    ) -> Result<Vec<Archive>>;

    /// Deletes an archive with its job and all that it holds; `archive_not_found`. Returns its manifest, whose bytes
    /// are to be deleted.
    async fn delete_archive(&self, id: &ArchiveId) -> Result<BlobId>;

    /// Deletes archives that expired before `now`, at most `limit`. Returns them with their manifests.
    async fn expire_archives(&self, now: Timestamp, limit: usize)
    -> Result<Vec<(ArchiveId, Option<BlobId>)>>;

    /// Deletes archives that were in preparation before `before`: whoever prepared them has gone.
    async fn forget_prepared(&self, before: Timestamp) -> Result<usize>;

    /// Whether an archive holds this blob.
    async fn is_held(&self, blob: &BlobId) -> Result<bool>;

    /// Pauses, resumes or cancels the job of an archive: whoever had it has it no more. A cancelled one holds nothing.
    /// `archive_not_found`, `invalid_transition`.
    async fn move_archive(&self, id: &ArchiveId, wish: JobWish) -> Result<Archive>;

    /// Takes the most urgent job that is due, or whose worker's lease has run out, for `lease` by the clock of the
    /// catalog. Of many who ask at once, one gets it.
    async fn claim_job(&self, worker: [u8; 16], lease: Duration) -> Result<Option<Claim>>;

    /// Lengthens the lease and notes the progress; `superseded` when the job is the worker's no more.
    async fn renew_job(&self, claim: &Claim, lease: Duration, progress: Progress) -> Result<()>;

    /// Gives a job back undone, to be taken at once; nothing when it is the worker's no more.
    async fn release_job(&self, claim: &Claim, progress: Progress) -> Result<()>;

    /// Gives a job back after a passing fault, to be taken after `pause`; `superseded`.
    async fn retry_job(
        &self,
        claim: &Claim,
        attempts: u32,
        pause: Duration,
        failure: &JobFailure,
    ) -> Result<()>;

    /// Gives a job up; its archive holds nothing from then on. `superseded`.
    async fn fail_job(&self, claim: &Claim, failure: &JobFailure) -> Result<()>;

    /// Completes the job and the archive: from now on its bytes are known. Returns the plan, whose bytes are to be
    /// deleted. `superseded`.
    async fn complete_archive(
        &self,
        claim: &Claim,
        content: &Content,
        manifest: (BlobId, u64),
    ) -> Result<BlobId>;

    /// What is known of these encodings, in this order.
    async fn encodings(&self, ids: &[EncodingId]) -> Result<Vec<Option<Encoding>>>;

    /// Records a pack, as used by the archive of the claim. Of encodings that are known already the older stay.
    /// `superseded` when the job is the worker's no more; the pack's bytes are then to be deleted.
    async fn put_pack(&self, claim: &Claim, pack: &NewPack, now: Timestamp) -> Result<()>;

    /// Marks packs as used by the archive of the claim, which keeps them from being evicted as long as it lives. Returns
    /// those that are gone. `superseded`.
    async fn use_packs(&self, claim: &Claim, packs: &[BlobId], now: Timestamp) -> Result<Vec<BlobId>>;

    /// Marks packs as used now, for the order of eviction.
    async fn touch_packs(&self, packs: &[BlobId], now: Timestamp) -> Result<()>;

    /// Forgets packs that no archive needs, those first that were not used for the longest time, until the rest is within
    /// `quota` bytes; at most `limit`, none of `skip`. Returns them: their bytes are to be deleted.
    async fn evict_packs(&self, quota: u64, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>>;

    /// What all packs count towards the quota.
    async fn pack_bytes(&self) -> Result<u64>;

    /// Runs of bytes that archives need, packs and manifests, after `after` in byte order of their ids, with their sizes; at
    /// most `limit`: for reconciling with storage.
    async fn archived_runs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<(BlobId, u64)>>;

    /// Whether a run of bytes in storage is the manifest of an archive or a pack.
    async fn is_archived(&self, run: &BlobId) -> Result<bool>;
}
