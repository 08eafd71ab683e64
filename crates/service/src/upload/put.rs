//! A whole body at once.

use super::Uploads;
use super::digests::{ExtentHasher, SharedHasher};
use super::receive::{Expected, Gathered, SMALL_BYTES_MAX, gather, receive, too_large};
use crate::{Body, Core, metrics};
use bytes::Bytes;
use carrack_catalog::{Committed, NewFile, Origin, Outcome};
use carrack_domain::access::WriteFile;
use carrack_domain::digest::{Algorithm, ContentDigest, Digest};
use carrack_domain::error::Class;
use carrack_domain::file::{Blob, File, Metadata, Precondition};
use carrack_domain::upload::Target;
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use carrack_storage::{Flush, Hand, Room, StageKind, Whole};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What comes with a whole body.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// The media type.
    pub content_type: String,
    /// The uploader's own facts.
    pub metadata: Metadata,
    /// Bytes that were announced.
    pub length: Option<u64>,
    /// What must hold of the file there is.
    pub precondition: Precondition,
    /// Digests that were announced.
    pub digests: Vec<Digest>,
    /// Whether the file shall have its SHA-256 with it.
    pub wants_sha256: bool,
}

impl Put {
    /// What is computed of the body besides what the catalog needs.
    fn algorithms(&self) -> Vec<Algorithm> {
        let announced = self.digests.iter().map(Digest::algorithm);
        announced.chain(self.wants_sha256.then_some(Algorithm::Sha256)).collect()
    }
}

impl Uploads {
    /// Stores a body as a file. Everything that can be refused is refused before the body is read.
    ///
    /// `too_large`, `quota_exceeded`, `storage_full`, `precondition_failed`; `length_mismatch`, `body_incomplete` and
    /// `digest_mismatch` once the body is there. When it fails nothing is stored, and a file that was there before stays.
    pub async fn put(&self, grant: &Grant<WriteFile>, put: Put, body: Body) -> Result<(File, Outcome)> {
        let place = grant.resource();
        let core = self.core.clone();
        core.admit(grant.principal().subject(), place, put.length, &put.precondition).await?;
        let maintenance = self.maintenance.clone();
        let target = Target {
            bucket: place.bucket.clone(),
            key: place.key.clone(),
            content_type: put.content_type.clone(),
            metadata: put.metadata.clone(),
        };
        let subject = grant.principal().subject().to_owned();
        let work = async move {
            let stored = store(&core, &put, body).await;
            let result = match stored {
                Ok((stored, _room)) => commit(&core, stored, target, put.precondition, subject).await,
                Err(error) => Err(error),
            };
            let label = if result.is_ok() { "completed" } else { "failed" };
            ::metrics::counter!(metrics::UPLOADS, "kind" => "put", "result" => label).increment(1);
            let committed = result?;
            if let Some(orphan) = committed.orphan {
                maintenance.collect(orphan).await;
            }
            Ok((committed.file, committed.outcome))
        };
        self.core.to_the_end(work).await
    }
}

impl Core {
    /// What can be said of a file before its bytes arrive.
    pub(super) async fn admit(
        &self,
        owner: &str,
        place: &carrack_domain::access::FileRef,
        length: Option<u64>,
        precondition: &Precondition,
    ) -> Result<()> {
        if let Some(length) = length
            && length > self.limits.file_size_max
        {
            return Err(too_large(self.limits.file_size_max));
        }
        self.catalog.check_quota(&place.bucket, &place.key, length.unwrap_or(0)).await?;
        self.catalog.check_owner_quota(owner, place, length.unwrap_or(0)).await?;
        if *precondition == Precondition::None {
            return Ok(());
        }
        let present = match self.catalog.file(&place.bucket, &place.key).await {
            Ok(file) => Some(file.etag()),
            Err(error) if error.code() == Code::FileNotFound => None,
            Err(error) => return Err(error),
        };
        if precondition.holds(present.as_ref()) { Ok(()) } else { Err(precondition_failed()) }
    }
}

pub(super) fn precondition_failed() -> Error {
    Error::new(
        Code::PreconditionFailed,
        "The file is not in the state that If-Match or If-None-Match demands. Look at it again first.",
    )
}

/// A blob that no file points at yet: with its content if that is to be kept with its record, else published.
pub(super) type Stored = (Blob, Option<Bytes>);

/// Makes the body a blob; the room is that of what is yet to be written.
async fn store(core: &Arc<Core>, put: &Put, mut body: Body) -> Result<(Stored, Option<Room>)> {
    let expected = match put.length {
        Some(length) => Expected::Exactly(length),
        None => Expected::AtMost(core.limits.file_size_max),
    };
    if put.length.is_none_or(|length| length <= SMALL_BYTES_MAX) {
        // Of a length that nobody has said, as if it were the most that is small.
        let room = core.admit_small(put.length.unwrap_or(SMALL_BYTES_MAX)).await?;
        match gather(body, SMALL_BYTES_MAX).await {
            Gathered::Whole(bytes) => {
                expected.check_end(bytes.len() as u64)?;
                let small = core.small(bytes, &put.algorithms(), |found| found.verify(&put.digests))?;
                return Ok((small, room));
            }
            Gathered::Begun(begun) => body = begun,
        }
    }
    Ok(((stage(core, put, expected, &mut body).await?, None), None))
}

/// Receives the body into a stage and publishes it.
async fn stage(core: &Arc<Core>, put: &Put, expected: Expected, body: &mut Body) -> Result<Blob> {
    let stage = UploadId::generate(&*core.entropy);
    core.storage.create_stage(stage, put.length, StageKind::Request).await?;
    let stored = async {
        let (digest, whole) = fill(core, stage, put, expected, body).await?;
        let started = Instant::now();
        let blob = Blob { id: stage.blob(), size: whole.size, digest, pieces: None };
        core.storage.publish(stage, &whole).await?;
        ::metrics::histogram!(metrics::COMPLETE_DURATION, "stage" => "publish")
            .record(started.elapsed().as_secs_f64());
        Ok(blob)
    };
    let stored = stored.await;
    if stored.is_err()
        && let Err(error) = core.storage.discard_stage(stage).await
    {
        tracing::warn!(%stage, error = error.chain(), "a stage is left over until the next start");
    }
    stored
}

async fn fill(
    core: &Core,
    stage: UploadId,
    put: &Put,
    expected: Expected,
    body: &mut Body,
) -> Result<(ContentDigest, Whole)> {
    let hasher = SharedHasher::new(ExtentHasher::for_joining(0, &put.algorithms()));
    let mut writer = core.storage.extent_writer(stage, 0, Hand::default(), hasher.observer()).await?;
    // Nobody else can write to a stage that only this request knows: there is nothing to be cancelled by.
    let size = match receive(body, &mut *writer, expected, &CancellationToken::new()).await {
        Ok(size) => size,
        Err(error) => {
            writer.abandon().await;
            return Err(error);
        }
    };
    let receipts = vec![writer.finish(Flush::AtPublish).await?];
    let digests = hasher.finish(size)?;
    digests.verify(&put.digests)?;
    let digest = digests.content()?;
    Ok((digest, Whole { size, crc32: Some(digest.crc32), receipts }))
}

async fn commit(
    core: &Core,
    (blob, content): Stored,
    target: Target,
    precondition: Precondition,
    subject: String,
) -> Result<Committed> {
    let new = NewFile {
        target,
        blob,
        content,
        precondition,
        created_at: core.clock.now(),
        created_by: subject,
        origin: Origin::Request,
    };
    publish_record(core, new).await
}

/// Whether an error says that nothing came of what was asked for, and never will.
pub(super) fn is_refusal(error: &Error) -> bool {
    !matches!(error.code().class(), Class::Fault | Class::Retry) && error.code() != Code::UploadNotFound
}

/// Makes the blob of a file visible. When that is refused for good, a published one goes.
pub(super) async fn publish_record(core: &Core, new: NewFile) -> Result<Committed> {
    let runs = if new.content.is_none() { new.blob.stored() } else { Vec::new() };
    let started = Instant::now();
    let committed = core.facts.commit_file(new).await;
    ::metrics::histogram!(metrics::COMPLETE_DURATION, "stage" => "record")
        .record(started.elapsed().as_secs_f64());
    match committed {
        Ok(committed) => Ok(committed),
        Err(error) => {
            // After a failure of the catalog itself the record may exist after all, and so it does when another node was
            // faster: the bytes stay, and are swept later if nothing needs them.
            if is_refusal(&error) {
                for (run, _) in runs {
                    if let Err(error) = core.storage.delete(run).await {
                        tracing::warn!(blob = %run, error = error.chain(), "bytes without a record are left to the sweep");
                    }
                }
            }
            Err(error)
        }
    }
}
