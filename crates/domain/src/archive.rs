//! Archives that are asked for by a request of their own, and keep their promise until they expire.

use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::id::{ArchiveId, BlobId};
use crate::job::{JobFailure, JobState, Progress};

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
