//! What every catalog has in common, however its rows are kept: plain values, the rules that refuse, the audit log's chain.

pub(crate) mod accounts;
pub(crate) mod archives;
pub(crate) mod files;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod links;
pub(crate) mod listing;
pub(crate) mod recorded;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod values;

use carrack_domain::error::Class;
use carrack_domain::{Code, Result};
use std::time::Instant;

/// Times an operation, and counts its failures through a fault on our side.
pub(crate) async fn measured<T>(operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let result = work.await;
    metrics::histogram!("carrack_catalog_operation_duration_seconds", "op" => operation)
        .record(begun.elapsed().as_secs_f64());
    if let Err(error) = &result
        && (error.code().class() == Class::Fault
            || matches!(error.code(), Code::StorageFull | Code::Overloaded | Code::Unavailable))
    {
        metrics::counter!("carrack_catalog_errors_total", "op" => operation).increment(1);
    }
    result
}
