//! A small upload that comes with all its bytes: they are gathered in memory, and one transaction keeps them and records
//! file and upload. Nothing of it is on the disk before it is whole, so no session has to exist meanwhile.

use super::append::{Append, Checksum, NewAppend, Progress};
use super::digests::{ExtentDigests, ExtentHasher};
use super::put::{Stored, publish_record};
use super::receive::{Gathered, SMALL_BYTES_MAX, gather};
use super::{Uploads, appending};
use crate::{Body, Core, metrics};
use bytes::Bytes;
use carrack_catalog::{NewFile, Origin};
use carrack_domain::access::{UseUploads, WriteFile};
use carrack_domain::digest::{Algorithm, ContentDigest, Digest};
use carrack_domain::error::Class;
use carrack_domain::file::{Blob, Precondition};
use carrack_domain::upload::{Shape, Upload, UploadState};
use carrack_domain::{BlobId, Code, Error, Grant, Result, UploadId};
use carrack_storage::Room;

impl Uploads {
    /// As [`Uploads::create_append`] and [`Uploads::append`] with the first bytes. A client that was cut off may find
    /// what arrived by the list of its uploads; of one that sent nonsense nothing is kept.
    pub async fn create_with_body(
        &self,
        grant: &Grant<WriteFile>,
        own: &Grant<UseUploads>,
        id: UploadId,
        new: NewAppend,
        (append, body): (Append, Body),
    ) -> Result<Progress> {
        let uploads = self.clone();
        let (grant, own) = (grant.clone(), own.clone());
        let work = async move { uploads.begin_with(&grant, &own, id, new, append, body).await };
        self.core.to_the_end(work).await
    }

    async fn begin_with(
        &self,
        grant: &Grant<WriteFile>,
        own: &Grant<UseUploads>,
        id: UploadId,
        new: NewAppend,
        append: Append,
        mut body: Body,
    ) -> Result<Progress> {
        if let Some(length) = new.length.filter(|length| *length <= SMALL_BYTES_MAX && !new.partial) {
            self.core
                .admit(grant.principal().subject(), grant.resource(), Some(length), &Precondition::None)
                .await?;
            let _room = self.core.admit_small(length).await?;
            match gather(body, length).await {
                Gathered::Whole(bytes) if bytes.len() as u64 == length => {
                    let upload = self.begin_in_order(
                        grant,
                        id,
                        Shape::Append { length: Some(length), partial: false },
                        new,
                    );
                    let stored = self.at_once(upload, append.checksum, bytes).await;
                    appending::count(&stored);
                    return stored;
                }
                gathered => body = gathered.into_body(),
            }
        }
        self.create_append(grant, id, new).await?;
        match self.append(own, id, append, body).await {
            Ok(progress) => Ok(progress),
            Err(error) => {
                let cut = matches!(error.code(), Code::BodyIncomplete | Code::RequestTimeout);
                if !cut && matches!(error.code().class(), Class::Amend | Class::Capacity) {
                    self.delete(own, id).await?;
                }
                Err(error)
            }
        }
    }

    async fn at_once(&self, mut upload: Upload, checksum: Checksum, bytes: Bytes) -> Result<Progress> {
        let core = &self.core;
        let (blob, content) = match checksum {
            Checksum::None => core.small(bytes, &[], |_| Ok(()))?,
            Checksum::Now(digests) => {
                let algorithms: Vec<Algorithm> = digests.iter().map(Digest::algorithm).collect();
                core.small(bytes, &algorithms, |found| found.verify(&digests))?
            }
            Checksum::AtEnd(algorithms, digest) => {
                core.small(bytes, algorithms, |found| found.verify(&[digest()?]))?
            }
        };
        let size = blob.size;
        let new = NewFile {
            target: upload.target.clone(),
            blob,
            content,
            precondition: Precondition::None,
            created_at: core.clock.now(),
            created_by: upload.owner.clone(),
            origin: Origin::Whole(Box::new(upload.clone())),
        };
        let committed = publish_record(core, new).await?;
        if let Some(orphan) = committed.orphan {
            self.maintenance.collect(orphan).await;
        }
        ::metrics::counter!(metrics::UPLOADS, "kind" => super::parts::kind(&upload), "result" => "completed")
            .increment(1);
        upload.state = UploadState::Complete;
        Ok(Progress { upload, offset: Some(size) })
    }
}

/// Room in the catalog below which it counts as full, as the disk does with its reserve.
const SPARE_BYTES_MIN: u64 = 256 << 10;

impl Core {
    /// `storage_full` unless a small body of `length` bytes fits: on the disk, or where contents that are gone have left
    /// room in the catalog. To be held until its record is written: it is once in the catalog's log, once in the catalog.
    pub(super) async fn admit_small(&self, length: u64) -> Result<Option<Room>> {
        match self.storage.admit(2 * length) {
            Err(error) if error.code() == Code::StorageFull => {
                let spare = self.catalog.spare_bytes().await?;
                if spare >= length + SPARE_BYTES_MIN { Ok(None) } else { Err(error) }
            }
            admitted => admitted.map(Some),
        }
    }

    /// Makes a blob of a small body, to be kept with its record, once `check` agrees with its digests, computing
    /// `algorithms` besides what the catalog needs.
    pub(super) fn small(
        &self,
        bytes: Bytes,
        algorithms: &[Algorithm],
        check: impl FnOnce(&ExtentDigests) -> Result<()>,
    ) -> Result<Stored> {
        let mut hasher = ExtentHasher::for_joining(0, algorithms);
        hasher.update(&bytes);
        let digests = hasher.finish();
        check(&digests)?;
        let (id, size) = (BlobId::generate(&*self.entropy), bytes.len() as u64);
        Ok((Blob { id, size, digest: digests.content()?, pieces: None }, Some(bytes)))
    }
}

impl ExtentDigests {
    /// The digests of a whole body.
    pub(super) fn content(&self) -> Result<ContentDigest> {
        let content =
            self.piece.content().ok_or_else(|| Error::broken("a whole body that does not begin at 0"))?;
        Ok(ContentDigest { sha256: self.sha256, ..content })
    }
}
