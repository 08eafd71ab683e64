//! What a transfer remembers for the next run, in small JSON files. A journal that is lost or torn costs a fresh
//! start and nothing else, so it is replaced atomically but not forced to the disk.

use crate::remote::FileName;
use crate::source::Source;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The journal at `path`; `None` when there is none that can be read.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces the journal at `path`. Others cannot read it: an upload's id is a secret of its owner.
pub(crate) fn save<T: Serialize>(path: &Path, journal: &T) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(journal)?)?;
    drop(file);
    fs::rename(&beside, path)
}

/// Removes the journal at `path`, if there is one.
pub(crate) fn remove(path: &Path) {
    fs::remove_file(path).ok();
}

/// An open upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) server: String,
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Nanoseconds since the epoch, as text: JSON's numbers are too short.
    pub(crate) modified: String,
    pub(crate) upload_id: String,
}

/// Where the upload of one file, as it is now, to one target is remembered.
#[derive(Debug, Clone)]
pub(crate) struct UploadJournal {
    file: PathBuf,
    record: UploadRecord,
}

impl UploadJournal {
    /// The journal's place below `state_dir`; it may not exist.
    pub(crate) fn new(state_dir: &Path, server: &str, target: &FileName, source: &Source) -> UploadJournal {
        let record = UploadRecord {
            server: server.to_owned(),
            target: target.to_string(),
            path: source.path.clone(),
            size: source.stamp.size,
            modified: source.stamp.modified.to_string(),
            upload_id: String::new(),
        };
        UploadJournal {
            file: state_dir.join("uploads").join(format!("{}.json", record.fingerprint())),
            record,
        }
    }

    /// The upload that an earlier run began.
    pub(crate) fn upload_id(&self) -> Option<String> {
        let saved: UploadRecord = load(&self.file)?;
        let same = UploadRecord { upload_id: String::new(), ..saved.clone() } == self.record;
        let plain = !saved.upload_id.is_empty()
            && saved.upload_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (same && plain).then_some(saved.upload_id)
    }

    /// Remembers an upload. Where that is not possible the upload goes on, but the next run begins anew.
    pub(crate) fn remember(&self, upload_id: &str) {
        let Some(folder) = self.file.parent() else { return };
        let record = UploadRecord { upload_id: upload_id.to_owned(), ..self.record.clone() };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| save(&self.file, &record))
            .ok();
    }

    pub(crate) fn forget(&self) {
        remove(&self.file);
    }
}

impl UploadRecord {
    /// Names the journal; each field with its length, so that no two records spell the same.
    fn fingerprint(&self) -> String {
        let path = self.path.as_os_str().as_encoded_bytes();
        let size = self.size.to_string();
        let mut hasher = blake3::Hasher::new();
        for field in
            [self.server.as_bytes(), self.target.as_bytes(), path, size.as_bytes(), self.modified.as_bytes()]
        {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// A download that is under way, beside its part file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DownloadRecord {
    /// What is downloaded: the server's address and the resource's path.
    pub(crate) url: String,
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) piece_size: u64,
    /// The pieces in the part file, counted from 1: `1-4,7`.
    pub(crate) done: String,
}

/// Reads `1-4,7` into one flag for each number of `1..=count`; `None` when it says anything else.
pub(crate) fn flags(ranges: &str, count: u64) -> Option<Vec<bool>> {
    let mut flags = vec![false; usize::try_from(count).ok()?];
    for run in ranges.split(',').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        flags.get_mut(first.checked_sub(1)?..last)?.fill(true);
    }
    Some(flags)
}

/// Writes flags as `1-4,7`.
pub(crate) fn ranges(flags: &[bool]) -> String {
    carrack_domain::upload::ranges((1..).zip(flags).filter(|(_, set)| **set).map(|(number, _)| number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_there_and_back() {
        for text in ["", "1", "1-4,7", "2-3,5,8"] {
            assert_eq!(ranges(&flags(text, 8).unwrap()), text);
        }
        for bad in ["0", "9", "0-3", "3-2,x", "5-1", "-", "1-", "1;2", "-1", "99999999999999999999"] {
            assert_eq!(flags(bad, 8), None, "{bad}");
        }
        assert_eq!(flags("", 0), Some(vec![]));
    }

    #[tokio::test]
    async fn an_upload_is_remembered_for_the_same_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "abc").unwrap();
        let source = Source::open(&path).await.unwrap();
        let target = FileName::parse("default/a").unwrap();
        let state = folder.path().join("state");
        let journal = UploadJournal::new(&state, "http://x", &target, &source);
        assert_eq!(journal.upload_id(), None);
        journal.remember("0a1b");
        assert_eq!(journal.upload_id().as_deref(), Some("0a1b"));

        let elsewhere = UploadJournal::new(&state, "http://y", &target, &source);
        assert_eq!(elsewhere.upload_id(), None);
        let other = UploadJournal::new(&state, "http://x", &FileName::parse("default/b").unwrap(), &source);
        assert_eq!(other.upload_id(), None);
        fs::write(&path, "abcd").unwrap();
        let changed = UploadJournal::new(&state, "http://x", &target, &Source::open(&path).await.unwrap());
        assert_eq!(changed.upload_id(), None);

        fs::write(&journal.file, b"{\"torn").unwrap();
        assert_eq!(journal.upload_id(), None);
        journal.remember("../../admin");
        assert_eq!(journal.upload_id(), None, "an id is never a path");
        journal.forget();
        assert!(!journal.file.exists());
    }
}
