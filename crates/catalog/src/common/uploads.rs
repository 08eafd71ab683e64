//! What uploads reserve, and why they are refused.

use super::values::{APPEND, PARTS};
use crate::Finish;
use carrack_domain::error::Fact;
use carrack_domain::upload::{Shape, StoredExtent, Upload};
use carrack_domain::{Code, Error, Result, UploadId};

/// Values of the column `state`.
pub(crate) const OPEN: i64 = 0;
pub(crate) const FINISHING: i64 = 1;

/// Bytes an upload holds reserved, and where.
pub(crate) struct Reservation {
    pub(crate) bucket: String,
    pub(crate) size: i64,
}

/// Where an upload stands, and what else finishing asks for: its shape, size and length.
pub(crate) struct Standing {
    /// `None` while it is open.
    pub(crate) finish: Option<Finish>,
    pub(crate) shape: i64,
    pub(crate) size: i64,
    pub(crate) length: Option<i64>,
}

impl Standing {
    /// How long the file is that the upload becomes by itself; `None` while nobody knows.
    pub(crate) fn size_of_file(&self, id: &UploadId) -> Result<Option<i64>> {
        match self.shape {
            PARTS => Ok(Some(self.size)),
            APPEND => Ok(self.length),
            _ => Err(Error::broken(format!("upload {id} does not become a file by itself"))),
        }
    }
}

pub(crate) fn not_being_completed(id: &UploadId) -> Error {
    let detail = format!("There is no upload {id} that is being completed with these bytes.");
    Error::new(Code::UploadNotFound, detail)
}

pub(crate) fn not_found(id: &UploadId) -> Error {
    Error::new(Code::UploadNotFound, format!("There is no upload {id}."))
}

/// Bytes that an upload reserves: one of unknown length, or of partial ones that hold their own, begins with nothing.
pub(crate) fn reserved(upload: &Upload) -> u64 {
    match upload.shape {
        Shape::Parts(plan) => plan.size(),
        Shape::Append { length, .. } => length.unwrap_or(0),
        Shape::Joined { .. } => 0,
    }
}

pub(crate) fn finished() -> Error {
    Error::new(Code::UploadFinished, "The upload takes no more bytes: it is complete or being completed.")
}

pub(crate) fn parts_missing() -> Error {
    let detail = "Not every part is stored yet: send the missing ones, then complete the upload.";
    Error::new(Code::PartsMissing, detail)
}

pub(crate) fn offset_mismatch(offset: u64, given: u64) -> Error {
    let detail = format!("The upload has {offset} bytes, these begin at {given}: go on at {offset}.");
    Error::new(Code::OffsetMismatch, detail).with_fact(Fact::Offset { expected: offset, given })
}

pub(crate) fn end_of(line: Option<&StoredExtent>) -> u64 {
    line.map_or(0, |line| line.piece.fragment.end())
}

pub(crate) fn being_completed() -> Error {
    Error::new(Code::UploadFinished, "The upload is being completed and cannot be deleted now.")
}

pub(crate) fn superseded() -> Error {
    let detail = "A newer request took the upload over. Ask for its offset, and go on from there.";
    Error::new(Code::Superseded, detail)
}

pub(crate) fn length_exceeded() -> Error {
    Error::new(Code::LengthExceeded, "These bytes go beyond the announced length of the upload.")
}

pub(crate) fn no_appends() -> Error {
    let detail = "This upload takes no bytes in order: it comes in numbered parts, or joins others.";
    Error::new(Code::UploadShape, detail)
}

/// `length_mismatch` when the length that a client says of an upload of `offset` bytes cannot be.
pub(crate) fn contradicted(known: Option<u64>, length: u64, offset: u64) -> Result<()> {
    let problem = match known {
        Some(known) if known == length => return Ok(()),
        Some(known) => format!("The upload's length is {known} bytes and cannot become {length}."),
        None if length < offset => {
            format!("The upload has {offset} bytes already and cannot end after {length}.")
        }
        None => return Ok(()),
    };
    Err(Error::new(Code::LengthMismatch, problem))
}

/// `invalid_concatenation` unless this partial upload, as it was found, can be joined by `upload`.
pub(crate) fn not_joinable(
    upload: &Upload,
    partial: &UploadId,
    found: Option<&Upload>,
    joined: bool,
) -> Result<()> {
    // Somebody else's does not exist.
    let why = match found.filter(|found| found.owner == upload.owner) {
        None => "there is no such upload, or it was joined before",
        Some(found) if !found.is_partial() => "it was not created as a partial one",
        Some(_) if joined => "another upload joins it already",
        Some(_) => return Ok(()),
    };
    let detail = format!("The upload {partial} cannot be joined: {why}.");
    Err(Error::new(Code::InvalidConcatenation, detail))
}
