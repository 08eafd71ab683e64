//! [`SqliteCatalog`]: the catalog of a single node, in one SQLite database.
//!
//! One thread writes and commits what is waiting together, so that a hundred changes cost one fsync. Readers have
//! connections of their own and never wait for the writer. Everything is bounded: the queue, the batch, the readers.

mod appends;
mod archive_catalog;
mod archives;
mod audit;
mod blobs;
mod buckets;
mod contents;
mod copies;
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
mod queue;
mod readers;
mod rows;
mod tokens;
mod uploads;
mod writer;

use crate::audit::{AuditBlock, AuditCatalog, AuditPage, AuditQuery, Position, present};
use crate::common::measured;
use crate::common::recorded::{bucket_put, file_put, link_create, of_bytes, of_token, upload_create};
use crate::{
    Announced, Catalog, ChunkList, Committed, Finish, ListQuery, Listing, NewFile, Outcome, Partial, Taken,
    Visit,
};
use async_trait::async_trait;
pub use audit::AuditFile;
use bytes::Bytes;
use carrack_domain::access::FileRef;
use carrack_domain::audit::chain::Head;
use carrack_domain::audit::{Change, Lines};
use carrack_domain::digest::Piece;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Precondition};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::token::{Denial, Token};
use carrack_domain::upload::{Receipt, StoredExtent, Upload};
use carrack_domain::{
    BlobId, BucketName, ClaimId, Clock, Error, Key, KeyPrefix, LinkId, Result, Timestamp, TokenId, UploadId,
};
use contents::Places;
use error::Done;
pub use error::OpenError;
use queue::Queue;
use readers::Readers;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// How to open a [`SqliteCatalog`].
#[derive(Clone)]
pub struct SqliteOptions {
    /// The database file; made when it is missing, in a directory that exists.
    pub path: PathBuf,
    /// Connections for point reads, and as many again for long reads; at least 1. For point reads, more than the
    /// runtime has worker threads are never used.
    pub readers: usize,
    /// Changes that may wait for the writer; callers beyond that wait to be let into the queue. At least 1.
    pub queue: usize,
    /// What the audit log takes its times from; `None`: nothing is recorded in it.
    pub audit: Option<Arc<dyn Clock>>,
    /// What events take their times from; `None`: none are kept.
    pub events: Option<Arc<dyn Clock>>,
}

/// The catalog in a SQLite database: see the module's documentation.
pub struct SqliteCatalog {
    readers: Readers,
    places: Arc<Places>,
    queue: Arc<Queue>,
    shared: Arc<writer::Shared>,
    /// Held while closing, so that a second `close` waits for the first.
    thread: tokio::sync::Mutex<Option<JoinHandle<Result<()>>>>,
}

impl SqliteCatalog {
    /// Opens the database, makes or migrates its schema, and starts the thread that writes. It blocks, for less than
    /// 2 s: after an unclean stop it checks the database when that is small enough.
    pub fn open(options: SqliteOptions) -> Result<SqliteCatalog, OpenError> {
        let connection = open::writer(&options.path)?;
        let journal = audit::journal(&connection, options.audit, options.events)
            .map_err(|error| OpenError::Damaged { path: options.path.clone(), reason: error.chain() })?;
        let readers = Readers::open(&options.path, options.readers)?;
        let queue = Queue::new(options.queue);
        let shared = Arc::new(writer::Shared::default());
        let thread = std::thread::Builder::new()
            .name("catalog-writer".to_owned())
            .spawn({
                let (queue, shared) = (Arc::clone(&queue), Arc::clone(&shared));
                move || writer::run(connection, journal, queue, shared)
            })
            .map_err(|error| OpenError::io(&options.path, &error))?;
        let places = Arc::new(Places::new());
        Ok(SqliteCatalog { readers, places, queue, shared, thread: tokio::sync::Mutex::new(Some(thread)) })
    }

    /// Transactions committed since it was opened. Many changes may share one.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Queues a change that is bookkeeping, and waits until it is on disk.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        self.queue(operation, move |c, _| change(c)).await
    }

    /// Queues a change, and its record, and waits until both are on disk.
    async fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        record: Change,
        change: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        self.changes(operation, move |_| vec![record], change).await
    }

    /// As [`SqliteCatalog::change`], when what there is to be recorded shows only then.
    async fn changes<T: Send + 'static>(
        &self,
        operation: &'static str,
        records: impl FnOnce(&T) -> Vec<Change> + Send + 'static,
        change: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        let by = present();
        self.queue(operation, move |c, journal| {
            let done = change(c)?;
            journal.note(by.as_deref(), &records(&done));
            Ok(done)
        })
        .await
    }

    async fn queue<T: Send + 'static>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&Connection, &mut audit::Journal) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        measured(operation, async {
            let (reply, answer) = oneshot::channel();
            let job = Box::new(writer::Job::new(operation, change, reply));
            self.queue.push(job).await?;
            answer.await.map_err(|_| Error::broken("the catalog's writer is gone"))?
        })
        .await
    }

    async fn point<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> Done<T>,
    ) -> Result<T> {
        measured(operation, self.readers.point(operation, read)).await
    }

    async fn long<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&mut Connection) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        measured(operation, self.readers.long(operation, read)).await
    }
}

/// Best effort: what was accepted is written, but the catalog counts as not closed in order.
impl Drop for SqliteCatalog {
    fn drop(&mut self) {
        self.readers.clear();
        self.queue.close();
        if let Some(thread) = self.thread.get_mut().take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            tracing::error!("catalog was not closed properly");
        }
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn put_bucket(
        &self,
        name: &BucketName,
        settings: &BucketSettings,
        now: Timestamp,
    ) -> Result<(Bucket, Outcome)> {
        let (name, settings) = (name.clone(), settings.clone());
        self.changes("put_bucket", bucket_put, move |c| buckets::put(c, &name, &settings, now)).await
    }

    async fn bucket(&self, name: &BucketName) -> Result<Bucket> {
        self.point("bucket", |c| buckets::get(c, name)).await
    }

    async fn buckets(&self) -> Result<Vec<Bucket>> {
        self.long("buckets", |c| buckets::all(c)).await
    }

    async fn delete_bucket(&self, name: &BucketName) -> Result<()> {
        let name = name.clone();
        let record = Change::new("bucket.delete").of_bucket(&name);
        self.change("delete_bucket", record, move |c| buckets::delete(c, &name)).await
    }

    async fn generation(&self, bucket: &BucketName) -> Result<u64> {
        self.point("generation", |c| buckets::generation(c, bucket)).await
    }

    async fn file(&self, bucket: &BucketName, key: &Key) -> Result<File> {
        self.point("file", |c| files::get(c, bucket, key)).await
    }

    async fn list(&self, bucket: &BucketName, query: &ListQuery) -> Result<Listing> {
        let (bucket, query) = (bucket.clone(), query.clone());
        self.long("list", move |c| listing::list(c, &bucket, &query)).await
    }

    async fn scan(&self, bucket: &BucketName, prefix: &KeyPrefix, visit: Visit) -> Result<u64> {
        let (bucket, prefix) = (bucket.clone(), prefix.clone());
        self.long("scan", move |c| listing::scan(c, &bucket, &prefix, visit)).await
    }

    async fn commit_file(&self, file: NewFile) -> Result<Committed> {
        let record = file_put(&file.origin);
        let work = move |c: &Connection| owners::bounded(c, &file.created_by, || files::commit(c, &file));
        self.changes("commit_file", record, work).await
    }

    async fn delete_file(
        &self,
        bucket: &BucketName,
        key: &Key,
        precondition: &Precondition,
    ) -> Result<Option<BlobId>> {
        let (bucket, key, precondition) = (bucket.clone(), key.clone(), precondition.clone());
        let record = Change::new("file.delete").of_file(&bucket, &key);
        self.change("delete_file", record, move |c| files::delete(c, &bucket, &key, &precondition)).await
    }

    async fn expire_file(&self, bucket: &BucketName, key: &Key, before: Timestamp) -> Result<Option<BlobId>> {
        let (bucket, key) = (bucket.clone(), key.clone());
        let record = Change::new("file.expire").of_file(&bucket, &key);
        self.change("expire_file", record, move |c| files::expire(c, &bucket, &key, before)).await
    }

    async fn check_quota(&self, bucket: &BucketName, key: &Key, bytes: u64) -> Result<()> {
        self.point("check_quota", |c| buckets::check_quota(c, bucket, key, bytes)).await
    }

    async fn check_owner_quota(&self, owner: &str, place: &FileRef, bytes: u64) -> Result<()> {
        self.point("check_owner_quota", |c| owners::check(c, owner, place, bytes)).await
    }

    async fn set_owner_quota(&self, owner: &str, quota: Option<u64>) -> Result<()> {
        let owner = owner.to_owned();
        self.write("set_owner_quota", move |c| owners::set_quota(c, &owner, quota)).await
    }

    async fn forget_owner_quotas(&self) -> Result<()> {
        self.write("forget_owner_quotas", owners::forget_quotas).await
    }

    async fn create_upload(&self, upload: &Upload) -> Result<()> {
        let upload = upload.clone();
        let record = upload_create(&upload);
        let work = move |c: &Connection| owners::bounded(c, &upload.owner, || uploads::create(c, &upload));
        self.change("create_upload", record, work).await
    }

    async fn upload(&self, id: &UploadId) -> Result<Upload> {
        self.point("upload", |c| uploads::get(c, id)).await
    }

    async fn uploads(&self, owner: &str, bucket: Option<&BucketName>, limit: usize) -> Result<Vec<Upload>> {
        let (owner, bucket) = (owner.to_owned(), bucket.cloned());
        self.long("uploads", move |c| uploads::of_owner(c, &owner, bucket.as_ref(), limit)).await
    }

    async fn open_uploads(&self) -> Result<u64> {
        self.long("open_uploads", |c| uploads::active(c)).await
    }

    async fn record_extent(&self, id: &UploadId, extent: &StoredExtent, expires_at: Timestamp) -> Result<()> {
        let (id, extent) = (*id, extent.clone());
        let record = of_bytes("upload.part", &id, &extent.piece);
        self.change("record_extent", record, move |c| uploads::record_extent(c, &id, &extent, expires_at))
            .await
    }

    async fn note_direct(&self, id: &UploadId, expires_at: Timestamp) -> Result<()> {
        let id = *id;
        self.write("note_direct", move |c| uploads::note_direct(c, &id, expires_at)).await
    }

    async fn extents(&self, id: &UploadId) -> Result<Vec<StoredExtent>> {
        let id = *id;
        self.long("extents", move |c| uploads::extents(c, &id)).await
    }

    async fn extent(&self, id: &UploadId, offset: u64) -> Result<Option<StoredExtent>> {
        self.point("extent", |c| uploads::extent(c, id, offset)).await
    }

    async fn take_over(&self, id: &UploadId, announced: Option<Announced>) -> Result<Taken> {
        let id = *id;
        let work =
            move |c: &Connection| owners::bounded_by_upload(c, &id, || appends::take_over(c, &id, announced));
        self.write("take_over", work).await
    }

    async fn append(
        &self,
        id: &UploadId,
        epoch: u64,
        piece: &Piece,
        receipt: &Receipt,
        expires_at: Timestamp,
    ) -> Result<()> {
        let (id, piece, receipt) = (*id, piece.clone(), receipt.clone());
        let record = of_bytes("upload.append", &id, &piece);
        let append = move |c: &Connection| appends::append(c, &id, epoch, &piece, &receipt, expires_at);
        self.change("append", record, move |c| owners::bounded_by_upload(c, &id, || append(c))).await
    }

    async fn new_writer(&self, id: &UploadId) -> Result<u32> {
        let id = *id;
        self.write("new_writer", move |c| appends::new_writer(c, &id)).await
    }

    async fn create_joined(&self, upload: &Upload, partials: &[UploadId]) -> Result<UploadId> {
        let (upload, partials) = (upload.clone(), partials.to_vec());
        let (id, record) = (upload.id, upload_create(&upload).detail("joins others"));
        // When there is one already nothing is made.
        let record = move |made: &UploadId| if *made == id { vec![record] } else { Vec::new() };
        self.changes("create_joined", record, move |c| joins::create(c, &upload, &partials)).await
    }

    async fn partials(&self, joined: &UploadId) -> Result<Vec<Partial>> {
        let joined = *joined;
        self.long("partials", move |c| joins::partials(c, &joined)).await
    }

    async fn joined_of(&self, partial: &UploadId) -> Result<Option<UploadId>> {
        self.point("joined_of", |c| joins::joined_of(c, partial)).await
    }

    async fn begin_join(&self, id: &UploadId, blob: BlobId, pieces: &[(UploadId, BlobId)]) -> Result<Finish> {
        let (id, pieces) = (*id, pieces.to_vec());
        self.write("begin_join", move |c| joins::begin(c, &id, blob, &pieces)).await
    }

    async fn begin_finish(&self, id: &UploadId, blob: BlobId) -> Result<Finish> {
        let id = *id;
        self.write("begin_finish", move |c| uploads::begin_finish(c, &id, blob)).await
    }

    async fn abandon_finish(&self, id: &UploadId, blob: BlobId) -> Result<()> {
        let id = *id;
        self.write("abandon_finish", move |c| uploads::abandon_finish(c, &id, blob)).await
    }

    async fn finishing_uploads(&self) -> Result<Vec<Upload>> {
        self.long("finishing_uploads", |c| uploads::all_finishing(c)).await
    }

    async fn delete_upload(&self, id: &UploadId) -> Result<()> {
        let id = *id;
        let record = Change::new("upload.delete").of(id);
        self.change("delete_upload", record, move |c| uploads::delete(c, &id)).await
    }

    async fn expire_uploads(&self, now: Timestamp, limit: usize) -> Result<Vec<UploadId>> {
        let record =
            |gone: &Vec<UploadId>| gone.iter().map(|id| Change::new("upload.expire").of(id)).collect();
        self.changes("expire_uploads", record, move |c| uploads::expire(c, now, limit)).await
    }

    async fn has_upload(&self, id: &UploadId) -> Result<bool> {
        self.point("has_upload", |c| uploads::exists(c, id)).await
    }

    async fn unreferenced_blobs(&self, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>> {
        let skip = skip.iter().copied().collect();
        self.long("unreferenced_blobs", move |c| blobs::unreferenced(c, &skip, limit)).await
    }

    async fn forget_blob(&self, blob: &BlobId) -> Result<()> {
        let blob = *blob;
        self.write("forget_blob", move |c| blobs::forget(c, &blob)).await
    }

    async fn forget_contents(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>> {
        let blobs = blobs.to_vec();
        self.write("forget_contents", move |c| blobs::forget_contents(c, &blobs)).await
    }

    async fn contents(&self, blobs: &[BlobId]) -> Result<Vec<Option<Bytes>>> {
        if let [_] = blobs {
            return self.point("content", |c| contents::read(c, &self.places, blobs)).await;
        }
        let (blobs, places) = (blobs.to_vec(), self.places.clone());
        self.long("contents", move |c| contents::read(c, &places, &blobs)).await
    }

    async fn spare_bytes(&self) -> Result<u64> {
        self.point("spare_bytes", blobs::spare_bytes).await
    }

    async fn blob(&self, blob: &BlobId) -> Result<Option<Blob>> {
        self.point("blob", |c| blobs::get(c, blob)).await
    }

    async fn blobs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Blob>> {
        self.long("blobs", move |c| blobs::referenced(c, after, limit)).await
    }

    async fn is_stored(&self, run: &BlobId) -> Result<bool> {
        self.point("is_stored", |c| blobs::is_stored(c, run)).await
    }

    async fn chunks(&self, blob: &BlobId) -> Result<Option<ChunkList>> {
        let blob = *blob;
        self.long("chunks", move |c| blobs::chunks(c, &blob)).await
    }

    async fn put_chunks(&self, blob: &BlobId, chunks: &ChunkList) -> Result<()> {
        let (blob, chunks) = (*blob, chunks.clone());
        self.write("put_chunks", move |c| blobs::put_chunks(c, &blob, &chunks)).await
    }

    async fn put_sha256(&self, blob: &BlobId, sha256: [u8; 32]) -> Result<()> {
        let blob = *blob;
        self.write("put_sha256", move |c| blobs::put_sha256(c, &blob, sha256)).await
    }

    async fn put_blake3(&self, blob: &BlobId, blake3: [u8; 32]) -> Result<()> {
        let blob = *blob;
        self.write("put_blake3", move |c| blobs::put_blake3(c, &blob, blake3)).await
    }

    async fn files_of_content(&self, size: u64, sha256: Option<[u8; 32]>, limit: usize) -> Result<Vec<File>> {
        self.point("files_of_content", |c| files::of_content(c, size, sha256, limit)).await
    }

    async fn create_token(&self, token: &Token) -> Result<()> {
        let token = token.clone();
        let record = of_token(&token, "token.create", "session.create");
        self.change("create_token", record, move |c| tokens::create(c, &token)).await
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Token> {
        self.point("token_by_hash", |c| tokens::by_hash(c, hash)).await
    }

    async fn token(&self, id: &TokenId) -> Result<Token> {
        self.point("token", |c| tokens::get(c, id)).await
    }

    async fn tokens(&self, limit: usize) -> Result<Vec<Token>> {
        self.long("tokens", move |c| tokens::list(c, limit)).await
    }

    async fn delete_token(&self, id: &TokenId) -> Result<Vec<Token>> {
        let id = *id;
        let record = |gone: &Vec<Token>| {
            gone.iter().map(|token| of_token(token, "token.delete", "session.delete")).collect()
        };
        self.changes("delete_token", record, move |c| tokens::delete(c, &id)).await
    }

    async fn deny_token(&self, denial: &Denial) -> Result<()> {
        let denial = denial.clone();
        let record = Change::new("token.deny").detail(format!("{} {}", denial.issuer, denial.jti));
        self.change("deny_token", record, move |c| tokens::deny(c, &denial)).await
    }

    async fn denied_tokens(&self, limit: usize) -> Result<Vec<Denial>> {
        self.long("denied_tokens", move |c| tokens::denied(c, limit)).await
    }

    async fn expire_tokens(&self, now: Timestamp) -> Result<u64> {
        self.write("expire_tokens", move |c| tokens::expire(c, now)).await
    }

    async fn create_link(&self, link: &Link) -> Result<()> {
        let link = link.clone();
        self.change("create_link", link_create(&link), move |c| links::create(c, &link)).await
    }

    async fn link(&self, id: &LinkId) -> Result<Link> {
        self.point("link", |c| links::get(c, id)).await
    }

    async fn links(&self, owner: &str, limit: usize) -> Result<Vec<Link>> {
        let owner = owner.to_owned();
        self.long("links", move |c| links::list(c, &owner, limit)).await
    }

    async fn revoke_link(&self, id: &LinkId, now: Timestamp) -> Result<()> {
        let id = *id;
        let record = Change::new("link.revoke").of(id);
        self.change("revoke_link", record, move |c| links::revoke(c, &id, now)).await
    }

    async fn use_link(&self, id: &LinkId, claim: Option<&LinkClaim>, now: Timestamp) -> Result<()> {
        let (id, claim) = (*id, claim.cloned());
        let record = Change::new("link.use").of(id);
        self.change("use_link", record, move |c| links::take_use(c, &id, claim.as_ref(), now)).await
    }

    async fn claim(&self, link: &LinkId, id: &ClaimId) -> Result<LinkClaim> {
        self.point("claim", |c| links::claim(c, link, id)).await
    }

    async fn claims(&self, link: &LinkId, limit: usize) -> Result<Vec<LinkClaim>> {
        self.point("claims", |c| links::claims(c, link, limit)).await
    }

    async fn save_claim(&self, claim: &LinkClaim) -> Result<()> {
        let claim = claim.clone();
        self.write("save_claim", move |c| links::save(c, &claim)).await
    }

    async fn expire_links(&self, now: Timestamp, before: Timestamp) -> Result<()> {
        self.write("expire_links", move |c| links::expire(c, now, before)).await
    }

    async fn check(&self) -> Result<()> {
        self.point("check", |c| Ok(c.query_row("SELECT value FROM meta LIMIT 1", [], |_| Ok(()))?)).await?;
        // A change of a row is what shows that the log takes bytes.
        let sql = "UPDATE meta SET value = 1 - value WHERE name = 'checked'";
        self.write("check", move |c| Ok(c.prepare_cached(sql)?.execute([]).map(drop)?)).await
    }

    async fn close(&self) -> Result<()> {
        measured("close", async {
            let mut thread = self.thread.lock().await;
            // The readers go first: a checkpoint cannot empty the log under them. Then changes are refused; those
            // already accepted are written by the thread, which then ends.
            self.readers.close().await;
            self.shared.in_order.store(true, Ordering::Release);
            self.queue.close();
            let Some(thread) = thread.take() else { return Ok(()) };
            tokio::task::spawn_blocking(move || thread.join())
                .await
                .map_err(|error| Error::internal("close the catalog", error))?
                .unwrap_or_else(|_| Err(Error::broken("the catalog's writer panicked")))
        })
        .await
    }
}

#[async_trait]
impl AuditCatalog for SqliteCatalog {
    async fn append_audit(&self, lines: Arc<Lines>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let packed = tokio::task::spawn_blocking(move || audit::pack(&lines))
            .await
            .map_err(|error| Error::internal("append_audit", error))??;
        self.queue("append_audit", move |c, journal| Ok(audit::append(c, journal, &packed)?)).await
    }

    async fn audit_head(&self) -> Result<Head> {
        self.point("audit_head", audit::head).await
    }

    async fn audit_page(
        &self,
        query: &AuditQuery,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage> {
        let query = query.clone();
        self.long("audit_page", move |c| audit::page(c, &query, from, limit)).await
    }

    async fn audit_blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        self.long("audit_blocks", move |c| audit::blocks(c, after)).await
    }

    async fn audit_older(&self, before: Timestamp) -> Result<Option<Head>> {
        self.point("audit_older", |c| audit::older(c, before)).await
    }

    async fn drop_audit(&self, through: u64) -> Result<u64> {
        self.write("drop_audit", move |c| audit::drop_through(c, through)).await
    }
}
