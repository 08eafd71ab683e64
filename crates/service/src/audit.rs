//! The audit trail: what requests do is gathered in memory and written into the catalog's log within a quarter of a second;
//! what they change is there already, see `carrack_catalog::audit`.
//!
//! *Bounds.* The buffer is bounded, and nothing is ever left out of it: when it is full, because the disk is, requests wait at
//! the door and are refused after a while ([`Trail::admit`]), while those that were let in are recorded. Of refusals of those
//! who are nobody in particular the first is recorded, and then how many more there were ([`Trail::refused`]).
//! *Checkpoints.* Once a minute the head of the chain is signed and handed to every [`Sink`].

mod checkpoints;
mod refusals;

use crate::Core;
use crate::access::Access;
use carrack_catalog::AuditPage;
pub use carrack_catalog::{AuditQuery as Query, Position};
use carrack_domain::access::ReadAudit;
use carrack_domain::audit::{Kind, Lines, Record};
use carrack_domain::{Code, Error, Grant, Result};
use checkpoints::Checkpoints;
pub use checkpoints::{Hold, Sink};
use refusals::Refusals;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use carrack_catalog::audit::within;

/// How long a record stays in memory: what a crash may lose.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Bytes of records after which they do not wait that long.
const FLUSH_BYTES: usize = 4 << 20;
/// Bytes of records that may wait to be written. Requests that were let in may add one line each.
const BUFFER_BYTES_MAX: usize = 32 << 20;
/// How long a request waits to be let in.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most lines are shorter.
const LINE_BYTES: usize = 384;
/// How long to wait when nothing can be written.
const RETRY: Duration = Duration::from_secs(1);
/// The most records of a page.
pub const PAGE_MAX: usize = 1000;

/// How the trail is kept.
pub struct Options {
    /// Whether anything is recorded.
    pub enabled: bool,
    /// How long records are kept; `None` for ever.
    pub keep: Option<Duration>,
    /// How often the head of the chain is signed.
    pub checkpoint_every: Duration,
    /// Where checkpoints go.
    pub sinks: Vec<Arc<dyn Sink>>,
}

/// See the module's documentation.
pub struct Trail {
    core: Arc<Core>,
    enabled: bool,
    buffer: Mutex<Lines>,
    /// What is being written, or could not be.
    held: tokio::sync::Mutex<Option<Arc<Lines>>>,
    /// Bytes in both.
    waiting: AtomicUsize,
    /// There is much to be written.
    much: Notify,
    /// Something was written.
    room: Notify,
    failing: AtomicBool,
    refusals: Mutex<Refusals>,
    checkpoints: Checkpoints,
}

impl Trail {
    pub(crate) fn new(core: Arc<Core>, access: Arc<Access>, options: Options) -> Trail {
        let enabled = options.enabled;
        let checkpoints = Checkpoints::new(core.clone(), access, options);
        Trail {
            core,
            enabled,
            buffer: Mutex::default(),
            held: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            much: Notify::new(),
            room: Notify::new(),
            failing: AtomicBool::new(false),
            refusals: Mutex::default(),
            checkpoints,
        }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.enabled
    }

    /// Lets a request in whose end can be recorded; `audit_unavailable` when the log takes nothing.
    pub async fn admit(&self) -> Result<()> {
        if self.has_room() {
            return Ok(());
        }
        let waiting = async {
            loop {
                let mut written = std::pin::pin!(self.room.notified());
                written.as_mut().enable();
                if self.has_room() {
                    return;
                }
                written.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| {
            ::metrics::counter!(crate::metrics::AUDIT_REFUSED).increment(1);
            Error::new(
                Code::AuditUnavailable,
                "The server cannot record what is done, so it does nothing. Send the request again later.",
            )
        })
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < BUFFER_BYTES_MAX
    }

    /// Records something. It is on disk a moment later.
    pub fn write(&self, record: &Record<'_>) {
        if !self.enabled {
            return;
        }
        let mut line = Vec::with_capacity(LINE_BYTES);
        record.write(&mut line);
        self.buffer().push_line(&line, record.at);
        let before = self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if before < FLUSH_BYTES && before + line.len() >= FLUSH_BYTES {
            self.much.notify_one();
        }
    }

    /// Records that somebody who is nobody in particular was refused something: the first of its kind in a minute as it is,
    /// further ones by their number.
    pub fn refused(&self, record: &Record<'_>) {
        if self.refusals().is_first(record) {
            self.write(record);
        }
    }

    /// Records something about the server itself.
    pub fn note(&self, action: &'static str, detail: &str) {
        let mut record = Record::new(Kind::Note, self.core.clock.now(), action);
        record.detail = Some(detail);
        self.write(&record);
    }

    fn buffer(&self) -> MutexGuard<'_, Lines> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was recorded until now. What cannot be written stays. What comes meanwhile waits for the next time: each
    /// block is a sync, and costs more than its lines when they are few.
    async fn flush(&self) -> Result<()> {
        let mut held = self.held.lock().await;
        if let Some(lines) = &*held {
            self.append(lines).await?;
            *held = None;
        }
        let lines = self.take();
        if lines.is_empty() {
            return Ok(());
        }
        let lines = held.insert(Arc::new(lines));
        self.append(lines).await?;
        *held = None;
        Ok(())
    }

    async fn append(&self, lines: &Arc<Lines>) -> Result<()> {
        let written = self.core.catalog.append_audit(lines.clone()).await;
        self.tell(&written, lines.count);
        written?;
        self.waiting.fetch_sub(lines.text.len(), Ordering::Relaxed);
        self.room.notify_waiters();
        Ok(())
    }

    /// What is in the buffer, which has room for as much again: growing would copy it several times.
    fn take(&self) -> Lines {
        let mut buffer = self.buffer();
        let text = Vec::with_capacity(buffer.text.len().min(FLUSH_BYTES));
        std::mem::replace(&mut *buffer, Lines { text, ..Lines::default() })
    }

    /// Says once that nothing can be written, and once that it can be again.
    fn tell(&self, written: &Result<()>, records: u64) {
        match written {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::warn!("the audit log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                ::metrics::counter!(crate::metrics::AUDIT_FAILURES).increment(1);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(error = error.chain(), records, "the audit log cannot be written");
                }
            }
        }
    }

    /// Looks at what was there at the start, and writes until it is told to stop. [`Trail::close`] writes the rest.
    pub async fn run(self: Arc<Trail>, stop: CancellationToken) {
        if !self.enabled {
            return;
        }
        if let Err(error) = self.checkpoints.open().await {
            tracing::error!(error = error.chain(), "the checkpoints of the audit log cannot be read");
        }
        self.note("server.start", env!("CARGO_PKG_VERSION"));
        let mut checked = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(FLUSH_EVERY) => {}
                () = self.much.notified() => {}
                () = stop.cancelled() => return,
            }
            self.summarise(false);
            if self.flush().await.is_err() {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = stop.cancelled() => return,
                }
            }
            if checked.elapsed() >= self.checkpoints.every() {
                checked = Instant::now();
                self.check_in().await;
            }
        }
    }

    async fn check_in(&self) {
        if let Err(error) = self.checkpoints.round().await {
            ::metrics::counter!(crate::metrics::AUDIT_FAILURES).increment(1);
            tracing::error!(error = error.chain(), "no checkpoint of the audit log could be made");
        }
    }

    fn summarise(&self, all: bool) {
        let due = self.refusals().due(self.core.clock.now(), all);
        for repeated in due {
            self.write(&repeated.record());
        }
    }

    /// Writes the rest, and a last checkpoint, once nothing happens any more.
    pub async fn close(&self) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        self.summarise(true);
        self.note("server.stop", env!("CARGO_PKG_VERSION"));
        self.flush().await?;
        self.check_in().await;
        Ok(())
    }

    /// At most `limit` records from `from` on, with everything that was recorded before this was called.
    pub async fn page(
        &self,
        _grant: &Grant<ReadAudit>,
        query: &Query,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage> {
        self.flush().await?;
        self.core.catalog.audit_page(query, from, limit.clamp(1, PAGE_MAX)).await
    }
}
