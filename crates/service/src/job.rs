//! Work that outlives the request that asked for it.
//!
//! The catalog has the jobs. A worker *claims* one: it has a lease of [`LEASE`] by the catalog's clock, which it renews every
//! [`RENEWED_EVERY`], and a fence that it shows with every write. A worker that was thought dead and was not finds its fence
//! outdated and writes nothing. A passing fault gives the job back for a later attempt, a lasting one fails it.

use crate::coherence::News;
use crate::{Core, metrics};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_catalog::Claim;
use carrack_domain::error::Class;
use carrack_domain::job::{ATTEMPTS_MAX, JobFailure, JobState, Progress, pause_after};
use carrack_domain::{ArchiveId, Code, Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a job stays with a worker that is not heard of.
const LEASE: Duration = Duration::from_secs(6);
/// How often a worker makes itself heard.
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// How often those who watch hear of progress, at most.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// How often idle workers look for jobs that nobody told them of: retries that are due, jobs of workers that died.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a kind of job does.
#[async_trait]
pub(crate) trait Work: Send + Sync + 'static {
    /// Does the job to its end, counting in `running`, and records that it is complete. What is done survives; a later
    /// call continues. Stops soon after `running.stop` is cancelled.
    async fn run(&self, claim: &Claim, running: &Running) -> std::result::Result<(), Ended>;
}

/// Why a job was not completed.
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// Something went wrong, perhaps at an entry.
    Fault(Error, Option<String>),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Fault(error, None)
    }
}

/// A job that is running on this node.
#[derive(Default)]
pub(crate) struct Running {
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Cancelled when it is to stop.
    pub(crate) stop: CancellationToken,
}

impl Running {
    /// Counts what is done.
    pub(crate) fn add(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is done.
    pub(crate) fn progress(&self) -> Progress {
        Progress { entries: self.entries.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// `Err` once it is to stop.
    pub(crate) fn check(&self) -> std::result::Result<(), Ended> {
        if self.stop.is_cancelled() { Err(Ended::Stopped) } else { Ok(()) }
    }
}

/// The jobs that are running on this node, and a bell for those that wait. Bounded by the number of workers.
#[derive(Default)]
pub(crate) struct Desk {
    running: Mutex<HashMap<ArchiveId, Arc<Running>>>,
    bell: Notify,
}

impl Desk {
    fn all(&self) -> MutexGuard<'_, HashMap<ArchiveId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a new job.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Tells a job to stop, if it runs here.
    pub(crate) fn stop(&self, job: ArchiveId) {
        if let Some(running) = self.all().get(&job) {
            running.stop.cancel();
        }
    }

    /// A worker is done with a job, which another may have by now.
    fn leave(&self, job: ArchiveId, running: &Arc<Running>) {
        let mut all = self.all();
        if all.get(&job).is_some_and(|present| Arc::ptr_eq(present, running)) {
            all.remove(&job);
        }
    }

    /// How many run here.
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// How far a job is, if it runs here.
    pub(crate) fn progress(&self, job: ArchiveId) -> Option<Progress> {
        self.all().get(&job).map(|running| running.progress())
    }
}

/// A job at a moment, as it is told to those who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Where it stands.
    pub state: JobState,
    /// How much is done.
    pub progress: Progress,
}

impl Moment {
    pub(crate) fn to_bytes(self) -> Bytes {
        format!("{} {} {}", self.state, self.progress.entries, self.progress.bytes).into()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Moment> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let state = JobState::parse(words.next()?)?;
        let progress = Progress { entries: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()? };
        Some(Moment { state, progress })
    }
}

/// Tells those who watch a job. That nobody heard of it loses nothing.
pub(crate) async fn tell(core: &Core, job: ArchiveId, moment: Moment) {
    if let Err(error) = core.state.publish(&topic(job), moment.to_bytes()).await {
        tracing::warn!(%job, error = error.chain(), "those who watch a job were not told");
    }
}

/// The topic of a job.
pub(crate) fn topic(job: ArchiveId) -> String {
    format!("archive:{job}")
}

/// The workers.
pub struct Jobs {
    core: Arc<Core>,
    desk: Arc<Desk>,
    work: Arc<dyn Work>,
    workers: usize,
}

impl Jobs {
    pub(crate) fn new(core: Arc<Core>, desk: Arc<Desk>, work: Arc<dyn Work>, workers: usize) -> Jobs {
        Jobs { core, desk, work, workers: workers.max(1) }
    }

    /// Works until `stop`; jobs under way are then given back, to be continued by whoever takes them next.
    pub async fn run(self: Arc<Jobs>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        for _ in 0..self.workers {
            let (jobs, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { jobs.work(stop).await });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn work(&self, stop: CancellationToken) {
        let mut worker = [0; 16];
        self.core.entropy.fill(&mut worker);
        while !stop.is_cancelled() {
            match self.core.catalog.claim_job(worker, LEASE).await {
                Ok(Some(claim)) => {
                    tracing::info!(job = %claim.job, fence = claim.fence, "a job is taken");
                    // Where one is, there may be another.
                    self.desk.ring();
                    self.serve(&claim, &stop).await;
                    continue;
                }
                Ok(None) => {}
                Err(error) if error.code() == Code::ShuttingDown => return,
                Err(error) => tracing::error!(error = error.chain(), "no job can be taken"),
            }
            tokio::select! {
                () = self.desk.bell.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// A job from its claim to its end, whatever that is.
    async fn serve(&self, claim: &Claim, stop: &CancellationToken) {
        let running = Arc::new(Running { stop: stop.child_token(), ..Running::default() });
        self.desk.all().insert(claim.job, running.clone());
        let begun = Instant::now();
        let (ended, ()) = tokio::join!(
            async {
                let ended = self.work.run(claim, &running).await;
                running.stop.cancel();
                ended
            },
            self.keep_alive(claim, &running)
        );
        let progress = running.progress();
        self.desk.leave(claim.job, &running);
        let result = self.settle(claim, ended, progress).await;
        let result = result.unwrap_or_else(|error| {
            if error.code() != Code::Superseded {
                tracing::error!(job = %claim.job, error = error.chain(), "the end of a job could not be noted");
            }
            "superseded"
        });
        ::metrics::counter!(metrics::JOBS, "result" => result).increment(1);
        ::metrics::histogram!(metrics::JOB_DURATION).record(begun.elapsed().as_secs_f64());
    }

    /// Renews the lease and tells of progress until the work is over, and stops it when it is the worker's no more.
    async fn keep_alive(&self, claim: &Claim, running: &Running) {
        let mut told = Progress::default();
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut first, mut renewed) = (true, Instant::now());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = running.stop.cancelled() => return,
            }
            let progress = running.progress();
            if first || progress != told {
                (first, told) = (false, progress);
                tell(&self.core, claim.job, Moment { state: JobState::Running, progress }).await;
            }
            if renewed.elapsed() < RENEWED_EVERY {
                continue;
            }
            match self.core.catalog.renew_job(claim, LEASE, progress).await {
                Ok(()) => renewed = Instant::now(),
                Err(error) if error.code() == Code::Superseded => running.stop.cancel(),
                // A second before the lease ends: somebody else may begin, and we may not know it.
                Err(_) if renewed.elapsed() + Duration::from_secs(1) >= LEASE => running.stop.cancel(),
                Err(error) => tracing::warn!(error = error.chain(), "a lease could not be renewed yet"),
            }
        }
    }

    /// Notes how a job ended; the word for the metric.
    async fn settle(
        &self,
        claim: &Claim,
        ended: std::result::Result<(), Ended>,
        progress: Progress,
    ) -> Result<&'static str> {
        let catalog = &self.core.catalog;
        let (state, word) = match ended {
            Ok(()) => (JobState::Completed, "completed"),
            Err(Ended::Stopped) => return self.release(claim, progress).await,
            Err(Ended::Fault(error, _)) if error.code() == Code::Superseded => return Err(error),
            Err(Ended::Fault(error, _)) if error.code() == Code::ShuttingDown => {
                return self.release(claim, progress).await;
            }
            Err(Ended::Fault(error, entry)) => {
                let failure = JobFailure {
                    code: error.code().as_str().to_owned(),
                    detail: error.detail().to_owned(),
                    entry,
                };
                let attempts = claim.attempts + 1;
                if passes(&error) && attempts < ATTEMPTS_MAX {
                    let pause = pause_after(attempts, self.dice());
                    tracing::warn!(job = %claim.job, error = error.chain(), ?pause, "a job will be tried again");
                    catalog.retry_job(claim, attempts, pause, &failure).await?;
                    (JobState::Waiting, "retried")
                } else {
                    tracing::error!(job = %claim.job, error = error.chain(), "a job failed");
                    catalog.fail_job(claim, &failure).await?;
                    (JobState::Failed, "failed")
                }
            }
        };
        tell(&self.core, claim.job, Moment { state, progress }).await;
        Ok(word)
    }

    /// Gives a job back, for another node to go on with.
    async fn release(&self, claim: &Claim, progress: Progress) -> Result<&'static str> {
        self.core.catalog.release_job(claim, progress).await?;
        self.core.coherence.tell(News::Job).await;
        Ok("released")
    }

    fn dice(&self) -> u64 {
        let mut bytes = [0; 8];
        self.core.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Whether the same may go well later. Bytes that are gone do not come back.
fn passes(error: &Error) -> bool {
    match error.code().class() {
        Class::Retry | Class::Capacity => true,
        Class::Fault => error.code() != Code::DataLost,
        Class::Amend | Class::Refused | Class::Absent | Class::Conflict => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_trip() {
        let moment = Moment { state: JobState::Running, progress: Progress { entries: 7, bytes: u64::MAX } };
        assert_eq!(Moment::parse(&moment.to_bytes()), Some(moment));
        for bad in ["", "running", "running 1", "gone 1 2", "running x 2"] {
            assert_eq!(Moment::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_passes() {
        let of = |code| passes(&Error::new(code, ""));
        assert!(of(Code::Internal) && of(Code::StorageFull) && of(Code::Overloaded));
        assert!(!of(Code::DataLost) && !of(Code::FileNotFound));
    }
}
