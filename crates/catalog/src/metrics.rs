//! Metrics of the catalog.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

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
    describe_gauge!(
        "carrack_catalog_pool_connections",
        "Sessions with PostgreSQL for reading, by `state`: used or idle (not with SQLite)"
    );
    describe_histogram!(
        "carrack_catalog_pool_wait_seconds",
        Unit::Seconds,
        "How long a read waited for a session with PostgreSQL (not with SQLite)"
    );
    describe_counter!("carrack_audit_records_total", "Records written into the audit log");
}
