//! The files of a local folder, one after the other, without holding more than a folder's names per level.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// A file below a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its path below the folder, with `/`.
    pub(crate) relative: String,
}

/// The regular files below a folder, sorted. Symbolic links and special files are reported as errors and passed over.
pub(crate) struct Walk {
    levels: Vec<(String, IntoIter<DirEntry>)>,
    failed: Option<(PathBuf, io::Error)>,
}

impl Walk {
    pub(crate) fn new(folder: &Path) -> Walk {
        let mut walk = Walk { levels: Vec::new(), failed: None };
        walk.enter(folder, String::new());
        walk
    }

    fn enter(&mut self, folder: &Path, prefix: String) {
        match entries(folder) {
            Ok(entries) => self.levels.push((prefix, entries)),
            Err(error) => self.failed = Some((folder.to_owned(), error)),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Found, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(failed) = self.failed.take() {
                return Some(Err(failed));
            }
            let (prefix, entries) = self.levels.last_mut()?;
            let Some(entry) = entries.next() else {
                self.levels.pop();
                continue;
            };
            let path = entry.path();
            let refuse = |why: &str| Some(Err((entry.path(), io::Error::other(why.to_owned()))));
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return refuse("skipped: its name is not UTF-8") };
            let relative = format!("{prefix}{name}");
            match entry.file_type() {
                Err(error) => return Some(Err((path, error))),
                Ok(kind) if kind.is_dir() => self.enter(&path, format!("{relative}/")),
                Ok(kind) if kind.is_file() => return Some(Ok(Found { path, relative })),
                Ok(kind) if kind.is_symlink() => {
                    return refuse("skipped: a symbolic link; name it on the command line to follow it");
                }
                Ok(_) => return refuse("skipped: not a regular file"),
            }
        }
    }
}

fn entries(folder: &Path) -> io::Result<IntoIter<DirEntry>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<DirEntry>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_order_and_links_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        for file in ["z", "b/2", "b/c/1", "a"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/", folder.path().join("b/link")).unwrap();
        let (found, failed): (Vec<_>, Vec<_>) = Walk::new(folder.path()).partition(Result::is_ok);
        let names: Vec<String> = found.into_iter().map(|found| found.unwrap().relative).collect();
        assert_eq!(names, ["a", "b/2", "b/c/1", "z"]);
        assert_eq!(failed.len(), 1);
        assert_eq!(Walk::new(&folder.path().join("none")).filter(Result::is_err).count(), 1);
    }
}
