//! The audit log: a part of the [`crate::Catalog`].
//!
//! *Changes.* Every method that makes, changes or deletes something for somebody writes what it did into the log, in the same
//! transaction: a change that cannot be recorded is not made. Whose doing it is comes with the task ([`within`]); work without
//! that is the server's own. Bookkeeping is not recorded: leases, holds, digests learnt later, how far a use of a link is, what
//! had ended by itself before it is deleted.
//! *Everything else* comes by [`AuditCatalog::append_audit`].

use async_trait::async_trait;
use carrack_domain::audit::chain::{Head, Header};
use carrack_domain::audit::{Context, Fields, Lines};
use carrack_domain::{Result, Timestamp};
use std::sync::Arc;

tokio::task_local! {
    static CONTEXT: Arc<Context>;
}

/// Runs `work` as part of a request: what it changes is recorded as that request's doing.
pub async fn within<T>(context: Arc<Context>, work: impl Future<Output = T>) -> T {
    CONTEXT.scope(context, work).await
}

/// The request whose work runs here, if there is one.
pub fn present() -> Option<Arc<Context>> {
    CONTEXT.try_with(Arc::clone).ok()
}

/// `work` for another task, as part of the request whose work runs here.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let context = present();
    async move {
        match context {
            Some(context) => within(context, work).await,
            None => work.await,
        }
    }
}

/// A place in the log: a block, and how many of its lines come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The block.
    pub block: u64,
    /// Lines before.
    pub line: u64,
}

/// Which records to show. What is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Older than this.
    pub until: Option<Timestamp>,
    /// Of this subject.
    pub subject: Option<String>,
    /// About this bucket.
    pub bucket: Option<String>,
    /// About this key.
    pub key: Option<String>,
    /// This action, or, by its first word, all of its kind: `file` is `file.read`, `file.put` and so on.
    pub action: Option<String>,
}

impl AuditQuery {
    /// Whether a line is to be shown.
    pub fn matches(&self, line: &[u8]) -> bool {
        if *self == AuditQuery::default() {
            return true;
        }
        let Some(fields) = Fields::parse(line) else { return false };
        let same = |wanted: &Option<String>, found: &Option<std::borrow::Cow<'_, str>>| {
            wanted.as_ref().is_none_or(|wanted| found.as_deref() == Some(wanted))
        };
        self.since.is_none_or(|since| fields.at >= since)
            && self.until.is_none_or(|until| fields.at < until)
            && same(&self.subject, &fields.subject)
            && same(&self.bucket, &fields.bucket)
            && same(&self.key, &fields.key)
            && self.action.as_ref().is_none_or(|wanted| {
                let rest = fields.action.strip_prefix(wanted.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    }
}

/// Some records, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditPage {
    /// Where each is, and its line without the line's end.
    pub records: Vec<(Position, String)>,
    /// Where to go on; `None` when the log ends here. A page without records may have one.
    pub next: Option<Position>,
}

/// A block with its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditBlock {
    /// What it says of itself.
    pub header: Header,
    /// Its lines; `None` when what is stored cannot be unpacked.
    pub text: Option<Vec<u8>>,
}

/// See the module's documentation.
#[async_trait]
pub trait AuditCatalog: Send + Sync + 'static {
    /// Appends these lines to the log, together, and in their order; nothing when there is none.
    async fn append_audit(&self, lines: Arc<Lines>) -> Result<()>;

    /// Where the log ends.
    async fn audit_head(&self) -> Result<Head>;

    /// At most `limit` records from `from` on. The cost is bounded however few of them there are: then the page is short, and
    /// has a `next`.
    async fn audit_page(&self, query: &AuditQuery, from: Option<Position>, limit: usize)
    -> Result<AuditPage>;

    /// Blocks after this one, in order: one at least if there are any, and then no more than some MiB.
    async fn audit_blocks(&self, after: u64) -> Result<Vec<AuditBlock>>;

    /// The last block in which, and before which, every record is older than `before`; never the last of all.
    async fn audit_older(&self, before: Timestamp) -> Result<Option<Head>>;

    /// Deletes the blocks up to this one, but never the last; how many. Whoever calls has said so in a checkpoint.
    async fn drop_audit(&self, through: u64) -> Result<u64>;
}
