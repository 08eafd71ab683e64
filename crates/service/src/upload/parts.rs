//! Numbered parts: any order, any number at once, again after a cut.

use super::claims::{Place, Received};
use super::digests::{ExtentHasher, SharedHasher};
use super::receive::{Expected, next, receive};
use super::{Uploads, claims::Claim, direct};
use crate::{Body, Core, metrics};
use carrack_domain::access::{FileRef, UseUploads, WriteFile};
use carrack_domain::digest::Digest;
use carrack_domain::file::{Metadata, Precondition};
use carrack_domain::upload::{PARTS_MAX, PartPlan, Shape, StoredExtent, Upload, UploadState, ranges};
use carrack_domain::{BucketName, Code, Error, Grant, Result, Role, UploadId, access};
use carrack_storage::{Before, Flush, Hand};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The most uploads a listing shows.
const LIST_MAX: usize = 1000;

/// What an upload in parts begins with.
#[derive(Debug, Clone, Default)]
pub struct NewUpload {
    /// Bytes of the whole.
    pub size: u64,
    /// Bytes of a part, if the client has a wish.
    pub part_size: Option<u64>,
    /// The media type.
    pub content_type: String,
    /// The uploader's own facts.
    pub metadata: Metadata,
    /// Digests of the whole, checked at completion.
    pub digests: Vec<Digest>,
    /// Only create, never replace.
    pub only_create: bool,
}

/// An upload and what of it is stored.
#[derive(Debug, Clone)]
pub struct UploadStatus {
    /// The session.
    pub upload: Upload,
    /// Numbers of the stored parts, `1-4,7`; `None` when it does not come in numbered parts.
    pub received: Option<String>,
    /// Bytes that are stored.
    pub received_bytes: u64,
}

/// A part that is stored.
#[derive(Debug, Clone, Copy)]
pub struct PartStored {
    /// Its number.
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of the part.
    pub crc32: u32,
    /// BLAKE3 of the part by itself.
    pub blake3: [u8; 32],
}

impl Uploads {
    /// Begins an upload in parts: quota and disk space are taken now, so that they cannot run out half-way.
    pub async fn create(&self, grant: &Grant<WriteFile>, new: NewUpload) -> Result<Upload> {
        let core = &self.core;
        let sizes = core.storage.part_sizes();
        let wished =
            new.part_size.map(|wished| if wished == 0 { 0 } else { fitting(wished, new.size, &sizes) });
        let plan = PartPlan::new(new.size, wished, core.limits.part_size)?;
        let precondition = if new.only_create { Precondition::Absent } else { Precondition::None };
        core.admit(grant.principal().subject(), grant.resource(), Some(new.size), &precondition).await?;
        let upload = Upload {
            expected: new.digests,
            precondition,
            ..self.begin(grant, self.name(), Shape::Parts(plan), new.content_type, new.metadata)
        };
        let core = self.core.clone();
        let work = async move {
            core.open_session(&upload).await?;
            Ok(upload)
        };
        self.core.to_the_end(work).await
    }

    /// The caller's upload of this id, any one for an administrator; somebody else's is `upload_not_found`. What it writes to is authorised again:
    /// the id alone opens nothing.
    ///
    /// One that ran out of time is `upload_expired` from then on, whether it has been swept yet or not.
    pub(super) async fn own(&self, grant: &Grant<UseUploads>, id: UploadId) -> Result<Upload> {
        let upload = self.core.catalog.upload(&id).await?;
        if !grant.principal().owns(&upload.owner) {
            return Err(Error::new(Code::UploadNotFound, "There is no such upload."));
        }
        let place = FileRef { bucket: upload.target.bucket.clone(), key: upload.target.key.clone() };
        access::authorize::<WriteFile>(grant.principal(), place)?;
        if upload.state == UploadState::Open && upload.expires_at < self.core.clock.now() {
            return Err(Error::new(Code::UploadExpired, "This upload ran out of time. Begin a new one."));
        }
        Ok(upload)
    }

    /// How the caller's upload of this id is cut, while it takes parts.
    pub async fn open_parts(&self, grant: &Grant<UseUploads>, id: UploadId) -> Result<PartPlan> {
        let upload = self.own(grant, id).await?;
        check_open(&upload)?;
        upload.parts()
    }

    /// Where an upload stands.
    pub async fn status(&self, grant: &Grant<UseUploads>, id: UploadId) -> Result<UploadStatus> {
        let upload = self.own(grant, id).await?;
        self.with_ledger(upload).await
    }

    /// The caller's open uploads, oldest first.
    pub async fn list(
        &self,
        grant: &Grant<UseUploads>,
        bucket: Option<&BucketName>,
    ) -> Result<Vec<UploadStatus>> {
        if grant.principal().role() == Role::Guest {
            // All guests have one name: what one of them began is no other's to see.
            return Ok(Vec::new());
        }
        let uploads = self.core.catalog.uploads(grant.principal().subject(), bucket, LIST_MAX).await?;
        let mut listed = Vec::with_capacity(uploads.len());
        for upload in uploads {
            listed.push(self.with_ledger(upload).await?);
        }
        Ok(listed)
    }

    async fn with_ledger(&self, upload: Upload) -> Result<UploadStatus> {
        if upload.state == UploadState::Complete {
            let received = upload.parts().ok().map(|plan| ranges(1..=plan.count()));
            let received_bytes = upload.length().unwrap_or(0);
            return Ok(UploadStatus { upload, received, received_bytes });
        }
        let extents = match upload.shape {
            Shape::Parts(_) => direct::present(&self.core, &upload).await?.extents,
            Shape::Append { .. } => self.core.catalog.extents(&upload.id).await?,
            Shape::Joined { .. } => {
                let partials = self.core.catalog.partials(&upload.id).await?;
                partials.into_iter().filter_map(|partial| partial.stored).collect()
            }
        };
        let received_bytes = extents.iter().map(|extent| extent.piece.len()).sum();
        let received = upload
            .parts()
            .ok()
            .map(|plan| ranges(extents.iter().map(|extent| plan.number_at(extent.piece.fragment.start()))));
        Ok(UploadStatus { upload, received, received_bytes })
    }

    /// Stores one part. It is acknowledged, that is: this returns, once it would survive what `durability` promises.
    ///
    /// The same part again is fine and answered the same; other bytes under the number of a stored part are
    /// `part_conflict`, because what was acknowledged is not touched any more.
    pub async fn put_part(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
        number: u64,
        length: Option<u64>,
        digests: Vec<Digest>,
        body: Body,
    ) -> Result<PartStored> {
        let upload = self.own(grant, id).await?;
        check_open(&upload)?;
        let (offset, len) = upload.parts()?.extent(number)?;
        if let Some(length) = length
            && length != len
        {
            return Err(Error::new(
                Code::LengthMismatch,
                format!(
                    "Part {number} has {len} bytes, the request announces {length}: send exactly that part."
                ),
            ));
        }
        let claim = self.claims.take(Place::Extent(id, offset), Received::Keep).await?;
        let part = Part { core: self.core.clone(), upload, number, offset, len, digests, claim };
        let work = async move {
            let result = part.receive(body).await;
            let label = match &result {
                Ok((_, Arrival::New)) => "ok",
                Ok((_, Arrival::Repeated)) => "duplicate",
                Err(error) => match error.code() {
                    Code::PartConflict => "conflict",
                    Code::DigestMismatch => "digest",
                    Code::Superseded => "superseded",
                    _ => "failed",
                },
            };
            ::metrics::counter!(metrics::UPLOAD_PARTS, "result" => label).increment(1);
            result.map(|(part, _)| part)
        };
        self.core.to_the_end(work).await
    }

    /// Gives an upload up: its bytes and its reservation go.
    pub async fn delete(&self, grant: &Grant<UseUploads>, id: UploadId) -> Result<()> {
        let upload = self.own(grant, id).await?;
        let (core, claims) = (self.core.clone(), self.claims.clone());
        let work = async move { core.discard_session(&claims, &upload).await };
        self.core.to_the_end(work).await
    }
}

/// A part size near the wish that the storage takes as it is, if there is one for a file of `size` bytes.
fn fitting(wished: u64, size: u64, sizes: &RangeInclusive<u64>) -> u64 {
    let most = (*sizes.end()).max(size.div_ceil(PARTS_MAX));
    wished.clamp(*sizes.start(), most.max(*sizes.start()))
}

/// The value of the label `kind` in the metrics.
pub(super) fn kind(upload: &Upload) -> &'static str {
    match upload.shape {
        Shape::Parts(_) => "parts",
        Shape::Append { .. } => "append",
        Shape::Joined { .. } => "joined",
    }
}

pub(super) fn check_open(upload: &Upload) -> Result<()> {
    match upload.state {
        UploadState::Open => Ok(()),
        UploadState::Finishing(_) | UploadState::Complete => {
            Err(Error::new(Code::UploadFinished, "This upload has all its bytes and takes no more."))
        }
    }
}

/// Whether a part was there before.
enum Arrival {
    New,
    Repeated,
}

/// One part being received. Holds the claim until nothing is being written any more.
struct Part {
    core: Arc<Core>,
    upload: Upload,
    number: u64,
    offset: u64,
    len: u64,
    digests: Vec<Digest>,
    claim: Claim,
}

impl Part {
    async fn receive(self, mut body: Body) -> Result<(PartStored, Arrival)> {
        // Looked up under the claim: whoever held it before may have recorded the part just now.
        match self.core.catalog.extent(&self.upload.id, self.offset).await? {
            Some(stored) if stored.is_seen() => {
                Ok((self.compare(&mut body, &stored).await?, Arrival::Repeated))
            }
            // Of one that came past us nothing was acknowledged here.
            Some(_) | None => Ok((self.store(&mut body).await?, Arrival::New)),
        }
    }

    async fn store(self, body: &mut Body) -> Result<PartStored> {
        let hasher = SharedHasher::new(ExtentHasher::new(self.offset, &self.digests));
        let (core, id) = (&self.core, self.upload.id);
        let hand = Hand { writer: core.writer(id).await?, before: Before::default() };
        let mut writer = core.storage.extent_writer(id, self.offset, hand, hasher.observer()).await?;
        let checked =
            async { receive(body, &mut *writer, Expected::Exactly(self.len), &self.claim.cancelled).await };
        if let Err(error) = checked.await {
            if !writer.abandon().await {
                core.writers.forget(id);
            }
            return Err(error);
        }
        let receipt = writer.finish(Flush::Now).await.inspect_err(|_| core.writers.forget(id))?;
        let digests = hasher.finish(self.len)?;
        digests.verify(&self.digests)?;
        let extent = StoredExtent { blake3: digests.blake3()?, piece: digests.piece, receipt };
        let expires_at = self.core.clock.now().after(self.core.limits.upload_ttl);
        self.core.catalog.record_extent(&self.upload.id, &extent, expires_at).await?;
        super::watch::hint(&self.core, &self.upload).await;
        Ok(self.stored(&extent))
    }

    /// The part is there already: the body may only repeat it.
    async fn compare(self, body: &mut Body, stored: &StoredExtent) -> Result<PartStored> {
        let mut hasher = ExtentHasher::new(self.offset, &self.digests);
        let mut received = 0;
        while let Some(bytes) = next(body, &self.claim.cancelled).await? {
            let bytes = bytes?;
            received += bytes.len() as u64;
            if received > self.len {
                return Err(Error::new(
                    Code::LengthMismatch,
                    format!("Part {} has {} bytes, more came.", self.number, self.len),
                ));
            }
            hasher.update(&bytes);
        }
        if received < self.len {
            return Err(Error::new(
                Code::LengthMismatch,
                format!("Part {} has {} bytes, {received} came.", self.number, self.len),
            ));
        }
        let digests = hasher.finish();
        digests.verify(&self.digests)?;
        if digests.blake3()? != stored.blake3 {
            return Err(Error::new(
                Code::PartConflict,
                format!(
                    "Part {} is stored already, with other bytes. Stored parts never change: delete the upload and begin again.",
                    self.number
                ),
            ));
        }
        Ok(self.stored(stored))
    }

    fn stored(&self, extent: &StoredExtent) -> PartStored {
        PartStored { number: self.number, size: self.len, crc32: extent.piece.crc32, blake3: extent.blake3 }
    }
}
