//! Names and units of what this room measures.

use metrics::{describe_counter, describe_gauge};

/// Whether Redis answers: 1 or 0; absent with `memory`.
pub(crate) const CONNECTED: &str = "carrack_state_connected";
/// Limits that were judged by this node's share, because Redis did not answer.
pub(crate) const FALLBACKS: &str = "carrack_state_fallbacks_total";
/// Messages that other nodes were not told, because Redis did not answer.
pub(crate) const UNTOLD: &str = "carrack_state_untold_total";
/// Nodes that were heard of in the last seconds.
pub(crate) const NODES: &str = "carrack_cluster_nodes";
/// 1 while another node runs under this node's id; must be 0.
pub(crate) const CONFLICT: &str = "carrack_cluster_node_conflict";

/// Registers help texts with the installed recorder.
pub fn describe() {
    describe_gauge!(CONNECTED, "Whether Redis answers.");
    describe_counter!(FALLBACKS, "Limits judged by this node's share, because Redis did not answer.");
    describe_counter!(UNTOLD, "Messages that other nodes were not told, because Redis did not answer.");
    describe_gauge!(NODES, "Nodes that were heard of in the last seconds.");
    describe_gauge!(CONFLICT, "1 while another node runs under this node's id; must be 0.");
}
