//! From settings to a serving process and back: open the rooms, recover, serve, drain, close.

use crate::checkpoints::CheckpointFile;
use crate::clock::CommonClock;
use crate::config::{Config, Flags};
use crate::data::{self, DataFolder};
use crate::discovery::Consul;
use crate::recorder::Metrics;
use crate::reload::{self, Reload};
use crate::rooms::{self, Opened, Use};
use crate::system::SystemEntropy;
use crate::{cluster, events};
use crate::{jwks, telemetry, tls};
use carrack_catalog::{Catalog, PostgresCatalog};
use carrack_domain::policy::AddressRange;
use carrack_events::Relay;
use carrack_http::{App, Proxies};
use carrack_service::coherence::Coherence;
use carrack_service::contents::Contents;
use carrack_service::facts::Facts;
use carrack_service::upload::writers::Writers;
use carrack_service::{Core, Limits, Service};
use carrack_service::{access, audit};
use carrack_state::State;
use carrack_transport::Tls;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Threads that may block on a disk, at most.
const BLOCKING_THREADS_MAX: usize = 128;
/// How often expired uploads and unreferenced blobs are looked for.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(60);
/// How often the recorder tidies its histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Records and bytes are compared after the start, and then so often.
const RECONCILE_AFTER: Duration = Duration::from_secs(60);
const RECONCILE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long what runs in the background may take to end.
const BACKGROUND_GRACE: Duration = Duration::from_secs(2);
/// How long the bookkeeping of broken-off uploads may take after the last connection is gone.
const BOOKKEEPING_GRACE: Duration = Duration::from_secs(10);

/// Serves until a signal; the error is a sentence for the operator.
pub(crate) fn run(config: Config, flags: Flags) -> Result<(), String> {
    let metrics = telemetry::start_metrics()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("carrack")
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    runtime.block_on(serve(config, flags, metrics))
}

/// The rooms, opened.
struct Rooms {
    service: Arc<Service>,
    catalog: Arc<dyn Catalog>,
    state: Arc<dyn State>,
    node: String,
    relay: Option<Arc<Relay>>,
    clock: Arc<CommonClock>,
    /// Whose time all nodes go by.
    timekeeper: Option<Arc<PostgresCatalog>>,
    tasks: TaskTracker,
    _folder: DataFolder,
}

async fn serve(config: Config, flags: Flags, metrics: Metrics) -> Result<(), String> {
    // Before anything is opened: a signal from now on is a clean stop.
    let (stop, reload) = listen_for_signals()?;
    let tls = tls::load(&config.tls)?;
    let rooms = open(&config).await?;
    let background = Background::default();
    let idle = CancellationToken::new();
    background.spawn("maintenance", maintain(rooms.service.clone(), idle.clone()));
    background.spawn("small contents", collect_small(rooms.service.clone(), idle.clone()));
    background.spawn("reconciling", reconcile(rooms.service.clone(), idle.clone()));
    background.spawn("jobs", work(rooms.service.clone(), stop.clone(), idle.clone()));
    background.spawn("limits", rooms.service.limiter.clone().run(idle.clone()));
    background.spawn("audit", rooms.service.audit.clone().run(idle.clone()));
    background.spawn("coherence", rooms.service.clone().keep_up(idle.clone()));
    background.spawn("cluster", {
        let (cluster, idle) = (rooms.service.cluster.clone(), idle.clone());
        async move { cluster.run(idle).await }
    });
    if let Some(relay) = &rooms.relay {
        background.spawn("events", relay.clone().run(idle.clone()));
    }
    if let Some(timekeeper) = &rooms.timekeeper {
        let (timekeeper, clock, idle) = (timekeeper.clone(), rooms.clock.clone(), idle.clone());
        background.spawn("clock", async move {
            idle.run_until_cancelled(clock.follow(&timekeeper)).await;
        });
    }
    background.spawn("metrics", upkeep(metrics.clone(), idle.clone()));
    let reloading =
        Reload { flags, data: config.data.clone(), tls: tls.clone(), service: rooms.service.clone() };
    background.spawn("reloading", reloading.run(reload, idle.clone()));
    let app = App {
        service: rooms.service.clone(),
        traces: carrack_http::Traces::new(&SystemEntropy),
        public_url: Some(config.server.public_url.trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty()),
        scheme: if tls.is_some() { "https" } else { "http" },
        hsts_seconds: if tls.is_some() { config.tls.hsts.as_secs() } else { 0 },
        proxies: proxies(&config.server.trusted_proxies),
        cors: carrack_http::Cors::new(config.server.cors_origins.clone()),
        pace: carrack_http::Pace {
            rate_min: config.server.min_rate,
            idle_timeout: config.server.idle_timeout,
        },
        representations: carrack_http::Representations::default(),
        tasks: rooms.tasks.clone(),
        metrics: Box::new(move || telemetry::render(&metrics)),
    };
    let served = listen(&config, app, tls, &stop, &rooms).await;
    // Before the limits stop: an upload that waits for its share would not notice that its client is gone.
    rooms.tasks.close();
    if tokio::time::timeout(BOOKKEEPING_GRACE, rooms.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = rooms.tasks.len(), "stopping although uploads are still being tidied up");
    }
    idle.cancel();
    background.end().await;
    rooms.state.close().await;
    if let Err(error) = rooms.service.audit.close().await {
        tracing::error!(error = error.chain(), "the last records of the audit log are lost");
    }
    rooms
        .catalog
        .close()
        .await
        .map_err(|error| format!("the catalog could not be closed: {}", error.chain()))?;
    served
}

/// Tasks that run as long as the server, by name.
#[derive(Default)]
struct Background {
    tasks: TaskTracker,
    running: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Background {
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        running.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        self.tasks.spawn(async move {
            task.await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        });
    }

    /// Waits for those that were told to end. One that does not, such as for a store that does not answer, is left: whatever it
    /// is at may be broken off at any moment, as by a power cut.
    async fn end(&self) {
        self.tasks.close();
        if tokio::time::timeout(BACKGROUND_GRACE, self.tasks.wait()).await.is_err() {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            tracing::warn!(tasks = ?*running, "stopping although these have not ended");
        }
    }
}

/// The ranges were checked with the settings.
fn proxies(ranges: &[String]) -> Proxies {
    Proxies::new(ranges.iter().filter_map(|range| AddressRange::parse(range)).collect())
}

async fn listen(
    config: &Config,
    app: App,
    tls: Option<Arc<Tls>>,
    stop: &CancellationToken,
    rooms: &Rooms,
) -> Result<(), String> {
    let address = &config.server.listen;
    let listener = carrack_transport::bind(address).await.map_err(|error| {
        format!("cannot listen on {address}: {error}. Name another address with --listen.")
    })?;
    let local = listener.local_addr().map_err(|error| format!("cannot tell where it listens: {error}"))?;
    telemetry::say(&format!("listening on {}://{local}", app.scheme));
    let consul = consul(config, &rooms.node, app.scheme, local)?;
    // Readiness goes first: whoever comes once the transport drains is refused by then, and nobody is sent here any more.
    let drain = CancellationToken::new();
    let announced = TaskTracker::new();
    announced.spawn({
        let (stop, drain, service, consul) =
            (stop.clone(), drain.clone(), rooms.service.clone(), consul.clone());
        async move {
            match &consul {
                Some(consul) => consul.run(stop).await,
                None => stop.cancelled().await,
            }
            service.health.drain();
            if let Some(consul) = &consul {
                consul.drain().await;
            }
            drain.cancel();
        }
    });
    let options = carrack_transport::Options {
        header_timeout: config.server.header_timeout,
        send_timeout: config.server.idle_timeout,
        connections_max: config.server.max_connections,
        shutdown_grace: config.server.shutdown_grace,
        tls,
    };
    let router = carrack_http::router(Arc::new(app));
    let broken_off = carrack_transport::serve(listener, router, options, drain).await;
    if broken_off > 0 {
        tracing::warn!(connections = broken_off, "transfers were broken off at the end of the grace period");
    }
    stop.cancel();
    announced.close();
    announced.wait().await;
    if let Some(consul) = &consul {
        consul.leave().await;
    }
    Ok(())
}

/// The agent that is told of this node, if there is one.
fn consul(
    config: &Config,
    node: &str,
    scheme: &str,
    local: SocketAddr,
) -> Result<Option<Arc<Consul>>, String> {
    if config.discovery.consul_url.is_empty() {
        return Ok(None);
    }
    Consul::new(&config.discovery, node, scheme, local).map(|consul| Some(Arc::new(consul)))
}

async fn open(config: &Config) -> Result<Rooms, String> {
    let folder = data::open(&config.data, config.storage.shared)?;
    let storage = rooms::open_storage(config, &folder).await?;
    let clock = Arc::new(CommonClock::default());
    let opened = rooms::open_catalog(config, &folder, &*storage, Use::Serve, &clock).await?;
    let Opened { catalog, events, timekeeper } = opened;
    rooms::refuse_unfinished(&*catalog).await?;
    let relay = match &events {
        Some(events) => Some(events::relay(config, events.clone(), clock.clone()).await?),
        None => None,
    };
    let access = access::Options {
        root_token: data::root_token(&folder, &SystemEntropy)?,
        keys: reload::ring(&config.auth, &folder.path)?,
        anonymous_read: config.auth.anonymous_read,
        issuers: config.auth.jwks.iter().map(jwks::issuer).collect::<Result<_, _>>()?,
    };
    let tasks = TaskTracker::new();
    let node = cluster::node_id(config);
    let state = cluster::open_state(config, &node).await?;
    let coherence = Arc::new(Coherence::new(state.clone(), &SystemEntropy));
    let is_alone = !config.has_other_nodes();
    let core = Core {
        catalog: catalog.clone(),
        facts: if is_alone || config.state.shared().is_some() {
            Facts::new(catalog.clone(), coherence.clone())
        } else {
            Facts::of_many(catalog.clone(), coherence.clone())
        },
        coherence,
        events,
        contents: Contents::new(catalog.clone(), storage.clone()),
        storage,
        state: state.clone(),
        clock: clock.clone(),
        entropy: Arc::new(SystemEntropy),
        limits: Limits {
            file_size_max: config.uploads.max_size,
            part_size: config.uploads.part_size,
            upload_ttl: config.uploads.ttl,
            archive_entries_max: config.archives.max_entries,
            archive_bytes_max: config.archives.max_bytes,
            archive_ttl: config.archives.ttl,
            archive_workers: workers(config.archives.workers),
            encodings_quota: config.archives.encodings_quota,
        },
        is_alone,
        writers: Writers::default(),
        tasks: tasks.clone(),
    };
    let audit = audit::Options {
        enabled: config.audit.enabled,
        keep: Some(config.audit.keep).filter(|keep| !keep.is_zero()),
        checkpoint_every: config.audit.checkpoint_every,
        sinks: vec![Arc::new(CheckpointFile::open(config.audit.file(&folder.path))?)],
    };
    let service = Service::new(core, access, config.limits.settings(), audit);
    let service = Arc::new(service.map_err(|error| format!("cannot start workers: {}", error.chain()))?);
    prepare(&service).await?;
    Ok(Rooms { service, catalog, state, node, relay, clock, timekeeper, tasks, _folder: folder })
}

/// What has to be done before the first request.
async fn prepare(service: &Service) -> Result<(), String> {
    service.maintenance.recover().await.map_err(|error| format!("recovery failed: {}", error.chain()))?;
    service
        .buckets
        .ensure_default()
        .await
        .map_err(|error| format!("the catalog is not usable: {}", error.chain()))?;
    service
        .limiter
        .begin()
        .await
        .map_err(|error| format!("the quotas cannot be forgotten: {}", error.chain()))?;
    service
        .access
        .read_policies()
        .await
        .map_err(|error| format!("the policies cannot be read: {}", error.chain()))?;
    service
        .access
        .read_denied()
        .await
        .map_err(|error| format!("the denied tokens cannot be read: {}", error.chain()))?;
    Ok(())
}

/// As many as were set, or as there are cores.
fn workers(set: usize) -> usize {
    if set > 0 { set } else { std::thread::available_parallelism().map_or(1, |n| n.get()) }
}

/// A token that is cancelled by SIGTERM or SIGINT, and what SIGHUP notifies.
fn listen_for_signals() -> Result<(CancellationToken, Arc<Notify>), String> {
    let on = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt, mut hangup) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (token, notify) = (stop.clone(), reload.clone());
    let listening = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    notify.notify_one();
                    continue;
                }
            }
            if token.is_cancelled() {
                tracing::warn!("stopping at once");
                std::process::exit(1);
            }
            tracing::info!("stopping");
            token.cancel();
        }
    };
    // Owned by the runtime: it has to listen until the very end, for the second signal that means "at once".
    #[expect(clippy::disallowed_methods, reason = "ends with the process, by design")]
    tokio::spawn(listening);
    Ok((stop, reload))
}

async fn maintain(service: Arc<Service>, stop: CancellationToken) {
    loop {
        let round = tokio::select! {
            round = service.maintenance.round() => round,
            () = stop.cancelled() => return,
        };
        if let Err(error) = round {
            tracing::error!(error = error.chain(), "maintenance failed; it will be tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(MAINTENANCE_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Jobs are given back as soon as the node is to stop, not when its last transfer has ended: others go on with them at once.
async fn work(service: Arc<Service>, stop: CancellationToken, idle: CancellationToken) {
    let leave = CancellationToken::new();
    tokio::join!(service.jobs.clone().run(leave.clone()), async {
        tokio::select! { () = stop.cancelled() => {}, () = idle.cancelled() => {} }
        leave.cancel();
    });
}

async fn collect_small(service: Arc<Service>, stop: CancellationToken) {
    service.maintenance.collect_small(&stop).await;
}

async fn reconcile(service: Arc<Service>, stop: CancellationToken) {
    let mut pause = RECONCILE_AFTER;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = RECONCILE_EVERY;
        let found = tokio::select! {
            found = service.maintenance.reconcile() => found,
            () = stop.cancelled() => return,
        };
        match found {
            Ok(found) => {
                tracing::info!(lost = found.lost, orphans = found.orphans, "records and bytes compared")
            }
            Err(error) => tracing::error!(error = error.chain(), "records and bytes could not be compared"),
        }
    }
}

async fn upkeep(metrics: Metrics, stop: CancellationToken) {
    loop {
        metrics.run_upkeep();
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}
