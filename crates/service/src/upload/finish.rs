//! From a full ledger to a visible file. The digests are joined from those of the parts, the bytes get their final
//! name, one transaction makes the file: no byte is copied or read again, whatever the size.
//!
//! *Order* (invariant 2): `Open` -> `Finishing(blob)` in the catalog, then the bytes are published, then one transaction
//! makes the file and `Complete`. A crash in between is rolled forward at the next start.

use super::Uploads;
use super::claims::Place;
use super::put::{precondition_failed, publish_record};
use crate::{Core, metrics};
use carrack_catalog::{Finish, NewFile};
use carrack_domain::access::UseUploads;
use carrack_domain::digest::{Algorithm, ContentDigest, Digest, Piece};
use carrack_domain::error::{Class, Fact};
use carrack_domain::file::{Blob, File, Precondition};
use carrack_domain::upload::{Upload, UploadState, missing};
use carrack_domain::{BlobId, Code, Error, Grant, Result, UploadId};
use md5::Md5;
use sha2::{Sha256, Sha512};
use std::sync::Arc;
use std::time::Instant;

impl Uploads {
    /// Makes the file of an upload whose parts are all there. Again is fine, and answered the same.
    ///
    /// `parts_missing` with the list; `digest_mismatch`, after which the upload stays as it is; `precondition_failed`.
    pub async fn complete(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
        digests: Vec<Digest>,
    ) -> Result<File> {
        let started = Instant::now();
        let upload = self.own(grant, id).await?;
        let claims = self.claims.clone();
        let core = self.core.clone();
        let maintenance = self.maintenance.clone();
        let work = async move {
            let _turn = claims.queue(Place::Completion(id)).await?;
            let (file, orphan) = complete(&core, upload, digests).await?;
            if let Some(orphan) = orphan {
                maintenance.collect(orphan).await;
            }
            Ok(file)
        };
        let file = self.core.to_the_end(work).await?;
        ::metrics::histogram!(metrics::COMPLETE_DURATION, "stage" => "all")
            .record(started.elapsed().as_secs_f64());
        Ok(file)
    }
}

async fn complete(
    core: &Arc<Core>,
    upload: Upload,
    mut digests: Vec<Digest>,
) -> Result<(File, Option<BlobId>)> {
    let id = upload.id;
    // Read again under the claim: another completion may have gone first.
    let upload = core.catalog.upload(&id).await?;
    if upload.state == UploadState::Open {
        digests.extend(upload.expected.iter().cloned());
        let content = verify(core, &upload, &digests).await?;
        let precondition = precondition_of(&upload);
        let place = carrack_domain::access::FileRef {
            bucket: upload.target.bucket.clone(),
            key: upload.target.key.clone(),
        };
        if precondition != Precondition::None {
            core.admit(&place, None, &precondition).await?;
        }
        let blob = BlobId::generate(&*core.entropy);
        match core.catalog.begin_finish(&id, blob).await? {
            Finish::Done(file) => return Ok((*file, None)),
            Finish::Begun => return publish(core, upload, Blob { id: blob, size: 0, digest: content }).await,
            Finish::Underway(_) => {}
        }
    }
    match core.catalog.begin_finish(&id, BlobId::generate(&*core.entropy)).await? {
        Finish::Done(file) => Ok((*file, None)),
        Finish::Underway(_) | Finish::Begun => roll_forward(core, core.catalog.upload(&id).await?).await,
    }
}

fn precondition_of(upload: &Upload) -> Precondition {
    if upload.only_create { Precondition::Absent } else { Precondition::None }
}

/// The whole's digests, joined from the ledger; `parts_missing` while there are holes.
async fn joined(core: &Core, upload: &Upload) -> Result<ContentDigest> {
    let extents = core.catalog.extents(&upload.id).await?;
    let mut whole = Piece::empty(0);
    for extent in &extents {
        match whole.join(&extent.piece) {
            Some(longer) => whole = longer,
            None => return Err(holes(upload, &extents)),
        }
    }
    if whole.len() != upload.parts.size() {
        return Err(holes(upload, &extents));
    }
    whole.content().ok_or_else(|| Error::broken("a whole that does not begin at 0"))
}

fn holes(upload: &Upload, extents: &[carrack_domain::upload::StoredExtent]) -> Error {
    let present = extents.iter().map(|extent| upload.parts.number_at(extent.piece.fragment.start()));
    let list = missing(upload.parts.count(), present);
    Error::new(Code::PartsMissing, format!("Parts are missing: {list}. Send them, then complete again."))
        .with_fact(Fact::MissingParts(list))
}

/// Joins the digests and compares them with those announced.
async fn verify(core: &Core, upload: &Upload, expected: &[Digest]) -> Result<ContentDigest> {
    let mut content = joined(core, upload).await?;
    for digest in expected {
        match digest.algorithm() {
            Algorithm::Crc32 => digest.verify(&content.crc32.to_be_bytes())?,
            Algorithm::Blake3 => digest.verify(&content.blake3)?,
            Algorithm::Sha256 => {
                let actual: [u8; 32] = read_through::<Sha256>(core, upload).await?.into();
                digest.verify(&actual)?;
                content.sha256 = Some(actual);
            }
            Algorithm::Sha512 => digest.verify(&read_through::<Sha512>(core, upload).await?)?,
            Algorithm::Md5 => digest.verify(&read_through::<Md5>(core, upload).await?)?,
        }
    }
    Ok(content)
}

/// A digest that cannot be joined from parts costs one read of the whole; only who asks for one pays.
async fn read_through<D: sha2::Digest>(core: &Core, upload: &Upload) -> Result<sha2::digest::Output<D>> {
    const STEP_BYTES: u64 = 1 << 20;
    let mut hasher = D::new();
    let mut at = 0;
    while at < upload.parts.size() {
        let len = STEP_BYTES.min(upload.parts.size() - at);
        let bytes = core.storage.read_stage(upload.id, at, len as usize).await?;
        hasher.update(&bytes);
        at += len;
    }
    Ok(hasher.finalize())
}

/// Brings an upload that is `Finishing` to its end: after an interruption, or when another request had begun.
pub(crate) async fn roll_forward(core: &Arc<Core>, upload: Upload) -> Result<(File, Option<BlobId>)> {
    let UploadState::Finishing(blob) = upload.state else {
        return Err(Error::broken(format!("upload {} is not finishing", upload.id)));
    };
    let digest = joined(core, &upload).await?;
    publish(core, upload, Blob { id: blob, size: 0, digest }).await
}

async fn publish(core: &Arc<Core>, upload: Upload, blob: Blob) -> Result<(File, Option<BlobId>)> {
    let blob = Blob { size: upload.parts.size(), ..blob };
    let id = upload.id;
    if let Err(error) = core.storage.publish(id, blob.id, blob.size).await {
        if error.code() == Code::DataLost {
            // There is nothing left to roll forward: open again, it can be deleted and will expire.
            core.catalog.abandon_finish(&id, blob.id).await?;
        }
        return Err(error);
    }
    let precondition = precondition_of(&upload);
    let new = NewFile {
        target: upload.target,
        blob,
        precondition,
        created_at: core.clock.now(),
        created_by: upload.owner,
        upload: Some(id),
    };
    match publish_record(core, new).await {
        Ok(committed) => {
            ::metrics::counter!(metrics::UPLOADS, "kind" => "parts", "result" => "completed").increment(1);
            Ok((committed.file, committed.orphan))
        }
        Err(error) if error.code().class() == Class::Fault => Err(error),
        Err(error) => {
            // Refused for good, and the bytes are gone with it: there is nothing left to be completed.
            core.catalog.abandon_finish(&id, blob.id).await?;
            core.catalog.delete_upload(&id).await?;
            ::metrics::counter!(metrics::UPLOADS, "kind" => "parts", "result" => "failed").increment(1);
            Err(if error.code() == Code::PreconditionFailed { precondition_failed() } else { error })
        }
    }
}
