//! Archives that are asked for by a request of their own, and keep their promise until they expire.

use crate::access::{FileRef, PrefixRef, Principal};
use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::id::{ArchiveId, BlobId};
use crate::job::{JobFailure, JobState, Progress};
use crate::key::{BucketName, Key, KeyPrefix};
use std::collections::BTreeSet;

/// How the entries of an archive are to lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As they are.
    Store,
    /// Deflated where that makes them smaller.
    Deflate,
    /// Deflated where a look at some of the content says that it is worth the work.
    Auto,
}

impl Compression {
    /// Every one there is.
    pub const ALL: [Compression; 3] = [Compression::Store, Compression::Deflate, Compression::Auto];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Compression::Store => "store",
            Compression::Deflate => "deflate",
            Compression::Auto => "auto",
        }
    }

    /// The one of this name; `invalid_request`.
    pub fn parse(text: &str) -> Result<Compression> {
        Compression::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
            Error::new(
                Code::InvalidRequest,
                format!("Compression '{}' is not known: use store, deflate or auto.", text.escape_default()),
            )
        })
    }
}

/// The most renamed entries that are listed with an archive; more are counted.
pub const RENAMED_MAX: usize = 1000;

/// An entry that did not get the name it would have had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The file's key.
    pub key: String,
    /// The entry's name.
    pub name: String,
}

/// The most places that are kept with an archive.
pub const ORIGINS_MAX: usize = 100;

/// Where files of an archive come from: who may not share them may not share the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(FileRef),
    /// Files below a prefix.
    Below(PrefixRef),
}

impl Origin {
    /// The bucket.
    pub fn bucket(&self) -> &BucketName {
        match self {
            Origin::File(file) => &file.bucket,
            Origin::Below(place) => &place.bucket,
        }
    }
}

/// The places that these files come from. Of more than [`ORIGINS_MAX`] files it is their folders, and of files in more
/// folders than that their buckets: never less than what is in the archive.
pub fn origins<'a>(files: impl Iterator<Item = &'a FileRef> + Clone) -> Vec<Origin> {
    let below = |(bucket, prefix): (&BucketName, &str)| {
        // A folder is shorter than the key it was taken from, which is sound.
        let prefix = KeyPrefix::parse(prefix).unwrap_or_default();
        Origin::Below(PrefixRef { bucket: bucket.clone(), prefix })
    };
    let folder = |file: &'a FileRef| {
        let key = file.key.as_str();
        (&file.bucket, &key[..key.rfind('/').map_or(0, |at| at + 1)])
    };
    if let Some(files) = few(files.clone().map(|file| (&file.bucket, &file.key))) {
        let named = |(bucket, key): (&BucketName, &Key)| FileRef { bucket: bucket.clone(), key: key.clone() };
        return files.into_iter().map(named).map(Origin::File).collect();
    }
    let folders = few(files.clone().map(folder));
    let buckets = || files.map(|file| (&file.bucket, "")).collect::<BTreeSet<_>>();
    folders.unwrap_or_else(buckets).into_iter().map(below).collect()
}

/// All of these, each once, unless they are many.
fn few<T: Ord>(all: impl Iterator<Item = T>) -> Option<BTreeSet<T>> {
    let mut some = BTreeSet::new();
    for one in all {
        some.insert(one);
        if some.len() > ORIGINS_MAX {
            return None;
        }
    }
    Some(some)
}

/// What an archive comes to, once every byte of it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Bytes of the ZIP.
    pub size: u64,
    /// Its strong tag, without quotes.
    pub etag: String,
    /// When the newest file in it was uploaded.
    pub modified: Timestamp,
}

/// An archive: a frozen selection, and the job that makes what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its unguessable name.
    pub id: ArchiveId,
    /// Who asked for it, and alone may know of it.
    pub owner: String,
    /// The name of the download.
    pub name: String,
    /// How its entries are to lie in it.
    pub compression: Compression,
    /// How many entries it has.
    pub entries: u64,
    /// Bytes of their content, uncompressed.
    pub bytes: u64,
    /// Entries that did not get the name they would have had, the first [`RENAMED_MAX`] of them.
    pub renamed: Vec<Renamed>,
    /// How many of those there are.
    pub renamed_total: u64,
    /// Where its files come from; nothing when that was not noted yet.
    pub origins: Vec<Origin>,
    /// The stored run of bytes that lists the entries, and its size: the plan, then the finished manifest.
    pub manifest: (BlobId, u64),
    /// What it comes to; `None` until it is completed.
    pub content: Option<Content>,
    /// Where its job stands.
    pub state: JobState,
    /// How much of that is done.
    pub progress: Progress,
    /// Why it failed.
    pub failure: Option<JobFailure>,
    /// When it was asked for: its selection is as it was then.
    pub created_at: Timestamp,
    /// When it goes.
    pub expires_at: Timestamp,
}

impl Archive {
    /// Whether somebody's credentials are good for every bucket that its files come from.
    pub fn is_within_reach(&self, who: &Principal) -> bool {
        let everywhere = who.identity().buckets.is_none();
        everywhere || (!self.origins.is_empty() && self.origins.iter().all(|one| who.reaches(one.bucket())))
    }

    /// The name that a download is saved under.
    pub fn file_name(&self) -> String {
        with_extension(&self.name)
    }
}

/// The name of a file that is a ZIP.
pub fn with_extension(name: &str) -> String {
    if name.to_ascii_lowercase().ends_with(".zip") { name.to_owned() } else { format!("{name}.zip") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bucket: u8, key: &str) -> FileRef {
        let bucket = BucketName::parse(&format!("bucket-{bucket}")).unwrap();
        FileRef { bucket, key: Key::parse(key).unwrap() }
    }

    #[test]
    fn origins_of_few_are_the_files_of_many_their_folders() {
        let few: Vec<FileRef> = (0..200).map(|n| file(0, &format!("a/{}", n % 100))).collect();
        assert_eq!(origins(few.iter()).len(), 100);
        let many: Vec<FileRef> = (0..500).map(|n| file(n as u8 % 2, &format!("{}/{n}", n % 3))).collect();
        assert!(
            matches!(&origins(many.iter())[..], [Origin::Below(first), ..] if first.prefix.as_str() == "0/")
        );
        let apart: Vec<FileRef> = (0..500).map(|n| file(n as u8 % 2, &format!("{n}/x"))).collect();
        assert!(
            matches!(&origins(apart.iter())[..], [Origin::Below(one), Origin::Below(_)] if one.prefix.as_str().is_empty())
        );
    }

    proptest! {
        #[test]
        fn every_file_is_within_its_origins(files in prop::collection::vec((0u8..3, "[ab/]{0,3}[a-z]{1,2}"), 0..400)) {
            let sound = |(bucket, key): (u8, String)| {
                Key::parse(&key).ok().map(|_| file(bucket, &key))
            };
            let files: Vec<FileRef> = files.into_iter().filter_map(sound).collect();
            let origins = origins(files.iter());
            prop_assert!(origins.len() <= ORIGINS_MAX);
            for file in &files {
                let within = origins.iter().any(|origin| match origin {
                    Origin::File(one) => one == file,
                    Origin::Below(place) => {
                        place.bucket == file.bucket && file.key.as_str().starts_with(place.prefix.as_str())
                    }
                });
                prop_assert!(within);
            }
        }
    }
}
