//! Names and units of what this room measures.

use metrics::{Unit, describe_counter, describe_histogram};
use std::time::Instant;

/// Seconds an operation took, by `op`.
pub const OPERATION_DURATION: &str = "carrack_storage_operation_duration_seconds";
/// Seconds an fsync, fdatasync or syncfs took.
pub const FSYNC_DURATION: &str = "carrack_storage_fsync_duration_seconds";
/// Operations of S3 that were tried again, by `op` and `kind`.
pub const RETRIES: &str = "carrack_storage_retries_total";
/// Failed operations, by `op` and `kind`.
pub const ERRORS: &str = "carrack_storage_errors_total";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_histogram!(OPERATION_DURATION, Unit::Seconds, "Duration of storage operations by operation.");
    describe_histogram!(FSYNC_DURATION, Unit::Seconds, "Duration of fsync, fdatasync and syncfs.");
    describe_counter!(RETRIES, "S3 requests that were tried again by operation and kind of failure.");
    describe_counter!(ERRORS, "Failed storage operations by operation and kind.");
}

/// Runs `work` and records how long it took.
pub(crate) fn timed<T>(op: &'static str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    metrics::histogram!(OPERATION_DURATION, "op" => op).record(start.elapsed().as_secs_f64());
    result
}
