//! Where the bytes of a blob are: few of them are kept with its record, many are stored under its name. Whoever reads
//! blobs does so through here and need not know.
//!
//! *Coherence.* The bytes of a blob never change, and never move. What is kept in memory of them is therefore right as
//! long as anybody asks.

use async_trait::async_trait;
use bytes::Bytes;
use carrack_catalog::Catalog;
use carrack_domain::file::Blob;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Code, Error, Result};
use carrack_storage::{Coming, Form, Reader, Storage};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::Arc;

/// A body of up to so many bytes is kept with its record. More would make the catalog large and its copies slow, for
/// less: from here on a file of its own costs no more than its share.
pub(crate) const CONTENT_BYTES_MAX: u64 = 32 << 10;
/// Bytes of contents in memory, and how many those are likely to be.
const CACHED_BYTES: u64 = 16 << 20;
const CACHED_CONTENTS: usize = 4096;
/// What an entry takes besides its content.
const ENTRY_BYTES: u64 = 64;

/// See the module's documentation.
pub struct Contents {
    catalog: Arc<dyn Catalog>,
    storage: Arc<dyn Storage>,
    /// `None` of small blobs that are stored under their names.
    cached: Cache<BlobId, Option<Bytes>, Weight>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<BlobId, Option<Bytes>> for Weight {
    fn weight(&self, _: &BlobId, content: &Option<Bytes>) -> u64 {
        ENTRY_BYTES + content.as_ref().map_or(0, |content| content.len() as u64)
    }
}

impl Contents {
    /// The blobs of this catalog and this store.
    pub fn new(catalog: Arc<dyn Catalog>, storage: Arc<dyn Storage>) -> Arc<Contents> {
        let cached = Cache::with_weighter(CACHED_CONTENTS, CACHED_BYTES, Weight);
        Arc::new(Contents { catalog, storage, cached })
    }

    /// A reader of blobs, wherever they are, which keeps what it has opened.
    pub(crate) fn reader(self: &Arc<Contents>, form: Form) -> Box<dyn Reader> {
        Box::new(BlobReader { stored: self.storage.reader(form), contents: self.clone(), opened: None })
    }

    /// The content of a blob of `size` bytes if it is kept with its record; `None` if it is stored under its name.
    async fn get(&self, blob: BlobId, size: u64) -> Result<Option<Bytes>> {
        if size > CONTENT_BYTES_MAX {
            return Ok(None);
        }
        let content = match self.cached.get(&blob) {
            Some(content) => content,
            None => {
                let found = self.catalog.contents(&[blob]).await?;
                let content = found.into_iter().next().flatten();
                self.cached.insert(blob, content.clone());
                content
            }
        };
        content.map(|content| checked(blob, size, content)).transpose()
    }

    /// The contents of these blobs, of those that are kept with their records.
    async fn get_all(&self, blobs: &[(BlobId, u64)]) -> Result<HashMap<BlobId, Bytes>> {
        let mut all = HashMap::with_capacity(blobs.len());
        let mut missing = Vec::with_capacity(blobs.len());
        for (blob, size) in blobs {
            match self.cached.get(blob) {
                Some(Some(content)) => drop(all.insert(*blob, checked(*blob, *size, content)?)),
                Some(None) => {}
                None => missing.push((*blob, *size)),
            }
        }
        if missing.is_empty() {
            return Ok(all);
        }
        let ids: Vec<BlobId> = missing.iter().map(|(blob, _)| *blob).collect();
        for ((blob, size), content) in missing.iter().zip(self.catalog.contents(&ids).await?) {
            match content {
                // What is read in bulk is not asked for again soon, and does not push out what is.
                Some(content) => drop(all.insert(*blob, checked(*blob, *size, content)?)),
                None => self.cached.insert(*blob, None),
            }
        }
        Ok(all)
    }

    /// What the catalog has of a blob, right or wrong.
    async fn kept(&self, blob: &Blob) -> Result<Option<Bytes>> {
        if blob.size > CONTENT_BYTES_MAX {
            return Ok(None);
        }
        Ok(self.catalog.contents(&[blob.id]).await?.into_iter().next().flatten())
    }

    /// Deletes the bytes of a blob as far as they are not part of its record.
    pub(crate) async fn delete_stored(&self, blob: &Blob) -> Result<()> {
        if self.kept(blob).await?.is_some() {
            self.cached.remove(&blob.id);
            return Ok(());
        }
        for (run, _) in blob.stored() {
            self.storage.delete(run).await?;
        }
        Ok(())
    }

    /// Drops what is kept in memory of blobs that are gone.
    pub(crate) fn forget(&self, blobs: &[BlobId]) {
        for blob in blobs {
            self.cached.remove(blob);
        }
    }

    /// What the catalog has of each of these blobs, read together, where no request waits for it.
    pub(crate) async fn all_kept(&self, blobs: &[Blob]) -> Result<Vec<Option<Bytes>>> {
        let ids: Vec<BlobId> = blobs.iter().map(|blob| blob.id).collect();
        self.catalog.contents(&ids).await
    }

    /// Whether every byte of a blob is there. What is kept with the record is compared with its CRC-32, since SQLite has no
    /// checksums of its own; of what is stored the size is compared.
    pub(crate) async fn is_whole(&self, blob: &Blob, kept: Option<Bytes>) -> Result<bool> {
        if let Some(content) = kept {
            return Ok(content.len() as u64 == blob.size && crc32fast::hash(&content) == blob.digest.crc32);
        }
        for (run, size) in blob.stored() {
            if self.storage.blob_size(run).await? != Some(size) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `data_lost` for a content of another length than its record says.
fn checked(blob: BlobId, size: u64, content: Bytes) -> Result<Bytes> {
    let found = content.len();
    if found as u64 == size {
        return Ok(content);
    }
    tracing::error!(%blob, size, found, "kept bytes are missing or damaged");
    let detail = "The stored bytes of this file are missing or damaged. The operator has been alarmed.";
    Err(Error::new(Code::DataLost, detail))
}

/// See [`Contents::reader`].
struct BlobReader {
    contents: Arc<Contents>,
    stored: Box<dyn Reader>,
    /// The kept content that was opened last: whatever becomes of it meanwhile, it will be sent.
    opened: Option<(BlobId, Bytes)>,
}

#[async_trait]
impl Reader for BlobReader {
    fn follow(&mut self, coming: Coming) {
        let stored =
            |extent: &Extent| matches!(extent, Extent::Blob { size, .. } if *size > CONTENT_BYTES_MAX);
        self.stored.follow(Box::new(coming.filter(stored)));
    }

    fn maps(&self) -> bool {
        self.stored.maps()
    }

    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()> {
        match self.contents.get(blob, size).await? {
            Some(content) => {
                self.opened = Some((blob, content));
                Ok(())
            }
            None => self.stored.open(blob, size).await,
        }
    }

    async fn read(&mut self, mut extents: Vec<Extent>) -> Result<Bytes> {
        let small = |extent: &Extent| match extent {
            Extent::Blob { blob, size, .. } if *size <= CONTENT_BYTES_MAX => Some((*blob, *size)),
            Extent::Blob { .. } | Extent::Inline(_) => None,
        };
        let opened =
            |blob: BlobId| self.opened.as_ref().filter(|(id, _)| *id == blob).map(|(_, bytes)| bytes.clone());
        let blobs: Vec<(BlobId, u64)> = extents.iter().filter_map(small).collect();
        let kept = match &blobs[..] {
            [] => return self.stored.read(extents).await,
            [(blob, size)] => {
                let content = match opened(*blob) {
                    Some(content) => Some(content),
                    None => self.contents.get(*blob, *size).await?,
                };
                content.map(|content| (*blob, content)).into_iter().collect()
            }
            _ => self.contents.get_all(&blobs).await?,
        };
        for extent in &mut extents {
            if let Extent::Blob { blob, offset, len, .. } = extent
                && let Some(content) = kept.get(blob)
            {
                *extent = Extent::Inline(piece(content, *offset, *len)?);
            }
        }
        self.stored.read(extents).await
    }
}

fn piece(content: &Bytes, offset: u64, len: u64) -> Result<Bytes> {
    let end = offset.saturating_add(len);
    if end > content.len() as u64 {
        return Err(Error::broken("an extent goes beyond its blob"));
    }
    // Both fit: they are no larger than a length in memory.
    Ok(content.slice(offset as usize..end as usize))
}
