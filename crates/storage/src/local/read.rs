//! Reading extents of blobs, through a cache of open ones.

use super::{Inner, LocalStore, failure, lost};
use crate::{Form, INLINE_BYTES_MAX, Reader};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Error, Result};
use carrack_mapped::MappedFile;
use quick_cache::sync::Cache;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Blobs that are open, so that a hot one costs no open and no stat. Bounded by descriptors.
pub(super) type OpenBlobs = Cache<BlobId, Arc<OpenBlob>>;

/// An open blob. The content of a small one is kept with it: sending it then takes one system call.
pub(super) struct OpenBlob {
    file: Arc<MappedFile>,
    content: OnceLock<Bytes>,
}

/// Bytes of small blobs that are kept, at most, by all stores of a process together.
const CONTENT_BYTES_MAX: usize = 16 << 20;
/// Bytes of small blobs that are kept now.
static CONTENT_BYTES: AtomicUsize = AtomicUsize::new(0);

impl OpenBlob {
    fn new(file: Arc<MappedFile>) -> OpenBlob {
        OpenBlob { file, content: OnceLock::new() }
    }

    /// A piece of a small blob's content, if it is kept.
    fn kept(&self, offset: u64, len: u64) -> Option<Bytes> {
        let content = self.content.get()?;
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        let end = offset.checked_add(len)?;
        (end <= content.len()).then(|| content.slice(offset..end))
    }

    /// Keeps the content of a small blob, which was just read, as long as there is room.
    fn keep(&self, content: &Bytes) {
        let len = content.len();
        if CONTENT_BYTES.fetch_add(len, Ordering::Relaxed) + len > CONTENT_BYTES_MAX
            || self.content.set(content.clone()).is_err()
        {
            CONTENT_BYTES.fetch_sub(len, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenBlob {
    fn drop(&mut self) {
        if let Some(content) = self.content.get() {
            CONTENT_BYTES.fetch_sub(content.len(), Ordering::Relaxed);
        }
    }
}

/// Keeps the blob it read last, since the next extent is mostly of the same.
pub(super) struct LocalReader {
    store: LocalStore,
    form: Form,
    current: Option<(BlobId, Arc<OpenBlob>)>,
}

impl LocalReader {
    pub(super) fn new(store: LocalStore, form: Form) -> LocalReader {
        LocalReader { store, form, current: None }
    }

    /// The blob if it is open already.
    fn opened(&self, blob: BlobId, size: u64) -> Option<Arc<OpenBlob>> {
        let current = self.current.as_ref().filter(|(id, _)| *id == blob).map(|(_, open)| open.clone());
        current.or_else(|| self.store.0.open_blobs.get(&blob)).filter(|open| open.file.len() == size)
    }

    /// A large run of one blob as it is wanted: mapped, or copied.
    async fn read_run(&mut self, blob: BlobId, size: u64, offset: u64, len: u64) -> Result<Bytes> {
        let opened = match self.opened(blob, size) {
            Some(opened) => opened,
            None => self.store.blocking("open", move |inner| open(inner, blob, size)).await?,
        };
        let file = opened.file.clone();
        self.current = Some((blob, opened));
        if self.form == Form::Copied {
            let mut buffer = vec![0; buffer_len(len)?];
            if file.read_cached(offset, &mut buffer) {
                return Ok(buffer.into());
            }
            let read = move |_: &Inner| match file.read(offset, &mut buffer) {
                Ok(()) => Ok(buffer.into()),
                Err(error) => Err(read_failure(blob, error)),
            };
            return self.store.blocking("read", read).await;
        }
        if !file.looks_cached(offset, len) {
            // The disk is waited for here, so that no `sendfile` on a thread that serves others has to.
            let file = file.clone();
            let load = move |_: &Inner| file.load(offset, len).map_err(|error| read_failure(blob, error));
            self.store.blocking("read", load).await?;
        }
        file.bytes(offset, len).map_err(|error| failure("map_blob", error))
    }
}

/// Opens a blob and makes sure it still has the bytes its record promises.
pub(super) fn open(inner: &Inner, blob: BlobId, size: u64) -> Result<Arc<OpenBlob>> {
    let file = match File::open(inner.blob_path(blob)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            inner.open_blobs.remove(&blob);
            return Err(lost(format!("blob {blob} is gone")));
        }
        Err(error) => return Err(failure("open_blob", error)),
    };
    let facts = file.try_clone().map_err(|e| failure("open_blob", e))?;
    let file = MappedFile::new(file, size).map_err(|e| failure("open_blob", e))?;
    let opened = Arc::new(OpenBlob::new(file));
    inner.open_blobs.insert(blob, opened.clone());
    // Looked at after it is in the cache: whoever deletes the blob unlinks it first and drops it from the cache then,
    // so one of the two notices the other and no deleted file stays open in the cache.
    let facts = facts.metadata().map_err(|e| failure("stat_blob", e))?;
    if facts.nlink() == 0 || facts.len() != size {
        inner.open_blobs.remove(&blob);
    }
    if facts.len() != size {
        return Err(lost(format!("blob {blob} has {} bytes instead of {size}", facts.len())));
    }
    Ok(opened)
}

fn buffer_len(len: u64) -> Result<usize> {
    usize::try_from(len).map_err(|error| Error::internal("size a read", error))
}

fn read_failure(blob: BlobId, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => lost(format!("blob {blob} was cut short while it was read")),
        _ => failure("read_blob", error),
    }
}

#[async_trait]
impl Reader for LocalReader {
    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()> {
        // What is in the cache was whole when it was opened; the answer begins on the strength of now.
        let opened = match self.opened(blob, size).filter(|open| open.file.is_intact()) {
            Some(opened) => opened,
            None => self.store.blocking("open", move |inner| open(inner, blob, size)).await?,
        };
        self.current = Some((blob, opened));
        Ok(())
    }

    async fn read(&mut self, extents: Vec<Extent>) -> Result<Bytes> {
        match &extents[..] {
            [Extent::Inline(bytes)] => return Ok(bytes.clone()),
            [Extent::Blob { blob, size, offset, len }] if *len > INLINE_BYTES_MAX => {
                return self.read_run(*blob, *size, *offset, *len).await;
            }
            [Extent::Blob { blob, size, offset, len }] => {
                let opened = self.opened(*blob, *size);
                if let Some(bytes) = opened.and_then(|opened| opened.kept(*offset, *len)) {
                    return Ok(bytes);
                }
            }
            _ => {}
        }
        let mut buffer = vec![0; buffer_len(extents.iter().map(Extent::len).sum())?];
        if self.read_open(&extents, &mut buffer) {
            let bytes = Bytes::from(buffer);
            self.keep_whole(&extents, &bytes);
            return Ok(bytes);
        }
        let gathered = move |inner: &Inner| {
            gather(inner, &extents, &mut buffer)?;
            Ok(Bytes::from(buffer))
        };
        self.store.blocking("read", gathered).await
    }
}

impl LocalReader {
    /// Keeps what was read if it is the whole of one small blob.
    fn keep_whole(&self, extents: &[Extent], bytes: &Bytes) {
        if let ([Extent::Blob { size, len, .. }], Some((_, opened))) = (extents, &self.current)
            && size == len
        {
            opened.keep(bytes);
        }
    }

    /// Fills the buffer if every blob is open and in memory; `false`, with the buffer in any state, otherwise.
    fn read_open(&mut self, extents: &[Extent], mut buffer: &mut [u8]) -> bool {
        for extent in extents {
            let Some((target, rest)) = split(buffer, extent) else { return false };
            match extent {
                Extent::Inline(bytes) => target.copy_from_slice(bytes),
                Extent::Blob { blob, size, offset, .. } => {
                    let Some(opened) = self.opened(*blob, *size) else { return false };
                    if !opened.file.read_cached(*offset, target) {
                        return false;
                    }
                    self.current = Some((*blob, opened));
                }
            }
            buffer = rest;
        }
        true
    }
}

fn split<'a>(buffer: &'a mut [u8], extent: &Extent) -> Option<(&'a mut [u8], &'a mut [u8])> {
    buffer.split_at_mut_checked(usize::try_from(extent.len()).ok()?)
}

/// Reads all extents into the buffer, which is as long as they are together, opening blobs as they come.
fn gather(inner: &Inner, extents: &[Extent], mut buffer: &mut [u8]) -> Result<()> {
    for extent in extents {
        let (target, rest) =
            split(buffer, extent).ok_or_else(|| Error::broken("extents outgrew their buffer"))?;
        match extent {
            Extent::Inline(bytes) => target.copy_from_slice(bytes),
            Extent::Blob { blob, size, offset, .. } => {
                let opened = match inner.open_blobs.get(blob).filter(|open| open.file.len() == *size) {
                    Some(opened) => opened,
                    None => open(inner, *blob, *size)?,
                };
                opened.file.read(*offset, target).map_err(|error| read_failure(*blob, error))?;
            }
        }
        buffer = rest;
    }
    Ok(())
}
