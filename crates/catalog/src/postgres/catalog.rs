//! [`Catalog`] for PostgreSQL: each operation is handed to the room that knows its SQL.

use super::error::{Failed, Kind};
use super::{
    PostgresCatalog, appends, blobs, buckets, check, files, joins, links, listing, once, owners, read, scan,
    tokens, uploads,
};
use crate::common::measured;
use crate::common::recorded::{bucket_put, file_put, link_create, of_bytes, of_token, upload_create};
use crate::{
    Announced, Catalog, ChunkList, Committed, Finish, ListQuery, Listing, NewFile, Outcome, Partial, Taken,
    Visit,
};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::access::FileRef;
use carrack_domain::audit::Change;
use carrack_domain::digest::Piece;
use carrack_domain::file::{Blob, Bucket, BucketSettings, File, Precondition};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::token::{Denial, Token};
use carrack_domain::upload::{Receipt, StoredExtent, Upload};
use carrack_domain::{
    BlobId, BucketName, ClaimId, Error, Key, KeyPrefix, LinkId, Result, Timestamp, TokenId, UploadId,
};
use std::sync::PoisonError;

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

    async fn note_direct(&self, id: &UploadId, expires_at: Timestamp) -> Result<()> {
        self.write("note_direct", (*id, expires_at), |(id, expires_at), turn| {
            Box::pin(uploads::note_direct(turn.session, id, *expires_at))
        })
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
