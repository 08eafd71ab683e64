//! [`PostgresCatalog`]: the catalog of many nodes, in one PostgreSQL database.
//!
//! *Writing.* One task of each node takes what is waiting and commits it together; these transactions take turns over all
//! nodes ([`writer`]), so that every rule holds as in a database of one writer.
//! *Without a turn* goes what is one statement on rows that it locks itself: taking a job, renewing its lease, noting how far
//! a claim is, when a pack was used.
//! *Reading.* A bounded pool of sessions. One that has ended is replaced, and what was asked is asked again.
//! *Faults.* A database that is down, changes its primary, or does not answer is `unavailable`, for as long as it is so.

mod appends;
mod archive_catalog;
mod archives;
mod audit;
mod blobs;
mod buckets;
mod encodings;
mod error;
mod events;
mod files;
mod jobs;
mod joins;
mod links;
mod listing;
mod open;
mod owners;
mod rows;
mod session;
mod tokens;
mod uploads;
mod writer;

use crate::audit::{AuditBlock, AuditCatalog, AuditPage, AuditQuery, Position, present};
use crate::common::journal::{Journal, pack};
use crate::common::measured;
use crate::common::recorded::{bucket_put, file_put, link_create, of_bytes, of_token, upload_create};
use crate::{
    Announced, Catalog, ChunkList, Committed, Finish, ListQuery, Listing, NewFile, Outcome, Partial, Taken,
    Visit,
};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::access::FileRef;
use carrack_domain::audit::chain::{ChainId, Head};
use carrack_domain::audit::{Change, Lines};
use carrack_domain::digest::Piece;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Precondition};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::token::{Denial, Token};
use carrack_domain::upload::{Receipt, StoredExtent, Upload};
use carrack_domain::{
    BlobId, BucketName, ClaimId, Clock, Error, Key, KeyPrefix, LinkId, Result, Timestamp, TokenId, UploadId,
};
pub use error::PostgresError;
use error::{Done, Failed, Kind};
pub use open::Migrated;
use session::{Pool, Server, Session, params};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use writer::{Command, Job, Turn, Work, Writer};

/// How to open a [`PostgresCatalog`].
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the options of libpq that `tokio-postgres` knows.
    pub url: String,
    /// Sessions for reading, at most; one more writes. At least 1.
    pub connections: usize,
    /// Changes that may wait for the writer; callers beyond that wait to be let into the queue. At least 1.
    pub queue: usize,
    /// What the audit log takes its times from; `None`: nothing is recorded in it.
    pub audit: Option<Arc<dyn Clock>>,
    /// What events take their times from; `None`: none are kept.
    pub events: Option<Arc<dyn Clock>>,
    /// Whether to apply outstanding migrations; else they are an error.
    pub migrate: bool,
}

/// The catalog in a PostgreSQL database: see the module's documentation.
pub struct PostgresCatalog {
    pool: Arc<Pool>,
    /// `None` once it is closed.
    queue: RwLock<Option<mpsc::Sender<Box<dyn Command>>>>,
    commits: Arc<AtomicU64>,
    /// The task that writes. Held while closing, so that a second `close` waits for the first.
    writer: tokio::sync::Mutex<JoinSet<()>>,
}

/// Reads with a session of the pool. What follows the arrow is run again when the session turns out to have ended.
macro_rules! read {
    ($catalog:ident, $operation:literal, |$session:ident| $work:expr) => {
        measured($operation, async {
            let mut again = true;
            loop {
                let lease = $catalog.pool.lease().await?;
                let $session = lease.session()?;
                match $work.await {
                    Ok(read) => return Ok(read),
                    Err(failed) if again && failed.kind() == Kind::Gone => {
                        if let Failed::Silent = failed {
                            return Err(failed.into_error($operation));
                        }
                        again = false;
                    }
                    Err(failed) => return Err(failed.into_error($operation)),
                }
            }
        })
        .await
    };
}

/// Does something once with a session of the pool, which needs no turn.
macro_rules! once {
    ($catalog:ident, $operation:literal, |$session:ident| $work:expr) => {
        measured($operation, async {
            let lease = $catalog.pool.lease().await?;
            let $session = lease.session()?;
            $work.await.map_err(|failed: Failed| failed.into_error($operation))
        })
        .await
    };
}

use {once, read};

/// For what is bookkeeping.
fn unrecorded<A, T>(_: &A, _: &T) -> Vec<Change> {
    Vec::new()
}

impl PostgresCatalog {
    /// Connects, waiting a while for a server that is starting, and checks or makes the schema.
    pub async fn open(options: PostgresOptions) -> Result<PostgresCatalog, PostgresError> {
        let server = Arc::new(Server::new(&options.url)?);
        let mut first = open::reach(&server).await?;
        let migrated = open::migrate(&server, &first, options.migrate).await?;
        if !migrated.applied.is_empty() {
            tracing::info!(from = migrated.from, to = migrated.to, "catalog migrated");
            // Migrations have no time limits; what follows has.
            first = server.open().await?;
        }
        let pool = Pool::new(server.clone(), options.connections, first);
        let (sender, queue) = mpsc::channel(options.queue.max(1));
        let commits = Arc::new(AtomicU64::new(0));
        // Where the chain ends is read in every transaction, since others add to it.
        let journal = Journal::new(options.audit, options.events, Head::new(ChainId([0; 16])));
        let task = Writer { server, session: None, journal, queue, commits: commits.clone() };
        let mut writer = JoinSet::new();
        writer.spawn(task.run());
        Ok(PostgresCatalog {
            pool,
            queue: RwLock::new(Some(sender)),
            commits,
            writer: tokio::sync::Mutex::new(writer),
        })
    }

    /// Applies outstanding migrations and says which.
    pub async fn migrate(url: &str) -> Result<Migrated, PostgresError> {
        let server = Server::new(url)?;
        let session = open::reach(&server).await?;
        open::migrate(&server, &session, true).await
    }

    /// Which store the catalog belongs to; `None` while it has been told of none.
    pub async fn store(&self) -> Result<Option<[u8; 16]>> {
        read!(self, "store", |c| store(c))
    }

    /// Binds the catalog to this store, unless it is to another already; to which it is.
    pub async fn bind_store(&self, id: [u8; 16]) -> Result<[u8; 16]> {
        self.write("bind_store", id, |id, turn| Box::pin(bind(turn.session, id))).await
    }

    /// Transactions of this node's writer that were committed since it was opened. Many changes may share one.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Queues a change that is bookkeeping, and waits until it is on disk.
    async fn write<A: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        arguments: A,
        change: for<'c> fn(&'c A, &'c mut Turn<'_>) -> Work<'c, T>,
    ) -> Result<T> {
        self.change(operation, arguments, change, unrecorded).await
    }

    /// Queues a change, and what there is to be recorded of it, and waits until both are on disk.
    async fn change<A: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        arguments: A,
        change: for<'c> fn(&'c A, &'c mut Turn<'_>) -> Work<'c, T>,
        records: fn(&A, &T) -> Vec<Change>,
    ) -> Result<T> {
        measured(operation, async {
            let (reply, answer) = oneshot::channel();
            let (by, begun) = (present(), Instant::now());
            let job = Job { operation, arguments, change, records, by, begun, result: None, reply };
            let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
            writer::push(queue, Box::new(job)).await?;
            answer.await.map_err(|_| Error::broken("the catalog's writer is gone"))?
        })
        .await
    }
}

/// The log in the database of servers, which may be running or not, to be read alone.
pub struct AuditDatabase {
    session: Session,
}

impl AuditDatabase {
    /// Opens it. The error is a sentence for the operator.
    pub async fn open(url: &str) -> Result<AuditDatabase, PostgresError> {
        let server = Server::new(url)?;
        let session = open::reach(&server).await?;
        open::migrate(&server, &session, false).await?;
        Ok(AuditDatabase { session })
    }

    /// Blocks after this one, as [`AuditCatalog::audit_blocks`].
    pub async fn blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        audit::blocks(&self.session, after).await.map_err(|failed| failed.into_error("read the audit log"))
    }
}

/// From one snapshot, however long `visit` takes.
async fn scan(session: &Session, bucket: &BucketName, prefix: &KeyPrefix, visit: Visit) -> Done<u64> {
    listing::scan(session, bucket, prefix, visit).await
}

async fn store(session: &Session) -> Done<Option<[u8; 16]>> {
    let row = session.row("SELECT id FROM store", &[]).await?;
    row.map(|row| rows::fixed(&row, 0)).transpose()
}

async fn bind(session: &Session, id: &[u8; 16]) -> Done<[u8; 16]> {
    if let Some(bound) = store(session).await? {
        return Ok(bound);
    }
    session.execute("INSERT INTO store (id) VALUES ($1)", params![rows::bytes(id)]).await?;
    Ok(*id)
}

/// A row is changed: that shows that the server takes changes.
async fn check(session: &Session) -> Done<()> {
    session.execute("UPDATE meta SET value = 1 - value WHERE name = 'checked'", &[]).await?;
    Ok(())
}

#[async_trait]
impl Catalog for PostgresCatalog {
    async fn put_bucket(
        &self,
        name: &BucketName,
        settings: &BucketSettings,
        now: Timestamp,
    ) -> Result<(Bucket, Outcome)> {
        self.change(
            "put_bucket",
            (name.clone(), settings.clone(), now),
            |(name, settings, now), turn| Box::pin(buckets::put(turn.session, name, settings, *now)),
            |_, done| bucket_put(done),
        )
        .await
    }

    async fn bucket(&self, name: &BucketName) -> Result<Bucket> {
        read!(self, "bucket", |c| buckets::find(c, name))
    }

    async fn buckets(&self) -> Result<Vec<Bucket>> {
        read!(self, "buckets", |c| buckets::all(c))
    }

    async fn delete_bucket(&self, name: &BucketName) -> Result<()> {
        self.change(
            "delete_bucket",
            name.clone(),
            |name, turn| Box::pin(buckets::delete(turn.session, name)),
            |name, ()| vec![Change::new("bucket.delete").of_bucket(name)],
        )
        .await
    }

    async fn generation(&self, bucket: &BucketName) -> Result<u64> {
        read!(self, "generation", |c| buckets::generation(c, bucket))
    }

    async fn file(&self, bucket: &BucketName, key: &Key) -> Result<File> {
        read!(self, "file", |c| files::find(c, bucket, key))
    }

    async fn list(&self, bucket: &BucketName, query: &ListQuery) -> Result<Listing> {
        read!(self, "list", |c| listing::list(c, bucket, query))
    }

    async fn scan(&self, bucket: &BucketName, prefix: &KeyPrefix, visit: Visit) -> Result<u64> {
        once!(self, "scan", |c| scan(c, bucket, prefix, visit))
    }

    async fn commit_file(&self, file: NewFile) -> Result<Committed> {
        self.change(
            "commit_file",
            file,
            |file, turn| {
                let c = turn.session;
                Box::pin(owners::bounded(c, &file.created_by, files::commit(c, file)))
            },
            |file, done| file_put(&file.origin)(done),
        )
        .await
    }

    async fn delete_file(
        &self,
        bucket: &BucketName,
        key: &Key,
        precondition: &Precondition,
    ) -> Result<Option<BlobId>> {
        self.change(
            "delete_file",
            (bucket.clone(), key.clone(), precondition.clone()),
            |(bucket, key, precondition), turn| {
                Box::pin(files::delete(turn.session, bucket, key, precondition))
            },
            |(bucket, key, _), _| vec![Change::new("file.delete").of_file(bucket, key)],
        )
        .await
    }

    async fn expire_file(&self, bucket: &BucketName, key: &Key, before: Timestamp) -> Result<Option<BlobId>> {
        self.change(
            "expire_file",
            (bucket.clone(), key.clone(), before),
            |(bucket, key, before), turn| Box::pin(files::expire(turn.session, bucket, key, *before)),
            |(bucket, key, _), _| vec![Change::new("file.expire").of_file(bucket, key)],
        )
        .await
    }

    async fn check_quota(&self, bucket: &BucketName, key: &Key, bytes: u64) -> Result<()> {
        read!(self, "check_quota", |c| buckets::check_quota(c, bucket, key, bytes, 0))
    }

    async fn check_owner_quota(&self, owner: &str, place: &FileRef, bytes: u64) -> Result<()> {
        read!(self, "check_owner_quota", |c| owners::check(c, owner, place, bytes))
    }

    async fn set_owner_quota(&self, owner: &str, quota: Option<u64>) -> Result<()> {
        self.write("set_owner_quota", (owner.to_owned(), quota), |(owner, quota), turn| {
            Box::pin(owners::set_quota(turn.session, owner, *quota))
        })
        .await
    }

    async fn forget_owner_quotas(&self) -> Result<()> {
        self.write("forget_owner_quotas", (), |(), turn| Box::pin(owners::forget_quotas(turn.session))).await
    }

    async fn create_upload(&self, upload: &Upload) -> Result<()> {
        self.change(
            "create_upload",
            upload.clone(),
            |upload, turn| {
                let c = turn.session;
                Box::pin(owners::bounded(c, &upload.owner, uploads::create(c, upload)))
            },
            |upload, ()| vec![upload_create(upload)],
        )
        .await
    }

    async fn upload(&self, id: &UploadId) -> Result<Upload> {
        read!(self, "upload", |c| uploads::find(c, id))
    }

    async fn uploads(&self, owner: &str, bucket: Option<&BucketName>, limit: usize) -> Result<Vec<Upload>> {
        read!(self, "uploads", |c| uploads::of_owner(c, owner, bucket, limit))
    }

    async fn open_uploads(&self) -> Result<u64> {
        read!(self, "open_uploads", |c| uploads::active(c))
    }

    async fn record_extent(&self, id: &UploadId, extent: &StoredExtent, expires_at: Timestamp) -> Result<()> {
        self.change(
            "record_extent",
            (*id, extent.clone(), expires_at),
            |(id, extent, expires_at), turn| {
                Box::pin(uploads::record_extent(turn.session, id, extent, *expires_at))
            },
            |(id, extent, _), ()| vec![of_bytes("upload.part", id, &extent.piece)],
        )
        .await
    }

    async fn extents(&self, id: &UploadId) -> Result<Vec<StoredExtent>> {
        read!(self, "extents", |c| uploads::extents(c, id))
    }

    async fn extent(&self, id: &UploadId, offset: u64) -> Result<Option<StoredExtent>> {
        read!(self, "extent", |c| uploads::extent(c, id, offset))
    }

    async fn take_over(&self, id: &UploadId, announced: Option<Announced>) -> Result<Taken> {
        self.write("take_over", (*id, announced), |(id, announced), turn| {
            let c = turn.session;
            Box::pin(owners::bounded_by_upload(c, id, appends::take_over(c, id, *announced)))
        })
        .await
    }

    async fn append(
        &self,
        id: &UploadId,
        epoch: u64,
        piece: &Piece,
        receipt: &Receipt,
        expires_at: Timestamp,
    ) -> Result<()> {
        self.change(
            "append",
            (*id, epoch, piece.clone(), receipt.clone(), expires_at),
            |(id, epoch, piece, receipt, expires_at), turn| {
                let c = turn.session;
                let append = appends::append(c, id, *epoch, piece, receipt, *expires_at);
                Box::pin(owners::bounded_by_upload(c, id, append))
            },
            |(id, _, piece, _, _), ()| vec![of_bytes("upload.append", id, piece)],
        )
        .await
    }

    async fn new_writer(&self, id: &UploadId) -> Result<u32> {
        self.change(
            "new_writer",
            *id,
            |id, turn| Box::pin(appends::new_writer(turn.session, id)),
            |_, _| Vec::new(),
        )
        .await
    }

    async fn create_joined(&self, upload: &Upload, partials: &[UploadId]) -> Result<UploadId> {
        self.change(
            "create_joined",
            (upload.clone(), partials.to_vec()),
            |(upload, partials), turn| Box::pin(joins::create(turn.session, upload, partials)),
            // When there is one already nothing is made.
            |(upload, _), made| {
                let record = || upload_create(upload).detail("joins others");
                if *made == upload.id { vec![record()] } else { Vec::new() }
            },
        )
        .await
    }

    async fn partials(&self, joined: &UploadId) -> Result<Vec<Partial>> {
        read!(self, "partials", |c| joins::partials(c, joined))
    }

    async fn joined_of(&self, partial: &UploadId) -> Result<Option<UploadId>> {
        read!(self, "joined_of", |c| joins::joined_of(c, partial))
    }

    async fn begin_join(&self, id: &UploadId, blob: BlobId, pieces: &[(UploadId, BlobId)]) -> Result<Finish> {
        self.write("begin_join", (*id, blob, pieces.to_vec()), |(id, blob, pieces), turn| {
            Box::pin(joins::begin(turn.session, id, *blob, pieces))
        })
        .await
    }

    async fn begin_finish(&self, id: &UploadId, blob: BlobId) -> Result<Finish> {
        self.write("begin_finish", (*id, blob), |(id, blob), turn| {
            Box::pin(uploads::begin_finish(turn.session, id, *blob))
        })
        .await
    }

    async fn abandon_finish(&self, id: &UploadId, blob: BlobId) -> Result<()> {
        self.write("abandon_finish", (*id, blob), |(id, blob), turn| {
            Box::pin(uploads::abandon_finish(turn.session, id, *blob))
        })
        .await
    }

    async fn finishing_uploads(&self) -> Result<Vec<Upload>> {
        read!(self, "finishing_uploads", |c| uploads::all_finishing(c))
    }

    async fn delete_upload(&self, id: &UploadId) -> Result<()> {
        self.change(
            "delete_upload",
            *id,
            |id, turn| Box::pin(uploads::delete(turn.session, id)),
            |id, ()| vec![Change::new("upload.delete").of(id)],
        )
        .await
    }

    async fn expire_uploads(&self, now: Timestamp, limit: usize) -> Result<Vec<UploadId>> {
        self.change(
            "expire_uploads",
            (now, limit),
            |(now, limit), turn| Box::pin(uploads::expire(turn.session, *now, *limit)),
            |_, gone| gone.iter().map(|id| Change::new("upload.expire").of(id)).collect(),
        )
        .await
    }

    async fn has_upload(&self, id: &UploadId) -> Result<bool> {
        read!(self, "has_upload", |c| uploads::exists(c, id))
    }

    async fn unreferenced_blobs(&self, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>> {
        read!(self, "unreferenced_blobs", |c| blobs::unreferenced(c, skip, limit))
    }

    async fn forget_blob(&self, blob: &BlobId) -> Result<()> {
        self.write("forget_blob", *blob, |blob, turn| Box::pin(blobs::forget(turn.session, blob))).await
    }

    async fn forget_contents(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>> {
        self.write("forget_contents", blobs.to_vec(), |blobs, turn| {
            Box::pin(blobs::forget_contents(turn.session, blobs))
        })
        .await
    }

    async fn contents(&self, blobs: &[BlobId]) -> Result<Vec<Option<Bytes>>> {
        read!(self, "contents", |c| blobs::contents(c, blobs))
    }

    async fn spare_bytes(&self) -> Result<u64> {
        // How full its disk is only the server knows.
        Ok(0)
    }

    async fn blob(&self, blob: &BlobId) -> Result<Option<Blob>> {
        read!(self, "blob", |c| blobs::known(c, blob))
    }

    async fn blobs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Blob>> {
        read!(self, "blobs", |c| blobs::referenced(c, after, limit))
    }

    async fn is_stored(&self, run: &BlobId) -> Result<bool> {
        read!(self, "is_stored", |c| blobs::is_stored(c, run))
    }

    async fn chunks(&self, blob: &BlobId) -> Result<Option<ChunkList>> {
        read!(self, "chunks", |c| blobs::chunks(c, blob))
    }

    async fn put_chunks(&self, blob: &BlobId, chunks: &ChunkList) -> Result<()> {
        self.write("put_chunks", (*blob, chunks.clone()), |(blob, chunks), turn| {
            Box::pin(blobs::put_chunks(turn.session, blob, chunks))
        })
        .await
    }

    async fn put_sha256(&self, blob: &BlobId, sha256: [u8; 32]) -> Result<()> {
        self.write("put_sha256", (*blob, sha256), |(blob, sha256), turn| {
            Box::pin(blobs::put_sha256(turn.session, blob, *sha256))
        })
        .await
    }

    async fn put_blake3(&self, blob: &BlobId, blake3: [u8; 32]) -> Result<()> {
        self.write("put_blake3", (*blob, blake3), |(blob, blake3), turn| {
            Box::pin(blobs::put_blake3(turn.session, blob, *blake3))
        })
        .await
    }

    async fn files_of_content(&self, size: u64, sha256: Option<[u8; 32]>, limit: usize) -> Result<Vec<File>> {
        read!(self, "files_of_content", |c| files::of_content(c, size, sha256, limit))
    }

    async fn create_token(&self, token: &Token) -> Result<()> {
        self.change(
            "create_token",
            token.clone(),
            |token, turn| Box::pin(tokens::create(turn.session, token)),
            |token, ()| vec![of_token(token, "token.create", "session.create")],
        )
        .await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Token> {
        read!(self, "token_by_hash", |c| tokens::by_hash(c, hash))
    }

    async fn token(&self, id: &TokenId) -> Result<Token> {
        read!(self, "token", |c| tokens::find(c, id))
    }

    async fn tokens(&self, limit: usize) -> Result<Vec<Token>> {
        read!(self, "tokens", |c| tokens::list(c, limit))
    }

    async fn delete_token(&self, id: &TokenId) -> Result<Vec<Token>> {
        self.change(
            "delete_token",
            *id,
            |id, turn| Box::pin(tokens::delete(turn.session, id)),
            |_, gone| gone.iter().map(|token| of_token(token, "token.delete", "session.delete")).collect(),
        )
        .await
    }

    async fn deny_token(&self, denial: &Denial) -> Result<()> {
        self.change(
            "deny_token",
            denial.clone(),
            |denial, turn| Box::pin(tokens::deny(turn.session, denial)),
            |denial, ()| vec![Change::new("token.deny").detail(format!("{} {}", denial.issuer, denial.jti))],
        )
        .await
    }

    async fn denied_tokens(&self, limit: usize) -> Result<Vec<Denial>> {
        read!(self, "denied_tokens", |c| tokens::denied(c, limit))
    }

    async fn expire_tokens(&self, now: Timestamp) -> Result<u64> {
        self.write("expire_tokens", now, |now, turn| Box::pin(tokens::expire(turn.session, *now))).await
    }

    async fn create_link(&self, link: &Link) -> Result<()> {
        self.change(
            "create_link",
            link.clone(),
            |link, turn| Box::pin(links::create(turn.session, link)),
            |link, ()| vec![link_create(link)],
        )
        .await
    }

    async fn link(&self, id: &LinkId) -> Result<Link> {
        read!(self, "link", |c| links::find(c, id))
    }

    async fn links(&self, owner: &str, limit: usize) -> Result<Vec<Link>> {
        read!(self, "links", |c| links::list(c, owner, limit))
    }

    async fn revoke_link(&self, id: &LinkId, now: Timestamp) -> Result<()> {
        self.change(
            "revoke_link",
            (*id, now),
            |(id, now), turn| Box::pin(links::revoke(turn.session, id, *now)),
            |(id, _), ()| vec![Change::new("link.revoke").of(id)],
        )
        .await
    }

    async fn use_link(&self, id: &LinkId, claim: Option<&LinkClaim>, now: Timestamp) -> Result<()> {
        self.change(
            "use_link",
            (*id, claim.cloned(), now),
            |(id, claim, now), turn| Box::pin(links::take_use(turn.session, id, claim.as_ref(), *now)),
            |(id, _, _), ()| vec![Change::new("link.use").of(id)],
        )
        .await
    }

    async fn claim(&self, link: &LinkId, id: &ClaimId) -> Result<LinkClaim> {
        read!(self, "claim", |c| links::claim(c, link, id))
    }

    async fn claims(&self, link: &LinkId, limit: usize) -> Result<Vec<LinkClaim>> {
        read!(self, "claims", |c| links::claims(c, link, limit))
    }

    async fn save_claim(&self, claim: &LinkClaim) -> Result<()> {
        once!(self, "save_claim", |c| links::save(c, claim))
    }

    async fn expire_links(&self, now: Timestamp, before: Timestamp) -> Result<()> {
        self.write("expire_links", (now, before), |(now, before), turn| {
            Box::pin(links::expire(turn.session, *now, *before))
        })
        .await
    }

    async fn check(&self) -> Result<()> {
        once!(self, "check", |c| check(c))
    }

    async fn close(&self) -> Result<()> {
        measured("close", async {
            let mut writer = self.writer.lock().await;
            // From now on changes are refused; those already accepted are written by the task, which then ends.
            self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
            while let Some(ended) = writer.join_next().await {
                ended.map_err(|error| Error::internal("close the catalog", error))?;
            }
            self.pool.close().await;
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl AuditCatalog for PostgresCatalog {
    async fn append_audit(&self, lines: Arc<Lines>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let packed = tokio::task::spawn_blocking(move || pack(&lines))
            .await
            .map_err(|error| Error::internal("append_audit", error))??;
        self.write("append_audit", packed, |packed, turn| {
            Box::pin(audit::append(turn.session, turn.journal, packed))
        })
        .await
    }

    async fn audit_head(&self) -> Result<Head> {
        read!(self, "audit_head", |c| audit::head(c))
    }

    async fn audit_page(
        &self,
        query: &AuditQuery,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage> {
        read!(self, "audit_page", |c| audit::page(c, query, from, limit))
    }

    async fn audit_blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        read!(self, "audit_blocks", |c| audit::blocks(c, after))
    }

    async fn audit_older(&self, before: Timestamp) -> Result<Option<Head>> {
        read!(self, "audit_older", |c| audit::older(c, before))
    }

    async fn drop_audit(&self, through: u64) -> Result<u64> {
        self.write("drop_audit", through, |through, turn| {
            Box::pin(audit::drop_through(turn.session, *through))
        })
        .await
    }
}
