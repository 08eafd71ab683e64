//! The nodes, and who is told of events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `GET /v1/cluster`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterState {
    /// The nodes that were heard of in the last seconds, by name.
    pub nodes: Vec<ClusterNode>,
    /// Who is told of events.
    pub event_sinks: Vec<EventSink>,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClusterNode {
    /// Its name.
    pub id: String,
    /// Whether it is the one that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// `ready`, or `draining` while it stops.
    pub state: String,
    /// Its version.
    pub version: String,
    /// When it was started (RFC 3339).
    pub started_at: String,
    /// Downloads of 1 MiB and more that are under way.
    pub downloads: u64,
    /// Archives that it is making.
    pub jobs: u64,
    /// Its machine's load average of the last minute.
    pub load: f64,
}

/// Somebody who is told of events.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventSink {
    /// Its name.
    pub name: String,
    /// `ok`, `failing`, or `given_up` when nothing more is told to it until the next start.
    pub state: String,
    /// How many events it has yet to be told.
    pub pending: u64,
    /// Since when it does not take the next one (RFC 3339).
    pub failing_since: Option<String>,
    /// Why.
    pub problem: Option<String>,
}
