//! Work that outlives the request that asked for it: where a job stands, and which way it may go from there.

use crate::error::{Code, Error, Result};
use std::fmt;
use std::time::Duration;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Ready to be taken by a worker, at once or after a pause between two attempts.
    Waiting,
    /// A worker has it, as long as its lease lasts.
    Running,
    /// Somebody wants it to rest; what is done is kept.
    Paused,
    /// Done.
    Completed,
    /// Given up over an error that does not pass.
    Failed,
    /// Somebody does not want it any more.
    Cancelled,
}

/// What somebody may want of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobWish {
    /// Rest.
    Pause,
    /// Go on after a rest.
    Resume,
    /// Stop for good.
    Cancel,
}

impl JobState {
    /// Every state there is.
    pub const ALL: [JobState; 6] = [
        JobState::Waiting,
        JobState::Running,
        JobState::Paused,
        JobState::Completed,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether no other state follows.
    pub const fn is_last(self) -> bool {
        matches!(self, JobState::Completed | JobState::Failed | JobState::Cancelled)
    }

    /// The state that a wish leads to; `invalid_transition` when it cannot be had from here.
    pub fn after(self, wish: JobWish) -> Result<JobState> {
        match (self, wish) {
            (JobState::Waiting | JobState::Running, JobWish::Pause) => Ok(JobState::Paused),
            (JobState::Paused, JobWish::Resume) => Ok(JobState::Waiting),
            (JobState::Waiting | JobState::Running | JobState::Paused, JobWish::Cancel) => {
                Ok(JobState::Cancelled)
            }
            (from, wish) => Err(Error::new(
                Code::InvalidTransition,
                format!("It is {from}, so it cannot be {}.", wish.done()),
            )),
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JobWish {
    const fn done(self) -> &'static str {
        match self {
            JobWish::Pause => "paused",
            JobWish::Resume => "resumed",
            JobWish::Cancel => "cancelled",
        }
    }
}

/// Attempts at a job before a passing fault counts as a lasting one.
pub const ATTEMPTS_MAX: u32 = 8;
/// The pause after the first attempt; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// How long to wait after `attempts` attempts that failed, between half and the whole of an exponentially growing time:
/// `dice` is a random number, so that jobs that failed together do not come back together.
pub fn pause_after(attempts: u32, dice: u64) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let half = whole / 2;
    let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_millis(dice % span)
}

/// Why a job failed, as it is told to whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// The stable code of the error.
    pub code: String,
    /// A sentence for a person.
    pub detail: String,
    /// The entry it happened at, if it was one.
    pub entry: Option<String>,
}

/// How much of a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Entries that are done.
    pub entries: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition() {
        use JobState::{Cancelled, Completed, Failed, Paused, Running, Waiting};
        for from in JobState::ALL {
            assert_eq!(JobState::parse(from.as_str()), Some(from));
            let expected = match from {
                Waiting | Running => [Some(Paused), None, Some(Cancelled)],
                Paused => [None, Some(Waiting), Some(Cancelled)],
                Completed | Failed | Cancelled => [None; 3],
            };
            let found = [JobWish::Pause, JobWish::Resume, JobWish::Cancel].map(|wish| from.after(wish));
            for (found, expected) in found.into_iter().zip(expected) {
                assert_eq!(found.as_ref().ok(), expected.as_ref());
            }
            assert_eq!(from.is_last(), expected == [None; 3]);
        }
        assert_eq!(JobState::parse("done"), None);
        assert_eq!(Paused.after(JobWish::Pause).unwrap_err().code(), Code::InvalidTransition);
    }

    #[test]
    fn pauses_grow_and_differ() {
        for attempts in 1..40 {
            let most = Duration::from_secs(1 << (attempts - 1).min(16)).min(PAUSE_MAX);
            for dice in [0, 1, 499, 12_345, u64::MAX] {
                let pause = pause_after(attempts, dice);
                assert!(pause >= most / 2 && pause < most, "{attempts} {dice}: {pause:?}");
            }
        }
        assert_ne!(pause_after(3, 1), pause_after(3, 2));
    }
}
