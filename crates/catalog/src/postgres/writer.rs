//! What writes: it takes what is waiting, commits it once, and only then answers.
//!
//! *Turns.* Every transaction of this kind, of whichever node, begins by taking one lock of the database, and holds it to
//! its end. So these transactions run one after the other in the whole cluster, as they do in SQLite: what is read in one is
//! still so when it writes, the accounts cannot drift, and the audit log has one order. What that costs is shared by all
//! that waits on a node when its turn comes (0041).

use super::audit;
use super::error::{Done, Failed, Kind, unavailable};
use super::events;
use super::session::{Server, Session, stopping};
use crate::common::journal::Journal;
use carrack_domain::audit::{Change, Context};
use carrack_domain::{Error, Result};
use futures_util::FutureExt;
use futures_util::future::join;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The most commands that share one commit.
const BATCH_MAX: usize = 256;
/// How long a turn takes, if more is waiting: other nodes wait for theirs.
const TURN_MAX: Duration = Duration::from_millis(250);
/// How often a transaction is begun that the server gave up.
const ATTEMPTS: u32 = 4;
/// How long a command may have waited when its turn comes: whoever sent it is told to come again.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// "carrack" in ASCII: the lock that makes turns.
pub(super) const TURN: i64 = 0x0063_6172_7261_636b;

/// A change under way.
pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = Done<T>> + Send + 'c>>;

/// A change that waits for its turn, then for its commit. It can be made again.
pub(super) trait Command: Send {
    /// Makes the change; false when it failed for a reason of its own and is to be undone.
    fn run<'c>(&'c mut self, session: &'c Session, journal: &'c mut Journal) -> Work<'c, bool>;
    /// Tells the requester: what `run` came to, or why that was not kept.
    fn answer(self: Box<Self>, lost: Option<&Lost>);
    /// How long it has been waiting.
    fn age(&self) -> Duration;
}

/// Why nothing of a transaction was kept, or nobody knows whether it was.
pub(super) struct Lost(String);

impl Lost {
    fn error(&self) -> Error {
        unavailable(self.0.clone())
    }
}

/// Arguments, and what is done with them, as a [`Command`].
pub(super) struct Job<A, T> {
    pub(super) operation: &'static str,
    pub(super) arguments: A,
    pub(super) change: for<'c> fn(&'c A, &'c mut Turn<'_>) -> Work<'c, T>,
    pub(super) records: fn(&A, &T) -> Vec<Change>,
    pub(super) by: Option<Arc<Context>>,
    pub(super) begun: Instant,
    pub(super) result: Option<Result<T>>,
    pub(super) reply: oneshot::Sender<Result<T>>,
}

/// What a change works with.
pub(super) struct Turn<'t> {
    pub(super) session: &'t Session,
    pub(super) journal: &'t mut Journal,
}

impl<A: Send + Sync, T: Send> Command for Job<A, T> {
    fn run<'c>(&'c mut self, session: &'c Session, journal: &'c mut Journal) -> Work<'c, bool> {
        Box::pin(async move {
            let mut turn = Turn { session, journal };
            let change = AssertUnwindSafe((self.change)(&self.arguments, &mut turn)).catch_unwind().await;
            let done = change.unwrap_or_else(|_| Err(Error::broken("a catalog command panicked").into()));
            self.result = Some(match done {
                Ok(done) => {
                    turn.journal.note(self.by.as_deref(), &(self.records)(&self.arguments, &done));
                    Ok(done)
                }
                Err(failed) if failed.kind() == Kind::Refused => Err(failed.into_error(self.operation)),
                Err(failed) => return Err(failed),
            });
            Ok(matches!(self.result, Some(Ok(_))))
        })
    }

    fn answer(self: Box<Self>, lost: Option<&Lost>) {
        let result = match (lost, self.result) {
            // A refusal too may rest on what a neighbour did, and is not kept.
            (Some(lost), _) => Err(lost.error()),
            (None, Some(result)) => result,
            (None, None) => Err(unavailable("its turn did not come in time")),
        };
        // A requester that went away needs no answer; its change stands.
        self.reply.send(result).ok();
    }

    fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// How a turn failed.
enum Broken {
    /// Nothing was kept; another attempt may succeed.
    Before(Failed),
    /// Nobody knows whether it was.
    AtCommit(Failed),
}

/// The task: runs until the queue is closed and empty.
pub(super) struct Writer {
    pub(super) server: Arc<Server>,
    pub(super) session: Option<Session>,
    pub(super) journal: Journal,
    pub(super) queue: mpsc::Receiver<Box<dyn Command>>,
    pub(super) commits: Arc<AtomicU64>,
}

impl Writer {
    pub(super) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Some(first) = self.queue.recv().await else { return };
                waiting.push_back(first);
            }
            while waiting.len() < BATCH_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                waiting.push_back(next);
            }
            self.turn(&mut waiting).await;
        }
    }

    /// One transaction for what is waiting, or for as much of it as fits into a turn; they are answered.
    async fn turn(&mut self, waiting: &mut VecDeque<Box<dyn Command>>) {
        while let Some(first) = waiting.front()
            && first.age() > WAIT_MAX
        {
            let Some(late) = waiting.pop_front() else { break };
            late.answer(None);
        }
        let mut attempt = 1;
        while !waiting.is_empty() {
            let (answered, lost) = match self.attempt(waiting).await {
                Ok(done) => (done, None),
                Err(Broken::Before(failed)) if attempt < ATTEMPTS && again(waiting) => {
                    tracing::debug!(?failed, attempt, "catalog transaction is begun again");
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                    continue;
                }
                Err(Broken::Before(failed) | Broken::AtCommit(failed)) => {
                    let error = failed.into_error("commit to the catalog").chain();
                    tracing::error!(error, commands = waiting.len(), "catalog transaction lost");
                    (waiting.len(), Some(Lost(error)))
                }
            };
            for command in waiting.drain(..answered) {
                command.answer(lost.as_ref());
            }
            return;
        }
    }

    /// How many commands were run, and are now to be answered.
    async fn attempt(&mut self, waiting: &mut VecDeque<Box<dyn Command>>) -> Result<usize, Broken> {
        let session = match self.session.take().filter(Session::is_good) {
            Some(session) => session,
            None => self.server.connect().await.map_err(|error| Broken::Before(error.into()))?,
        };
        let done = transact(&session, &mut self.journal, waiting, &self.commits).await;
        let done = match done {
            // What is left of the transaction must not be there when the next begins.
            Err(broken) if !session.is_good() || session.batch("ROLLBACK").await.is_err() => {
                return Err(broken);
            }
            done => done,
        };
        self.session = Some(session);
        done
    }
}

/// Whether those who wait would still be there for the outcome.
fn again(waiting: &VecDeque<Box<dyn Command>>) -> bool {
    waiting.front().is_some_and(|first| first.age() < WAIT_MAX)
}

/// Longer each time, and not the same on every node.
fn pause(attempt: u32) -> Duration {
    let most = 50_u64 << attempt;
    Duration::from_millis(most / 2 + RandomState::new().build_hasher().finish() % (most / 2))
}

async fn transact(
    session: &Session,
    journal: &mut Journal,
    waiting: &mut VecDeque<Box<dyn Command>>,
    commits: &AtomicU64,
) -> Result<usize, Broken> {
    // One trip for all three: the head is read once the lock is held.
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({TURN})");
    let (begun, head) = join(session.batch(&begin), audit::head(session)).await;
    begun.map_err(Broken::Before)?;
    journal.begin_after(head.map_err(Broken::Before)?);
    let (count, kept) = run_all(session, journal, waiting).await.map_err(Broken::Before)?;
    if kept == 0 {
        session.batch("ROLLBACK").await.map_err(Broken::Before)?;
        return Ok(count);
    }
    let begun = Instant::now();
    // In the same transaction: what cannot be recorded, or told, is not kept.
    if let Some((at, events)) = journal.events() {
        events::insert(session, at, events).await.map_err(Broken::Before)?;
    }
    let block = journal.seal().map_err(|error| Broken::Before(error.into()))?;
    if let Some(packed) = block {
        // Sent together, and in this order, since the first needs no preparing any more. When the block is refused the
        // commit is none.
        audit::prepare(session).await.map_err(Broken::Before)?;
        let (written, committed) =
            join(audit::append(session, journal, &packed), session.batch("COMMIT")).await;
        match (written, committed) {
            (Ok(()), Ok(())) => {}
            (Err(failed), Ok(())) => return Err(Broken::Before(failed)),
            (_, Err(failed)) => return Err(Broken::AtCommit(failed)),
        }
    } else {
        session.batch("COMMIT").await.map_err(Broken::AtCommit)?;
    }
    journal.keep();
    commits.fetch_add(1, Ordering::Relaxed);
    metrics::histogram!("carrack_catalog_commit_duration_seconds").record(begun.elapsed().as_secs_f64());
    metrics::histogram!("carrack_catalog_commands_per_commit").record(kept as f64);
    Ok(count)
}

/// Runs what is waiting, each undone alone when it fails; how many were run, and how many of them are kept.
async fn run_all(
    session: &Session,
    journal: &mut Journal,
    waiting: &mut VecDeque<Box<dyn Command>>,
) -> Done<(usize, usize)> {
    let begun = Instant::now();
    let all = waiting.len();
    let (mut count, mut kept) = (0, 0);
    let mut savepoint = "SAVEPOINT command";
    for command in waiting.iter_mut() {
        if count > 0 && begun.elapsed() > TURN_MAX {
            break;
        }
        let mark = journal.mark();
        let good = if all == 1 {
            command.run(session, journal).await?
        } else {
            let (saved, good) = join(session.batch(savepoint), command.run(session, journal)).await;
            saved?;
            good?
        };
        savepoint = "RELEASE SAVEPOINT command; SAVEPOINT command";
        count += 1;
        if good {
            kept += 1;
        } else if all > 1 {
            session.batch("ROLLBACK TO SAVEPOINT command").await?;
            journal.rewind(&mark);
        }
    }
    Ok((count, kept))
}

/// Queues a command; `shutting_down` once the queue is closed, `unavailable` when there is no room in time.
pub(super) async fn push(
    queue: Option<mpsc::Sender<Box<dyn Command>>>,
    command: Box<dyn Command>,
) -> Result<()> {
    let queue = queue.ok_or_else(stopping)?;
    match queue.send_timeout(command, WAIT_MAX).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(stopping()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(unavailable("too much is waiting for it")),
    }
}
