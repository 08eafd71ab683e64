//! The facts: which buckets, files, blobs and uploads there are.
//!
//! One method is one transaction is one invariant. [`Catalog`] is implemented by [`SqliteCatalog`] and [`PostgresCatalog`]; every
//! implementation passes [`conformance::run`].
//!
//! *Durability.* A method that changes something returns only when the change survives a power cut.
//! *Order.* Data before record on create: callers publish bytes first. Record before data on delete: a file that is
//! replaced or deleted leaves its blob in [`Catalog::unreferenced_blobs`] until its bytes are gone and
//! [`Catalog::forget_blob`] is called. The bytes of small files come and go with the record itself.

mod archives;
pub mod audit;
mod common;
pub mod conformance;
pub mod copies;
pub mod events;
pub mod metrics;
mod postgres;
mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::access::FileRef;
use carrack_domain::digest::Piece;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Precondition};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::token::{Denial, Token};
use carrack_domain::upload::{Receipt, StoredExtent, Target, Upload};
use carrack_domain::{
    BlobId, BucketName, ClaimId, Key, KeyPrefix, LinkId, Result, Timestamp, TokenId, UploadId,
};

pub use archives::{ArchiveCatalog, Claim, ENCODING_ROW_BYTES, Encoding, NewPack};
pub use audit::{AuditBlock, AuditCatalog, AuditPage, AuditQuery, Position};
pub use copies::{CopyCatalog, CopyState};
pub use events::{Event, EventCatalog, Sink, Turn};
pub use postgres::{AuditDatabase, Migrated, PostgresCatalog, PostgresError, PostgresOptions};
pub use sqlite::{AuditFile, OpenError, SqliteCatalog, SqliteOptions};

/// Whether a method made something or found it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there and has been changed or replaced.
    Replaced,
}

impl Outcome {
    /// Its name in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Replaced => "replaced",
        }
    }
}

/// A page of a listing, see [`Catalog::list`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Files, by key in byte order.
    pub files: Vec<File>,
    /// Common prefixes up to and including the delimiter, in byte order.
    pub prefixes: Vec<String>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<String>,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin with this.
    pub prefix: KeyPrefix,
    /// Fold keys that contain this after the prefix into one common prefix.
    pub delimiter: Option<char>,
    /// Only what comes after this point: `next` of the page before.
    pub after: Option<String>,
    /// The most files and prefixes together, at least 1.
    pub limit: usize,
}

/// A file as an archive needs it. The borrowed key spares an allocation for each of a million entries.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// The key.
    pub key: &'a str,
    /// The content.
    pub blob: Blob,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// Shown every [`Member`] of a scan. (A name of its own, since `async_trait` would tie a `'_` written out in a method to
/// the method's own lifetime.)
pub type Visit = Box<dyn FnMut(Member<'_>) -> Result<()> + Send>;

/// A file about to exist: its bytes are published under `blob.id`, or come with it.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Where, and with what facts.
    pub target: Target,
    /// What it points at.
    pub blob: Blob,
    /// The bytes of a new blob that are kept with its record, few as they are; `None` when they are published, or kept
    /// already. Kept as long as the blob, see [`Catalog::contents`].
    pub content: Option<Bytes>,
    /// What must hold of a file that is there already; checked in the same transaction.
    pub precondition: Precondition,
    /// Now.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// How the bytes came.
    pub origin: Origin,
}

/// How the bytes of a new file came.
#[derive(Debug, Clone)]
pub enum Origin {
    /// By one request, of which nothing else is kept.
    Request,
    /// By a recorded upload, which becomes `Complete` in the same transaction.
    Session(UploadId),
    /// Not at all: it is the content of this file, which must still have it in the same transaction, else
    /// `file_not_found`.
    Copy(FileRef),
    /// By an upload that was never open: it is recorded as `Complete` in the same transaction, without a ledger.
    Whole(Box<Upload>),
}

/// A file that [`Catalog::commit_file`] made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The file.
    pub file: File,
    /// Whether it is new.
    pub outcome: Outcome,
    /// The blob of the file it replaced, when nothing points at it any more.
    pub orphan: Option<BlobId>,
}

/// What [`Catalog::begin_finish`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The upload was open and is now `Finishing` under the blob id given.
    Begun,
    /// It is `Finishing` already, under this blob id: another request is at it, or one was interrupted.
    Underway(BlobId),
    /// It is complete: this file, as it was then, and what became of the one before.
    Done(Box<File>, Outcome),
}

/// How long the whole will be, as a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Where the bytes of the request begin.
    pub offset: u64,
    /// Bytes of the whole.
    pub length: u64,
}

/// What [`Catalog::take_over`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The upload.
    pub upload: Upload,
    /// Bytes it has.
    pub offset: u64,
    /// What appends have to show. Whoever took over before has a smaller one.
    pub epoch: u64,
    /// What the storage said of those bytes.
    pub receipt: Receipt,
}

/// An upload that another joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The upload.
    pub upload: Upload,
    /// What is stored of it; `None` while it has no byte.
    pub stored: Option<StoredExtent>,
}

impl Partial {
    /// Whether all its bytes are there.
    pub fn is_whole(&self) -> bool {
        let offset = self.stored.as_ref().map_or(0, |extent| extent.piece.fragment.end());
        self.upload.length() == Some(offset)
    }
}

/// One piece of a blob as a parallel client verifies it: plain BLAKE3 of each `chunk_size` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    /// Bytes in every chunk but the last.
    pub chunk_size: u64,
    /// BLAKE3 of each chunk by itself, in order.
    pub hashes: Vec<[u8; 32]>,
}

/// See the module's documentation.
#[async_trait]
pub trait Catalog: ArchiveCatalog + AuditCatalog + Send + Sync + 'static {
    /// Makes a bucket, or sets all of this for one that is there.
    async fn put_bucket(
        &self,
        name: &BucketName,
        settings: &BucketSettings,
        now: Timestamp,
    ) -> Result<(Bucket, Outcome)>;

    /// A bucket by name; `bucket_not_found`.
    async fn bucket(&self, name: &BucketName) -> Result<Bucket>;

    /// All buckets by name.
    async fn buckets(&self) -> Result<Vec<Bucket>>;

    /// Deletes a bucket; `bucket_not_found`, or `bucket_not_empty` while it has files or open uploads.
    async fn delete_bucket(&self, name: &BucketName) -> Result<()>;

    /// A number that grows with every change of the bucket's files: what is derived from a listing is good while it
    /// stays the same. `bucket_not_found`.
    async fn generation(&self, bucket: &BucketName) -> Result<u64>;

    /// A file; `file_not_found`, or `bucket_not_found`.
    async fn file(&self, bucket: &BucketName, key: &Key) -> Result<File>;

    /// A page of files in byte order of their keys; `bucket_not_found`. Walking the pages shows every file that exists
    /// all the while exactly once; the cost of a page does not grow with the number of files folded into a prefix.
    async fn list(&self, bucket: &BucketName, query: &ListQuery) -> Result<Listing>;

    /// Shows `visit` every file below `prefix` in byte order, from one consistent snapshot, until it returns an error,
    /// which is passed on. Returns the generation of that snapshot. `visit` runs on a thread that may block.
    async fn scan(&self, bucket: &BucketName, prefix: &KeyPrefix, visit: Visit) -> Result<u64>;

    /// Makes the file visible in one transaction: blob, file pointer, quota, generation, and the upload's completion.
    /// The partial uploads of a joined one are deleted with it: their bytes are the blob's pieces now.
    ///
    /// Fails with `precondition_failed`, `bucket_not_found`, `quota_exceeded` (counting the file that is replaced as
    /// gone and the upload's own reservation as released), or `upload_not_found` when the session is not `Finishing`
    /// under this blob. When it fails nothing has changed.
    async fn commit_file(&self, file: NewFile) -> Result<Committed>;

    /// Deletes a file; `file_not_found`, `bucket_not_found`, `precondition_failed`. Its blob becomes unreferenced;
    /// the id is returned when no other file points at it.
    async fn delete_file(
        &self,
        bucket: &BucketName,
        key: &Key,
        precondition: &Precondition,
    ) -> Result<Option<BlobId>>;

    /// As [`Catalog::delete_file`], of a file that was made before `before`; `precondition_failed` for a younger one.
    async fn expire_file(&self, bucket: &BucketName, key: &Key, before: Timestamp) -> Result<Option<BlobId>>;

    /// Whether `bytes` more would fit into the bucket's quota, before anything is received. `bucket_not_found`,
    /// `quota_exceeded`. `key`'s present file counts as gone, since it would be replaced.
    async fn check_quota(&self, bucket: &BucketName, key: &Key, bytes: u64) -> Result<()>;

    /// Whether `bytes` in this place would fit into what the owner may have, all buckets together, before anything is
    /// received: `quota_exceeded`. The owner's present file there counts as gone.
    async fn check_owner_quota(&self, owner: &str, place: &FileRef, bytes: u64) -> Result<()>;

    /// Bounds what an owner may have, files and open uploads together; `None` for no bound. What they have already stays,
    /// and only what makes it more is refused, by whichever method would.
    async fn set_owner_quota(&self, owner: &str, quota: Option<u64>) -> Result<()>;

    /// Nobody is bounded any more.
    async fn forget_owner_quotas(&self) -> Result<()>;

    /// Records an upload in state `Open` and reserves its size; `bucket_not_found`, `quota_exceeded`.
    async fn create_upload(&self, upload: &Upload) -> Result<()>;

    /// An upload; `upload_not_found`.
    async fn upload(&self, id: &UploadId) -> Result<Upload>;

    /// The open uploads of `owner`, oldest first, at most `limit`, optionally only those into `bucket`.
    async fn uploads(&self, owner: &str, bucket: Option<&BucketName>, limit: usize) -> Result<Vec<Upload>>;

    /// How many uploads are open or finishing, for the metric.
    async fn open_uploads(&self) -> Result<u64>;

    /// Writes a line of the ledger and moves the upload's expiry. The same extent again replaces the line, except that one which
    /// nobody has seen does not replace one that passed here.
    /// `upload_not_found`, or `upload_finished` when it is not open.
    async fn record_extent(&self, id: &UploadId, extent: &StoredExtent, expires_at: Timestamp) -> Result<()>;

    /// Notes that somebody is told where to send parts past the server, and moves the upload's expiry. Again is fine.
    /// `upload_not_found`, or `upload_finished` when it is not open.
    async fn note_direct(&self, id: &UploadId, expires_at: Timestamp) -> Result<()>;

    /// The ledger by offset. Empty for an unknown upload.
    async fn extents(&self, id: &UploadId) -> Result<Vec<StoredExtent>>;

    /// One line of the ledger, by the offset at which it begins.
    async fn extent(&self, id: &UploadId, offset: u64) -> Result<Option<StoredExtent>>;

    /// Makes the caller the one who may append to an upload: from now on every append with an older epoch fails.
    /// With `announced` also says how long the whole will be, which can be said once, and not below what is stored;
    /// nothing is said when the upload does not end where the request begins.
    ///
    /// `upload_not_found`; `upload_shape` unless it is an append upload; `length_mismatch` for a length that
    /// contradicts; `quota_exceeded`. Of an upload that is not open only the facts are returned.
    async fn take_over(&self, id: &UploadId, announced: Option<Announced>) -> Result<Taken>;

    /// Joins `piece` to the one line in the ledger of an append upload, moves its expiry, and reserves what an upload
    /// of unknown length has grown by. Nothing is changed when it fails: `upload_not_found`, `upload_finished`,
    /// `superseded` when somebody took over since `epoch`, `offset_mismatch` with the true offset when the piece does
    /// not begin at the end, `length_exceeded`, `quota_exceeded`. `receipt` is of all bytes up to there, and takes the place
    /// of the one before.
    async fn append(
        &self,
        id: &UploadId,
        epoch: u64,
        piece: &Piece,
        receipt: &Receipt,
        expires_at: Timestamp,
    ) -> Result<()>;

    /// A number for one who is going to write to the stage of an upload: 1 for the first who asks, and never the same
    /// again. Who began the upload has 0 without asking. `upload_not_found`.
    async fn new_writer(&self, id: &UploadId) -> Result<u32>;

    /// Records an upload that joins partial uploads of the same owner, in this order; one may come several times. When
    /// there is one already that joins the same uploads into the same target, its id is returned and nothing changes.
    ///
    /// `bucket_not_found`; `invalid_concatenation` unless each is an open partial upload of this owner that no other
    /// upload joins.
    async fn create_joined(&self, upload: &Upload, partials: &[UploadId]) -> Result<UploadId>;

    /// What a joined upload is made of, in order; those that are gone are left out.
    async fn partials(&self, joined: &UploadId) -> Result<Vec<Partial>>;

    /// The upload that joins this partial one.
    async fn joined_of(&self, partial: &UploadId) -> Result<Option<UploadId>>;

    /// As [`Catalog::begin_finish`] for a joined upload: it becomes `Finishing(blob)`, and each of its partial uploads
    /// `Finishing` under the name it has in `pieces`. `parts_missing` unless all of them are whole, `quota_exceeded`
    /// when the whole would not fit.
    async fn begin_join(&self, id: &UploadId, blob: BlobId, pieces: &[(UploadId, BlobId)]) -> Result<Finish>;

    /// Moves an upload from `Open` to `Finishing(blob)`, or says where it stands; `upload_not_found`.
    /// Refuses with `parts_missing` (no fact attached) unless the ledger's extents cover the whole size, so that the
    /// state and the ledger can never disagree.
    async fn begin_finish(&self, id: &UploadId, blob: BlobId) -> Result<Finish>;

    /// Moves an upload from `Finishing(blob)` back to `Open`, with its partial uploads; nothing when it is in another
    /// state.
    async fn abandon_finish(&self, id: &UploadId, blob: BlobId) -> Result<()>;

    /// Every upload that is `Finishing`: what recovery has to roll forward.
    async fn finishing_uploads(&self) -> Result<Vec<Upload>>;

    /// Deletes an upload and its ledger and gives its reservation back; `upload_not_found`, or `upload_finished` while
    /// it is `Finishing`. A `Complete` one may be deleted: its file stays.
    async fn delete_upload(&self, id: &UploadId) -> Result<()>;

    /// Deletes uploads, `Open` or `Complete`, that expired before `now`, with their ledgers and reservations, at most
    /// `limit`. Returns their ids: the bytes of their stages are to be discarded.
    async fn expire_uploads(&self, now: Timestamp, limit: usize) -> Result<Vec<UploadId>>;

    /// Whether an upload is recorded under this id, in any state: a stage without a record is left over.
    async fn has_upload(&self, id: &UploadId) -> Result<bool>;

    /// Blobs that nothing points at, which no archive holds, and whose bytes are to be deleted, at most `limit`, skipping
    /// those in `skip`.
    async fn unreferenced_blobs(&self, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>>;

    /// Forgets an unreferenced blob whose published bytes are gone, and deletes those kept with its record. Nothing when
    /// it is referenced or unknown.
    async fn forget_blob(&self, blob: &BlobId) -> Result<()>;

    /// Forgets those of these blobs whose bytes are kept with their records, unless something refers to them, and their bytes
    /// with them. The others are returned, in order.
    async fn forget_contents(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>>;

    /// The bytes of these blobs, referenced or not, each where they are kept with the record; `None` for every other.
    async fn contents(&self, blobs: &[BlobId]) -> Result<Vec<Option<Bytes>>>;

    /// Bytes, about, that contents can take without a larger disk: what others that are gone have left behind.
    async fn spare_bytes(&self) -> Result<u64>;

    /// A blob's facts, referenced or not; `None` when it is unknown.
    async fn blob(&self, blob: &BlobId) -> Result<Option<Blob>>;

    /// Referenced blobs after `after` in byte order of their ids, at most `limit`: for reconciling with storage.
    async fn blobs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Blob>>;

    /// Whether a run of bytes in storage belongs to a blob: it has the blob's name and the bytes are not kept with the
    /// record, or it is one of its pieces. Other runs belong to archives, see [`ArchiveCatalog::is_archived`].
    async fn is_stored(&self, run: &BlobId) -> Result<bool>;

    /// The chunk list of a blob if it was computed before.
    async fn chunks(&self, blob: &BlobId) -> Result<Option<ChunkList>>;

    /// Keeps the chunk list of a blob as long as the blob. Nothing when the blob is unknown.
    async fn put_chunks(&self, blob: &BlobId, chunks: &ChunkList) -> Result<()>;

    /// Adds the SHA-256 of a blob, learnt later. Nothing when the blob is unknown.
    async fn put_sha256(&self, blob: &BlobId, sha256: [u8; 32]) -> Result<()>;

    /// Adds the BLAKE3 of a blob in pieces, learnt later. Nothing when the blob is unknown or not in pieces.
    async fn put_blake3(&self, blob: &BlobId, blake3: [u8; 32]) -> Result<()>;

    /// Files of this size whose content has this SHA-256, or, without one, of whose content no SHA-256 is known; at most
    /// `limit`, in no order.
    async fn files_of_content(&self, size: u64, sha256: Option<[u8; 32]>, limit: usize) -> Result<Vec<File>>;

    /// Records a token; `token_not_found` when its parent is gone.
    async fn create_token(&self, token: &Token) -> Result<()>;

    /// The token whose secret has this BLAKE3, expired or not; `token_not_found`.
    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Token>;

    /// A token by its id, expired or not; `token_not_found`.
    async fn token(&self, id: &TokenId) -> Result<Token>;

    /// The tokens that are no sessions, oldest first, at most `limit`.
    async fn tokens(&self, limit: usize) -> Result<Vec<Token>>;

    /// Deletes a token and those made with it, and returns them all; `token_not_found`.
    async fn delete_token(&self, id: &TokenId) -> Result<Vec<Token>>;

    /// Notes that a token of somebody else's is good no more; again is fine, and changes nothing but when that may be
    /// forgotten.
    async fn deny_token(&self, denial: &Denial) -> Result<()>;

    /// The tokens of others that are good no more, oldest first, at most `limit`.
    async fn denied_tokens(&self, limit: usize) -> Result<Vec<Denial>>;

    /// Deletes the tokens that have expired, and forgets denials of such; how many of the former.
    async fn expire_tokens(&self, now: Timestamp) -> Result<u64>;

    /// Records a link.
    async fn create_link(&self, link: &Link) -> Result<()>;

    /// A link, in whatever state; `link_not_found`.
    async fn link(&self, id: &LinkId) -> Result<Link>;

    /// The links of `owner`, newest first, at most `limit`.
    async fn links(&self, owner: &str, limit: usize) -> Result<Vec<Link>>;

    /// Revokes a link, with its claims; again is fine. `link_not_found`.
    async fn revoke_link(&self, id: &LinkId, now: Timestamp) -> Result<()>;

    /// Takes one use of a link and, with `claim`, records it as that. Of as many as come at once exactly as many succeed as
    /// there are uses left. `link_not_found`, `link_revoked`, `link_expired`, `link_used`.
    async fn use_link(&self, id: &LinkId, claim: Option<&LinkClaim>, now: Timestamp) -> Result<()>;

    /// A claim of a link, in whatever state; `link_used` when there is none (any more).
    async fn claim(&self, link: &LinkId, id: &ClaimId) -> Result<LinkClaim>;

    /// The claims of a link, newest first, at most `limit`.
    async fn claims(&self, link: &LinkId, limit: usize) -> Result<Vec<LinkClaim>>;

    /// Notes how far a claim is; nothing when it is gone.
    async fn save_claim(&self, claim: &LinkClaim) -> Result<()>;

    /// Deletes claims past their deadline at `now`, and links that expired before `before`.
    async fn expire_links(&self, now: Timestamp, before: Timestamp) -> Result<()>;

    /// Answers when the catalog can be read and written; the cause otherwise. For readiness.
    async fn check(&self) -> Result<()>;

    /// Waits for what is under way, writes what is pending, and closes. Later calls fail with `shutting_down`.
    async fn close(&self) -> Result<()>;
}
