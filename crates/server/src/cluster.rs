//! What this node shares with others.

use crate::config::Config;
use crate::system::SystemEntropy;
use carrack_domain::Entropy;
use carrack_state::{MemoryState, RedisOptions, RedisState, State};
use std::sync::Arc;

/// The name that the settings give this node, or one that nobody else has.
pub(crate) fn node_id(config: &Config) -> String {
    if !config.cluster.node_id.is_empty() {
        return config.cluster.node_id.clone();
    }
    let mut random = [0; 3];
    SystemEntropy.fill(&mut random);
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}-{}", carrack_domain::id::hex(&random))
}

/// The shared memory. The error is a sentence for the operator; a Redis that is merely away is none.
pub(crate) async fn open_state(config: &Config, node: &str) -> Result<Arc<dyn State>, String> {
    let Some(url) = config.state.shared() else {
        return Ok(Arc::new(MemoryState::new(node.to_owned())));
    };
    let mut instance = [0; 16];
    SystemEntropy.fill(&mut instance);
    let (url, prefix, node) = (url.to_owned(), config.state.prefix.clone(), node.to_owned());
    Ok(Arc::new(RedisState::open(RedisOptions { url, prefix, node, instance }).await?))
}
