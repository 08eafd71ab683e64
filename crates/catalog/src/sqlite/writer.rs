//! The one thread that writes: it takes what is waiting, commits it once, and only then answers.
//!
//! *Group commit.* A commit costs a sync, whatever is in it. While one is being made the next ones come, and are committed
//! together. Where syncs are quick this alone makes small groups: so, when several changes were under way at once the
//! last time, a transaction stays open a moment for those who are likely to come again.

use super::audit::{self, Journal};
use super::error::{Done, Failed, sqlite_error};
use super::open::set_clean;
use super::queue::{Emptying, Queue};
use carrack_domain::{Code, Error, Result};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most commands that share one commit.
const BATCH_MAX: usize = 512;
/// How long a transaction stays open for more commands,
const GATHERING_MAX: Duration = Duration::from_millis(2);
/// and how long it waits for the next, where more are known to be under way.
const GAP: Duration = Duration::from_micros(300);

/// A change that waits for its turn, then for its commit.
pub(super) trait Command: Send {
    /// Makes the change; false when it failed and is to be rolled back.
    fn run(&mut self, connection: &Connection, journal: &mut Journal) -> bool;
    /// Tells the requester: what `run` came to, or that it was not kept.
    fn answer(self: Box<Self>, lost: Option<&Lost>);
}

/// Why nothing of a transaction was kept.
pub(super) struct Lost {
    code: Option<ErrorCode>,
    text: String,
}

type ErrorCode = rusqlite::ErrorCode;

impl Lost {
    fn new(error: &rusqlite::Error) -> Lost {
        Lost { code: error.sqlite_error_code(), text: error.to_string() }
    }

    fn error(&self) -> Error {
        match self.code {
            Some(ErrorCode::DiskFull) => {
                let detail = "The disk with the server's catalog is full. Send the request again later.";
                Error::new(Code::StorageFull, detail).with_source(self.text.clone())
            }
            _ => Error::internal("commit to the catalog", self.text.clone()),
        }
    }
}

/// A closure as a [`Command`].
pub(super) struct Job<T, F> {
    operation: &'static str,
    change: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job<T, F> {
    pub(super) fn new(operation: &'static str, change: F, reply: oneshot::Sender<Result<T>>) -> Job<T, F> {
        Job { operation, change: Some(change), result: None, reply }
    }
}

impl<T, F> Command for Job<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Journal) -> Done<T> + Send,
{
    fn run(&mut self, connection: &Connection, journal: &mut Journal) -> bool {
        let Some(change) = self.change.take() else { return false };
        let result = catch_unwind(AssertUnwindSafe(|| change(connection, journal)))
            .unwrap_or_else(|_| Err(Failed::Rule(Error::broken("a catalog command panicked"))))
            .map_err(|failed| failed.into_error(self.operation));
        let kept = result.is_ok();
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, lost: Option<&Lost>) {
        let result = match (lost, self.result) {
            (Some(lost), _) => Err(lost.error()),
            (None, Some(result)) => result,
            (None, None) => Err(Error::broken("a catalog command was never run")),
        };
        // A requester that went away needs no answer; its change stands.
        self.reply.send(result).ok();
    }
}

/// What the thread and its owner both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Transactions committed.
    pub(super) commits: AtomicU64,
    /// The catalog is being closed in order.
    pub(super) in_order: AtomicBool,
}

/// The thread: runs until the queue is closed and empty.
pub(super) fn run(
    connection: Connection,
    mut journal: Journal,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
) -> Result<()> {
    let emptying = Emptying(queue);
    let queue = &*emptying.0;
    let mut known = 0;
    while let Some(first) = queue.next() {
        known = transact(&connection, &mut journal, first, queue, known, &shared);
    }
    finish(connection, shared.in_order.load(Ordering::Acquire))
}

/// One transaction for a command and those that come while it is made, unless SQLite gives up the whole transaction over
/// one of them. `known` is how many were under way at once the last time; returns how many are now.
fn transact(
    connection: &Connection,
    journal: &mut Journal,
    first: Box<dyn Command>,
    queue: &Queue,
    known: usize,
    shared: &Shared,
) -> usize {
    let mut done = Vec::with_capacity(known);
    journal.begin();
    let lost = match run_all(connection, journal, first, queue, known, &mut done) {
        Ok(()) => commit(connection, done.len(), shared).map(|()| journal.keep()).err(),
        Err(error) => Some(error),
    };
    if let Some(error) = &lost {
        tracing::error!(error = %error, commands = done.len(), "catalog transaction lost");
        if !connection.is_autocommit()
            && let Err(error) = execute(connection, "ROLLBACK")
        {
            tracing::error!(error = %error, "catalog transaction cannot be rolled back");
        }
    }
    let known = done.len() + queue.waiting();
    let lost = lost.as_ref().map(Lost::new);
    for command in done {
        command.answer(lost.as_ref());
    }
    known
}

fn run_all(
    connection: &Connection,
    journal: &mut Journal,
    first: Box<dyn Command>,
    queue: &Queue,
    known: usize,
    done: &mut Vec<Box<dyn Command>>,
) -> rusqlite::Result<()> {
    // Those that wait now are part of it in any case.
    let least = (1 + queue.waiting()).min(BATCH_MAX);
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        done.push(first);
        done.extend(std::iter::from_fn(|| queue.next_within(Duration::ZERO)).take(BATCH_MAX));
        return Err(error);
    }
    let begun = Instant::now();
    let mut next = Some(first);
    while let Some(mut command) = next {
        let mark = journal.mark();
        let kept = execute(connection, "SAVEPOINT command").map(|()| command.run(connection, journal));
        done.push(command);
        if connection.is_autocommit() {
            // SQLite has rolled everything back: disk full, I/O error, out of memory.
            kept?;
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
                Some("SQLite gave up the transaction".to_owned()),
            ));
        }
        if !kept? {
            execute(connection, "ROLLBACK TO command")?;
            journal.rewind(&mark);
        }
        execute(connection, "RELEASE command")?;
        next = patience(done.len(), least, known, begun.elapsed()).and_then(|most| queue.next_within(most));
    }
    // In the same transaction: what cannot be recorded is not kept.
    audit::seal(connection, journal)
}

/// How long a transaction of `done` commands, of which `least` were there at its beginning, waits for one more; `None`
/// when it is to be committed. A change that comes alone never waits: nobody else was `known` to be under way.
fn patience(done: usize, least: usize, known: usize, elapsed: Duration) -> Option<Duration> {
    if done < least {
        return Some(Duration::ZERO);
    }
    if done >= BATCH_MAX || elapsed >= GATHERING_MAX {
        return None;
    }
    // Little more than half of them: while these wait for the disk, the processors work at the others.
    (done < known.div_ceil(2) + known / 8).then_some(GAP)
}

fn commit(connection: &Connection, commands: usize, shared: &Shared) -> rusqlite::Result<()> {
    let begun = Instant::now();
    execute(connection, "COMMIT")?;
    shared.commits.fetch_add(1, Ordering::Relaxed);
    metrics::histogram!("carrack_catalog_commit_duration_seconds").record(begun.elapsed().as_secs_f64());
    metrics::histogram!("carrack_catalog_commands_per_commit").record(commands as f64);
    Ok(())
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Puts everything into the database file and closes it.
fn finish(connection: Connection, in_order: bool) -> Result<()> {
    if in_order {
        set_clean(&connection, true).map_err(|error| sqlite_error("close the catalog", error))?;
    }
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map_err(|error| sqlite_error("checkpoint the catalog", error))?;
    connection.close().map_err(|(_, error)| sqlite_error("close the catalog", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::audit::Change;
    use carrack_domain::audit::verify::{Signed, Verifier};
    use carrack_domain::{Clock, Timestamp};

    struct Standing;

    impl Clock for Standing {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }
    }

    fn journal(connection: &Connection) -> Journal {
        audit::journal(connection, Some(Arc::new(Standing)), None).unwrap()
    }

    /// What the log says was changed, once it was proven whole.
    fn recorded(connection: &Connection) -> Vec<String> {
        let mut verifier = Verifier::new([[].into_iter()], |_| Signed::Good);
        let mut said = Vec::new();
        for block in audit::blocks(connection, 0).unwrap() {
            let text = block.text.unwrap();
            verifier.block(&block.header, &text);
            for line in String::from_utf8(text).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                said.push(line["detail"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(verifier.finish().findings, []);
        said
    }

    type Answer = oneshot::Receiver<Result<()>>;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE t (n PRIMARY KEY); \
                 CREATE TABLE child (n REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)",
            )
            .unwrap();
        connection.execute_batch(include_str!("../../migrations/sqlite/0007_audit.sql")).unwrap();
        connection
    }

    fn job(sql: &'static str, then: fn(&Connection) -> Done<()>) -> (Box<dyn Command>, Answer, &'static str) {
        let (reply, answer) = oneshot::channel();
        let change = move |connection: &Connection, journal: &mut Journal| {
            journal.note(None, &[Change::new("test").detail(sql)]);
            connection.execute_batch(sql)?;
            then(connection)
        };
        (Box::new(Job::new("test", change, reply)), answer, sql)
    }

    fn queue_of(commands: Vec<Box<dyn Command>>) -> Arc<Queue> {
        let queue = Queue::new(commands.len());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for command in commands {
            runtime.block_on(queue.push(command)).unwrap();
        }
        queue
    }

    /// Runs a batch as the thread does; which jobs were acknowledged, which rows there are, and how many commits.
    fn outcome(jobs: Vec<(Box<dyn Command>, Answer, &str)>) -> (Vec<bool>, Vec<i64>, u64) {
        let connection = connection();
        let mut journal = journal(&connection);
        let shared = Shared::default();
        let said: Vec<&str> = jobs.iter().map(|(_, _, sql)| *sql).collect();
        let jobs = jobs.into_iter().map(|(command, answer, _)| (command, answer));
        let (commands, answers): (Vec<_>, Vec<_>) = jobs.unzip();
        let queue = queue_of(commands);
        while let Some(first) = queue.next_within(Duration::ZERO) {
            transact(&connection, &mut journal, first, &queue, 0, &shared);
        }
        assert!(connection.is_autocommit(), "no transaction is left open");
        let acknowledged: Vec<bool> =
            answers.into_iter().map(|mut answer| answer.try_recv().unwrap().is_ok()).collect();
        let kept = said.iter().zip(&acknowledged).filter(|(_, kept)| **kept).map(|(sql, _)| *sql);
        assert_eq!(recorded(&connection), kept.collect::<Vec<_>>(), "recorded is what was acknowledged");
        let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        (acknowledged, rows, shared.commits.load(Ordering::Relaxed))
    }

    fn fine(_: &Connection) -> Done<()> {
        Ok(())
    }

    #[test]
    fn one_commit_for_all() {
        let jobs = vec![job("INSERT INTO t VALUES (1)", fine), job("INSERT INTO t VALUES (2)", fine)];
        assert_eq!(outcome(jobs), (vec![true, true], vec![1, 2], 1));
    }

    #[test]
    fn failures_and_panics_are_rolled_back_alone() {
        let jobs = vec![
            job("INSERT INTO t VALUES (1)", fine),
            job("INSERT INTO t VALUES (2)", |_| Err(Error::new(Code::TooLarge, "no").into())),
            job("INSERT INTO t VALUES (3)", |_| panic!("a bug")),
            job("INSERT INTO t VALUES (4); INSERT INTO t VALUES (1)", fine),
            job("INSERT INTO t VALUES (5)", fine),
        ];
        assert_eq!(outcome(jobs), (vec![true, false, false, false, true], vec![1, 5], 1));
    }

    #[test]
    fn a_transaction_that_sqlite_gave_up_is_acknowledged_to_nobody() {
        let jobs = vec![
            job("INSERT INTO t VALUES (1)", fine),
            job("INSERT INTO t VALUES (2); ROLLBACK", fine),
            job("INSERT INTO t VALUES (3)", fine),
        ];
        assert_eq!(outcome(jobs), (vec![false, false, true], vec![3], 1));
    }

    #[test]
    fn a_commit_that_fails_is_acknowledged_to_nobody() {
        let jobs = vec![
            job("INSERT INTO t VALUES (1)", fine),
            job("INSERT INTO child VALUES (99)", fine),
            job("INSERT INTO t VALUES (3)", |_| Err(Error::new(Code::TooLarge, "no").into())),
        ];
        assert_eq!(outcome(jobs), (vec![false, false, false], vec![], 0));
    }

    #[test]
    fn what_comes_alone_is_not_kept_waiting() {
        assert_eq!(patience(1, 1, 0, Duration::ZERO), None);
        assert_eq!(patience(1, 1, 1, Duration::ZERO), None, "the one before was alone");
        assert_eq!(patience(1, 1, 2, Duration::ZERO), None, "the other one waits for the disk");
        assert_eq!(patience(1, 1, 16, Duration::ZERO), Some(GAP));
        assert_eq!(patience(9, 1, 16, Duration::ZERO), Some(GAP));
        assert_eq!(patience(10, 1, 16, Duration::ZERO), None);
        assert_eq!(patience(1, 1, 16, GATHERING_MAX), None);
        assert_eq!(
            patience(1, 9, 0, GATHERING_MAX),
            Some(Duration::ZERO),
            "they were there at the beginning"
        );
        assert_eq!(patience(BATCH_MAX, 9, 1000, Duration::ZERO), None);
    }

    #[test]
    fn a_requester_that_went_away_changes_nothing() {
        let (command, answer, _) = job("INSERT INTO t VALUES (1)", fine);
        drop(answer);
        let (next, answer, _) = job("INSERT INTO t VALUES (2)", fine);
        let connection = connection();
        let mut journal = journal(&connection);
        let queue = queue_of(vec![next]);
        transact(&connection, &mut journal, command, &queue, 0, &Shared::default());
        assert!(answer.blocking_recv().unwrap().is_ok());
        let count: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2);
    }
}
