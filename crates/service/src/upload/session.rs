//! An upload that outlives its request: how it begins.

use super::Uploads;
use super::claims::{Claims, Place, Received};
use super::parts::kind;
use crate::{Core, metrics};
use carrack_domain::access::WriteFile;
use carrack_domain::file::{Metadata, Precondition};
use carrack_domain::upload::{Echo, Shape, Target, Upload, UploadState};
use carrack_domain::{Grant, Result, UploadId};
use carrack_storage::StageKind;
use std::num::NonZeroU64;
use std::sync::Arc;

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
            precondition: Precondition::None,
            told: false,
            wants_sha256: false,
            direct: false,
            state: UploadState::Open,
            created_at: now,
            expires_at: now.after(self.core.limits.upload_ttl),
        }
    }
}

impl Core {
    /// Takes space and quota, and records the upload: the stage first, as bytes without a record are swept.
    pub(super) async fn open_session(&self, upload: &Upload) -> Result<()> {
        let kind = match upload.shape {
            Shape::Parts(plan) => {
                NonZeroU64::new(plan.part_size()).map_or(StageKind::Session, StageKind::Parts)
            }
            Shape::Append { .. } | Shape::Joined { .. } => StageKind::Session,
        };
        self.storage.create_stage(upload.id, upload.length(), kind).await?;
        if let Err(error) = self.catalog.create_upload(upload).await {
            self.storage.discard_stage(upload.id).await?;
            return Err(error);
        }
        self.writers.begin(upload.id);
        Ok(())
    }

    /// Gives an upload up: its bytes and its reservation go.
    pub(super) async fn discard_session(&self, claims: &Arc<Claims>, upload: &Upload) -> Result<()> {
        // What is being appended is in vain: whoever sends it is told at once.
        let _claim = match upload.shape {
            Shape::Append { .. } => Some(claims.take(Place::Tail(upload.id), Received::Discard).await?),
            Shape::Parts(_) | Shape::Joined { .. } => None,
        };
        self.catalog.delete_upload(&upload.id).await?;
        super::watch::hint(self, upload).await;
        self.storage.discard_stage(upload.id).await?;
        ::metrics::counter!(metrics::UPLOADS, "kind" => kind(upload), "result" => "deleted").increment(1);
        Ok(())
    }
}
