//! Moving all facts from one catalog to another, whatever keeps them: rows of [`TABLES`], as plain values.
//!
//! *Whole.* What a table or column is that is not copied stands in [`NOT_COPIED`], with the reason. A test holds both against the
//! schema, so that a migration cannot add a fact that a copy would lose.
//! *In order.* The tables come so that a row's parents come before it ([`Table::parents`]).
//! *Marked.* A catalog that is being filled says so ([`CopyCatalog::copy_state`]), and is not to be served until
//! [`CopyCatalog::finish_copy`].

mod tables;

use crate::Catalog;
use async_trait::async_trait;
use carrack_domain::{Result, Timestamp};
pub use tables::{Column, Kind, NOT_COPIED, OPEN_UPLOADS, Runs, TABLES, Table};

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number, or a flag: 0 or 1.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// The number, if it is one that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Null | Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    /// The bytes, if they are any.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Null | Value::Int(_) | Value::Text(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Null | Value::Int(_) | Value::Bytes(_) => None,
        }
    }

    /// Bytes that it takes, about.
    pub fn size(&self) -> usize {
        match self {
            Value::Null | Value::Int(_) => 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The values of a row, in the order of [`Table::columns`].
pub type Row = Vec<Value>;

/// Some rows of a table, by its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    /// Those after this key.
    pub after: Option<Vec<Value>>,
    /// None after this key.
    pub through: Option<Vec<Value>>,
}

/// What names a catalog, and numbers that must never be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What its audit log is called.
    pub log: [u8; 16],
    /// What the ids of its events begin with.
    pub events: [u8; 8],
    /// At least the generation of every bucket that was deleted.
    pub generation_floor: i64,
    /// The number of the last event.
    pub event_seq: i64,
}

/// Whether a catalog is the target of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It is not.
    None,
    /// One was begun then, and is not done.
    Begun(Timestamp),
    /// It was, until then.
    Done(Timestamp),
}

/// How much there is to be copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Buckets.
    pub buckets: u64,
    /// Files.
    pub files: u64,
    /// Contents, of files and of archives.
    pub blobs: u64,
    /// Bytes of contents, packs and manifests.
    pub bytes: u64,
    /// Access tokens and sessions.
    pub tokens: u64,
    /// Links.
    pub links: u64,
    /// Archives.
    pub archives: u64,
    /// Blocks of the audit log.
    pub audit_blocks: u64,
    /// Uploads that are not complete: they are not copied.
    pub open_uploads: u64,
}

/// A catalog that can be copied, and be the copy of another.
#[async_trait]
pub trait CopyCatalog: Catalog {
    /// What names it.
    async fn identity(&self) -> Result<Identity>;

    /// Whether it is the target of a copy.
    async fn copy_state(&self) -> Result<CopyState>;

    /// Whether there is no row in any of [`TABLES`].
    async fn is_empty(&self) -> Result<bool>;

    /// Other servers that have it open, as far as it can tell: the sessions that are called as theirs are.
    async fn others(&self) -> Result<u64>;

    /// How much there is.
    async fn totals(&self) -> Result<Totals>;

    /// Marks the catalog as the unfinished copy of that of this name, and takes the name over. Whoever calls has seen that it
    /// is empty, or is that copy already: then when that was begun stays.
    async fn begin_copy(&self, of: &Identity, now: Timestamp) -> Result<()>;

    /// Rows of a table, by their keys, at most `limit`.
    async fn copy_rows(&self, table: &'static Table, range: Range, limit: usize) -> Result<Vec<Row>>;

    /// Puts these rows in, each instead of the one with its key. Contents that are there already stay, as they never change.
    async fn put_rows(&self, table: &'static Table, rows: Vec<Row>) -> Result<()>;

    /// Deletes the rows with these keys, and those that cannot be without them.
    async fn drop_rows(&self, table: &'static Table, keys: Vec<Row>) -> Result<()>;

    /// Takes the mark away: the copy is whole. What is made here from now on has numbers beyond those of `of`.
    async fn finish_copy(&self, of: &Identity, now: Timestamp) -> Result<()>;
}

/// Rows of `meta` that say what [`CopyState`] is.
pub(crate) const BEGUN: &str = "copy_begun";
pub(crate) const DONE: &str = "copy_done";

pub(crate) fn state(begun: Option<i64>, done: Option<i64>) -> CopyState {
    match (begun, done) {
        (_, Some(done)) => CopyState::Done(Timestamp::from_millis(done)),
        (Some(begun), None) => CopyState::Begun(Timestamp::from_millis(begun)),
        (None, None) => CopyState::None,
    }
}
