//! Many files as one ZIP. Its bytes are never built: a manifest of what the catalog knows gives length, ETag and the
//! bytes at any offset.

mod encode;
mod frozen;
mod layout;
mod manifests;
mod packs;
mod plan;
mod pool;
mod sources;
mod stored;
mod streamed;

use crate::job::{Desk, Work};
use crate::{Core, metrics};
use carrack_domain::access::{ArchiveFile, ArchivePrefix};
use carrack_domain::archive::{Origin, origins};
use carrack_domain::{BucketName, Code, ETag, Error, Grant, Result, Rope, Timestamp};
use carrack_storage::{Form, Reader};
pub use frozen::{LIFE_MAX, NewArchive, Watching};
use layout::ZipLayout;
use manifests::Key;
pub(crate) use manifests::Manifests;
pub(crate) use pool::Pool;
use std::sync::Arc;
use std::time::Instant;
pub use streamed::Deflated;

/// What goes into an archive. Every variant carries the grants for what it names.
pub enum Selection {
    /// Everything below a prefix; names are what follows the prefix's last `/`.
    Prefix(Grant<ArchivePrefix>),
    /// These files of one bucket; names are the keys without the folder they all share.
    Files(Vec<Grant<ArchiveFile>>),
    /// These files, of any buckets, under these names.
    Entries(Vec<Entry>),
}

/// A file that goes into an archive.
pub struct Entry {
    /// The file.
    pub grant: Grant<ArchiveFile>,
    /// The name it is to have there; its key when absent.
    pub name: Option<String>,
}

/// An archive, ready to be sent.
pub struct Archive {
    /// Its bytes.
    pub rope: Rope,
    /// Reads the blobs in it.
    pub reader: Box<dyn Reader>,
    /// Keeps the blobs in it from being deleted; hold it as long as the rope is read.
    pub hold: Arc<dyn Send + Sync>,
}

/// Makes archives.
pub struct Archives {
    core: Arc<Core>,
    manifests: Arc<Manifests>,
    /// One manifest is laid out at a time: the many connections of one download wait for the first one's work.
    planning: Arc<tokio::sync::Mutex<()>>,
    /// The same for manifests that were laid out before and are read again.
    loading: tokio::sync::Mutex<()>,
    desk: Arc<Desk>,
    pool: Arc<Pool>,
}

impl Archives {
    pub(crate) fn new(
        core: Arc<Core>,
        manifests: Arc<Manifests>,
        desk: Arc<Desk>,
        pool: Arc<Pool>,
    ) -> Archives {
        Archives {
            core,
            manifests,
            planning: Arc::default(),
            loading: tokio::sync::Mutex::default(),
            desk,
            pool,
        }
    }

    /// The ZIP of a selection, stored, its bytes in the form that the connection can send. The same files make the same bytes, every time and everywhere.
    ///
    /// `empty_selection`, `archive_too_large`, `file_not_found` for a key that is not there.
    pub async fn zip(&self, selection: Selection, form: Form) -> Result<Archive> {
        let layout = self.layout(selection).await?;
        self.outgoing(layout, form)
    }

    fn outgoing(&self, layout: Arc<ZipLayout>, form: Form) -> Result<Archive> {
        let manifest = &layout.manifest;
        let etag =
            ETag::new(manifest.etag()).ok_or_else(|| Error::broken("an archive's tag is not a tag"))?;
        let modified = Timestamp::from_millis(manifest.modified().saturating_mul(1000));
        let rope = Rope::new(layout.clone(), etag, modified);
        Ok(Archive { rope, reader: self.core.contents.reader(form), hold: layout })
    }

    async fn layout(&self, selection: Selection) -> Result<Arc<ZipLayout>> {
        let bucket = selection.bucket()?.clone();
        let fingerprint = selection.fingerprint();
        let generation = self.core.catalog.generation(&bucket).await?;
        if let Some(manifest) = self.manifests.get(&Key::Selection(fingerprint, generation)) {
            return Ok(manifest);
        }
        let _turn = self.planning.lock().await;
        let generation = self.core.catalog.generation(&bucket).await?;
        if let Some(manifest) = self.manifests.get(&Key::Selection(fingerprint, generation)) {
            return Ok(manifest);
        }
        // From before the look-up until the manifest is registered no blob may be deleted.
        let building = self.manifests.build();
        let started = Instant::now();
        let plan = plan::plan(&self.core, selection, false).await?;
        ::metrics::histogram!(metrics::ARCHIVE_PLAN_DURATION).record(started.elapsed().as_secs_f64());
        Ok(building.keep(Key::Selection(fingerprint, plan.generation), plan.layout))
    }
}

impl Selection {
    fn bucket(&self) -> Result<&BucketName> {
        match self {
            Selection::Prefix(grant) => Ok(&grant.resource().bucket),
            Selection::Files(grants) => {
                grants.first().map(|grant| &grant.resource().bucket).ok_or_else(nothing_named)
            }
            Selection::Entries(entries) => {
                entries.first().map(|entry| &entry.grant.resource().bucket).ok_or_else(nothing_named)
            }
        }
    }

    /// Where its files come from.
    fn origins(&self) -> Vec<Origin> {
        match self {
            Selection::Prefix(grant) => vec![Origin::Below(grant.resource().clone())],
            Selection::Files(grants) => origins(grants.iter().map(Grant::resource)),
            Selection::Entries(entries) => origins(entries.iter().map(|entry| entry.grant.resource())),
        }
    }

    /// Tells selections apart in the cache.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        match self {
            Selection::Prefix(grant) => {
                field("prefix");
                field(grant.resource().bucket.as_str());
                field(grant.resource().prefix.as_str());
            }
            Selection::Files(grants) => {
                field("files");
                for grant in grants {
                    field(grant.resource().bucket.as_str());
                    field(grant.resource().key.as_str());
                }
            }
            Selection::Entries(entries) => {
                field("entries");
                for Entry { grant, name } in entries {
                    field(grant.resource().bucket.as_str());
                    field(grant.resource().key.as_str());
                    field(name.as_deref().unwrap_or_default());
                }
            }
        }
        *hasher.finalize().as_bytes()
    }
}

fn nothing_named() -> Error {
    Error::new(Code::EmptySelection, "The selection is empty: name at least one file.")
}

/// What the workers do.
pub(crate) fn work(core: Arc<Core>, pool: Arc<Pool>) -> Arc<dyn Work> {
    Arc::new(encode::ArchiveWork { core, pool })
}
