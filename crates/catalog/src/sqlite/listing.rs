//! Files in the byte order of their keys: pages for people, scans for archives.

use super::buckets;
use super::error::Done;
use super::rows::{self, successor};
use crate::common::listing::{first, folded};
use crate::{ListQuery, Listing, Member, Visit};
use carrack_domain::{BucketName, KeyPrefix, Timestamp};
use rusqlite::{Connection, Row, params};

struct Page<'q> {
    bucket: &'q BucketName,
    query: &'q ListQuery,
    listing: Listing,
    last: String,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.listing.files.len() + self.listing.prefixes.len() >= self.query.limit.max(1)
    }

    /// Takes a row; returns where to go on when that is not the next row.
    fn take(&mut self, row: &Row<'_>) -> Done<Option<Vec<u8>>> {
        let key = rows::key_text(row, 0)?;
        if let Some(common) = folded(key, self.query) {
            common.clone_into(&mut self.last);
            self.listing.prefixes.push(common.to_owned());
            return Ok(Some(successor(common.as_bytes())));
        }
        key.clone_into(&mut self.last);
        self.listing.files.push(rows::file(row, self.bucket)?);
        Ok(None)
    }
}

pub(super) fn list(connection: &mut Connection, bucket: &BucketName, query: &ListQuery) -> Done<Listing> {
    let transaction = connection.transaction()?;
    let id = buckets::account(&transaction, bucket)?.id;
    let sql = format!(
        "SELECT {} FROM file WHERE bucket_id = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
        rows::FILE
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut page = Page { bucket, query, listing: Listing::default(), last: String::new() };
    let end = successor(query.prefix.as_str().as_bytes());
    let mut from = Some(first(query));
    while let Some(begin) = from.take() {
        let mut found = statement.query(params![id, begin, end])?;
        while let Some(row) = found.next()? {
            if page.is_full() {
                page.listing.next = Some(std::mem::take(&mut page.last));
                return Ok(page.listing);
            }
            from = page.take(row)?;
            if from.is_some() {
                break;
            }
        }
    }
    Ok(page.listing)
}

pub(super) fn scan(
    connection: &mut Connection,
    bucket: &BucketName,
    prefix: &KeyPrefix,
    mut visit: Visit,
) -> Done<u64> {
    let transaction = connection.transaction()?;
    let generation = buckets::generation(&transaction, bucket)?;
    let id = buckets::account(&transaction, bucket)?.id;
    let mut statement = transaction.prepare_cached(
        "SELECT key, blob_id, size, crc32, blake3, sha256, created_at, pieces, whole_blake3 FROM file \
         WHERE bucket_id = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
    )?;
    let prefix = prefix.as_str().as_bytes();
    let mut found = statement.query(params![id, prefix, successor(prefix)])?;
    while let Some(row) = found.next()? {
        let created_at = Timestamp::from_millis(row.get(6)?);
        visit(Member { key: rows::key_text(row, 0)?, blob: rows::blob(row, 1, 7)?, created_at })?;
    }
    Ok(generation)
}
