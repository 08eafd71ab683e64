//! Archives, their jobs and the deflated forms they share: each method one transaction, see [`super`].

use super::{SqliteCatalog, archives, encodings, jobs};
use crate::{ArchiveCatalog, Claim, Encoding, NewPack};
use async_trait::async_trait;
use carrack_domain::archive::{Archive, Content};
use carrack_domain::audit::Change;
use carrack_domain::job::{JobFailure, JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, EncodingId, Result, Timestamp};
use std::time::Duration;

#[async_trait]
impl ArchiveCatalog for SqliteCatalog {
    async fn prepare_archive(&self, id: &ArchiveId, holds: usize, now: Timestamp) -> Result<()> {
        let id = *id;
        self.write("prepare_archive", move |c| archives::prepare(c, &id, holds, now)).await
    }

    async fn hold_blobs(&self, id: &ArchiveId, blobs: &[BlobId]) -> Result<()> {
        let (id, blobs) = (*id, blobs.to_vec());
        self.write("hold_blobs", move |c| archives::hold(c, &id, &blobs)).await
    }

    async fn commit_archive(&self, archive: &Archive) -> Result<()> {
        let archive = archive.clone();
        let record = Change::new("archive.create")
            .of(archive.id)
            .bytes(archive.bytes)
            .detail(archive.state.to_string());
        self.change("commit_archive", record, move |c| archives::commit(c, &archive)).await
    }

    async fn archive(&self, id: &ArchiveId) -> Result<Archive> {
        self.point("archive", |c| archives::get(c, id)).await
    }

    async fn archives(
        &self,
        owner: &str,
        now: Timestamp,
        after: Option<(Timestamp, ArchiveId)>,
        limit: usize,
    ) -> Result<Vec<Archive>> {
        let owner = owner.to_owned();
        self.long("archives", move |c| archives::of_owner(c, &owner, now, after, limit)).await
    }

    async fn delete_archive(&self, id: &ArchiveId) -> Result<BlobId> {
        let id = *id;
        let record = Change::new("archive.delete").of(id);
        self.change("delete_archive", record, move |c| archives::delete(c, &id)).await
    }

    async fn expire_archives(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ArchiveId, Option<BlobId>)>> {
        let record = |gone: &Vec<(ArchiveId, Option<BlobId>)>| {
            gone.iter().map(|(id, _)| Change::new("archive.expire").of(id)).collect()
        };
        self.changes("expire_archives", record, move |c| archives::expire(c, now, limit)).await
    }

    async fn forget_prepared(&self, before: Timestamp) -> Result<usize> {
        self.write("forget_prepared", move |c| archives::forget_prepared(c, before)).await
    }

    async fn is_held(&self, blob: &BlobId) -> Result<bool> {
        self.point("is_held", |c| archives::is_held(c, blob)).await
    }

    async fn move_archive(&self, id: &ArchiveId, wish: JobWish) -> Result<Archive> {
        let id = *id;
        let record = Change::new(match wish {
            JobWish::Pause => "archive.pause",
            JobWish::Resume => "archive.resume",
            JobWish::Cancel => "archive.cancel",
        })
        .of(id);
        self.change("move_archive", record, move |c| archives::wish(c, &id, wish)).await
    }

    async fn claim_job(&self, worker: [u8; 16], lease: Duration) -> Result<Option<Claim>> {
        // A look costs nothing, a claim a commit.
        if !self.point("is_job_due", jobs::is_due).await? {
            return Ok(None);
        }
        self.write("claim_job", move |c| jobs::claim(c, worker, lease)).await
    }

    async fn renew_job(&self, claim: &Claim, lease: Duration, progress: Progress) -> Result<()> {
        let claim = claim.clone();
        self.write("renew_job", move |c| jobs::renew(c, &claim, lease, progress)).await
    }

    async fn release_job(&self, claim: &Claim, progress: Progress) -> Result<()> {
        let claim = claim.clone();
        self.write("release_job", move |c| jobs::release(c, &claim, progress)).await
    }

    async fn retry_job(
        &self,
        claim: &Claim,
        attempts: u32,
        pause: Duration,
        failure: &JobFailure,
    ) -> Result<()> {
        let (claim, failure) = (claim.clone(), failure.clone());
        self.write("retry_job", move |c| jobs::retry(c, &claim, attempts, pause, &failure)).await
    }

    async fn fail_job(&self, claim: &Claim, failure: &JobFailure) -> Result<()> {
        let (claim, failure) = (claim.clone(), failure.clone());
        let record = Change::new("archive.fail").of(claim.job);
        self.change("fail_job", record, move |c| jobs::fail(c, &claim, &failure)).await
    }

    async fn complete_archive(
        &self,
        claim: &Claim,
        content: &Content,
        manifest: (BlobId, u64),
    ) -> Result<BlobId> {
        let (claim, content) = (claim.clone(), content.clone());
        let record = Change::new("archive.complete").of(claim.job);
        self.change("complete_archive", record, move |c| archives::complete(c, &claim, &content, manifest))
            .await
    }

    async fn encodings(&self, ids: &[EncodingId]) -> Result<Vec<Option<Encoding>>> {
        let ids = ids.to_vec();
        self.long("encodings", move |c| encodings::get(c, &ids)).await
    }

    async fn put_pack(&self, claim: &Claim, pack: &NewPack, now: Timestamp) -> Result<()> {
        let (claim, pack) = (claim.clone(), pack.clone());
        self.write("put_pack", move |c| encodings::put(c, &claim, &pack, now)).await
    }

    async fn use_packs(&self, claim: &Claim, packs: &[BlobId], now: Timestamp) -> Result<Vec<BlobId>> {
        let (claim, packs) = (claim.clone(), packs.to_vec());
        self.write("use_packs", move |c| encodings::use_all(c, &claim, &packs, now)).await
    }

    async fn touch_packs(&self, packs: &[BlobId], now: Timestamp) -> Result<()> {
        let packs = packs.to_vec();
        self.write("touch_packs", move |c| encodings::touch(c, &packs, now)).await
    }

    async fn evict_packs(&self, quota: u64, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>> {
        let skip = skip.iter().copied().collect();
        self.write("evict_packs", move |c| encodings::evict(c, quota, &skip, limit)).await
    }

    async fn pack_bytes(&self) -> Result<u64> {
        self.long("pack_bytes", |c| encodings::charged(c)).await
    }

    async fn archived_runs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<(BlobId, u64)>> {
        self.long("archived_runs", move |c| encodings::runs(c, after, limit)).await
    }

    async fn is_archived(&self, run: &BlobId) -> Result<bool> {
        self.point("is_archived", |c| encodings::is_archived(c, run)).await
    }
}
