//! A local file that is sent.

use crate::blocking::blocking;
use crate::body::BUFFER_BYTES;
use crate::error::{ClientError, Result};
use carrack_domain::digest::{Piece, PieceHasher};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What tells that a file is still the same: its size and when it was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// Nanoseconds since the epoch.
    pub(crate) modified: i128,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Stamp { size: metadata.len(), modified }
    }
}

/// An open file and what it was when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    file: Arc<File>,
    /// The absolute path.
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
}

impl Source {
    pub(crate) async fn open(path: &Path) -> Result<Source> {
        let path = path.to_owned();
        blocking(move || {
            let open = || {
                let file = File::open(&path)?;
                Ok((path.canonicalize()?, file.metadata()?, file))
            };
            let (full, metadata, file) = open().map_err(|error| ClientError::local(&path, error))?;
            if !metadata.is_file() {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
                return Err(ClientError::local(&path, error));
            }
            Ok(Source { file: Arc::new(file), path: full, stamp: Stamp::of(&metadata) })
        })
        .await
    }

    /// Fills `buffer` from `offset`; a file that has become too short has changed.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => ClientError::local(&self.path, error),
        })
    }

    /// `Changed` unless the file is what it was.
    pub(crate) async fn verify_unchanged(&self) -> Result<()> {
        let source = self.clone();
        blocking(move || {
            let metadata = source.file.metadata().map_err(|error| ClientError::local(&source.path, error))?;
            if Stamp::of(&metadata) == source.stamp { Ok(()) } else { Err(source.changed()) }
        })
        .await
    }

    /// The digests of a piece that need not be sent.
    pub(crate) async fn hash(&self, offset: u64, len: u64) -> Result<Piece> {
        let source = self.clone();
        blocking(move || hash_extent(offset, len, |buffer, at| source.read(buffer, at))).await
    }

    fn changed(&self) -> ClientError {
        ClientError::Changed { path: self.path.clone() }
    }
}

/// The digests of `len` bytes from `offset`, through one buffer.
pub(crate) fn hash_extent(
    offset: u64,
    len: u64,
    read: impl Fn(&mut [u8], u64) -> Result<()>,
) -> Result<Piece> {
    let mut hasher = PieceHasher::new(offset);
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let take = (end - at).min(BUFFER_BYTES as u64) as usize;
        read(&mut buffer[..take], at)?;
        hasher.update(&buffer[..take]);
        at += take as u64;
    }
    Ok(hasher.finish())
}
