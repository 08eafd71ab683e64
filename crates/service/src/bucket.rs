//! Buckets.

use crate::Core;
use crate::access::Access;
use crate::coherence::News;
use carrack_catalog::Outcome;
use carrack_domain::access::{DEFAULT_BUCKET, ListBuckets, ManageBucket};
use carrack_domain::file::{Bucket, BucketSettings};
use carrack_domain::{BucketName, Code, Grant, Result};
use std::sync::Arc;

/// Namespaces of files, each with a quota.
pub struct Buckets {
    core: Arc<Core>,
    access: Arc<Access>,
}

impl Buckets {
    pub(crate) fn new(core: Arc<Core>, access: Arc<Access>) -> Buckets {
        Buckets { core, access }
    }

    /// Makes a bucket, or sets all of this for one that is there. A policy holds from before this returns.
    pub async fn put(
        &self,
        grant: &Grant<ManageBucket>,
        settings: BucketSettings,
    ) -> Result<(Bucket, Outcome)> {
        let (core, access, name) = (self.core.clone(), self.access.clone(), grant.resource().clone());
        // To the end although the client goes away: the catalog would have the policy, and nobody would hold to it.
        let work = async move {
            let put = core.catalog.put_bucket(&name, &settings, core.clock.now()).await?;
            access.read_policies().await?;
            core.coherence.tell(News::Policies).await;
            Ok(put)
        };
        self.core.to_the_end(work).await
    }

    /// A bucket's facts; `bucket_not_found`.
    pub async fn get(&self, grant: &Grant<ManageBucket>) -> Result<Bucket> {
        self.core.catalog.bucket(grant.resource()).await
    }

    /// The buckets that the caller may know of, by name.
    pub async fn list(&self, grant: &Grant<ListBuckets>) -> Result<Vec<Bucket>> {
        let mut buckets = self.core.catalog.buckets().await?;
        buckets.retain(|bucket| grant.principal().knows(&bucket.name));
        Ok(buckets)
    }

    /// Deletes an empty bucket; `bucket_not_empty` otherwise.
    pub async fn delete(&self, grant: &Grant<ManageBucket>) -> Result<()> {
        let (core, access, name) = (self.core.clone(), self.access.clone(), grant.resource().clone());
        let work = async move {
            core.catalog.delete_bucket(&name).await?;
            access.read_policies().await?;
            core.coherence.tell(News::Policies).await;
            Ok(())
        };
        self.core.to_the_end(work).await
    }

    /// Makes the bucket `default` at the first start. Called by the lifecycle, so there is no principal to ask.
    pub async fn ensure_default(&self) -> Result<()> {
        let name = BucketName::parse(DEFAULT_BUCKET)?;
        match self.core.catalog.bucket(&name).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Code::BucketNotFound => {
                let settings = BucketSettings::default();
                self.core.catalog.put_bucket(&name, &settings, self.core.clock.now()).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}
