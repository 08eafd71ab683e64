//! Waiting for the disk. An error here is final: the kernel may have thrown dirty pages away, so a second fsync that
//! succeeds proves nothing.

use super::failure;
use crate::metrics::FSYNC_DURATION;
use carrack_domain::Result;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

/// Data and metadata of a file or folder.
pub(super) fn file(op: &'static str, file: &File) -> Result<()> {
    timed(|| file.sync_all().map_err(|error| failure(op, error)))
}

/// Data of a file, and what is needed to read it back.
pub(super) fn data(op: &'static str, file: &File) -> Result<()> {
    timed(|| file.sync_data().map_err(|error| failure(op, error)))
}

/// The names in a folder.
pub(super) fn folder(op: &'static str, path: &Path) -> Result<()> {
    let folder = File::open(path).map_err(|error| failure(op, error))?;
    file(op, &folder)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let result = work();
    metrics::histogram!(FSYNC_DURATION).record(start.elapsed().as_secs_f64());
    result
}
