//! Bytes that come in order, from the first to the last, in as many requests as it takes.
//!
//! *What is kept.* A body that breaks off keeps the bytes that arrived, unless a checksum stands for all of them. A long
//! body is recorded at checkpoints while it goes on, so a crash costs no more than what came since the last. The offset
//! that anybody is told is that of the catalog: durable, and never smaller than before.
//! *Take-over.* A newer request displaces the one that writes, which records what it has unless the newer one brings
//! those bytes again. Every writer has its epoch from the catalog, which refuses a displaced one whatever it believes.

use super::Uploads;
use super::claims::{Claim, Place, Received, superseded};
use super::digests::ExtentDigests;
use super::finish;
use super::receive::too_large;
use super::segment::{Bounds, Ended, Segment, length_exceeded};
use crate::{Body, Core, metrics};
use carrack_catalog::Taken;
use carrack_domain::access::{UseUploads, WriteFile};
use carrack_domain::digest::{Algorithm, Digest};
use carrack_domain::error::Fact;
use carrack_domain::file::{Metadata, Precondition};
use carrack_domain::upload::{Echo, Shape, Target, Upload, UploadState};
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use carrack_storage::StageKind;
use std::sync::Arc;
use std::time::Duration;

/// A body is recorded after so many bytes, or so long after the last time: what a crash may cost.
const CHECKPOINT: (u64, Duration) = (64 << 20, Duration::from_secs(5));

/// What an upload begins with whose bytes come in order, or that joins others.
#[derive(Debug, Clone, Default)]
pub struct NewAppend {
    /// Bytes of the whole; `None` when the client will say later.
    pub length: Option<u64>,
    /// It becomes a piece of another upload's file.
    pub partial: bool,
    /// The media type.
    pub content_type: String,
    /// The uploader's own facts.
    pub metadata: Metadata,
    /// What the client wants to be told again.
    pub echo: Echo,
}

/// What the bytes of one request must come to.
pub enum Checksum {
    /// Nobody said.
    None,
    /// This.
    Now(Digest),
    /// One of these algorithms; which one, and what it came to, is asked for once the body has ended.
    AtEnd(&'static [Algorithm], Box<dyn FnOnce() -> Result<Digest> + Send>),
}

/// One request's bytes.
pub struct Append {
    /// Where the client believes the upload ends.
    pub offset: u64,
    /// How many bytes it announces.
    pub announced: Option<u64>,
    /// How long the whole will be, when it says so only now.
    pub length: Option<u64>,
    /// What the bytes must come to.
    pub checksum: Checksum,
}

/// Where an upload stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The session.
    pub upload: Upload,
    /// Bytes that are stored for good; `None` of one that joins others and is not complete.
    pub offset: Option<u64>,
}

impl Uploads {
    /// A name for an upload about to be made.
    pub fn name(&self) -> UploadId {
        UploadId::generate(&*self.core.entropy)
    }

    /// The largest file, in bytes.
    pub fn size_max(&self) -> u64 {
        self.core.limits.file_size_max
    }

    /// Begins an upload whose bytes come in order. Of a known length quota and disk space are taken now; otherwise they
    /// are taken as it grows. One of length 0 is complete at once.
    pub async fn create_append(
        &self,
        grant: &Grant<WriteFile>,
        id: UploadId,
        new: NewAppend,
    ) -> Result<Progress> {
        let shape = Shape::Append { length: new.length, partial: new.partial };
        self.core.admit(grant.resource(), new.length, &Precondition::None).await?;
        let upload = self.begin(grant, id, shape, new);
        let (core, maintenance) = (self.core.clone(), self.maintenance.clone());
        let claims = self.claims.clone();
        let work = async move {
            core.storage.create_stage(upload.id, upload.length(), StageKind::Session).await?;
            if let Err(error) = core.catalog.create_upload(&upload).await {
                core.storage.discard_stage(upload.id).await?;
                return Err(error);
            }
            if upload.length() == Some(0) {
                finish::when_whole(&core, &maintenance, &claims, &upload).await?;
                return Ok(Progress { upload: core.catalog.upload(&id).await?, offset: Some(0) });
            }
            Ok(Progress { upload, offset: Some(0) })
        };
        self.core.to_the_end(work).await
    }

    /// An upload as it is at its beginning.
    pub(super) fn begin(
        &self,
        grant: &Grant<WriteFile>,
        id: UploadId,
        shape: Shape,
        new: NewAppend,
    ) -> Upload {
        let now = self.core.clock.now();
        let place = grant.resource().clone();
        Upload {
            id,
            owner: grant.principal().subject().to_owned(),
            target: Target {
                bucket: place.bucket,
                key: place.key,
                content_type: new.content_type,
                metadata: new.metadata,
            },
            shape,
            echo: new.echo,
            expected: Vec::new(),
            only_create: false,
            state: UploadState::Open,
            created_at: now,
            expires_at: now.after(self.core.limits.upload_ttl),
        }
    }

    /// Where to go on. Whoever is writing is taken for dead: it is stopped, and what it received is recorded first, so
    /// that a request that begins at this offset is right. An upload that has all its bytes is completed on the way, in
    /// case whoever sent them could not.
    pub async fn progress(&self, grant: &Grant<UseUploads>, id: UploadId) -> Result<Progress> {
        let upload = self.own(grant, id).await?;
        upload_in_order(&upload)?;
        let (core, maintenance, claims) = (self.core.clone(), self.maintenance.clone(), self.claims.clone());
        let work = async move {
            if matches!(upload.shape, Shape::Append { .. })
                && claims.displace(Place::Tail(id)).await
                && upload.state == UploadState::Open
            {
                core.catalog.take_over(&id, None).await?;
            }
            let mut found = look(&core, id).await?;
            if found.upload.state != UploadState::Complete && may_be_whole(&found) {
                finish::when_whole(&core, &maintenance, &claims, &found.upload).await?;
                found = match look(&core, id).await {
                    // A partial upload that was joined just now is gone, but this was asked before.
                    Err(error) if error.code() == Code::UploadNotFound && found.upload.is_partial() => found,
                    looked => looked?,
                };
            }
            Ok(found)
        };
        self.core.to_the_end(work).await
    }

    /// Appends a body. It returns once the bytes would survive what `durability` promises; with the last one, the file
    /// is there.
    ///
    /// `offset_mismatch` with the true offset; `length_exceeded`, `too_large`, `quota_exceeded`; `digest_mismatch` and
    /// `body_incomplete`, after the latter the bytes that arrived are kept unless there is a checksum; `superseded`.
    pub async fn append(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
        append: Append,
        body: Body,
    ) -> Result<Progress> {
        let upload = self.own(grant, id).await?;
        let Shape::Append { .. } = upload.shape else { return Err(wrong_shape()) };
        if append.length.is_some_and(|length| length > self.size_max()) {
            return Err(too_large(self.size_max()));
        }
        let (core, maintenance, claims) = (self.core.clone(), self.maintenance.clone(), self.claims.clone());
        let work = async move {
            let stored = end(&core, id).await?;
            let received = if append.offset == stored { Received::Discard } else { Received::Keep };
            let claim = claims.take(Place::Tail(id), received).await?;
            let taken = core.catalog.take_over(&id, append.length).await?;
            let upload = taken.upload.clone();
            let offset = appended(&core, claim, taken, append, body).await?;
            if upload.length() == Some(offset) && upload.state != UploadState::Complete {
                finish::when_whole(&core, &maintenance, &claims, &upload).await?;
            }
            match core.catalog.upload(&id).await {
                Ok(upload) => Ok(Progress { upload, offset: Some(offset) }),
                // A partial one whose last byte completed the whole.
                Err(error) if error.code() == Code::UploadNotFound && upload.is_partial() => {
                    Ok(Progress { upload, offset: Some(offset) })
                }
                Err(error) => Err(error),
            }
        };
        self.core.to_the_end(work).await
    }
}

fn wrong_shape() -> Error {
    Error::new(
        Code::UploadShape,
        "This upload takes no bytes in order: it comes in numbered parts, or joins other uploads.",
    )
}

/// `upload_not_found` for one in numbered parts: it is not found here.
fn upload_in_order(upload: &Upload) -> Result<()> {
    match upload.shape {
        Shape::Append { .. } | Shape::Joined { .. } => Ok(()),
        Shape::Parts(_) => Err(wrong_shape()),
    }
}

async fn end(core: &Core, id: UploadId) -> Result<u64> {
    let line = core.catalog.extent(&id, 0).await?;
    Ok(line.map_or(0, |line| line.piece.fragment.end()))
}

async fn look(core: &Core, id: UploadId) -> Result<Progress> {
    // The ledger first: of an upload that is completed in between, the state then says so, and the length is the offset.
    let stored = end(core, id).await?;
    let upload = core.catalog.upload(&id).await?;
    let offset = match (upload.state, upload.shape) {
        (UploadState::Complete, _) => upload.length(),
        (_, Shape::Joined { .. }) => None,
        (_, Shape::Parts(_) | Shape::Append { .. }) => Some(stored),
    };
    Ok(Progress { upload, offset })
}

fn may_be_whole(progress: &Progress) -> bool {
    match progress.upload.shape {
        Shape::Joined { .. } => true,
        Shape::Parts(_) | Shape::Append { .. } => progress.upload.length() == progress.offset,
    }
}

/// Stores what a request brings; where the upload ends then.
async fn appended(
    core: &Arc<Core>,
    claim: Claim,
    taken: Taken,
    append: Append,
    mut body: Body,
) -> Result<u64> {
    if append.offset != taken.offset {
        let (true_offset, given) = (taken.offset, append.offset);
        let detail = format!(
            "The upload has {true_offset} bytes, the request begins at {given}: go on at {true_offset}."
        );
        return Err(Error::new(Code::OffsetMismatch, detail).with_fact(Fact::Offset(true_offset)));
    }
    let end = taken.upload.length().unwrap_or(core.limits.file_size_max);
    let room = end.saturating_sub(taken.offset);
    if append.announced.is_some_and(|announced| announced > room) {
        return Err(match taken.upload.length() {
            Some(length) => length_exceeded(length),
            None => too_large(core.limits.file_size_max),
        });
    }
    if taken.upload.state != UploadState::Open {
        // All bytes are there. A request that was sent again because its answer was lost brings none, and is right.
        return Ok(taken.offset);
    }
    if taken.upload.length().is_none() {
        let target = &taken.upload.target;
        core.catalog.check_quota(&target.bucket, &target.key, append.announced.unwrap_or(0)).await?;
    }
    let mut writer = Writer { core: core.clone(), claim, taken, room };
    let result = match append.checksum {
        Checksum::None => writer.stream(&mut body).await,
        Checksum::Now(digest) => writer.verified(&mut body, &[digest.algorithm()], || Ok(digest)).await,
        Checksum::AtEnd(algorithms, digest) => writer.verified(&mut body, algorithms, digest).await,
    };
    let label = match &result {
        Ok(()) => "ok",
        Err(error) => match error.code() {
            Code::DigestMismatch => "digest",
            Code::Superseded => "superseded",
            _ => "failed",
        },
    };
    ::metrics::counter!(metrics::UPLOAD_APPENDS, "result" => label).increment(1);
    result.map(|()| writer.taken.offset)
}

/// A body being received. Holds the claim until nothing is being written any more.
struct Writer {
    core: Arc<Core>,
    claim: Claim,
    taken: Taken,
    room: u64,
}

impl Writer {
    /// Records at checkpoints and at the end; what came before a break is kept.
    async fn stream(&mut self, body: &mut Body) -> Result<()> {
        let mut before: Option<Segment> = None;
        loop {
            let bounds = Bounds {
                offset: self.taken.offset + before.as_ref().map_or(0, |segment| segment.bytes),
                room: self.room - before.as_ref().map_or(0, |segment| segment.bytes),
                checkpoint: Some(CHECKPOINT),
            };
            // What came before is made durable while the next bytes arrive.
            let (recorded, segment) = tokio::join!(
                record(&self.core, &self.taken, before.take()),
                Segment::receive(&self.core, self.taken.upload.id, bounds, &[], body, &self.claim.cancelled),
            );
            let segment = match (recorded, segment) {
                (Ok(bytes), Ok(segment)) => {
                    self.advance(bytes);
                    segment
                }
                (Err(error), Ok(segment)) => {
                    segment.abandon().await;
                    return Err(error);
                }
                (recorded, Err(error)) => return Err(recorded.err().unwrap_or(error)),
            };
            match segment.ended {
                Ended::Checkpoint => before = Some(segment),
                Ended::Failed(_) if self.claim.is_discarded() => {
                    segment.abandon().await;
                    return Err(superseded());
                }
                Ended::Body | Ended::Failed(_) => return self.last(segment).await,
            }
        }
    }

    /// Records the last bytes of a body, also of one that broke off.
    async fn last(&mut self, mut segment: Segment) -> Result<()> {
        let ended = std::mem::replace(&mut segment.ended, Ended::Body);
        let bytes = record(&self.core, &self.taken, Some(segment)).await?;
        self.advance(bytes);
        match ended {
            Ended::Failed(error) => Err(error),
            Ended::Body | Ended::Checkpoint => Ok(()),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.taken.offset += bytes;
        self.room -= bytes;
    }

    /// Records everything at once, and only when it has its digest.
    async fn verified(
        &mut self,
        body: &mut Body,
        algorithms: &[Algorithm],
        digest: impl FnOnce() -> Result<Digest>,
    ) -> Result<()> {
        let bounds = Bounds { offset: self.taken.offset, room: self.room, checkpoint: None };
        let id = self.taken.upload.id;
        let segment =
            Segment::receive(&self.core, id, bounds, algorithms, body, &self.claim.cancelled).await?;
        match segment.ended {
            Ended::Body => {}
            Ended::Failed(_) | Ended::Checkpoint => {
                let ended = into_error(segment).await;
                return Err(ended);
            }
        }
        let bytes = segment.bytes;
        let extent = segment.seal(|digests: &ExtentDigests| digests.verify(&[digest()?])).await?;
        if bytes > 0 {
            append_extent(&self.core, &self.taken, &extent).await?;
        }
        self.advance(bytes);
        Ok(())
    }
}

/// Gives up a segment that ended before its body did.
async fn into_error(mut segment: Segment) -> Error {
    let ended = std::mem::replace(&mut segment.ended, Ended::Body);
    segment.abandon().await;
    match ended {
        Ended::Failed(error) => error,
        Ended::Body | Ended::Checkpoint => Error::broken("a checkpoint in a body with a checksum"),
    }
}

/// Makes a segment durable and records it; how many bytes that were.
async fn record(core: &Core, taken: &Taken, segment: Option<Segment>) -> Result<u64> {
    let Some(segment) = segment else { return Ok(0) };
    let bytes = segment.bytes;
    if bytes == 0 {
        segment.abandon().await;
        return Ok(0);
    }
    let extent = segment.seal(|_| Ok(())).await?;
    append_extent(core, taken, &extent).await?;
    Ok(bytes)
}

async fn append_extent(
    core: &Core,
    taken: &Taken,
    extent: &carrack_domain::upload::StoredExtent,
) -> Result<()> {
    let expires_at = core.clock.now().after(core.limits.upload_ttl);
    core.catalog.append(&taken.upload.id, taken.epoch, extent, expires_at).await
}
