//! What uploads reserve, and why they are refused.

use carrack_domain::error::Fact;
use carrack_domain::upload::{Shape, StoredExtent, Upload};
use carrack_domain::{Code, Error, UploadId};

/// Values of the column `state`.
pub(crate) const OPEN: i64 = 0;
pub(crate) const FINISHING: i64 = 1;

/// Bytes an upload holds reserved, and where.
pub(crate) struct Reservation {
    pub(crate) bucket: String,
    pub(crate) size: i64,
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
