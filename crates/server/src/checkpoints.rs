//! The file that checkpoints of the audit log are appended to.

use carrack_domain::audit::checkpoint::Checkpoint;
use carrack_service::audit::{Hold, Sink};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// The end of the file that is read for its last line: many times what a line has.
const TAIL_BYTES: u64 = 64 << 10;

/// See the module's documentation.
pub(crate) struct CheckpointFile {
    path: PathBuf,
}

impl CheckpointFile {
    /// Makes the file if it is not there. The error is a sentence for the operator.
    pub(crate) fn open(path: PathBuf) -> Result<CheckpointFile, String> {
        let file = CheckpointFile { path };
        file.file().map_err(|error| {
            let shown = file.path.display();
            format!(
                "cannot append to the audit log's checkpoints {shown}: {error}. Name another file in audit.checkpoints."
            )
        })?;
        Ok(file)
    }

    fn file(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)
    }

    fn tail(&self) -> io::Result<Vec<u8>> {
        let mut file = self.file()?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    }
}

impl Sink for CheckpointFile {
    fn hold(&self) -> io::Result<Option<Hold>> {
        let file = self.file()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn last(&self) -> io::Result<Option<Checkpoint>> {
        let tail = self.tail()?;
        let lines = tail.split(|byte| *byte == b'\n').rev();
        Ok(lines.filter_map(|line| std::str::from_utf8(line).ok()).find_map(Checkpoint::parse))
    }

    fn append(&self, line: &str) -> io::Result<()> {
        // What a crash left of a line stays a line of its own: nothing in the file is ever changed.
        let torn = self.tail()?.last().is_some_and(|byte| *byte != b'\n');
        let file = self.file()?;
        let text = format!("{}{line}\n", if torn { "\n" } else { "" });
        // Whoever writes to it holds it; the system appends, wherever its end is.
        file.write_all_at(text.as_bytes(), file.metadata()?.len())?;
        file.sync_all()?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::Timestamp;
    use carrack_domain::audit::chain::{ChainId, Head};
    use carrack_domain::audit::checkpoint::Last;

    #[test]
    fn a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let file = CheckpointFile::open(path.clone()).unwrap();
        assert_eq!(file.last().unwrap(), None);
        let head = Head::new(ChainId([1; 16]));
        let at = Timestamp::from_millis(0);
        let first = Checkpoint::after(&Last::default(), &head, false, at, "k".to_owned());
        file.append(&first.line()).unwrap();
        std::fs::write(&path, format!("{}\n{}", first.line(), &first.line()[..40])).unwrap();
        assert_eq!(file.last().unwrap().as_ref(), Some(&first));
        let second = Checkpoint::after(&first.last(), &head, false, at, "k".to_owned());
        file.append(&second.line()).unwrap();
        assert_eq!(file.last().unwrap(), Some(second));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
