//! What the product does. Methods demand a [`carrack_domain::Grant`] for what they touch and know nothing of HTTP.
//!
//! [`Service`] holds one value per feature; all of them share the rooms below through [`Core`].

pub mod access;
pub mod archive;
pub mod audit;
pub mod bucket;
pub mod cluster;
pub mod coherence;
pub mod contents;
pub mod copy;
pub mod denied;
pub mod download;
pub mod facts;
pub mod file;
pub mod health;
pub mod job;
pub mod jwt;
pub mod keys;
pub mod limit;
pub mod link;
pub mod maintenance;
pub mod metrics;
mod reading;
mod retention;
pub mod signed;
pub mod transfers;
pub mod upload;

use bytes::Bytes;
pub use carrack_catalog::Outcome;
use carrack_catalog::{Catalog, EventCatalog};
use carrack_domain::{Clock, Entropy, Result};
use carrack_state::State;
pub use carrack_state::Watch;
use carrack_storage::Storage;
pub use carrack_storage::{Address, Shown};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Bytes that arrive: each item is what came, or why no more will come. An error is never the end of a body.
pub type Body = Pin<Box<dyn futures_util::Stream<Item = Result<Bytes>> + Send>>;

/// What an operator may set; see `carrack config`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest file, in bytes.
    pub file_size_max: u64,
    /// Bytes of a part unless the client wishes otherwise.
    pub part_size: NonZeroU64,
    /// How long an upload lives after its last part.
    pub upload_ttl: Duration,
    /// The most entries of an archive.
    pub archive_entries_max: usize,
    /// The most bytes of an archive.
    pub archive_bytes_max: u64,
    /// How long an archive lives unless the client wishes otherwise.
    pub archive_ttl: Duration,
    /// Jobs at once, and threads that deflate.
    pub archive_workers: usize,
    /// Bytes of deflated forms that are kept although no archive needs them.
    pub encodings_quota: u64,
}

/// What every feature needs.
pub struct Core {
    /// The facts.
    pub catalog: Arc<dyn Catalog>,
    /// Facts of files, kept at hand.
    pub facts: facts::Facts,
    /// The bytes.
    pub storage: Arc<dyn Storage>,
    /// The bytes of blobs to be read, wherever they are.
    pub contents: Arc<contents::Contents>,
    /// What other nodes know of our changes, and we of theirs.
    pub coherence: Arc<coherence::Coherence>,
    /// What is told to others, if anything is.
    pub events: Option<Arc<dyn EventCatalog>>,
    /// What is shared for a short time.
    pub state: Arc<dyn State>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What the operator set.
    pub limits: Limits,
    /// Under which numbers this process writes to stages.
    pub writers: upload::writers::Writers,
    /// Whether no other node uses this catalog and this storage: what is under way when it starts is nobody's.
    pub is_alone: bool,
    /// Owns the tasks that have to finish their bookkeeping although their client has gone; awaited at shutdown.
    pub tasks: TaskTracker,
}

impl Core {
    /// Runs `work` to its end, even when the caller stops waiting.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.tasks.spawn(carrack_catalog::audit::carried(work)).await {
            Ok(result) => result,
            Err(error) => Err(carrack_domain::Error::internal("task", error)),
        }
    }
}

/// The product.
pub struct Service {
    /// Who is calling.
    pub access: Arc<access::Access>,
    /// Buckets.
    pub buckets: bucket::Buckets,
    /// Facts of files, listings, deletion.
    pub files: Arc<file::Files>,
    /// What comes in.
    pub uploads: upload::Uploads,
    /// What goes out.
    pub downloads: Arc<download::Downloads>,
    /// What is under way of it.
    pub transfers: Arc<transfers::Transfers>,
    /// How much one may have.
    pub limiter: Arc<limit::Limiter>,
    /// Ways to files for whoever has them.
    pub links: link::Links,
    /// Many files as one.
    pub archives: Arc<archive::Archives>,
    /// The workers.
    pub jobs: Arc<job::Jobs>,
    desk: Arc<job::Desk>,
    core: Arc<Core>,
    /// Who did what.
    pub audit: Arc<audit::Trail>,
    /// Whether it works.
    pub health: Arc<health::Health>,
    /// The nodes there are.
    pub cluster: Arc<cluster::Cluster>,
    /// What happens without being asked.
    pub maintenance: Arc<maintenance::Maintenance>,
}

impl Service {
    /// The product over these rooms; `internal` when threads cannot be started.
    pub fn new(
        core: Core,
        access: access::Options,
        limits: limit::Settings,
        audit: audit::Options,
    ) -> Result<Service> {
        let core = Arc::new(core);
        let access = Arc::new(access::Access::new(core.clone(), access));
        let desk = Arc::new(job::Desk::default());
        let workers = core.limits.archive_workers;
        let pool = Arc::new(archive::Pool::start(workers)?);
        let work = archive::work(core.clone(), pool.clone());
        let jobs = Arc::new(job::Jobs::new(core.clone(), desk.clone(), work, workers));
        let manifests = Arc::new(archive::Manifests::default());
        let readings = Arc::new(download::Readings::default());
        let maintenance = maintenance::Maintenance::new(core.clone(), manifests.clone(), readings.clone());
        let maintenance = Arc::new(maintenance);
        let downloads = Arc::new(download::Downloads::new(core.clone(), readings));
        let files = Arc::new(file::Files::new(core.clone(), maintenance.clone()));
        let archives = archive::Archives::new(core.clone(), manifests, desk.clone(), pool);
        let archives = Arc::new(archives);
        let transfers = Arc::new(transfers::Transfers::new(core.clock.clone()));
        let health = Arc::new(health::Health::new(core.clone()));
        let cluster = cluster::Cluster::new(core.clone(), health.clone(), transfers.clone(), desk.clone());
        Ok(Service {
            buckets: bucket::Buckets::new(core.clone(), access.clone()),
            uploads: upload::Uploads::new(core.clone(), maintenance.clone(), files.clone()),
            files,
            links: link::Links::new(core.clone(), access.clone(), downloads.clone(), archives.clone()),
            downloads,
            limiter: Arc::new(limit::Limiter::new(core.clone(), limits)),
            transfers,
            cluster: Arc::new(cluster),
            archives,
            jobs,
            audit: Arc::new(audit::Trail::new(core.clone(), access.clone(), audit)),
            access,
            health,
            desk,
            core,
            maintenance,
        })
    }
}
