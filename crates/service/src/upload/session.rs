//! An upload that outlives its request: how it begins.

use super::Uploads;
use crate::Core;
use carrack_domain::access::WriteFile;
use carrack_domain::file::Metadata;
use carrack_domain::upload::{Echo, Shape, Target, Upload, UploadState};
use carrack_domain::{Grant, Result, UploadId};
use carrack_storage::StageKind;

impl Uploads {
    /// A name for an upload about to be made.
    pub fn name(&self) -> UploadId {
        UploadId::generate(&*self.core.entropy)
    }

    /// An upload as it is at its beginning.
    pub(super) fn begin(
        &self,
        grant: &Grant<WriteFile>,
        id: UploadId,
        shape: Shape,
        content_type: String,
        metadata: Metadata,
    ) -> Upload {
        let now = self.core.clock.now();
        let place = grant.resource().clone();
        Upload {
            id,
            owner: grant.principal().subject().to_owned(),
            target: Target { bucket: place.bucket, key: place.key, content_type, metadata },
            shape,
            echo: Echo::default(),
            expected: Vec::new(),
            only_create: false,
            state: UploadState::Open,
            created_at: now,
            expires_at: now.after(self.core.limits.upload_ttl),
        }
    }
}

impl Core {
    /// Takes space and quota, and records the upload: the stage first, as bytes without a record are swept.
    pub(super) async fn open_session(&self, upload: &Upload) -> Result<()> {
        self.storage.create_stage(upload.id, upload.length(), StageKind::Session).await?;
        if let Err(error) = self.catalog.create_upload(upload).await {
            self.storage.discard_stage(upload.id).await?;
            return Err(error);
        }
        Ok(())
    }
}
