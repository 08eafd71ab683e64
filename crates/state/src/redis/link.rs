//! The connection that calls go by, looked after by a task: it beats every second, and connects again when Redis does not
//! answer.

use super::{RedisOptions, scripts};
use crate::Node;
use crate::metrics::{CONFLICT, CONNECTED, NODES};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long connecting may take, and an answer that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often this node makes itself heard.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How long a node counts as there that is not heard of, in milliseconds.
const LIFETIME_MS: u64 = 5000;
/// How long one that was killed and comes again under its name waits for that.
const PREDECESSOR: Duration = Duration::from_millis(LIFETIME_MS + 2000);
/// How often it is tried to reach a Redis that is away.
const TRIED_EVERY: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub(super) struct Link {
    client: Client,
    key: String,
    node: String,
    instance: String,
    connection: RwLock<Option<MultiplexedConnection>>,
    /// A call failed: look now.
    suspect: Notify,
    about: Mutex<Bytes>,
    heard: Mutex<Vec<Node>>,
    /// How many nodes there were when Redis answered last.
    known: AtomicUsize,
    /// Whether the log says that Redis is away.
    is_away: AtomicBool,
    /// Whether the log says that somebody has our name.
    is_doubled: AtomicBool,
}

/// What a beat found out.
struct Beat {
    conflict: bool,
    nodes: Vec<Node>,
}

/// Whether an error says that Redis is not there or not ready, rather than that it does not want us.
fn passes(error: &RedisError) -> bool {
    let busy = ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "OOM", "MISCONF"];
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.code().is_some_and(|code| busy.contains(&code))
}

impl Link {
    pub(super) fn new(client: Client, options: &RedisOptions) -> Link {
        let instance = options.instance.iter().map(|byte| format!("{byte:02x}")).collect();
        Link {
            client,
            key: format!("{}:nodes", options.prefix),
            node: options.node.clone(),
            instance,
            connection: RwLock::default(),
            suspect: Notify::new(),
            about: Mutex::default(),
            heard: Mutex::default(),
            known: AtomicUsize::new(1),
            is_away: AtomicBool::default(),
            is_doubled: AtomicBool::default(),
        }
    }

    /// The connection, while Redis answers.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A call failed.
    pub(super) fn suspect(&self, why: &str) {
        tracing::debug!(why, "a call of Redis failed");
        self.suspect.notify_one();
    }

    pub(super) fn introduce(&self, about: Bytes) {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// How many nodes share what there is: as many as there were when Redis answered last.
    pub(super) fn known_nodes(&self) -> usize {
        self.known.load(Ordering::Relaxed).max(1)
    }

    /// Those that were heard of lately; this one always.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.connection().is_none() || !nodes.iter().any(|node| node.is_self) {
            nodes = vec![Node { id: self.node.clone(), about: self.about(), is_self: true }];
        }
        nodes
    }

    fn about(&self) -> Bytes {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first connection. An error only when Redis refuses us, or somebody else has our name.
    pub(super) async fn begin(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match self.connect().await {
                Ok(beat) if !beat.conflict => return Ok(()),
                Ok(_) if begun.elapsed() < PREDECESSOR => tokio::time::sleep(TRIED_EVERY).await,
                Ok(_) => {
                    return Err(format!(
                        "another node runs under the name {:?} already: give each node a cluster.node_id of its own",
                        self.node
                    ));
                }
                Err(error) if passes(&error) => {
                    self.lost(&error.to_string());
                    return Ok(());
                }
                Err(error) => {
                    let said = [error.code().unwrap_or(error.category()), error.detail().unwrap_or_default()];
                    let said = said.join(" ");
                    let said = said.trim().trim_end_matches('.');
                    return Err(format!(
                        "Redis at {} refuses us: {said}. Check user, password and database in state.url.",
                        self.client.get_connection_info().addr()
                    ));
                }
            }
        }
    }

    /// Looks after the connection until `stop`.
    pub(super) async fn run(self: Arc<Link>, stop: CancellationToken) {
        loop {
            let pause = if self.connection().is_some() { BEAT_EVERY } else { TRIED_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.suspect.notified(), if self.connection().is_some() => {}
                () = stop.cancelled() => return,
            }
            let beat = match self.connection() {
                Some(mut connection) => self.beat(&mut connection).await,
                None => self.connect().await,
            };
            if let Err(error) = beat {
                self.lost(&error.to_string());
            }
        }
    }

    async fn connect(&self) -> Result<Beat, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let beat = self.beat(&mut connection).await?;
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        metrics::gauge!(CONNECTED).set(1.0);
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis answers again: limits are shared, and other nodes are heard");
        }
        Ok(beat)
    }

    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<Beat, RedisError> {
        let mut script = scripts::BEAT.key(&self.key);
        script.arg(&self.node).arg(&self.instance).arg(&self.about()[..]).arg(LIFETIME_MS);
        let said = script.invoke_async::<Vec<Vec<u8>>>(connection);
        let said = tokio::time::timeout(PATIENCE, said).await.map_err(|_| {
            RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
        })??;
        let conflict = said.first().is_some_and(|first| first == b"1");
        let node = |pair: &[Vec<u8>]| {
            let id = String::from_utf8_lossy(pair.first()?).into_owned();
            let is_self = id == self.node;
            Some(Node { id, about: pair.get(1)?.clone().into(), is_self })
        };
        let mut nodes: Vec<Node> = said.get(1..).unwrap_or_default().chunks(2).filter_map(node).collect();
        nodes.sort_unstable_by(|one, two| one.id.cmp(&two.id));
        let beat = Beat { conflict, nodes };
        self.heard(&beat);
        Ok(beat)
    }

    fn heard(&self, beat: &Beat) {
        self.known.store(beat.nodes.len(), Ordering::Relaxed);
        metrics::gauge!(NODES).set(beat.nodes.len() as f64);
        metrics::gauge!(CONFLICT).set(f64::from(u8::from(beat.conflict)));
        if beat.conflict && !self.is_doubled.swap(beat.conflict, Ordering::Relaxed) {
            tracing::error!(
                node = self.node,
                "another node runs under the name of this one: stop one of them"
            );
        } else if !beat.conflict {
            self.is_doubled.store(false, Ordering::Relaxed);
        }
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = beat.nodes.clone();
    }

    /// Redis is away: said once.
    fn lost(&self, why: &str) {
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = None;
        metrics::gauge!(CONNECTED).set(0.0);
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                why,
                nodes = self.known_nodes(),
                "Redis does not answer: this node goes on with its share"
            );
        }
    }

    /// Takes back what was said of this node.
    pub(super) async fn leave(&self) {
        let Some(mut connection) = self.connection() else { return };
        let mut script = scripts::LEAVE.key(&self.key);
        script.arg(&self.node).arg(&self.instance);
        if !matches!(
            tokio::time::timeout(PATIENCE, script.invoke_async::<i64>(&mut connection)).await,
            Ok(Ok(_))
        ) {
            tracing::debug!("the other nodes were not told that this one goes");
        }
    }
}
