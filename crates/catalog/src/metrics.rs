//! Metrics of the catalog.

use metrics::{Unit, describe_counter, describe_histogram};

/// Describes the metrics to the recorder that is installed.
pub fn describe() {
    describe_histogram!(
        "carrack_catalog_operation_duration_seconds",
        Unit::Seconds,
        "Duration of each catalog operation, waiting included, by `op`"
    );
    describe_counter!(
        "carrack_catalog_errors_total",
        "Catalog operations that failed through a fault on our side (not: absent, conflicting, over quota), by `op`"
    );
    describe_histogram!(
        "carrack_catalog_commit_duration_seconds",
        Unit::Seconds,
        "Duration of a commit to disk, fsync included"
    );
    describe_histogram!(
        "carrack_catalog_commands_per_commit",
        Unit::Count,
        "Commands that shared one commit"
    );
    describe_counter!("carrack_audit_records_total", "Records written into the audit log");
}
