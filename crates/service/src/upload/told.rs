//! Bytes in order as in `append`, of an upload that ends when its client says so: that all its bytes are there does not
//! complete it, and whoever completes it hears what became of them.

use super::append::{Append, Arrived, NewAppend, Progress, arrive, wrong_shape};
use super::claims::Claims;
use super::receive::too_large;
use super::{Uploads, finish};
use crate::maintenance::Maintenance;
use crate::{Body, Core};
use carrack_catalog::{Announced, Outcome};
use carrack_domain::access::{UseUploads, WriteFile};
use carrack_domain::digest::Digest;
use carrack_domain::error::Class;
use carrack_domain::file::{File, Precondition};
use carrack_domain::upload::{Shape, Upload, UploadState};
use carrack_domain::{Code, Error, Grant, Result, UploadId};
use std::sync::Arc;

/// What an upload begins with that ends when its client says so.
#[derive(Debug, Clone, Default)]
pub struct NewTold {
    /// As of any upload whose bytes come in order.
    pub append: NewAppend,
    /// What must hold of the file that is there, now and at the end.
    pub precondition: Precondition,
    /// Digests of the whole, checked at the end.
    pub digests: Vec<Digest>,
    /// Whether the file shall have its SHA-256 with it.
    pub wants_sha256: bool,
}

/// Whether an upload ends with the bytes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// More will come, or at least another word.
    Later,
    /// It does. These are digests of the whole, besides those announced before.
    Now(Vec<Digest>),
}

/// What an append came to.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where the upload stands.
    pub progress: Progress,
    /// The file, once it has ended, and whether it is new.
    pub file: Option<(File, Outcome)>,
}

impl Uploads {
    /// Begins an upload; with a body also appends it. `append.report` is told of offset 0 once the upload can be asked
    /// for, before a byte of the body is read: from then on a client that is cut off may go on.
    ///
    /// Errors as of [`Uploads::append_told`], and `precondition_failed`. Of one that sent nonsense nothing is kept.
    pub async fn create_told(
        &self,
        grant: &Grant<WriteFile>,
        own: &Grant<UseUploads>,
        id: UploadId,
        new: NewTold,
        end: End,
        (mut append, body): (Append, Body),
    ) -> Result<Told> {
        let shape = Shape::Append { length: new.append.length, partial: false };
        let admitted = self
            .core
            .admit(grant.principal().subject(), grant.resource(), new.append.length, &new.precondition)
            .await;
        admitted.map_err(Error::finally)?;
        let upload = Upload {
            precondition: new.precondition,
            expected: new.digests,
            wants_sha256: new.wants_sha256,
            told: true,
            ..self.begin_in_order(grant, id, shape, new.append)
        };
        let (uploads, own) = (self.clone(), own.clone());
        let work = async move {
            uploads.core.open_session(&upload).await?;
            if let Some(report) = &mut append.report {
                report(0);
            }
            match uploads.append_told(&own, id, append, end, body).await {
                Err(error) if is_nonsense(&error) => {
                    uploads.core.discard_session(&uploads.claims, &upload).await?;
                    Err(error.finally())
                }
                result => result,
            }
        };
        self.core.to_the_end(work).await
    }

    /// Appends a body, and ends the upload if that is its end. Again is fine, and answered the same.
    ///
    /// Errors as of [`Uploads::append`]; `length_mismatch` when the upload ends short of its length. Bytes beyond its
    /// length end it for good, and so does what speaks against its file: the error then is final
    /// ([`Error::is_final`]).
    pub async fn append_told(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
        append: Append,
        end: End,
        body: Body,
    ) -> Result<Told> {
        let upload = self.own(grant, id).await?;
        if !upload.told {
            return Err(wrong_shape());
        }
        let (core, maintenance, claims) = (self.core.clone(), self.maintenance.clone(), self.claims.clone());
        let work = async move {
            let arrived = match arrive(&core, &claims, &upload, append, body).await {
                Err(error) if error.code() == Code::LengthExceeded => {
                    return Err(beyond(&core, &claims, &upload, error).await?);
                }
                arrived => arrived?,
            };
            match end {
                End::Later if arrived.upload.state == UploadState::Open => {
                    let upload = core.catalog.upload(&id).await?;
                    Ok(Told { progress: Progress { upload, offset: Some(arrived.offset) }, file: None })
                }
                End::Later => {
                    let detail = "This upload has ended: there is nothing more to be said of it.";
                    Err(Error::new(Code::UploadFinished, detail))
                }
                End::Now(digests) => {
                    let told = conclude(&core, &maintenance, &claims, arrived, digests).await;
                    if let Err(error) = &told
                        && error.is_final()
                    {
                        forget(&core, &claims, &upload).await?;
                    }
                    told
                }
            }
        };
        self.core.to_the_end(work).await
    }
}

/// Makes the file; an error is final when it is the file that is refused.
async fn conclude(
    core: &Arc<Core>,
    maintenance: &Arc<Maintenance>,
    claims: &Arc<Claims>,
    arrived: Arrived,
    digests: Vec<Digest>,
) -> Result<Told> {
    let Arrived { upload, offset, claim } = arrived;
    match upload.length() {
        Some(length) if length == offset => {}
        Some(length) => {
            let detail = format!("The upload is to have {length} bytes and has {offset}: send the rest.");
            return Err(Error::new(Code::LengthMismatch, detail));
        }
        None => {
            let announced = Announced { offset, length: offset };
            core.catalog.take_over(&upload.id, Some(announced)).await?;
        }
    }
    // Whoever asks meanwhile need not wait for the file.
    drop(claim);
    let ended = finish::when_whole(core, maintenance, claims, &upload, digests).await;
    match ended.map_err(|error| if is_refusal(&error) { error.finally() } else { error })? {
        Some(file) => {
            let upload = core.catalog.upload(&upload.id).await?;
            Ok(Told { progress: Progress { upload, offset: Some(offset) }, file: Some(file) })
        }
        None => Err(Error::broken("an upload that has all its bytes cannot be completed")),
    }
}

/// Whether nothing but another upload would help.
fn is_refusal(error: &Error) -> bool {
    match error.code().class() {
        Class::Amend | Class::Absent | Class::Conflict | Class::Refused => true,
        Class::Capacity => error.code() != Code::StorageFull,
        Class::Retry | Class::Fault => false,
    }
}

/// Whether a request that began an upload was wrong by itself: not cut off, and not short of room.
fn is_nonsense(error: &Error) -> bool {
    let cut = matches!(error.code(), Code::BodyIncomplete | Code::LengthMismatch);
    !cut && !error.is_final() && error.code().class() == Class::Amend
}

/// Bytes beyond the end: what is true of this upload cannot be told any more.
async fn beyond(core: &Arc<Core>, claims: &Arc<Claims>, upload: &Upload, error: Error) -> Result<Error> {
    let upload = core.catalog.upload(&upload.id).await?;
    if upload.state != UploadState::Open {
        return Ok(error);
    }
    forget(core, claims, &upload).await?;
    let unknown = upload.length().is_none();
    Ok(if unknown { too_large(core.limits.file_size_max) } else { error }.finally())
}

/// Deletes an upload that has failed, unless that was done on the way.
async fn forget(core: &Arc<Core>, claims: &Arc<Claims>, upload: &Upload) -> Result<()> {
    match core.discard_session(claims, upload).await {
        Err(error) if error.code() == Code::UploadNotFound => Ok(()),
        result => result,
    }
}
