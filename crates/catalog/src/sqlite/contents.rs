//! Bytes of small blobs, which lie in a table of their own under a number that the blob's record names.
//!
//! *Numbers.* None is given twice while the catalog is open, not even when the content that had it is gone. What is remembered
//! of where a blob's content is therefore never leads to that of another.

use super::error::Done;
use bytes::Bytes;
use carrack_domain::file::Blob;
use carrack_domain::{BlobId, Error};
use quick_cache::sync::Cache;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Transaction};
use std::sync::atomic::{AtomicI64, Ordering};

/// Contents whose numbers are remembered: some 50 bytes each.
const PLACES_MAX: usize = 65_536;

/// Where contents are that were read before.
pub(super) struct Places(Cache<BlobId, i64>);

impl Places {
    pub(super) fn new() -> Places {
        Places(Cache::new(PLACES_MAX))
    }
}

/// Lets the connection that writes give numbers, beginning after the highest there is.
pub(super) fn give_numbers(connection: &Connection) -> rusqlite::Result<()> {
    let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM content", [], |row| row.get(0))?;
    let last = AtomicI64::new(last);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    let next = move |_: &rusqlite::functions::Context<'_>| Ok(last.fetch_add(1, Ordering::Relaxed) + 1);
    connection.create_scalar_function("next_content", 0, flags, next)
}

/// Keeps the bytes of a blob; the number under which they are kept.
pub(super) fn keep(connection: &Connection, new: &Blob, bytes: &Bytes) -> Done<i64> {
    if bytes.len() as u64 != new.size || new.pieces.is_some() {
        return Err(Error::broken(format!("{} bytes are not the content of {}", bytes.len(), new.id)).into());
    }
    connection
        .prepare_cached("INSERT INTO content (id, bytes) VALUES (next_content(), ?1)")?
        .execute([&bytes[..]])?;
    Ok(connection.last_insert_rowid())
}

/// The contents of these blobs, in one transaction, and past the statements' machine: archives of small files ask for many.
pub(super) fn read(connection: &Connection, places: &Places, ids: &[BlobId]) -> Done<Vec<Option<Bytes>>> {
    // Ends with it, having changed nothing.
    let transaction = connection.unchecked_transaction()?;
    let mut contents = Contents { transaction: &transaction, open: None };
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        // Nothing there means that the blob is gone; any other fault comes again below.
        let known = places.0.get(id).and_then(|place| contents.at(place).ok());
        all.push(match known {
            Some(bytes) => Some(bytes),
            None => contents.of(places, id)?,
        });
    }
    Ok(all)
}

/// Reads contents, one after another, through one handle.
struct Contents<'t> {
    transaction: &'t Transaction<'t>,
    open: Option<rusqlite::blob::Blob<'t>>,
}

impl Contents<'_> {
    fn of(&mut self, places: &Places, id: &BlobId) -> Done<Option<Bytes>> {
        let mut record = self.transaction.prepare_cached("SELECT content FROM blob WHERE id = ?1")?;
        let place = record.query_row([id.as_bytes()], |row| row.get::<_, Option<i64>>(0)).optional()?;
        let Some(place) = place.flatten() else { return Ok(None) };
        places.0.insert(*id, place);
        Ok(Some(self.at(place)?))
    }

    fn at(&mut self, place: i64) -> rusqlite::Result<Bytes> {
        // A handle that has failed is of no more use.
        let blob = match self.open.take() {
            Some(mut blob) => {
                blob.reopen(place)?;
                blob
            }
            None => self.transaction.blob_open(MAIN_DB, "content", "bytes", place, true)?,
        };
        let mut bytes = vec![0; blob.len()];
        blob.read_at_exact(&mut bytes, 0)?;
        self.open = Some(blob);
        Ok(bytes.into())
    }
}
