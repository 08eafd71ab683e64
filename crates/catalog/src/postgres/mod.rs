//! [`PostgresCatalog`]: the catalog of many nodes, in one PostgreSQL database.
//!
//! *Writing.* One task of each node takes what is waiting and commits it together; these transactions take turns over all
//! nodes ([`writer`]), so that every rule holds as in a database of one writer.
//! *Without a turn* goes what is one statement on rows that it locks itself: taking a job, renewing its lease, noting how far
//! a claim is, when a pack was used.
//! *Reading.* A bounded pool of sessions. One that has ended is replaced, and what was asked is asked again.
//! *Faults.* A database that is down, changes its primary, or does not answer is `unavailable`, for as long as it is so.

mod appends;
mod archive_catalog;
mod archives;
mod audit;
mod blobs;
mod buckets;
mod catalog;
mod copies;
mod encodings;
mod error;
mod events;
mod files;
mod jobs;
mod joins;
mod links;
mod listing;
mod open;
mod owners;
mod rows;
mod session;
mod tokens;
mod uploads;
mod writer;

use crate::Visit;
use crate::audit::{AuditBlock, AuditCatalog, AuditPage, AuditQuery, Position, present};
use crate::common::journal::{Journal, pack};
use crate::common::measured;
use async_trait::async_trait;
use carrack_domain::audit::chain::{ChainId, Head};
use carrack_domain::audit::{Change, Lines};
use carrack_domain::{BucketName, Clock, Error, KeyPrefix, Result, Timestamp};
pub use error::PostgresError;
use error::{Done, Failed, Kind};
pub use open::Migrated;
use session::{Pool, Server, Session, params};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use writer::{Command, Job, Turn, Work, Writer};

/// How to open a [`PostgresCatalog`].
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the options of libpq that `tokio-postgres` knows.
    pub url: String,
    /// Sessions for reading, at most; one more writes. At least 1.
    pub connections: usize,
    /// Changes that may wait for the writer; callers beyond that wait to be let into the queue. At least 1.
    pub queue: usize,
    /// What the audit log takes its times from; `None`: nothing is recorded in it.
    pub audit: Option<Arc<dyn Clock>>,
    /// What events take their times from; `None`: none are kept.
    pub events: Option<Arc<dyn Clock>>,
    /// Whether to apply outstanding migrations; else they are an error.
    pub migrate: bool,
}

/// The catalog in a PostgreSQL database: see the module's documentation.
pub struct PostgresCatalog {
    pool: Arc<Pool>,
    /// `None` once it is closed.
    queue: RwLock<Option<mpsc::Sender<Box<dyn Command>>>>,
    commits: Arc<AtomicU64>,
    /// The task that writes. Held while closing, so that a second `close` waits for the first.
    writer: tokio::sync::Mutex<JoinSet<()>>,
}

/// Reads with a session of the pool. What follows the arrow is run again when the session turns out to have ended.
macro_rules! read {
    ($catalog:ident, $operation:literal, |$session:ident| $work:expr) => {
        measured($operation, async {
            let mut again = true;
            loop {
                let lease = $catalog.pool.lease().await?;
                let $session = lease.session()?;
                match $work.await {
                    Ok(read) => return Ok(read),
                    Err(failed) if again && failed.kind() == Kind::Gone => {
                        if let Failed::Silent = failed {
                            return Err(failed.into_error($operation));
                        }
                        again = false;
                    }
                    Err(failed) => return Err(failed.into_error($operation)),
                }
            }
        })
        .await
    };
}

/// Does something once with a session of the pool, which needs no turn.
macro_rules! once {
    ($catalog:ident, $operation:literal, |$session:ident| $work:expr) => {
        measured($operation, async {
            let lease = $catalog.pool.lease().await?;
            let $session = lease.session()?;
            $work.await.map_err(|failed: Failed| failed.into_error($operation))
        })
        .await
    };
}

use {once, read};

/// For what is bookkeeping.
fn unrecorded<A, T>(_: &A, _: &T) -> Vec<Change> {
    Vec::new()
}

impl PostgresCatalog {
    /// Connects, waiting a while for a server that is starting, and checks or makes the schema.
    pub async fn open(options: PostgresOptions) -> Result<PostgresCatalog, PostgresError> {
        let server = Arc::new(Server::new(&options.url)?);
        let mut first = open::reach(&server).await?;
        let migrated = open::migrate(&server, &first, options.migrate).await?;
        if !migrated.applied.is_empty() {
            tracing::info!(from = migrated.from, to = migrated.to, "catalog migrated");
            // Migrations have no time limits; what follows has.
            first = server.open().await?;
        }
        let pool = Pool::new(server.clone(), options.connections, first);
        let (sender, queue) = mpsc::channel(options.queue.max(1));
        let commits = Arc::new(AtomicU64::new(0));
        // Where the chain ends is read in every transaction, since others add to it.
        let journal = Journal::new(options.audit, options.events, Head::new(ChainId([0; 16])));
        let task = Writer { server, session: None, journal, queue, commits: commits.clone() };
        let mut writer = JoinSet::new();
        writer.spawn(task.run());
        Ok(PostgresCatalog {
            pool,
            queue: RwLock::new(Some(sender)),
            commits,
            writer: tokio::sync::Mutex::new(writer),
        })
    }

    /// Applies outstanding migrations and says which.
    pub async fn migrate(url: &str) -> Result<Migrated, PostgresError> {
        let server = Server::new(url)?;
        let session = open::reach(&server).await?;
        open::migrate(&server, &session, true).await
    }

    /// Which store the catalog belongs to; `None` while it has been told of none.
    pub async fn store(&self) -> Result<Option<[u8; 16]>> {
        read!(self, "store", |c| store(c))
    }

    /// The time by the server's clock, which is one for all nodes.
    pub async fn now(&self) -> Result<Timestamp> {
        once!(self, "now", |c| now(c))
    }

    /// Binds the catalog to this store, unless it is to another already; to which it is.
    pub async fn bind_store(&self, id: [u8; 16]) -> Result<[u8; 16]> {
        self.write("bind_store", id, |id, turn| Box::pin(bind(turn.session, id))).await
    }

    /// Transactions of this node's writer that were committed since it was opened. Many changes may share one.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Queues a change that is bookkeeping, and waits until it is on disk.
    async fn write<A: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        arguments: A,
        change: for<'c> fn(&'c A, &'c mut Turn<'_>) -> Work<'c, T>,
    ) -> Result<T> {
        self.change(operation, arguments, change, unrecorded).await
    }

    /// Queues a change, and what there is to be recorded of it, and waits until both are on disk.
    async fn change<A: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        arguments: A,
        change: for<'c> fn(&'c A, &'c mut Turn<'_>) -> Work<'c, T>,
        records: fn(&A, &T) -> Vec<Change>,
    ) -> Result<T> {
        measured(operation, async {
            let (reply, answer) = oneshot::channel();
            let (by, begun) = (present(), Instant::now());
            let job = Job { operation, arguments, change, records, by, begun, result: None, reply };
            let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
            writer::push(queue, Box::new(job)).await?;
            answer.await.map_err(|_| Error::broken("the catalog's writer is gone"))?
        })
        .await
    }
}

/// The log in the database of servers, which may be running or not, to be read alone.
pub struct AuditDatabase {
    session: Session,
}

impl AuditDatabase {
    /// Opens it. The error is a sentence for the operator.
    pub async fn open(url: &str) -> Result<AuditDatabase, PostgresError> {
        let server = Server::new(url)?;
        let session = open::reach(&server).await?;
        open::migrate(&server, &session, false).await?;
        Ok(AuditDatabase { session })
    }

    /// Blocks after this one, as [`AuditCatalog::audit_blocks`].
    pub async fn blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        audit::blocks(&self.session, after).await.map_err(|failed| failed.into_error("read the audit log"))
    }
}

/// From one snapshot, however long `visit` takes.
async fn scan(session: &Session, bucket: &BucketName, prefix: &KeyPrefix, visit: Visit) -> Done<u64> {
    listing::scan(session, bucket, prefix, visit).await
}

async fn now(session: &Session) -> Done<Timestamp> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let row = session.row(sql, &[]).await?.ok_or_else(|| Error::broken("the database tells no time"))?;
    rows::time(&row, 0)
}

async fn store(session: &Session) -> Done<Option<[u8; 16]>> {
    let row = session.row("SELECT id FROM store", &[]).await?;
    row.map(|row| rows::fixed(&row, 0)).transpose()
}

async fn bind(session: &Session, id: &[u8; 16]) -> Done<[u8; 16]> {
    if let Some(bound) = store(session).await? {
        return Ok(bound);
    }
    session.execute("INSERT INTO store (id) VALUES ($1)", params![rows::bytes(id)]).await?;
    Ok(*id)
}

/// A row is changed: that shows that the server takes changes.
async fn check(session: &Session) -> Done<()> {
    session.execute("UPDATE meta SET value = 1 - value WHERE name = 'checked'", &[]).await?;
    Ok(())
}

#[async_trait]
impl AuditCatalog for PostgresCatalog {
    async fn append_audit(&self, lines: Arc<Lines>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let packed = tokio::task::spawn_blocking(move || pack(&lines))
            .await
            .map_err(|error| Error::internal("append_audit", error))??;
        self.write("append_audit", packed, |packed, turn| {
            Box::pin(audit::append(turn.session, turn.journal, packed))
        })
        .await
    }

    async fn audit_head(&self) -> Result<Head> {
        read!(self, "audit_head", |c| audit::head(c))
    }

    async fn audit_page(
        &self,
        query: &AuditQuery,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage> {
        read!(self, "audit_page", |c| audit::page(c, query, from, limit))
    }

    async fn audit_blocks(&self, after: u64) -> Result<Vec<AuditBlock>> {
        read!(self, "audit_blocks", |c| audit::blocks(c, after))
    }

    async fn audit_older(&self, before: Timestamp) -> Result<Option<Head>> {
        read!(self, "audit_older", |c| audit::older(c, before))
    }

    async fn drop_audit(&self, through: u64) -> Result<u64> {
        self.write("drop_audit", through, |through, turn| {
            Box::pin(audit::drop_through(turn.session, *through))
        })
        .await
    }
}
