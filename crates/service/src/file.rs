//! Facts of files, listings, deletion, chunk lists.

use crate::Core;
use crate::maintenance::Maintenance;
use carrack_catalog::{ChunkList, ListQuery, Listing};
use carrack_domain::access::{DeleteFile, FileRef, ListFiles, ReadFile, authorize};
use carrack_domain::error::Class;
use carrack_domain::file::{File, Precondition};
use carrack_domain::{ByteRange, Error, Grant, Principal, Result, Rope};
use carrack_storage::Form;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The most entries of a page.
pub const PAGE_MAX: usize = 1000;

/// Chunks are at least this large, and doubled until a file has at most [`CHUNKS_MAX`].
const CHUNK_BYTES_MIN: u64 = 4 << 20;
const CHUNKS_MAX: u64 = 10_000;
/// How many files are looked at for content that is there already.
const CANDIDATES_MAX: usize = 64;
/// How many bytes of them are read at most, if nobody has before: the client waits.
const READ_BYTES_MAX: u64 = 1 << 30;
/// How many files are read from end to end at once, for chunk lists and digests.
const READING_MAX: usize = 2;

/// Files as facts; their content is [`crate::download::Downloads`]'.
pub struct Files {
    core: Arc<Core>,
    maintenance: Arc<Maintenance>,
    reading: Semaphore,
}

impl Files {
    pub(crate) fn new(core: Arc<Core>, maintenance: Arc<Maintenance>) -> Files {
        Files { core, maintenance, reading: Semaphore::new(READING_MAX) }
    }

    /// A file's facts.
    pub async fn get(&self, grant: &Grant<ReadFile>) -> Result<Arc<File>> {
        self.core.facts.file(grant.resource()).await
    }

    /// A page of files below the granted prefix; `limit` is cut to [`PAGE_MAX`].
    pub async fn list(
        &self,
        grant: &Grant<ListFiles>,
        delimiter: Option<char>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listing> {
        let prefix = grant.resource().prefix.clone();
        let query = ListQuery { prefix, delimiter, after, limit: limit.clamp(1, PAGE_MAX) };
        self.core.catalog.list(&grant.resource().bucket, &query).await
    }

    /// Deletes a file, and its bytes as soon as nothing needs them.
    pub async fn delete(&self, grant: &Grant<DeleteFile>, precondition: &Precondition) -> Result<()> {
        let (core, maintenance) = (self.core.clone(), self.maintenance.clone());
        let (place, precondition) = (grant.resource().clone(), precondition.clone());
        // To the end although the client goes away: the catalog would delete the file, and the facts would keep it.
        let work = async move {
            if let Some(blob) = core.facts.delete_file(&place, &precondition).await? {
                maintenance.collect(blob).await;
            }
            Ok(())
        };
        self.core.to_the_end(work).await
    }

    /// The file and what each of its pieces hashes to. The list is computed when it is first asked for, by reading
    /// the file once, and kept as long as the content.
    pub async fn chunks(&self, grant: &Grant<ReadFile>) -> Result<(Arc<File>, ChunkList)> {
        let file = self.with_blake3(grant).await?;
        if let Some(chunks) = self.core.catalog.chunks(&file.blob.id).await? {
            return Ok((file, chunks));
        }
        let _permit = self.reading.acquire().await.map_err(|e| Error::internal("wait for a turn", e))?;
        if let Some(chunks) = self.core.catalog.chunks(&file.blob.id).await? {
            return Ok((file, chunks));
        }
        let chunks = self.compute_chunks(&file).await?;
        self.core.catalog.put_chunks(&file.blob.id, &chunks).await?;
        Ok((file, chunks))
    }

    /// The SHA-256 of a file. Unless the uploader named it, it is computed when it is first asked for, by reading
    /// the file once, and kept.
    pub async fn sha256(&self, grant: &Grant<ReadFile>) -> Result<[u8; 32]> {
        let file = self.get(grant).await?;
        if let Some(sha256) = file.blob.digest.sha256 {
            return Ok(sha256);
        }
        let _permit = self.reading.acquire().await.map_err(|e| Error::internal("wait for a turn", e))?;
        let file = self.get(grant).await?;
        if let Some(sha256) = file.blob.digest.sha256 {
            return Ok(sha256);
        }
        let mut hasher = Sha256::new();
        self.read_through(&file, |bytes, _| hasher.update(bytes)).await?;
        let sha256 = hasher.finalize().into();
        self.core.facts.put_sha256(grant.resource(), file.blob.id, sha256).await?;
        Ok(sha256)
    }

    /// A file of this size and SHA-256 that `principal` may read: what it may not read does not count, so that nobody
    /// learns of content that is not theirs. Of files whose SHA-256 is not known yet some are read, once for ever.
    pub(crate) async fn with_content(
        &self,
        principal: &Principal,
        size: u64,
        sha256: [u8; 32],
    ) -> Result<Option<Arc<File>>> {
        let readable = |file: File| {
            authorize::<ReadFile>(principal, FileRef { bucket: file.bucket, key: file.key }).ok()
        };
        let known = self.core.catalog.files_of_content(size, Some(sha256), CANDIDATES_MAX).await?;
        let mut unknown = Vec::new();
        let mut grants: Vec<_> = known.into_iter().filter_map(readable).collect();
        if grants.is_empty() {
            unknown = self.core.catalog.files_of_content(size, None, CANDIDATES_MAX).await?;
        }
        let affordable = READ_BYTES_MAX.checked_div(size).unwrap_or(u64::MAX);
        let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
        grants.extend(unknown.into_iter().filter_map(readable).take(affordable));
        for grant in &grants {
            match self.sha256(grant).await {
                Ok(found) if found == sha256 => {}
                Ok(_) => continue,
                Err(error) if error.code().class() == Class::Absent => continue,
                Err(error) => return Err(error),
            }
            // Looked at once more: it may have been replaced meanwhile.
            match self.get(grant).await {
                Ok(file) if file.blob.size == size && file.blob.digest.sha256 == Some(sha256) => {
                    return Ok(Some(file));
                }
                Ok(_) => {}
                Err(error) if error.code().class() == Class::Absent => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The file with the BLAKE3 of its content, which of one that was put together from pieces is not known at first: it
    /// is computed when it is first asked for, by reading the file once, and kept.
    pub async fn with_blake3(&self, grant: &Grant<ReadFile>) -> Result<Arc<File>> {
        let file = self.get(grant).await?;
        if file.blob.blake3().is_some() {
            return Ok(file);
        }
        let _permit = self.reading.acquire().await.map_err(|e| Error::internal("wait for a turn", e))?;
        let file = self.get(grant).await?;
        if file.blob.blake3().is_some() {
            return Ok(file);
        }
        let mut hasher = blake3::Hasher::new();
        self.read_through(&file, |bytes, _| {
            hasher.update(bytes);
        })
        .await?;
        let blake3 = *hasher.finalize().as_bytes();
        self.core.facts.put_blake3(grant.resource(), file.blob.id, blake3).await?;
        self.get(grant).await
    }

    async fn compute_chunks(&self, file: &File) -> Result<ChunkList> {
        let size = file.blob.size;
        let mut chunk_size = CHUNK_BYTES_MIN;
        while size.div_ceil(chunk_size) > CHUNKS_MAX {
            chunk_size *= 2;
        }
        let mut hashes = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let chunk = |bytes: &[u8], end: u64| {
            hasher.update(bytes);
            if end == size || end.is_multiple_of(chunk_size) {
                hashes.push(*hasher.finalize().as_bytes());
                hasher.reset();
            }
        };
        self.read_through(file, chunk).await?;
        Ok(ChunkList { chunk_size, hashes })
    }

    /// Shows `visit` every byte of a file in order, in pieces that never cross a MiB, each with the offset of its end.
    async fn read_through(&self, file: &File, mut visit: impl FnMut(&[u8], u64)) -> Result<()> {
        const STEP_BYTES: u64 = 1 << 20;
        let size = file.blob.size;
        let rope = Rope::of_blob(file.blob.clone(), file.etag(), file.created_at);
        let mut reader = self.core.contents.reader(Form::Copied);
        let mut at = 0;
        while at < size {
            let len = STEP_BYTES.min(size - at);
            let range = ByteRange::new(at, len).ok_or_else(|| Error::broken("a step without bytes"))?;
            let bytes = reader.read(rope.slice(range).collect()).await?;
            at += len;
            visit(&bytes, at);
            // The bytes come from the page cache without a wait: let others have a turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
