//! From a full ledger to a visible file. The digests are joined from those of the parts, the bytes get their final
//! name, one transaction makes the file: no byte is copied or read again, whatever the size.
//!
//! *Order* (invariant 2): `Open` -> `Finishing(blob)` in the catalog, then the bytes are published, then one transaction
//! makes the file and `Complete`. A crash in between is rolled forward at the next start.

use super::claims::{Claims, Place};
use super::parts::kind;
use super::put::{is_refusal, precondition_failed, publish_record};
use super::{Uploads, direct, join};
use crate::maintenance::Maintenance;
use crate::{Core, metrics};
use carrack_catalog::{Committed, Finish, NewFile, Origin, Outcome};
use carrack_domain::access::UseUploads;
use carrack_domain::digest::{Algorithm, ContentDigest, Digest, Piece};
use carrack_domain::error::{Class, Fact};
use carrack_domain::file::{Blob, File, Pieces, Precondition};
use carrack_domain::upload::{PartPlan, Shape, StoredExtent, Upload, UploadState, missing, ranges};
use carrack_domain::{BlobId, Code, Error, Grant, Result, UploadId};
use carrack_storage::Whole;
use md5::Md5;
use sha1::Sha1;
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
        upload.parts()?;
        let claims = self.claims.clone();
        let core = self.core.clone();
        let maintenance = self.maintenance.clone();
        let work = async move {
            let _turn = claims.queue(Place::Completion(id)).await?;
            let committed = complete(&core, upload.clone(), digests).await?;
            super::watch::hint(&core, &upload).await;
            if let Some(orphan) = committed.orphan {
                maintenance.collect(orphan).await;
            }
            Ok(committed.file)
        };
        let file = self.core.to_the_end(work).await?;
        ::metrics::histogram!(metrics::COMPLETE_DURATION, "stage" => "all")
            .record(started.elapsed().as_secs_f64());
        Ok(file)
    }
}

/// Makes the file of an upload that has all its bytes, or, of a partial one, of the upload that joins it. Nothing while
/// bytes are missing. One at a time does it, also when the last two of several partial uploads end together.
/// `digests` are those of the whole that were announced only now.
pub(super) async fn when_whole(
    core: &Arc<Core>,
    maintenance: &Arc<Maintenance>,
    claims: &Arc<Claims>,
    upload: &Upload,
    digests: Vec<Digest>,
) -> Result<Option<(File, Outcome)>> {
    let id = match upload.is_partial() {
        false => upload.id,
        true => match core.catalog.joined_of(&upload.id).await? {
            Some(joined) => joined,
            None => return Ok(None),
        },
    };
    let _turn = claims.queue(Place::Completion(id)).await?;
    match complete(core, core.catalog.upload(&id).await?, digests).await {
        Ok(committed) => {
            super::watch::hint(core, upload).await;
            if let Some(orphan) = committed.orphan {
                maintenance.collect(orphan).await;
            }
            Ok(Some((committed.file, committed.outcome)))
        }
        Err(error) if error.code() == Code::PartsMissing => Ok(None),
        Err(error) if upload.is_partial() && error.code().class() != Class::Fault => {
            // The partial upload is as it should be: whoever asks for the whole is told.
            tracing::info!(upload = %id, error = error.chain(), "partial uploads are whole and cannot be joined");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn complete(core: &Arc<Core>, upload: Upload, mut digests: Vec<Digest>) -> Result<Committed> {
    let id = upload.id;
    // Read again under the claim: another completion may have gone first.
    let mut upload = core.catalog.upload(&id).await?;
    if upload.direct && upload.state == UploadState::Open {
        match direct::adopt(core, &upload).await {
            Err(error) if error.code() == Code::UploadFinished => upload = core.catalog.upload(&id).await?,
            adopted => adopted?,
        }
    }
    let blob = id.blob();
    let finish = match (upload.state, upload.shape) {
        (UploadState::Open, Shape::Joined { .. }) => match join::pieces(core, id).await? {
            Some(pieces) => core.catalog.begin_join(&id, blob, &pieces).await?,
            None => {
                return Err(Error::new(Code::PartsMissing, "Not all of the joined uploads are complete."));
            }
        },
        (UploadState::Open, Shape::Parts(_) | Shape::Append { .. }) => {
            digests.extend(upload.expected.iter().cloned());
            let whole = verify(core, &upload, &digests).await?;
            let place = carrack_domain::access::FileRef {
                bucket: upload.target.bucket.clone(),
                key: upload.target.key.clone(),
            };
            if upload.precondition != Precondition::None {
                core.admit(&upload.owner, &place, None, &upload.precondition).await?;
            }
            match core.catalog.begin_finish(&id, blob).await? {
                Finish::Begun => {
                    if upload.direct && joined(core, &upload).await?.whole.receipts != whole.whole.receipts {
                        core.catalog.abandon_finish(&id, blob).await?;
                        return Err(Error::new(
                            Code::Superseded,
                            "Parts were sent again while the upload was completed: complete it again.",
                        ));
                    }
                    return publish(core, upload, blob, Some(whole)).await;
                }
                finish @ (Finish::Underway(_) | Finish::Done(..)) => finish,
            }
        }
        (UploadState::Finishing(_) | UploadState::Complete, Shape::Joined { .. }) => {
            core.catalog.begin_join(&id, blob, &[]).await?
        }
        (UploadState::Finishing(_) | UploadState::Complete, Shape::Parts(_) | Shape::Append { .. }) => {
            core.catalog.begin_finish(&id, blob).await?
        }
    };
    match finish {
        Finish::Done(file, outcome) => Ok(Committed { file: *file, outcome, orphan: None }),
        Finish::Underway(_) | Finish::Begun => roll_forward(core, core.catalog.upload(&id).await?).await,
    }
}

/// What an upload with all its bytes becomes.
struct Joined {
    /// What the storage is to make of it.
    whole: Whole,
    digest: ContentDigest,
    /// Whether the BLAKE3 among them is that of the content. Of bytes that nobody here has seen, it only tells them from
    /// others.
    is_seen: bool,
}

/// The whole, joined from the ledger; `parts_missing` while there are holes.
async fn joined(core: &Core, upload: &Upload) -> Result<Joined> {
    let extents = core.catalog.extents(&upload.id).await?;
    let mut whole = Some(Piece::empty(0));
    for extent in &extents {
        whole = whole.and_then(|whole| whole.join(&extent.piece));
    }
    match whole {
        Some(whole) if upload.length() == Some(whole.len()) => {
            let is_seen = whole.fragment.is_seen();
            let digest = match whole.content() {
                Some(digest) => digest,
                None if is_seen => return Err(Error::broken("a whole that does not begin at 0")),
                None => {
                    let blake3 = Pieces::tag(extents.iter().map(|line| (line.blake3, line.piece.len())));
                    ContentDigest { crc32: whole.crc32, blake3, sha256: None }
                }
            };
            let receipts = extents.into_iter().map(|extent| extent.receipt).collect();
            let whole = Whole { size: whole.len(), crc32: Some(digest.crc32), receipts };
            Ok(Joined { whole, digest, is_seen })
        }
        _ => Err(match upload.shape {
            Shape::Parts(plan) => holes(plan, &extents, &[]),
            Shape::Append { .. } | Shape::Joined { .. } => {
                Error::new(Code::PartsMissing, "The upload does not have all its bytes yet.")
            }
        }),
    }
}

/// The answer while parts are missing, of which `wrong` have come with another length than they should have.
pub(super) fn holes(plan: PartPlan, extents: &[StoredExtent], wrong: &[u64]) -> Error {
    let present = extents.iter().map(|extent| plan.number_at(extent.piece.fragment.start()));
    let list = missing(plan.count(), present);
    let wrong = match ranges(wrong.iter().copied()) {
        none if none.is_empty() => none,
        wrong => format!(" ({wrong} came with another length than they should have)"),
    };
    Error::new(
        Code::PartsMissing,
        format!("Parts are missing: {list}{wrong}. Send them, then complete again."),
    )
    .with_fact(Fact::MissingParts(list))
}

/// Joins the digests and compares them with those announced.
async fn verify(core: &Core, upload: &Upload, expected: &[Digest]) -> Result<Joined> {
    let Joined { whole, digest: mut content, mut is_seen } = joined(core, upload).await?;
    let stage = (upload.id, &whole);
    for digest in expected {
        match digest.algorithm() {
            Algorithm::Crc32 => digest.verify(&content.crc32.to_be_bytes())?,
            Algorithm::Blake3 if is_seen => digest.verify(&content.blake3)?,
            Algorithm::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                let hash = |bytes: &[u8]| {
                    hasher.update(bytes);
                };
                read_all(core, stage, hash).await?;
                let actual = *hasher.finalize().as_bytes();
                digest.verify(&actual)?;
                (content.blake3, is_seen) = (actual, true);
            }
            Algorithm::Sha256 => {
                let actual: [u8; 32] = read_through::<Sha256>(core, stage).await?.into();
                digest.verify(&actual)?;
                content.sha256 = Some(actual);
            }
            Algorithm::Sha512 => digest.verify(&read_through::<Sha512>(core, stage).await?)?,
            Algorithm::Sha1 => digest.verify(&read_through::<Sha1>(core, stage).await?)?,
            Algorithm::Md5 => digest.verify(&read_through::<Md5>(core, stage).await?)?,
        }
    }
    if upload.wants_sha256 && content.sha256.is_none() {
        content.sha256 = Some(read_through::<Sha256>(core, stage).await?.into());
    }
    Ok(Joined { whole, digest: content, is_seen })
}

/// A digest that cannot be joined from parts costs one read of the whole; only who asks for one pays.
async fn read_through<D: sha2::Digest>(
    core: &Core,
    stage: (UploadId, &Whole),
) -> Result<sha2::digest::Output<D>> {
    let mut hasher = D::new();
    read_all(core, stage, |bytes| hasher.update(bytes)).await?;
    Ok(hasher.finalize())
}

/// Shows every byte of a stage that has them all.
async fn read_all(
    core: &Core,
    (stage, whole): (UploadId, &Whole),
    mut show: impl FnMut(&[u8]),
) -> Result<()> {
    const STEP_BYTES: u64 = 1 << 20;
    let mut at = 0;
    while at < whole.size {
        let len = STEP_BYTES.min(whole.size - at);
        show(&core.storage.read_stage(stage, whole, at, len as usize).await?);
        at += len;
    }
    Ok(())
}

/// Brings an upload that is `Finishing` to its end: after an interruption, or when another request had begun.
pub(crate) async fn roll_forward(core: &Arc<Core>, upload: Upload) -> Result<Committed> {
    let UploadState::Finishing(blob) = upload.state else {
        return Err(Error::broken(format!("upload {} is not finishing", upload.id)));
    };
    let whole = match upload.shape {
        Shape::Parts(_) | Shape::Append { .. } => Some(joined(core, &upload).await?),
        Shape::Joined { .. } => None,
    };
    publish(core, upload, blob, whole).await
}

/// Gives the bytes their final names; `whole` are bytes of its own.
async fn publish_bytes(core: &Arc<Core>, upload: &Upload, id: BlobId, whole: Option<Joined>) -> Result<Blob> {
    match whole {
        Some(Joined { whole, digest, is_seen }) => {
            core.storage.publish(upload.id, &whole).await?;
            // A blob whose BLAKE3 is yet to be computed is a piece of itself.
            let pieces = (!is_seen).then(|| Arc::new(Pieces::new([(id, whole.size)], None)));
            Ok(Blob { id, size: whole.size, digest, pieces })
        }
        None => join::publish(core, upload, id).await,
    }
}

async fn publish(core: &Arc<Core>, upload: Upload, blob: BlobId, whole: Option<Joined>) -> Result<Committed> {
    let id = upload.id;
    let (label, shape) = (kind(&upload), upload.shape);
    let stored = match publish_bytes(core, &upload, blob, whole).await {
        Ok(stored) => stored,
        Err(error) => {
            if matches!(error.code(), Code::DataLost | Code::Superseded) {
                // What the ledger says is not what is there: open again, it can be mended or deleted, and will expire.
                core.catalog.abandon_finish(&id, blob).await?;
            }
            return Err(error);
        }
    };
    let new = NewFile {
        target: upload.target,
        blob: stored,
        content: None,
        precondition: upload.precondition,
        created_at: core.clock.now(),
        created_by: upload.owner,
        origin: Origin::Session(id),
    };
    match publish_record(core, new).await {
        Ok(committed) => {
            ::metrics::counter!(metrics::UPLOADS, "kind" => label, "result" => "completed").increment(1);
            Ok(committed)
        }
        Err(error) if error.code() == Code::UploadNotFound => overtaken(core, &id, blob, &shape, error).await,
        Err(error) if !is_refusal(&error) => Err(error),
        Err(error) => {
            // Refused for good, and the bytes are gone with it: there is nothing left to be completed.
            let partials = core.catalog.partials(&id).await?;
            core.catalog.abandon_finish(&id, blob).await?;
            core.catalog.delete_upload(&id).await?;
            let mut gone = std::collections::HashSet::new();
            for partial in partials.into_iter().filter(|partial| gone.insert(partial.upload.id)) {
                core.catalog.delete_upload(&partial.upload.id).await?;
            }
            ::metrics::counter!(metrics::UPLOADS, "kind" => label, "result" => "failed").increment(1);
            Err(if error.code() == Code::PreconditionFailed { precondition_failed() } else { error })
        }
    }
}

/// The upload is not being completed any more: another node, or a recovery, was faster, and its answer is the answer.
async fn overtaken(
    core: &Core,
    id: &UploadId,
    blob: BlobId,
    shape: &Shape,
    error: Error,
) -> Result<Committed> {
    match core.catalog.upload(id).await?.state {
        UploadState::Complete => {}
        UploadState::Open | UploadState::Finishing(_) => return Err(error),
    }
    let finish = match shape {
        Shape::Joined { .. } => core.catalog.begin_join(id, blob, &[]).await?,
        Shape::Parts(_) | Shape::Append { .. } => core.catalog.begin_finish(id, blob).await?,
    };
    match finish {
        Finish::Done(file, outcome) => Ok(Committed { file: *file, outcome, orphan: None }),
        Finish::Begun | Finish::Underway(_) => Err(error),
    }
}
