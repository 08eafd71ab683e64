//! The nodes, as each tells the others of itself.

use crate::Core;
use crate::health::Health;
use crate::job::Desk;
use crate::transfers::Transfers;
use carrack_catalog::Sink;
use carrack_domain::access::ReadCluster;
use carrack_domain::{Grant, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a node says how it is.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// What the kernel counts load averages in.
const LOAD_SCALE: f64 = 65_536.0;

/// What a node says of itself. What is absent was said by another version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// `ready`, or `draining` while it stops.
    pub state: String,
    /// Its version.
    pub version: String,
    /// When it was started, in milliseconds since 1970 by its own clock.
    pub started_at: i64,
    /// Downloads of 1 MiB and more that are under way.
    pub downloads: u64,
    /// Jobs that are under way.
    pub jobs: u64,
    /// The machine's load average of the last minute.
    pub load: f64,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub id: String,
    /// Whether it is the one that was asked.
    pub is_self: bool,
    /// What it says of itself.
    pub about: About,
}

/// See the module's documentation.
pub struct Cluster {
    core: Arc<Core>,
    health: Arc<Health>,
    transfers: Arc<Transfers>,
    desk: Arc<Desk>,
    started_at: Timestamp,
}

impl Cluster {
    pub(crate) fn new(
        core: Arc<Core>,
        health: Arc<Health>,
        transfers: Arc<Transfers>,
        desk: Arc<Desk>,
    ) -> Cluster {
        let started_at = core.clock.now();
        Cluster { core, health, transfers, desk, started_at }
    }

    fn about(&self) -> About {
        About {
            state: if self.health.draining() { "draining" } else { "ready" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at.as_millis(),
            downloads: self.transfers.running() as u64,
            jobs: self.desk.count() as u64,
            load: rustix::system::sysinfo().loads[0] as f64 / LOAD_SCALE,
        }
    }

    /// Tells the others how this node is, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            self.introduce();
            tokio::select! {
                () = tokio::time::sleep(TOLD_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn introduce(&self) {
        // It is plain data, which is always JSON.
        if let Ok(about) = serde_json::to_vec(&self.about()) {
            self.core.state.introduce(about.into());
        }
    }

    /// The nodes that were heard of in the last seconds, by name.
    pub fn members(&self, _grant: &Grant<ReadCluster>) -> Vec<Member> {
        let nodes = self.core.state.nodes().into_iter();
        nodes
            .map(|node| {
                // One that has just come has said nothing yet.
                let said = serde_json::from_slice(&node.about).unwrap_or_default();
                let about = if node.is_self { self.about() } else { said };
                Member { id: node.id, is_self: node.is_self, about }
            })
            .collect()
    }

    /// Who is told of events, and how far they are.
    pub async fn sinks(&self, _grant: &Grant<ReadCluster>) -> Result<Vec<Sink>> {
        match &self.core.events {
            Some(events) => events.sinks().await,
            None => Ok(Vec::new()),
        }
    }
}
