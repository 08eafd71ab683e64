//! Partial uploads, joined into one file without copying a byte: each stage is published as a piece of the blob.
//!
//! *Order* (invariant 2). The catalog moves the joined upload and its partial ones to `Finishing` in one transaction,
//! then the bytes get their names, then one transaction makes the file and ends the partial uploads. What a crash
//! interrupts is rolled forward from the joined upload, as publishing again is fine.

use super::append::{NewAppend, Progress};
use super::{Uploads, finish};
use crate::Core;
use carrack_catalog::Partial;
use carrack_domain::access::WriteFile;
use carrack_domain::digest::{ContentDigest, join_crc32};
use carrack_domain::file::{Blob, Pieces, Precondition};
use carrack_domain::upload::{PARTIALS_MAX, Shape, Upload, UploadState};
use carrack_domain::{BlobId, Code, Error, Grant, Result, UploadId};
use carrack_storage::Whole;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;

/// Stages that are published at the same time: each waits for the disk.
const PUBLISHING_MAX: usize = 8;

impl Uploads {
    /// Begins an upload that joins `partials`, in this order; each may come several times. It is complete as soon as
    /// all of them are, which may be now. The same wish again is answered with the same upload.
    ///
    /// `invalid_concatenation` for a list that is empty, too long, or names what cannot be joined; `too_large`,
    /// `quota_exceeded`.
    pub async fn create_joined(
        &self,
        grant: &Grant<WriteFile>,
        id: UploadId,
        new: NewAppend,
        partials: Vec<UploadId>,
    ) -> Result<Progress> {
        if partials.is_empty() || partials.len() > PARTIALS_MAX {
            let detail = format!("{} uploads are named: name 1 to {PARTIALS_MAX}.", partials.len());
            return Err(Error::new(Code::InvalidConcatenation, detail));
        }
        self.core.admit(grant.principal().subject(), grant.resource(), None, &Precondition::None).await?;
        let upload = self.begin_in_order(grant, id, Shape::Joined { length: None }, new);
        let (core, maintenance, claims) = (self.core.clone(), self.maintenance.clone(), self.claims.clone());
        let work = async move {
            let id = core.catalog.create_joined(&upload, &partials).await?;
            let upload = core.catalog.upload(&id).await?;
            if let Err(error) = finish::when_whole(&core, &maintenance, &claims, &upload, Vec::new()).await {
                // Refused before anything was done: the partial uploads are free for another wish.
                if matches!(error.code(), Code::TooLarge | Code::QuotaExceeded) {
                    core.catalog.delete_upload(&id).await?;
                }
                return Err(error);
            }
            let upload = core.catalog.upload(&id).await?;
            let offset = upload.length();
            Ok(Progress { upload, offset })
        };
        self.core.to_the_end(work).await
    }
}

/// Names for the pieces of a joined upload, one for each partial upload; `None` while not all of them are whole.
pub(super) async fn pieces(core: &Core, joined: UploadId) -> Result<Option<Vec<(UploadId, BlobId)>>> {
    let partials = core.catalog.partials(&joined).await?;
    if !partials.iter().all(Partial::is_whole) {
        return Ok(None);
    }
    let size: u64 =
        partials.iter().filter_map(|partial| partial.upload.length()).fold(0, u64::saturating_add);
    if size > core.limits.file_size_max {
        return Err(super::receive::too_large(core.limits.file_size_max));
    }
    let names: HashMap<UploadId, BlobId> =
        partials.iter().map(|partial| (partial.upload.id, partial.upload.id.blob())).collect();
    Ok(Some(names.into_iter().collect()))
}

/// Gives the bytes of each partial upload their name as a piece; the blob they make.
pub(super) async fn publish(core: &Arc<Core>, joined: &Upload, id: BlobId) -> Result<Blob> {
    let partials = core.catalog.partials(&joined.id).await?;
    let mut stages = HashMap::new();
    let mut runs = Vec::with_capacity(partials.len());
    let mut contents = Vec::with_capacity(partials.len());
    let (mut crc32, mut size) = (0, 0u64);
    for partial in &partials {
        let UploadState::Finishing(piece) = partial.upload.state else {
            return Err(Error::broken(format!("{} is joined and not finishing", partial.upload.id)));
        };
        let stored = partial.stored.as_ref();
        let len = stored.map_or(0, |extent| extent.piece.len());
        let whole = Whole {
            size: len,
            crc32: stored.map(|extent| extent.piece.crc32),
            receipts: stored.map(|extent| extent.receipt.clone()).into_iter().collect(),
        };
        stages.insert(partial.upload.id, whole);
        size += len;
        if let Some(extent) = stored {
            crc32 = join_crc32(crc32, extent.piece.crc32, len);
            contents.push((extent.blake3, len));
            runs.push((piece, len));
        }
    }
    let publishing = stages.into_iter().map(|(stage, whole)| async move {
        // What is empty has no place in the blob.
        if whole.size == 0 {
            core.storage.discard_stage(stage).await
        } else {
            core.storage.publish(stage, &whole).await
        }
    });
    stream::iter(publishing).buffer_unordered(PUBLISHING_MAX).try_collect::<()>().await?;
    // Of one run, or none, the BLAKE3 is known.
    let blake3 = match contents[..] {
        [] => Some(*blake3::hash(b"").as_bytes()),
        [(blake3, _)] => Some(blake3),
        _ => None,
    };
    let tag = blake3.unwrap_or_else(|| Pieces::tag(contents));
    let pieces = Some(Arc::new(Pieces::new(runs, blake3)));
    Ok(Blob { id, size, digest: ContentDigest { crc32, blake3: tag, sha256: None }, pieces })
}
