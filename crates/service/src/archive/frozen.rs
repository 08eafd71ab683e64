//! Archives that are asked for by a request of their own: their selection is frozen at that moment, and their bytes stay what they
//! are until they expire.

use super::encode::content_of;
use super::layout::ZipLayout;
use super::manifests::Key;
use super::plan::{self, Plan};
use super::{Archive, Archives, Selection, stored};
use crate::Core;
use crate::coherence::News;
use crate::job::{self, Moment};
use carrack_domain::access::UseArchives;
use carrack_domain::archive::{self, Compression};
use carrack_domain::job::{JobState, JobWish, Progress};
use carrack_domain::{ArchiveId, BlobId, Code, Error, Grant, Result, Role, Timestamp};
use carrack_state::Watch;
use carrack_storage::Form;
use std::sync::Arc;
use std::time::Duration;

/// Ids that are held in one transaction.
const HOLD_BATCH: usize = 8192;
/// The longest life that can be asked for.
pub const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// What is asked for.
pub struct NewArchive {
    /// The name of the download.
    pub name: String,
    /// What goes into it.
    pub selection: Selection,
    /// How its entries are to lie in it.
    pub compression: Compression,
    /// How long it lives; as long as the operator set it, when absent.
    pub life: Option<Duration>,
}

impl Archives {
    /// Freezes a selection. A stored archive is completed at once, others wait for their job.
    ///
    /// `empty_selection`, `archive_too_large`, `file_not_found`, `invalid_request` for a name or a life that cannot be.
    pub async fn create(&self, grant: &Grant<UseArchives>, new: NewArchive) -> Result<archive::Archive> {
        if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || new.name.chars().any(char::is_control) {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("The name must have 1 to {NAME_BYTES_MAX} bytes and no control character."),
            ));
        }
        let life = new.life.unwrap_or(self.core.limits.archive_ttl);
        if life.is_zero() || life > LIFE_MAX {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("expires_in is 1 to {} seconds.", LIFE_MAX.as_secs()),
            ));
        }
        let owner = grant.principal().subject().to_owned();
        let (core, manifests) = (self.core.clone(), self.manifests.clone());
        let turn = self.planning.clone().lock_owned().await;
        let made = self.core.to_the_end(async move {
            let _turn = turn;
            // No blob may go before the archive holds it.
            let building = manifests.build();
            let origins = new.selection.origins();
            let plan = plan::plan(&core, new.selection, new.compression != Compression::Store).await?;
            let (mut archive, layout) = freeze(&core, plan, new.compression).await?;
            drop(building);
            archive.owner = owner;
            archive.name = new.name;
            archive.origins = origins;
            archive.expires_at = archive.created_at.after(life);
            if new.compression == Compression::Store {
                archive.content = Some(content_of(&layout));
                archive.state = JobState::Completed;
                archive.progress = Progress { entries: archive.entries, bytes: archive.bytes };
            }
            core.catalog.commit_archive(&archive).await?;
            Ok(archive)
        });
        let made = made.await?;
        self.desk.ring();
        if made.state == JobState::Waiting {
            self.core.coherence.tell(News::Job).await;
        }
        Ok(made)
    }

    /// An archive of the caller's own, any one for an administrator; `archive_not_found`.
    pub async fn get(&self, grant: &Grant<UseArchives>, id: ArchiveId) -> Result<archive::Archive> {
        let mut archive = self.core.catalog.archive(&id).await?;
        let principal = grant.principal();
        let theirs = principal.owns(&archive.owner) && archive.is_within_reach(principal);
        if !theirs || archive.expires_at < self.core.clock.now() {
            return Err(Error::new(Code::ArchiveNotFound, "There is no such archive."));
        }
        if archive.state == JobState::Running
            && let Some(progress) = self.desk.progress(id)
        {
            archive.progress = progress;
        }
        Ok(archive)
    }

    /// The caller's archives, newest first, after the one given; at most `limit`.
    pub async fn list(
        &self,
        grant: &Grant<UseArchives>,
        after: Option<(Timestamp, ArchiveId)>,
        limit: usize,
    ) -> Result<Vec<archive::Archive>> {
        let now = self.core.clock.now();
        if grant.principal().role() == Role::Guest {
            return Ok(Vec::new());
        }
        self.core.catalog.archives(grant.principal().subject(), now, after, limit).await
    }

    /// The bytes of a completed archive; `archive_not_ready` until then. Everything but the contents has been looked at.
    pub async fn content(&self, grant: &Grant<UseArchives>, id: ArchiveId, form: Form) -> Result<Archive> {
        let archive = self.get(grant, id).await?;
        self.opened(&archive, form).await
    }

    /// The bytes of an archive that a link is to, and the archive; `content_gone` when there is none any more.
    pub(crate) async fn linked(&self, id: ArchiveId, form: Form) -> Result<(archive::Archive, Archive)> {
        let gone = || Error::new(Code::ContentGone, "The archive is not there any more.");
        let archive = self
            .core
            .catalog
            .archive(&id)
            .await
            .map_err(|error| if error.code() == Code::ArchiveNotFound { gone() } else { error })?;
        if archive.expires_at < self.core.clock.now() {
            return Err(gone());
        }
        let content = self.opened(&archive, form).await?;
        Ok((archive, content))
    }

    async fn opened(&self, archive: &archive::Archive, form: Form) -> Result<Archive> {
        let Some(content) = &archive.content else {
            let detail =
                format!("The archive is {}: its content is there once it is completed.", archive.state);
            return Err(Error::new(Code::ArchiveNotReady, detail));
        };
        let layout = self.loaded(archive).await?;
        if layout.manifest.len() != content.size || layout.manifest.etag() != content.etag {
            return Err(Error::broken(format!("archive {} is not what it was", archive.id)));
        }
        self.outgoing(layout, form)
    }

    /// The layout of a completed archive. Many who come at once wait for the first one's work.
    async fn loaded(&self, archive: &archive::Archive) -> Result<Arc<ZipLayout>> {
        let key = Key::Archive(archive.id);
        if let Some(layout) = self.manifests.get(&key) {
            return Ok(layout);
        }
        let _turn = self.loading.lock().await;
        if let Some(layout) = self.manifests.get(&key) {
            return Ok(layout);
        }
        let building = self.manifests.build();
        Ok(building.keep(key, stored::load(&self.core, archive.manifest).await?))
    }

    /// Pauses, resumes or cancels the job of an archive; `invalid_transition`.
    pub async fn wish(
        &self,
        grant: &Grant<UseArchives>,
        id: ArchiveId,
        wish: JobWish,
    ) -> Result<archive::Archive> {
        let before = self.get(grant, id).await?;
        let archive = self.core.catalog.move_archive(&id, wish).await?;
        self.desk.stop(id);
        self.desk.ring();
        self.core.coherence.tell(News::Stop(id.to_string())).await;
        self.core.coherence.tell(News::Job).await;
        let progress = before.progress;
        job::tell(&self.core, id, Moment { state: archive.state, progress }).await;
        Ok(archive::Archive { progress, ..archive })
    }

    /// Deletes an archive. Downloads of it that are under way go on to their end.
    pub async fn delete(&self, grant: &Grant<UseArchives>, id: ArchiveId) -> Result<()> {
        let before = self.get(grant, id).await?;
        let (core, manifests, desk) = (self.core.clone(), self.manifests.clone(), self.desk.clone());
        let gone = async move {
            let manifest = core.catalog.delete_archive(&id).await?;
            desk.stop(id);
            core.coherence.tell(News::Stop(id.to_string())).await;
            manifests.forget(id);
            let progress = before.progress;
            if !before.state.is_last() {
                job::tell(&core, id, Moment { state: JobState::Cancelled, progress }).await;
            }
            core.storage.delete(manifest).await
        };
        self.core.to_the_end(gone).await
    }

    /// Watches an archive: how it is now, and what comes after.
    pub async fn watch(&self, grant: &Grant<UseArchives>, id: ArchiveId) -> Result<Watching> {
        // In this order, so that nothing falls between the two.
        let watch = self.core.state.watch(&job::topic(id)).await?;
        let now = self.get(grant, id).await?;
        Ok(Watching { now, watch })
    }
}

/// Somebody who watches an archive.
pub struct Watching {
    /// How it was when the watching began.
    pub now: archive::Archive,
    watch: Box<dyn Watch>,
}

impl Watching {
    /// The newest that is told of it. `None` when something may have been missed: look at it again. Cancel-safe.
    pub async fn next(&mut self) -> Option<Moment> {
        Moment::parse(&self.watch.next().await?)
    }
}

/// Holds what a plan needs and writes it down: an archive that lacks its owner, name, origins and end.
async fn freeze(
    core: &Core,
    plan: Plan,
    compression: Compression,
) -> Result<(archive::Archive, Arc<ZipLayout>)> {
    let id = ArchiveId::generate(&*core.entropy);
    let layout = Arc::new(plan.layout);
    let held = {
        let layout = layout.clone();
        stored::aside("gather what an archive holds", move || Ok(blobs_of(&layout))).await?
    };
    let created_at = core.clock.now();
    core.catalog.prepare_archive(&id, held.len(), created_at).await?;
    for batch in held.chunks(HOLD_BATCH) {
        core.catalog.hold_blobs(&id, batch).await?;
    }
    let manifest = stored::keep(core, &layout).await?;
    let archive = archive::Archive {
        id,
        owner: String::new(),
        name: String::new(),
        compression,
        entries: layout.manifest.entries() as u64,
        bytes: plan.bytes,
        renamed: plan.renamed,
        renamed_total: plan.renamed_total,
        origins: Vec::new(),
        manifest,
        content: None,
        state: JobState::Waiting,
        progress: Progress::default(),
        failure: None,
        created_at,
        expires_at: created_at,
    };
    Ok((archive, layout))
}

/// The blobs of a plan, each once, in order.
fn blobs_of(layout: &ZipLayout) -> Vec<BlobId> {
    let contents = (0..layout.manifest.entries()).filter_map(|entry| layout.manifest.content(entry));
    let mut blobs: Vec<BlobId> = contents.map(BlobId::from_bytes).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}
