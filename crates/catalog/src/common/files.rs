//! Why a file is refused, and what it is once it is made.

use crate::NewFile;
use carrack_domain::file::{Blob, File, Precondition};
use carrack_domain::{BucketName, Code, ETag, Error, Key, Result};

pub(crate) fn not_found(bucket: &BucketName, key: &Key) -> Error {
    Error::new(Code::FileNotFound, format!("There is no file {key} in the bucket {bucket}."))
}

pub(crate) fn younger() -> Error {
    Error::new(Code::PreconditionFailed, "The file under this key is younger.")
}

/// `precondition_failed` unless the file that is there is as demanded.
pub(crate) fn require(precondition: &Precondition, present: Option<&ETag>) -> Result<()> {
    if precondition.holds(present) {
        return Ok(());
    }
    let detail = match (precondition, present) {
        (Precondition::Absent, _) => {
            "There is a file under this key already, and the request asked to create only."
        }
        (_, None) => "There is no file under this key, and the request asked for one to be there.",
        _ => "The file under this key is not the one the request named: look at it again.",
    };
    Err(Error::new(Code::PreconditionFailed, detail))
}

/// The file that points at this blob from now on.
pub(crate) fn made(new: &NewFile, blob: Blob) -> File {
    File {
        bucket: new.target.bucket.clone(),
        key: new.target.key.clone(),
        blob,
        content_type: new.target.content_type.clone(),
        metadata: new.target.metadata.clone(),
        created_at: new.created_at,
        created_by: new.created_by.clone(),
    }
}
