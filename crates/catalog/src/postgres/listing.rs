//! Files in the byte order of their keys: pages for people, scans for archives.

use super::buckets;
use super::error::{Done, Failed};
use super::rows;
use super::session::{Session, params};
use crate::common::listing::{first, folded};
use crate::common::values::successor;
use crate::{ListQuery, Listing, Member, Visit};
use carrack_domain::{BucketName, Error, KeyPrefix};
use tokio_postgres::Row;

/// Rows fetched in one go: at first, and at most, when keys do not fold.
const STEP_LEAST: i64 = 32;
const STEP_MOST: i64 = 1024;
/// Rows of a scan that are in memory at once.
const SCAN_STEP: i64 = 2048;

pub(super) async fn list(session: &Session, bucket: &BucketName, query: &ListQuery) -> Done<Listing> {
    session.begin_reading().await?;
    let id = buckets::account(session, bucket).await;
    let listing = match id {
        Ok(account) => page(session, account.id, bucket, query).await,
        Err(failed) => Err(failed),
    };
    session.end_reading().await?;
    listing
}

/// Whatever folds into one prefix is passed over by its key, so that the cost is that of what is shown.
async fn page(session: &Session, id: i64, bucket: &BucketName, query: &ListQuery) -> Done<Listing> {
    let sql = format!(
        "SELECT {} FROM file WHERE bucket_id = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4",
        rows::FILE
    );
    let limit = query.limit.max(1);
    let end = successor(query.prefix.as_str().as_bytes());
    let (mut from, mut step) = (first(query), STEP_LEAST);
    let (mut listing, mut last) = (Listing::default(), String::new());
    loop {
        let found = session.rows(&sql, params![id, from, end, step]).await?;
        let mut passed_over = false;
        for row in &found {
            let key = rows::key_text(row, 0)?;
            if key.as_bytes() < from.as_slice() {
                passed_over = true;
                continue;
            }
            if listing.files.len() + listing.prefixes.len() >= limit {
                listing.next = Some(last);
                return Ok(listing);
            }
            if let Some(common) = folded(key, query) {
                common.clone_into(&mut last);
                listing.prefixes.push(common.to_owned());
                from = successor(common.as_bytes());
            } else {
                key.clone_into(&mut last);
                listing.files.push(rows::file(row, bucket)?);
                from = [key.as_bytes(), &[0]].concat();
            }
        }
        if (found.len() as i64) < step {
            return Ok(listing);
        }
        step = if passed_over { STEP_LEAST } else { (step * 4).min(STEP_MOST) };
    }
}

pub(super) async fn scan(
    session: &Session,
    bucket: &BucketName,
    prefix: &KeyPrefix,
    visit: Visit,
) -> Done<u64> {
    session.begin_reading().await?;
    let scanned = scan_all(session, bucket, prefix, visit).await;
    session.end_reading().await?;
    scanned
}

async fn scan_all(session: &Session, bucket: &BucketName, prefix: &KeyPrefix, mut visit: Visit) -> Done<u64> {
    let generation = buckets::generation(session, bucket).await?;
    let id = buckets::account(session, bucket).await?.id;
    let sql = "SELECT key, blob_id, size, crc32, blake3, sha256, created_at, pieces, whole_blake3 FROM file \
         WHERE bucket_id = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4";
    let end = successor(prefix.as_str().as_bytes());
    let mut from = prefix.as_str().as_bytes().to_vec();
    loop {
        let found = session.rows(sql, params![id, from, end, SCAN_STEP]).await?;
        if let Some(last) = found.last() {
            from = [rows::key_text(last, 0)?.as_bytes(), &[0]].concat();
        }
        let was_last = (found.len() as i64) < SCAN_STEP;
        let shown = tokio::task::spawn_blocking(move || show(&found, &mut visit).map(|()| visit)).await;
        visit = shown.map_err(|error| Failed::Rule(Error::internal("scan", error)))??;
        if was_last {
            return Ok(generation);
        }
    }
}

fn show(found: &[Row], visit: &mut Visit) -> Done<()> {
    for row in found {
        let created_at = rows::time(row, 6)?;
        visit(Member { key: rows::key_text(row, 0)?, blob: rows::blob(row, 1, 7)?, created_at })?;
    }
    Ok(())
}
