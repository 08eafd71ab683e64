//! Uploads as they grow: a hint that there is news, to whoever watches. What the news is, the catalog knows.

use super::{UploadStatus, Uploads};
use crate::Core;
use bytes::Bytes;
use carrack_domain::access::UseUploads;
use carrack_domain::upload::Upload;
use carrack_domain::{Grant, Result, UploadId};
use carrack_state::Watch;

/// Hints that an upload has news.
pub(super) async fn hint(core: &Core, upload: &Upload) {
    for topic in [of_upload(upload.id), of_owner(&upload.owner)] {
        if let Err(error) = core.state.publish(&topic, Bytes::new()).await {
            tracing::warn!(%topic, error = error.chain(), "those who watch an upload were not told");
        }
    }
}

fn of_upload(id: UploadId) -> String {
    format!("upload:{id}")
}

fn of_owner(owner: &str) -> String {
    format!("uploads-of:{owner}")
}

impl Uploads {
    /// Watches an upload of the caller's own: a hint comes whenever it has news; [`Uploads::status`] says which.
    pub async fn watch(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
    ) -> Result<(UploadStatus, Box<dyn Watch>)> {
        // In this order, so that nothing falls between the two.
        let watch = self.core.state.watch(&of_upload(id)).await?;
        Ok((self.status(grant, id).await?, watch))
    }

    /// Watches all uploads of the caller: a hint comes whenever one of them has news.
    pub async fn watch_all(&self, grant: &Grant<UseUploads>) -> Result<Box<dyn Watch>> {
        self.core.state.watch(&of_owner(grant.principal().subject())).await
    }
}
