//! Archives, their jobs and the deflated forms they share: each method one transaction, see [`super`].

use super::error::{Failed, Kind};
use super::{PostgresCatalog, archives, encodings, jobs, once, read};
use crate::common::measured;
use crate::{ArchiveCatalog, Claim, Encoding, NewPack};
use async_trait::async_trait;
use carrack_domain::archive::{Archive, Content};
use carrack_domain::audit::Change;
use carrack_domain::job::{JobFailure, JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, EncodingId, Result, Timestamp};
use std::time::Duration;

#[async_trait]
impl ArchiveCatalog for PostgresCatalog {
    async fn prepare_archive(&self, id: &ArchiveId, holds: usize, now: Timestamp) -> Result<()> {
        self.write("prepare_archive", (*id, holds, now), |(id, holds, now), turn| {
            Box::pin(archives::prepare(turn.session, id, *holds, *now))
        })
        .await
    }

    async fn hold_blobs(&self, id: &ArchiveId, blobs: &[BlobId]) -> Result<()> {
        self.write("hold_blobs", (*id, blobs.to_vec()), |(id, blobs), turn| {
            Box::pin(archives::hold(turn.session, id, blobs))
        })
        .await
    }

    async fn commit_archive(&self, archive: &Archive) -> Result<()> {
        self.change(
            "commit_archive",
            archive.clone(),
            |archive, turn| Box::pin(archives::commit(turn.session, archive)),
            |archive, ()| vec![Change::new("archive.create").of(archive.id).bytes(archive.bytes)],
        )
        .await
    }

    async fn archive(&self, id: &ArchiveId) -> Result<Archive> {
        read!(self, "archive", |c| archives::find(c, id))
    }

    async fn archives(
        &self,
        owner: &str,
        now: Timestamp,
        after: Option<(Timestamp, ArchiveId)>,
        limit: usize,
    ) -> Result<Vec<Archive>> {
        read!(self, "archives", |c| archives::of_owner(c, owner, now, after, limit))
    }

    async fn delete_archive(&self, id: &ArchiveId) -> Result<BlobId> {
        self.change(
            "delete_archive",
            *id,
            |id, turn| Box::pin(archives::delete(turn.session, id)),
            |id, _| vec![Change::new("archive.delete").of(id)],
        )
        .await
    }

    async fn expire_archives(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ArchiveId, Option<BlobId>)>> {
        self.change(
            "expire_archives",
            (now, limit),
            |(now, limit), turn| Box::pin(archives::expire(turn.session, *now, *limit)),
            |_, gone| gone.iter().map(|(id, _)| Change::new("archive.expire").of(id)).collect(),
        )
        .await
    }

    async fn forget_prepared(&self, before: Timestamp) -> Result<usize> {
        self.write("forget_prepared", before, |before, turn| {
            Box::pin(archives::forget_prepared(turn.session, *before))
        })
        .await
    }

    async fn is_held(&self, blob: &BlobId) -> Result<bool> {
        read!(self, "is_held", |c| archives::is_held(c, blob))
    }

    async fn move_archive(&self, id: &ArchiveId, wish: JobWish) -> Result<Archive> {
        self.change(
            "move_archive",
            (*id, wish),
            |(id, wish), turn| Box::pin(archives::wish(turn.session, id, *wish)),
            |(id, wish), _| {
                let action = match wish {
                    JobWish::Pause => "archive.pause",
                    JobWish::Resume => "archive.resume",
                    JobWish::Cancel => "archive.cancel",
                };
                vec![Change::new(action).of(id)]
            },
        )
        .await
    }

    async fn claim_job(&self, worker: [u8; 16], lease: Duration) -> Result<Option<Claim>> {
        once!(self, "claim_job", |c| jobs::claim(c, worker, lease))
    }

    async fn renew_job(&self, claim: &Claim, lease: Duration, progress: Progress) -> Result<()> {
        once!(self, "renew_job", |c| jobs::renew(c, claim, lease, progress))
    }

    async fn release_job(&self, claim: &Claim, progress: Progress) -> Result<()> {
        self.write("release_job", (claim.clone(), progress), |(claim, progress), turn| {
            Box::pin(jobs::release(turn.session, claim, *progress))
        })
        .await
    }

    async fn retry_job(
        &self,
        claim: &Claim,
        attempts: u32,
        pause: Duration,
        failure: &JobFailure,
    ) -> Result<()> {
        let arguments = (claim.clone(), attempts, pause, failure.clone());
        self.write("retry_job", arguments, |(claim, attempts, pause, failure), turn| {
            Box::pin(jobs::retry(turn.session, claim, *attempts, *pause, failure))
        })
        .await
    }

    async fn fail_job(&self, claim: &Claim, failure: &JobFailure) -> Result<()> {
        self.change(
            "fail_job",
            (claim.clone(), failure.clone()),
            |(claim, failure), turn| Box::pin(jobs::fail(turn.session, claim, failure)),
            |(claim, _), ()| vec![Change::new("archive.fail").of(claim.job)],
        )
        .await
    }

    async fn complete_archive(
        &self,
        claim: &Claim,
        content: &Content,
        manifest: (BlobId, u64),
    ) -> Result<BlobId> {
        self.change(
            "complete_archive",
            (claim.clone(), content.clone(), manifest),
            |(claim, content, manifest), turn| {
                Box::pin(archives::complete(turn.session, claim, content, *manifest))
            },
            |(claim, ..), _| vec![Change::new("archive.complete").of(claim.job)],
        )
        .await
    }

    async fn encodings(&self, ids: &[EncodingId]) -> Result<Vec<Option<Encoding>>> {
        read!(self, "encodings", |c| encodings::find(c, ids))
    }

    async fn put_pack(&self, claim: &Claim, pack: &NewPack, now: Timestamp) -> Result<()> {
        self.write("put_pack", (claim.clone(), pack.clone(), now), |(claim, pack, now), turn| {
            Box::pin(encodings::put(turn.session, claim, pack, *now))
        })
        .await
    }

    async fn use_packs(&self, claim: &Claim, packs: &[BlobId], now: Timestamp) -> Result<Vec<BlobId>> {
        self.write("use_packs", (claim.clone(), packs.to_vec(), now), |(claim, packs, now), turn| {
            Box::pin(encodings::use_all(turn.session, claim, packs, *now))
        })
        .await
    }

    async fn touch_packs(&self, packs: &[BlobId], now: Timestamp) -> Result<()> {
        once!(self, "touch_packs", |c| encodings::touch(c, packs, now))
    }

    async fn evict_packs(&self, quota: u64, skip: &[BlobId], limit: usize) -> Result<Vec<BlobId>> {
        self.write("evict_packs", (quota, skip.to_vec(), limit), |(quota, skip, limit), turn| {
            Box::pin(encodings::evict(turn.session, *quota, skip, *limit))
        })
        .await
    }

    async fn pack_bytes(&self) -> Result<u64> {
        read!(self, "pack_bytes", |c| encodings::charged(c))
    }

    async fn archived_runs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<(BlobId, u64)>> {
        read!(self, "archived_runs", |c| encodings::runs(c, after, limit))
    }

    async fn is_archived(&self, run: &BlobId) -> Result<bool> {
        read!(self, "is_archived", |c| encodings::is_archived(c, run))
    }
}
