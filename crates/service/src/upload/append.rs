//! Bytes that come in order, from the first to the last, in as many requests as it takes.
//!
//! *What is kept.* A body that breaks off keeps the bytes that arrived, unless a checksum stands for all of them. A long
//! body is recorded at checkpoints while it goes on, so a crash costs no more than what came since the last. The offset
//! that anybody is told is that of the catalog: durable, and never smaller than before.
//! *Take-over.* A newer request displaces the one that writes, which records what it has unless the newer one brings
//! those bytes again. Every writer has its epoch from the catalog, which refuses a displaced one whatever it believes.

use super::appending::appended;
use super::claims::{Claim, Claims, Place, Received};
use super::receive::too_large;
use super::{Uploads, finish};
use crate::{Body, Core};
use carrack_catalog::Announced;
use carrack_domain::access::{UseUploads, WriteFile};
use carrack_domain::digest::{Algorithm, Digest};
use carrack_domain::file::{Metadata, Precondition};
use carrack_domain::upload::{Echo, Shape, Upload, UploadState};
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use std::sync::Arc;
use std::time::Duration;

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
    /// These.
    Now(Vec<Digest>),
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
    /// Is told where the upload ends, whenever more of it is stored for good while the body goes on.
    pub report: Option<Report>,
}

/// See [`Append::report`]. Called while the bytes are being received: it must not wait for anything.
pub type Report = Box<dyn FnMut(u64) + Send>;

/// Where an upload stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The session.
    pub upload: Upload,
    /// Bytes that are stored for good; `None` of one that joins others and is not complete.
    pub offset: Option<u64>,
}

impl Uploads {
    /// An upload that brings its bytes in order, or joins others, as it is at its beginning.
    pub(super) fn begin_in_order(
        &self,
        grant: &Grant<WriteFile>,
        id: UploadId,
        shape: Shape,
        new: NewAppend,
    ) -> Upload {
        Upload { echo: new.echo, ..self.begin(grant, id, shape, new.content_type, new.metadata) }
    }

    /// The largest file, in bytes.
    pub fn size_max(&self) -> u64 {
        self.core.limits.file_size_max
    }

    /// How long an upload lives without a new byte.
    pub fn ttl(&self) -> Duration {
        self.core.limits.upload_ttl
    }

    /// How long this one still lives.
    pub fn lives(&self, upload: &Upload) -> Duration {
        let left = upload.expires_at.as_millis().saturating_sub(self.core.clock.now().as_millis());
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
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
        self.core
            .admit(grant.principal().subject(), grant.resource(), new.length, &Precondition::None)
            .await?;
        let upload = self.begin_in_order(grant, id, shape, new);
        let (core, maintenance) = (self.core.clone(), self.maintenance.clone());
        let claims = self.claims.clone();
        let work = async move {
            core.open_session(&upload).await?;
            if upload.length() == Some(0) {
                finish::when_whole(&core, &maintenance, &claims, &upload, Vec::new()).await?;
                return Ok(Progress { upload: core.catalog.upload(&id).await?, offset: Some(0) });
            }
            Ok(Progress { upload, offset: Some(0) })
        };
        self.core.to_the_end(work).await
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
                finish::when_whole(&core, &maintenance, &claims, &found.upload, Vec::new()).await?;
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
        if upload.told {
            return Err(wrong_shape());
        }
        let (core, maintenance, claims) = (self.core.clone(), self.maintenance.clone(), self.claims.clone());
        let work = async move {
            let Arrived { upload, offset, claim } = arrive(&core, &claims, &upload, append, body).await?;
            drop(claim);
            if upload.length() == Some(offset) && upload.state != UploadState::Complete {
                finish::when_whole(&core, &maintenance, &claims, &upload, Vec::new()).await?;
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

/// An upload to which a request's bytes were appended.
pub(super) struct Arrived {
    /// As it was when they came, with its length if that was said.
    pub(super) upload: Upload,
    /// Where it ends now.
    pub(super) offset: u64,
    /// Until it is dropped, nobody else appends.
    pub(super) claim: Claim,
}

/// Receives a request's bytes, displacing whoever does so.
pub(super) async fn arrive(
    core: &Arc<Core>,
    claims: &Arc<Claims>,
    upload: &Upload,
    append: Append,
    body: Body,
) -> Result<Arrived> {
    let Shape::Append { .. } = upload.shape else { return Err(wrong_shape()) };
    let (id, most) = (upload.id, core.limits.file_size_max);
    if append.length.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    let received = if append.offset == end(core, id).await? { Received::Discard } else { Received::Keep };
    let claim = claims.take(Place::Tail(id), received).await?;
    let announced = append.length.map(|length| Announced { offset: append.offset, length });
    let taken = core.catalog.take_over(&id, announced).await?;
    let upload = taken.upload.clone();
    let (offset, claim) = appended(core, claim, taken, append, body).await?;
    Ok(Arrived { upload, offset, claim })
}

pub(super) fn wrong_shape() -> Error {
    Error::new(
        Code::UploadShape,
        "This upload takes no bytes in order: it comes in numbered parts, or joins other uploads.",
    )
}

/// `upload_shape` for one in numbered parts.
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
    if progress.upload.told && progress.upload.state == UploadState::Open {
        return false;
    }
    match progress.upload.shape {
        Shape::Joined { .. } => true,
        Shape::Parts(_) | Shape::Append { .. } => progress.upload.length() == progress.offset,
    }
}
