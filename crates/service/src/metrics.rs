//! Names and units of what this room measures. Labels are bounded: never a path, user or id.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Uploads that ended, by `kind` (put, parts, append, joined; none of an expired one) and `result` (completed, failed, expired, deleted).
pub const UPLOADS: &str = "carrack_uploads_total";
/// Upload sessions that are open.
pub const UPLOADS_OPEN: &str = "carrack_uploads_open";
/// Bodies being received.
pub const UPLOADS_IN_PROGRESS: &str = "carrack_uploads_in_progress";
/// Parts, by `result` (ok, duplicate, conflict, digest, superseded, failed).
pub const UPLOAD_PARTS: &str = "carrack_upload_parts_total";
/// Bodies appended to uploads that come in order, by `result` (ok, digest, superseded, failed).
pub const UPLOAD_APPENDS: &str = "carrack_upload_appends_total";
/// Bytes received into storage.
pub const UPLOAD_BYTES: &str = "carrack_upload_bytes_total";
/// Seconds from the last byte to the visible file.
pub const COMPLETE_DURATION: &str = "carrack_upload_complete_duration_seconds";
/// Transfers that ended, by `kind` (full, range, zip) and `result` (completed, aborted, failed).
pub const DOWNLOADS: &str = "carrack_downloads_total";
/// Transfers under way, by `kind`.
pub const DOWNLOADS_IN_PROGRESS: &str = "carrack_downloads_in_progress";
/// Bytes of content sent, by `kind`.
pub const DOWNLOAD_BYTES: &str = "carrack_download_bytes_total";
/// Seconds it took to lay out an archive.
pub const ARCHIVE_PLAN_DURATION: &str = "carrack_archive_plan_duration_seconds";
/// What was refused as too much, by `limit` (requests, failed_logins, password_guesses, transfers).
pub const REFUSALS: &str = "carrack_limit_refusals_total";
/// Seconds that a piece of a transfer waited for its share of the bandwidth.
pub const THROTTLED: &str = "carrack_bandwidth_wait_duration_seconds";
/// Jobs that a worker had, by `result` (completed, retried, failed, released, superseded).
pub const JOBS: &str = "carrack_jobs_total";
/// Seconds that a worker had a job.
pub const JOB_DURATION: &str = "carrack_job_duration_seconds";
/// Bytes of deflated forms that are kept, with 128 for each record.
pub const PACK_BYTES: &str = "carrack_archive_encodings_bytes";
/// Runs of deflated forms that were deleted to stay within the quota.
pub const PACKS_EVICTED: &str = "carrack_archive_packs_evicted_total";
/// Records whose bytes are missing; must be 0.
pub const RECORDS_WITHOUT_DATA: &str = "carrack_storage_records_without_data";
/// Stored bytes without a record, found and deleted.
pub const ORPHANS: &str = "carrack_storage_orphans_total";
/// Bytes that can still be stored.
pub const FREE_BYTES: &str = "carrack_storage_free_bytes";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_counter!(UPLOADS, "Uploads that ended, by kind and result.");
    describe_gauge!(UPLOADS_OPEN, "Upload sessions that are open.");
    describe_gauge!(UPLOADS_IN_PROGRESS, "Bodies being received.");
    describe_counter!(UPLOAD_PARTS, "Parts by result.");
    describe_counter!(UPLOAD_APPENDS, "Bodies appended to uploads that come in order, by result.");
    describe_counter!(UPLOAD_BYTES, Unit::Bytes, "Bytes received into storage.");
    describe_histogram!(COMPLETE_DURATION, Unit::Seconds, "Time from the last byte to the visible file.");
    describe_counter!(DOWNLOADS, "Transfers that ended, by kind and result.");
    describe_gauge!(DOWNLOADS_IN_PROGRESS, "Transfers under way, by kind.");
    describe_counter!(DOWNLOAD_BYTES, Unit::Bytes, "Bytes of content sent, by kind.");
    describe_counter!(REFUSALS, "What was refused as too much, by limit.");
    describe_histogram!(THROTTLED, Unit::Seconds, "Time that a piece of a transfer waited for its share.");
    describe_histogram!(ARCHIVE_PLAN_DURATION, Unit::Seconds, "Time to lay out an archive.");
    describe_counter!(JOBS, "Jobs that a worker had, by result.");
    describe_histogram!(JOB_DURATION, Unit::Seconds, "Time that a worker had a job.");
    describe_gauge!(PACK_BYTES, Unit::Bytes, "Deflated forms that are kept.");
    describe_counter!(PACKS_EVICTED, "Runs of deflated forms deleted to stay within the quota.");
    describe_gauge!(RECORDS_WITHOUT_DATA, "Records whose bytes are missing; must be 0.");
    describe_counter!(ORPHANS, "Stored bytes without a record, found and deleted.");
    describe_gauge!(FREE_BYTES, Unit::Bytes, "Bytes that can still be stored.");
}
