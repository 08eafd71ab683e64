//! What happens without being asked: recovery at the start, expiry, deletion of bytes that nothing needs, and looking
//! for records without bytes and bytes without records.
//!
//! *Order.* Records go before bytes, so a crash in the middle leaves bytes too many, never too few.

use crate::archive::Manifests;
use crate::contents::CONTENT_BYTES_MAX;
use crate::download::Readings;
use crate::retention::Retention;
use crate::{Core, metrics, upload};
use carrack_domain::upload::{Upload, UploadState};
use carrack_domain::{BlobId, Result, Timestamp, UploadId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Rows looked at in one go.
const BATCH: usize = 256;
/// Bytes without a record that are younger may belong to an upload that is just being committed.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// How long an archive may be in preparation by another node, whose clock may be wrong.
const PREPARED_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long looking through everything rests after each batch: live traffic goes first.
const RECONCILE_REST: Duration = Duration::from_millis(5);

/// How long small blobs are gathered before they are deleted together.
const SMALL_EVERY: Duration = Duration::from_millis(100);
/// How many wait at most; further ones are left to the next round.
const SMALL_MAX: usize = 4096;

/// How long a link that has ended is still shown to who made it.
const LINKS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// See the module's documentation.
pub struct Maintenance {
    core: Arc<Core>,
    manifests: Arc<Manifests>,
    readings: Arc<Readings>,
    retention: Retention,
    small: Small,
    /// Uploads that were being completed in the last round.
    finishing: Mutex<HashSet<UploadId>>,
}

/// Small blobs that lost their last files.
#[derive(Default)]
struct Small {
    waiting: Mutex<Vec<BlobId>>,
    filled: Notify,
}

impl Small {
    fn push(&self, blob: BlobId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < SMALL_MAX {
            waiting.push(blob);
        }
        if waiting.len() == 1 {
            self.filled.notify_one();
        }
    }

    async fn filled(&self) {
        self.filled.notified().await;
    }

    fn take(&self) -> Vec<BlobId> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a look through everything found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Records whose bytes are missing.
    pub lost: u64,
    /// Stored bytes without a record, deleted; stages too.
    pub orphans: u64,
}

impl Maintenance {
    pub(crate) fn new(core: Arc<Core>, manifests: Arc<Manifests>, readings: Arc<Readings>) -> Maintenance {
        Maintenance {
            core,
            manifests,
            readings,
            retention: Retention::default(),
            small: Small::default(),
            finishing: Mutex::default(),
        }
    }

    /// Before the first request: completes what was being completed, and deletes stages that no upload owns, and archives
    /// whose preparation was broken off. Where other nodes may be at any of that this moment, only what is old counts as
    /// left over; to complete something twice is harmless.
    pub async fn recover(&self) -> Result<()> {
        for upload in self.core.catalog.finishing_uploads().await? {
            self.complete(upload).await;
        }
        let (prepared, staged) =
            if self.core.is_alone { (Duration::ZERO, Duration::ZERO) } else { (PREPARED_AGE, ORPHAN_AGE) };
        // In a bucket somebody else's record may be about to be written, whoever that is.
        let staged = if self.core.storage.is_shared() { ORPHAN_AGE } else { staged };
        let before = self.core.clock.now().as_millis() - prepared.as_millis() as i64;
        self.core.catalog.forget_prepared(Timestamp::from_millis(before)).await?;
        self.discard_stages(staged).await?;
        Ok(())
    }

    /// Deletes stages that no upload owns and that are older; how many.
    async fn discard_stages(&self, age: Duration) -> Result<u64> {
        let mut discarded = 0;
        for (stage, age_secs) in self.core.storage.stages().await? {
            if age_secs >= age.as_secs() && !self.core.catalog.has_upload(&stage).await? {
                self.core.storage.discard_stage(stage).await?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }

    /// Completes an upload that was interrupted while it became a file.
    async fn complete(&self, upload: Upload) {
        // Partial ones are brought along by the upload that joins them.
        if upload.is_partial() {
            return;
        }
        let id = upload.id;
        match upload::finish::roll_forward(&self.core, upload).await {
            Ok(committed) => {
                tracing::info!(upload = %id, "completed an upload that was interrupted");
                if let Some(orphan) = committed.orphan {
                    self.collect(orphan).await;
                }
            }
            Err(error) => match self.core.catalog.upload(&id).await {
                Ok(upload) if !matches!(upload.state, UploadState::Finishing(_)) => {
                    // Another node was faster, and has published the bytes.
                    tracing::debug!(upload = %id, error = error.chain(), "an upload was completed elsewhere");
                }
                Ok(_) | Err(_) => {
                    tracing::error!(upload = %id, error = error.chain(), "an upload could not be completed");
                }
            },
        }
    }

    /// Archives whose preparation another node has broken off, which may never start again.
    async fn forget_prepared_elsewhere(&self) -> Result<()> {
        let before = self.core.clock.now().as_millis() - PREPARED_AGE.as_millis() as i64;
        self.core.catalog.forget_prepared(Timestamp::from_millis(before)).await?;
        Ok(())
    }

    /// What was being completed in the round before, and still is: its storage was away, or its node is. Whoever is still at it
    /// is not disturbed, as one transaction makes the file.
    async fn complete_interrupted(&self) -> Result<()> {
        let finishing = self.core.catalog.finishing_uploads().await?;
        let present: HashSet<UploadId> = finishing.iter().map(|upload| upload.id).collect();
        let before = {
            let mut seen = self.finishing.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *seen, present)
        };
        for upload in finishing.into_iter().filter(|upload| before.contains(&upload.id)) {
            self.complete(upload).await;
        }
        Ok(())
    }

    /// One round of the regular work: expired uploads, unreferenced blobs, gauges.
    pub async fn round(&self) -> Result<()> {
        self.complete_interrupted().await?;
        if !self.core.is_alone {
            self.forget_prepared_elsewhere().await?;
        }
        loop {
            let expired = self.core.catalog.expire_uploads(self.core.clock.now(), BATCH).await?;
            for id in &expired {
                // What a crash leaves over here is a stage without a record, which is found by reconciling.
                self.core.storage.discard_stage(*id).await?;
                ::metrics::counter!(metrics::UPLOADS, "result" => "expired").increment(1);
            }
            if expired.len() < BATCH {
                break;
            }
        }
        self.core.catalog.expire_tokens(self.core.clock.now()).await?;
        let now = self.core.clock.now();
        let before = Timestamp::from_millis(now.as_millis() - LINKS_KEPT.as_millis() as i64);
        self.core.catalog.expire_links(now, before).await?;
        for blob in self.retention.expire_files(&self.core).await? {
            self.collect(blob).await;
        }
        self.expire_archives().await?;
        self.collect_all().await?;
        self.evict_packs().await?;
        ::metrics::gauge!(metrics::UPLOADS_OPEN).set(self.core.catalog.open_uploads().await? as f64);
        ::metrics::gauge!(metrics::FREE_BYTES).set(self.core.storage.available().await? as f64);
        Ok(())
    }

    /// Deletes archives that ran out of time. What only they held is collected after them.
    async fn expire_archives(&self) -> Result<()> {
        loop {
            let expired = self.core.catalog.expire_archives(self.core.clock.now(), BATCH).await?;
            for (id, manifest) in &expired {
                self.manifests.forget(*id);
                if let Some(manifest) = manifest {
                    // What a crash leaves over here has no record, and is found by reconciling.
                    self.core.storage.delete(*manifest).await?;
                }
            }
            if expired.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Deletes deflated forms over the quota, those first that were not used for the longest time.
    async fn evict_packs(&self) -> Result<()> {
        let quota = self.core.limits.encodings_quota;
        loop {
            // While an archive is laid out nobody knows which ones it needs: the next round will.
            let Some(needed) = self.manifests.packs() else { return Ok(()) };
            let evicted = self.core.catalog.evict_packs(quota, &needed, BATCH).await?;
            for pack in &evicted {
                self.core.storage.delete(*pack).await?;
            }
            ::metrics::counter!(metrics::PACKS_EVICTED).increment(evicted.len() as u64);
            if evicted.len() < BATCH {
                let bytes = self.core.catalog.pack_bytes().await?;
                ::metrics::gauge!(metrics::PACK_BYTES).set(bytes as f64);
                return Ok(());
            }
        }
    }

    /// Deletes every blob that nothing points at and nobody is reading as a part of an archive.
    async fn collect_all(&self) -> Result<()> {
        let mut skip = Vec::new();
        loop {
            let blobs = self.core.catalog.unreferenced_blobs(&skip, BATCH).await?;
            if blobs.is_empty() {
                return Ok(());
            }
            let unread = blobs.iter().copied().filter(|blob| !self.is_read(*blob)).collect();
            let free = crate::reading::free_elsewhere(&self.core, unread).await;
            for blob in self.core.catalog.forget_contents(&free).await? {
                self.delete(blob).await?;
            }
            self.core.contents.forget(&free);
            skip.extend(blobs.into_iter().filter(|blob| !free.contains(blob)));
            if skip.len() >= BATCH {
                return Ok(()); // The rest waits for the next round, so that this list stays short.
            }
        }
    }

    /// Deletes a blob that has just lost its last file, unless an archive under way needs it; a small one within moments,
    /// together with others. Where other nodes may read it, it is left to the next round, and so it is after a failure: the
    /// record that it is to be deleted stays.
    pub async fn collect(&self, blob: BlobId) {
        // Other nodes are asked once for many, by the next round.
        if self.core.state.is_shared() {
            return;
        }
        match self.core.catalog.blob(&blob).await {
            Ok(Some(record)) if record.size <= CONTENT_BYTES_MAX => self.small.push(blob),
            Ok(Some(_)) => self.collect_now(blob).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%blob, error = error.chain(), "a blob will be deleted later"),
        }
    }

    /// Deletes small blobs that lost their last file, many in a transaction, until it is told to stop: replacing them would
    /// otherwise cost as many changes of the catalog as storing them. What is left then is found at the next start.
    pub async fn collect_small(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.small.filled() => {}
                () = stop.cancelled() => return,
            }
            tokio::time::sleep(SMALL_EVERY).await;
            let (read, free): (Vec<_>, Vec<_>) =
                self.small.take().into_iter().partition(|blob| self.is_read(*blob));
            tracing::debug!(free = free.len(), read = read.len(), "small blobs lost their last files");
            match self.core.catalog.forget_contents(&free).await {
                Ok(others) => {
                    for blob in &others {
                        self.collect_now(*blob).await;
                    }
                    self.core.contents.forget(&free);
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "small blobs will be deleted later");
                }
            }
        }
    }

    async fn collect_now(&self, blob: BlobId) {
        match self.core.catalog.is_held(&blob).await {
            Ok(false) if !self.is_read(blob) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%blob, error = error.chain(), "a blob will be deleted later");
                return;
            }
        }
        if let Err(error) = self.delete(blob).await {
            tracing::warn!(%blob, error = error.chain(), "a blob will be deleted later");
        }
    }

    /// Whether an archive or a download under way reads it piece by piece.
    pub(crate) fn is_read(&self, blob: BlobId) -> bool {
        self.manifests.holds(blob) || self.readings.holds(blob)
    }

    /// Deletes an unreferenced blob: its bytes, then what is left of its record.
    async fn delete(&self, blob: BlobId) -> Result<()> {
        if let Some(record) = self.core.catalog.blob(&blob).await? {
            self.core.contents.delete_stored(&record).await?;
        }
        self.core.catalog.forget_blob(&blob).await
    }

    /// Compares every record with what is stored. Slow on purpose: it runs beside the live traffic.
    pub async fn reconcile(&self) -> Result<Reconciled> {
        let lost = self.find_lost().await? + self.find_lost_runs().await?;
        ::metrics::gauge!(metrics::RECORDS_WITHOUT_DATA).set(lost as f64);
        let mut orphans = 0;
        for shard in 0..=u8::MAX {
            for (blob, age_secs) in self.core.storage.blobs(shard).await? {
                if age_secs >= ORPHAN_AGE.as_secs() && !self.is_known(blob).await? {
                    tracing::warn!(%blob, "stored bytes without a record: deleted");
                    self.core.storage.delete(blob).await?;
                    orphans += 1;
                }
            }
        }
        // Of a node that died, and whose upload was deleted or expired since.
        orphans += self.discard_stages(ORPHAN_AGE).await?;
        ::metrics::counter!(metrics::ORPHANS).increment(orphans);
        Ok(Reconciled { lost, orphans })
    }

    /// Whether a record names this run of bytes, or an upload is being completed under it.
    async fn is_known(&self, blob: BlobId) -> Result<bool> {
        if self.core.catalog.is_stored(&blob).await? || self.core.catalog.is_archived(&blob).await? {
            return Ok(true);
        }
        // Of an upload the bytes may have their final name before anybody else knows.
        if self.core.catalog.has_upload(&blob.stage()).await? {
            return Ok(true);
        }
        // Completed between the two questions?
        self.core.catalog.is_stored(&blob).await
    }

    async fn find_lost(&self) -> Result<u64> {
        let mut lost = 0;
        let mut after = None;
        loop {
            let blobs = self.core.catalog.blobs(after, BATCH).await?;
            let Some(last) = blobs.last() else { return Ok(lost) };
            after = Some(last.id);
            let kept = self.core.contents.all_kept(&blobs).await?;
            for (blob, kept) in blobs.into_iter().zip(kept) {
                // What was deleted while we looked is not lost.
                if !self.core.contents.is_whole(&blob, kept).await? && self.still_referenced(blob.id).await? {
                    lost += 1;
                    tracing::error!(blob = %blob.id, size = blob.size, "a record without its bytes");
                }
            }
            tokio::time::sleep(RECONCILE_REST).await;
        }
    }

    /// The same for what archives need.
    async fn find_lost_runs(&self) -> Result<u64> {
        let mut lost = 0;
        let mut after = None;
        loop {
            let runs = self.core.catalog.archived_runs(after, BATCH).await?;
            let Some((last, _)) = runs.last() else { return Ok(lost) };
            after = Some(*last);
            for (run, size) in runs {
                let found = self.core.storage.blob_size(run).await?;
                if found != Some(size) && self.core.catalog.is_archived(&run).await? {
                    lost += 1;
                    tracing::error!(%run, size, "an archive without its bytes");
                }
            }
        }
    }

    async fn still_referenced(&self, blob: BlobId) -> Result<bool> {
        let before = u128::from_be_bytes(*blob.as_bytes()).checked_sub(1);
        let before = before.map(|id| BlobId::from_bytes(id.to_be_bytes()));
        Ok(self.core.catalog.blobs(before, 1).await?.first().is_some_and(|found| found.id == blob))
    }
}
