//! Signing where the log is, and letting old blocks go.

use super::Options;
use crate::Core;
use crate::access::Access;
use carrack_catalog::{AuditQuery, Position};
use carrack_domain::audit::chain::Head;
use carrack_domain::audit::checkpoint::{Checkpoint, Last};
use carrack_domain::audit::verify::CHECKPOINT;
use carrack_domain::audit::{Fields, Kind, Lines, Record};
use carrack_domain::{Error, Result, Timestamp};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often old blocks are looked for, at most.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// More records than this that only mention checkpoints are worth one: each node makes some.
const MENTIONS_MAX: usize = 64;

/// Where checkpoints go: somewhere other than the log. Its calls may block.
pub trait Sink: Send + Sync + 'static {
    /// Keeps other nodes from it as long as the answer lives; `None` while another has it.
    fn hold(&self) -> io::Result<Option<Hold>>;
    /// The last checkpoint in it.
    fn last(&self) -> io::Result<Option<Checkpoint>>;
    /// Appends a line. It is there for good when this returns.
    fn append(&self, line: &str) -> io::Result<()>;
}

/// See [`Sink::hold`].
pub type Hold = Box<dyn Send>;

/// What is known of the checkpoints so far.
#[derive(Default)]
struct State {
    /// The last one; `None` until the first sink was read.
    last: Option<Last>,
    /// When old blocks were looked for.
    retained: Option<Timestamp>,
}

/// See the module's documentation.
pub(super) struct Checkpoints {
    core: Arc<Core>,
    access: Arc<Access>,
    keep: Option<Duration>,
    every: Duration,
    sinks: Vec<Arc<dyn Sink>>,
    state: tokio::sync::Mutex<State>,
}

impl Checkpoints {
    pub(super) fn new(core: Arc<Core>, access: Arc<Access>, options: Options) -> Checkpoints {
        let Options { keep, checkpoint_every: every, sinks, .. } = options;
        Checkpoints { core, access, keep, every, sinks, state: tokio::sync::Mutex::default() }
    }

    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// Reads where the checkpoints end, and complains when they have seen more than there is.
    pub(super) async fn open(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let last = self.read(&mut state).await?;
        let head = self.core.catalog.audit_head().await?;
        if last.block > head.block {
            tracing::error!(
                blocks = head.block,
                seen = last.block,
                "the audit log is shorter than it was: 'carrack audit verify' says more"
            );
        }
        Ok(())
    }

    async fn hold(&self) -> Result<Option<Hold>> {
        match self.sinks.first().cloned() {
            Some(sink) => aside(move || sink.hold()).await,
            None => Ok(Some(Box::new(()))),
        }
    }

    async fn read(&self, state: &mut State) -> Result<Last> {
        if let Some(last) = state.last {
            return Ok(last);
        }
        let last = match self.sinks.first().cloned() {
            Some(sink) => aside(move || sink.last()).await?.map_or(Last::default(), |last| last.last()),
            None => Last::default(),
        };
        state.last = Some(last);
        Ok(last)
    }

    /// The regular work: a checkpoint if anything was recorded since the last one, and old blocks go.
    pub(super) async fn round(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        // Another node is at it: that is as good.
        let Some(_hold) = self.hold().await? else { return Ok(()) };
        if !self.core.is_alone {
            state.last = None;
        }
        let head = self.core.catalog.audit_head().await?;
        let last = self.read(&mut state).await?;
        if head.block > last.block && self.has_news(&last).await? {
            self.make(&mut state, &head, false).await?;
        }
        let now = self.core.clock.now();
        let pause = self.keep.map_or(RETENTION_EVERY, |keep| RETENTION_EVERY.min(keep));
        if state.retained.is_none_or(|at| at.after(pause) <= now) {
            self.retain(&mut state, now).await?;
            state.retained = Some(now);
        }
        ::metrics::gauge!(crate::metrics::AUDIT_CHECKPOINT).set(now.as_millis() as f64 / 1000.0);
        Ok(())
    }

    /// Whether anything was recorded since but that there are checkpoints: nodes with files of their own would otherwise make
    /// one another make them for ever.
    async fn has_news(&self, last: &Last) -> Result<bool> {
        let from = Position { block: last.block + 1, line: 0 };
        let page = self.core.catalog.audit_page(&AuditQuery::default(), Some(from), MENTIONS_MAX).await?;
        let is_mention =
            |line: &str| Fields::parse(line.as_bytes()).is_some_and(|fields| fields.action == CHECKPOINT);
        Ok(page.next.is_some() || !page.records.iter().all(|(_, line)| is_mention(line)))
    }

    /// Deletes blocks of which every record is too old, after saying so in a checkpoint.
    async fn retain(&self, state: &mut State, now: Timestamp) -> Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        let before = now.as_millis().saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let Some(head) = self.core.catalog.audit_older(Timestamp::from_millis(before)).await? else {
            return Ok(());
        };
        self.make(state, &head, true).await?;
        let blocks = self.core.catalog.drop_audit(head.block).await?;
        tracing::info!(blocks, through = head.block, "old blocks of the audit log were deleted");
        Ok(())
    }

    async fn make(&self, state: &mut State, head: &Head, start: bool) -> Result<()> {
        let last = self.read(state).await?;
        let now = self.core.clock.now();
        let keys = self.access.keys();
        let made = keys.sign_checkpoint(|kid| Checkpoint::after(&last, head, start, now, kid))?;
        let line = made.line();
        for sink in &self.sinks {
            let (sink, line) = (sink.clone(), line.clone());
            // A line that may or may not have been written: where they end is read again.
            state.last = None;
            aside(move || sink.append(&line)).await?;
        }
        let last = made.last();
        state.last = Some(last);
        self.mention(&last, now).await
    }

    /// Says in the log itself that there is a checkpoint.
    async fn mention(&self, last: &Last, now: Timestamp) -> Result<()> {
        let line = last.line.to_string();
        let mut record = Record::new(Kind::Note, now, CHECKPOINT);
        (record.count, record.version) = (Some(last.checkpoint), Some(line.as_str()));
        let mut lines = Lines::default();
        lines.push(&record);
        self.core.catalog.append_audit(Arc::new(lines)).await
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| Error::internal("write a checkpoint", error))
}
