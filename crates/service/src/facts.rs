//! Facts of files that were asked for lately, so that a hot download needs no catalog query.
//!
//! *Coherence.* Whoever changes a file does so through this room, which forgets the file after the change and before
//! anybody is told of it, here and on the other nodes. A look-up that was under way meanwhile does not enter the cache: its
//! placeholder was removed. What other nodes may have changed is believed for an epoch of [`crate::coherence`].

use crate::coherence::Coherence;
use carrack_catalog::{Catalog, Committed, NewFile};
use carrack_domain::access::FileRef;
use carrack_domain::file::{File, Precondition};
use carrack_domain::{BlobId, Result, Timestamp};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Files that are kept: some 500 bytes each.
const FILES_MAX: usize = 16_384;

/// See the module's documentation.
pub struct Facts {
    catalog: Arc<dyn Catalog>,
    coherence: Arc<Coherence>,
    /// Each with the epoch that it is of.
    files: Cache<FileRef, (u64, Arc<File>)>,
}

impl Facts {
    /// Facts of this catalog, which is changed through nodes that hear of each other alone.
    pub fn new(catalog: Arc<dyn Catalog>, coherence: Arc<Coherence>) -> Facts {
        Facts { catalog, coherence, files: Cache::new(FILES_MAX) }
    }

    /// Facts of a catalog that nodes change of which nothing is heard: none is kept.
    pub fn of_many(catalog: Arc<dyn Catalog>, coherence: Arc<Coherence>) -> Facts {
        Facts { catalog, coherence, files: Cache::new(0) }
    }

    /// A file; `file_not_found`, `bucket_not_found`.
    pub(crate) async fn file(&self, place: &FileRef) -> Result<Arc<File>> {
        let epoch = self.coherence.epoch();
        let mut known = None;
        if let Some((of, file)) = self.files.get(place) {
            if of == epoch {
                return Ok(file);
            }
            self.files.remove_if(place, |(of, _)| *of != epoch);
            known = Some(file);
        }
        match self.files.get_value_or_guard_async(place).await {
            Ok((_, file)) => Ok(file),
            Err(guard) => {
                let found = self.catalog.file(&place.bucket, &place.key).await?;
                // The same as before, so that what was made of it is good still.
                let file = known.filter(|known| **known == found).unwrap_or_else(|| Arc::new(found));
                // Refused when the file was changed meanwhile: then this answer is not for those who come later.
                match guard.insert((epoch, file.clone())) {
                    Ok(()) | Err(_) => Ok(file),
                }
            }
        }
    }

    /// See [`Catalog::commit_file`].
    pub(crate) async fn commit_file(&self, new: NewFile) -> Result<Committed> {
        let place = FileRef { bucket: new.target.bucket.clone(), key: new.target.key.clone() };
        let committed = self.catalog.commit_file(new).await;
        self.changed(&place).await;
        committed
    }

    /// See [`Catalog::delete_file`].
    pub(crate) async fn delete_file(
        &self,
        place: &FileRef,
        precondition: &Precondition,
    ) -> Result<Option<BlobId>> {
        let deleted = self.catalog.delete_file(&place.bucket, &place.key, precondition).await;
        self.changed(place).await;
        deleted
    }

    /// See [`Catalog::expire_file`].
    pub(crate) async fn expire_file(&self, place: &FileRef, before: Timestamp) -> Result<Option<BlobId>> {
        let deleted = self.catalog.expire_file(&place.bucket, &place.key, before).await;
        self.changed(place).await;
        deleted
    }

    /// Keeps the SHA-256 of a file's content, learnt later.
    pub(crate) async fn put_sha256(&self, place: &FileRef, blob: BlobId, sha256: [u8; 32]) -> Result<()> {
        let put = self.catalog.put_sha256(&blob, sha256).await;
        self.changed(place).await;
        put
    }

    /// Keeps the BLAKE3 of a file's content in pieces, learnt later.
    pub(crate) async fn put_blake3(&self, place: &FileRef, blob: BlobId, blake3: [u8; 32]) -> Result<()> {
        let put = self.catalog.put_blake3(&blob, blake3).await;
        self.changed(place).await;
        put
    }

    /// Forgets a file that was changed, perhaps, and tells the others to.
    async fn changed(&self, place: &FileRef) {
        self.forget(place);
        self.coherence.tell_file(place).await;
    }

    /// Forgets a file that another node has changed.
    pub(crate) fn forget(&self, place: &FileRef) {
        self.files.remove(place);
    }
}
