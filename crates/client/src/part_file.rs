//! The file that a download grows in, with a journal of the pieces that are in it.

use crate::blocking::blocking;
use crate::error::{ClientError, Result};
use crate::journal::{self, DownloadRecord};
use crate::source::hash_extent;
use carrack_domain::digest::Piece;
use carrack_domain::upload::PartPlan;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A download under way. Locked, so that two runs never write one file.
pub(crate) struct PartFile {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) plan: PartPlan,
    journal: PathBuf,
    destination: PathBuf,
    record: DownloadRecord,
    /// Whether piece `n + 1` is in the file.
    done: Vec<bool>,
}

impl PartFile {
    /// Opens or makes the part file of `destination`. Pieces of an earlier run count if they are of the same content.
    pub(crate) fn open(destination: &Path, record: DownloadRecord, plan: PartPlan) -> Result<PartFile> {
        let (path, file) = open_locked(destination)?;
        let journal = suffixed(&path, ".json");
        let error = |error| ClientError::local(&path, error);
        let len = file.metadata().map_err(error)?.len();
        let done = journal::load::<DownloadRecord>(&journal)
            .filter(|saved| len == plan.size() && is_same(saved, &record))
            .and_then(|saved| journal::flags(&saved.done, plan.count()));
        let fresh = done.is_none();
        let part = PartFile {
            file: Arc::new(file),
            path: path.clone(),
            plan,
            journal,
            destination: destination.to_owned(),
            record,
            done: done.unwrap_or_else(|| vec![false; plan.count() as usize]),
        };
        if fresh {
            // First the journal: pieces of another content must not be believed in should this be cut here.
            save(&part.journal, &part.record)?;
            part.file.set_len(0).and_then(|()| part.file.set_len(plan.size())).map_err(error)?;
        }
        Ok(part)
    }

    pub(crate) fn has(&self, piece: u64) -> bool {
        self.done.get(piece as usize - 1).copied().unwrap_or(false)
    }

    /// Notes that a piece is in the file.
    pub(crate) async fn mark(&mut self, piece: u64) -> Result<()> {
        if let Some(done) = self.done.get_mut(piece as usize - 1) {
            *done = true;
        }
        self.record.done = journal::ranges(&self.done);
        let (journal, record) = (self.journal.clone(), self.record.clone());
        blocking(move || save(&journal, &record)).await
    }

    /// Gives the complete, verified file its name.
    pub(crate) async fn publish(self) -> Result<()> {
        blocking(move || publish(&self.path, &self.journal, &self.destination)).await
    }

    /// Removes what was downloaded.
    pub(crate) async fn discard(self) -> Result<()> {
        blocking(move || {
            journal::remove(&self.journal);
            fs::remove_file(&self.path).map_err(|error| ClientError::local(&self.path, error))
        })
        .await
    }
}

fn save(journal: &Path, record: &DownloadRecord) -> Result<()> {
    journal::save(journal, record).map_err(|error| ClientError::local(journal, error))
}

/// Gives a complete part file its name; its journal has nothing to say any more.
pub(crate) fn publish(path: &Path, journal: &Path, destination: &Path) -> Result<()> {
    fs::rename(path, destination).map_err(|error| ClientError::local(destination, error))?;
    journal::remove(journal);
    Ok(())
}

/// The part file of `destination`, locked for this process.
pub(crate) fn open_locked(destination: &Path) -> Result<(PathBuf, File)> {
    let path = part_path(destination);
    let refuse = |kind, why: &str| ClientError::local(&path, io::Error::new(kind, why));
    if path.is_symlink() {
        return Err(refuse(io::ErrorKind::InvalidInput, "is a symbolic link: remove it"));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| ClientError::local(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok((path, file)),
        Err(TryLockError::WouldBlock) => {
            Err(refuse(io::ErrorKind::WouldBlock, "another process is downloading it"))
        }
        Err(TryLockError::Error(error)) => Err(ClientError::local(&path, error)),
    }
}

/// The digests of a piece that an earlier run fetched.
pub(crate) fn rehash(file: &File, path: &Path, offset: u64, len: u64) -> Result<Piece> {
    hash_extent(offset, len, |buffer, at| {
        file.read_exact_at(buffer, at).map_err(|error| ClientError::local(path, error))
    })
}

/// Where the download of `destination` grows until it is complete.
pub fn part_path(destination: &Path) -> PathBuf {
    suffixed(destination, ".carrack-part")
}

pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_same(saved: &DownloadRecord, wanted: &DownloadRecord) -> bool {
    let DownloadRecord { url, etag, size, piece_size, done: _ } = saved;
    *url == wanted.url && *etag == wanted.etag && *size == wanted.size && *piece_size == wanted.piece_size
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    fn open(destination: &Path, etag: &str, size: u64) -> Result<PartFile> {
        let plan = PartPlan::new(size, None, NonZeroU64::new(10).unwrap()).unwrap();
        let record = DownloadRecord {
            url: "http://x/v1/files/b/k".into(),
            etag: etag.into(),
            size,
            piece_size: plan.part_size(),
            done: String::new(),
        };
        PartFile::open(destination, record, plan)
    }

    #[tokio::test]
    async fn pieces_are_kept_for_the_same_content_only() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("a.bin");
        let mut part = open(&destination, "\"1\"", 35).unwrap();
        part.mark(2).await.unwrap();
        part.mark(4).await.unwrap();
        assert!(open(&destination, "\"1\"", 35).is_err(), "locked");
        drop(part);
        let part = open(&destination, "\"1\"", 35).unwrap();
        assert_eq!([1, 2, 3, 4].map(|n| part.has(n)), [false, true, false, true]);
        drop(part);
        let part = open(&destination, "\"2\"", 35).unwrap();
        assert!((1..=4).all(|n| !part.has(n)));
        part.publish().await.unwrap();
        assert_eq!(fs::metadata(&destination).unwrap().len(), 35);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_cut_or_torn_part_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("a.bin");
        let mut part = open(&destination, "\"1\"", 35).unwrap();
        part.mark(1).await.unwrap();
        part.file.set_len(12).unwrap();
        drop(part);
        let mut part = open(&destination, "\"1\"", 35).unwrap();
        assert!(!part.has(1));
        part.mark(1).await.unwrap();
        fs::write(&part.journal, "{").unwrap();
        drop(part);
        let part = open(&destination, "\"1\"", 35).unwrap();
        assert!(!part.has(1));
        part.discard().await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
