//! Files that a bucket keeps for so long only.
//!
//! A bucket is looked through when its oldest file is due, and not before: what comes in later is due later. A shorter
//! retention, or a start, has it looked through anew.

use crate::Core;
use carrack_catalog::Member;
use carrack_domain::access::FileRef;
use carrack_domain::error::Class;
use carrack_domain::{BlobId, BucketName, Code, Key, KeyPrefix, Result, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The most files of a bucket that one round deletes; the next one goes on.
const FILES_MAX: usize = 10_000;

/// When buckets are to be looked through: by bucket, the retention that went then, and the next time.
#[derive(Default)]
pub(crate) struct Retention {
    due: Mutex<HashMap<BucketName, (u64, Timestamp)>>,
}

/// What looking through a bucket found.
#[derive(Default)]
struct Found {
    expired: Vec<Key>,
    /// When the oldest of the others was made.
    oldest: Option<Timestamp>,
    /// There are more that have expired.
    more: bool,
}

impl Retention {
    /// Deletes what has been kept for long enough; the blobs that have lost their last file.
    pub(crate) async fn expire_files(&self, core: &Core) -> Result<Vec<BlobId>> {
        let mut orphans = Vec::new();
        for bucket in core.catalog.buckets().await? {
            let Some(seconds) = bucket.settings.retention_seconds else { continue };
            let now = core.clock.now();
            if !self.is_due(&bucket.name, seconds, now) {
                continue;
            }
            let kept = Duration::from_secs(seconds);
            let before = before(now, kept);
            let found = look_through(core, &bucket.name, before).await?;
            let expired = found.expired.len();
            for key in found.expired {
                let place = FileRef { bucket: bucket.name.clone(), key };
                match core.facts.expire_file(&place, before).await {
                    Ok(orphan) => orphans.extend(orphan),
                    // Replaced or deleted since: that is as it should be.
                    Err(error) if error.code() == Code::PreconditionFailed => {}
                    Err(error) if error.code().class() == Class::Absent => {}
                    Err(error) => return Err(error),
                }
            }
            if expired > 0 {
                tracing::info!(bucket = %bucket.name, files = expired, "deleted what was kept long enough");
            }
            let next = if found.more { now } else { found.oldest.unwrap_or(now).after(kept) };
            self.due().insert(bucket.name, (seconds, next));
        }
        Ok(orphans)
    }

    fn due(&self) -> std::sync::MutexGuard<'_, HashMap<BucketName, (u64, Timestamp)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, bucket: &BucketName, seconds: u64, now: Timestamp) -> bool {
        self.due().get(bucket).is_none_or(|(known, next)| *known != seconds || *next <= now)
    }
}

/// The moment `kept` before `now`.
fn before(now: Timestamp, kept: Duration) -> Timestamp {
    let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(kept))
}

async fn look_through(core: &Core, bucket: &BucketName, before: Timestamp) -> Result<Found> {
    let found = Arc::new(Mutex::new(Found::default()));
    let shared = found.clone();
    let visit = move |member: Member<'_>| {
        let mut found = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if member.created_at >= before {
            found.oldest =
                Some(found.oldest.map_or(member.created_at, |oldest| oldest.min(member.created_at)));
        } else if found.expired.len() < FILES_MAX {
            found.expired.push(Key::parse(member.key)?);
        } else {
            found.more = true;
        }
        Ok(())
    };
    match core.catalog.scan(bucket, &KeyPrefix::default(), Box::new(visit)).await {
        Ok(_) => {}
        // Deleted just now: nothing of it is left to be kept.
        Err(error) if error.code() == Code::BucketNotFound => {}
        Err(error) => return Err(error),
    }
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}
