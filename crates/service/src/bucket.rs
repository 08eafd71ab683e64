//! Buckets.

use crate::Core;
use carrack_catalog::Outcome;
use carrack_domain::access::{DEFAULT_BUCKET, ListBuckets, ManageBucket};
use carrack_domain::file::Bucket;
use carrack_domain::{BucketName, Code, Grant, Result};
use std::sync::Arc;

/// Namespaces of files, each with a quota.
pub struct Buckets {
    core: Arc<Core>,
}

impl Buckets {
    pub(crate) fn new(core: Arc<Core>) -> Buckets {
        Buckets { core }
    }

    /// Makes a bucket, or changes the quota of one.
    pub async fn put(
        &self,
        grant: &Grant<ManageBucket>,
        quota_bytes: Option<u64>,
    ) -> Result<(Bucket, Outcome)> {
        self.core.catalog.put_bucket(grant.resource(), quota_bytes, self.core.clock.now()).await
    }

    /// A bucket's facts; `bucket_not_found`.
    pub async fn get(&self, grant: &Grant<ManageBucket>) -> Result<Bucket> {
        self.core.catalog.bucket(grant.resource()).await
    }

    /// Every bucket there is, by name.
    pub async fn list(&self, _grant: &Grant<ListBuckets>) -> Result<Vec<Bucket>> {
        self.core.catalog.buckets().await
    }

    /// Deletes an empty bucket; `bucket_not_empty` otherwise.
    pub async fn delete(&self, grant: &Grant<ManageBucket>) -> Result<()> {
        self.core.catalog.delete_bucket(grant.resource()).await
    }

    /// Makes the bucket `default` at the first start. Called by the lifecycle, so there is no principal to ask.
    pub async fn ensure_default(&self) -> Result<()> {
        let name = BucketName::parse(DEFAULT_BUCKET)?;
        match self.core.catalog.bucket(&name).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Code::BucketNotFound => {
                self.core.catalog.put_bucket(&name, None, self.core.clock.now()).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}
