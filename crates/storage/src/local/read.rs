//! Reading extents of blobs.

use super::{Inner, LocalStore, failure, lost};
use crate::Reader;
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Error, Result};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Keeps the blob it read last open, since the next extent is mostly of the same.
pub(super) struct LocalReader {
    store: LocalStore,
    current: Option<(BlobId, Arc<File>)>,
}

impl LocalReader {
    pub(super) fn new(store: LocalStore) -> LocalReader {
        LocalReader { store, current: None }
    }
}

/// Opens a blob and makes sure it still has the bytes its record promises.
pub(super) fn open(inner: &Inner, blob: BlobId, size: u64) -> Result<File> {
    let file = match File::open(inner.blob_path(blob)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(lost(format!("blob {blob} is gone")));
        }
        Err(error) => return Err(failure("open blob", error)),
    };
    let found = file.metadata().map_err(|e| failure("stat blob", e))?.len();
    if found != size {
        return Err(lost(format!("blob {blob} has {found} bytes instead of {size}")));
    }
    Ok(file)
}

#[async_trait]
impl Reader for LocalReader {
    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()> {
        let file = self.store.blocking("open", move |inner| open(inner, blob, size)).await?;
        self.current = Some((blob, Arc::new(file)));
        Ok(())
    }

    async fn read(&mut self, extents: Vec<Extent>) -> Result<Bytes> {
        if let [Extent::Inline(bytes)] = &extents[..] {
            return Ok(bytes.clone());
        }
        let total: u64 = extents.iter().map(Extent::len).sum();
        let total = usize::try_from(total).map_err(|e| Error::internal("size a read", e))?;
        let mut buffer = vec![0; total];
        if let Some((current, file)) = &self.current
            && let [Extent::Blob { blob, offset, .. }] = &extents[..]
            && blob == current
            && read_cached(file, *offset, &mut buffer)
        {
            return Ok(buffer.into());
        }
        let current = self.current.take();
        let gathered = move |inner: &Inner| {
            let current = gather(inner, current, &extents, &mut buffer)?;
            Ok((current, Bytes::from(buffer)))
        };
        let (current, bytes) = self.store.blocking("read", gathered).await?;
        self.current = current;
        Ok(bytes)
    }
}

/// Fills the buffer from the page cache without waiting for the disk; `false` when not all of it was there.
fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> bool {
    let mut done = 0;
    while done < buffer.len() {
        let slice = &mut [IoSliceMut::new(&mut buffer[done..])];
        match rustix::io::preadv2(file, slice, offset + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => return false,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Reads all extents into the buffer, which is as long as they are together, opening blobs as they come.
fn gather(
    inner: &Inner,
    mut current: Option<(BlobId, Arc<File>)>,
    extents: &[Extent],
    mut buffer: &mut [u8],
) -> Result<Option<(BlobId, Arc<File>)>> {
    for extent in extents {
        let len = usize::try_from(extent.len()).map_err(|e| Error::internal("size a read", e))?;
        let (target, rest) =
            buffer.split_at_mut_checked(len).ok_or_else(|| Error::broken("extents outgrew their buffer"))?;
        match extent {
            Extent::Inline(bytes) => target.copy_from_slice(bytes),
            Extent::Blob { blob, size, offset, .. } => {
                let file = match current.take().filter(|(id, _)| id == blob) {
                    Some((_, file)) => file,
                    None => Arc::new(open(inner, *blob, *size)?),
                };
                file.read_exact_at(target, *offset).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        lost(format!("blob {blob} was cut short while it was read"))
                    }
                    _ => failure("read blob", error),
                })?;
                current = Some((*blob, file));
            }
        }
        buffer = rest;
    }
    Ok(current)
}
