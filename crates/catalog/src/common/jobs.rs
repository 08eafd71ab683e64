//! Jobs as plain values.

use super::values::{damaged, signed};
use carrack_domain::job::{JobFailure, JobState};
use carrack_domain::{Code, Error, Result};
use serde_json::{Value, json};
use std::time::Duration;

/// Values of the column `state`.
pub(crate) const fn number(state: JobState) -> i64 {
    match state {
        JobState::Waiting => 0,
        JobState::Running => 1,
        JobState::Paused => 2,
        JobState::Completed => 3,
        JobState::Failed => 4,
        JobState::Cancelled => 5,
    }
}

pub(crate) fn state(number_of: i64) -> Result<JobState> {
    JobState::ALL
        .into_iter()
        .find(|state| number(*state) == number_of)
        .ok_or_else(|| damaged("a job's state"))
}

pub(crate) fn failure_text(failure: &JobFailure) -> String {
    json!({"code": failure.code, "detail": failure.detail, "entry": failure.entry}).to_string()
}

pub(crate) fn failure(text: &str) -> Result<JobFailure> {
    let value: Value = serde_json::from_str(text).map_err(|_| damaged("a job's failure"))?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    match (text("code"), text("detail")) {
        (Some(code), Some(detail)) => Ok(JobFailure { code, detail, entry: text("entry") }),
        _ => Err(damaged("a job's failure")),
    }
}

pub(crate) fn lost() -> Error {
    Error::new(Code::Superseded, "The job is another worker's by now, or nobody wants it any more.")
}

pub(crate) fn millis(duration: Duration) -> Result<i64> {
    signed(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
