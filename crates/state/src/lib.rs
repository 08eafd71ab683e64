//! Short-lived shared memory. Losing all of it loses no data: what is told here is known to the catalog, or is not worth
//! keeping.
//!
//! [`State`] is implemented by [`MemoryState`] for one node and by [`RedisState`] for several; every implementation passes
//! [`conformance::run`].

mod cell;
pub mod conformance;
mod memory;
mod metrics;
mod redis;
mod topics;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::{Result, Timestamp};

pub use cell::{Refill, Taken};
pub use memory::MemoryState;
pub use metrics::describe;
pub use redis::{RedisOptions, RedisState, check_url};

/// Names a cell: a hash of what it counts and of whom.
pub type CellName = [u8; 16];

/// See the module's documentation.
#[async_trait]
pub trait State: Send + Sync + 'static {
    /// Tells all who watch or hear `topic`, on whichever node. To those who watch it replaces the message before it:
    /// whoever has not seen that never will. Costs next to nothing when nobody watches, and never waits for those who do.
    /// While what is shared is away, only those on this node are told; the others are told to look at the facts.
    async fn publish(&self, topic: &str, message: Bytes) -> Result<()>;

    /// Takes one of the cell of this name, or with `only_look` says what taking one would come to. A cell that nobody has
    /// touched is whole. Whoever takes at the same time, on whichever node, takes from the same cell; a name has the same
    /// `refill` each time, or one that was just changed by the operator. `now` is this node's clock; what is shared may
    /// have one of its own, which then goes.
    async fn take(&self, cell: &CellName, refill: Refill, only_look: bool, now: Timestamp) -> Result<Taken>;

    /// Watches a topic from now on. What was published before this returned may or may not be seen.
    async fn watch(&self, topic: &str) -> Result<Box<dyn Watch>>;

    /// Hears every message of a topic from now on, in order, whoever published it.
    async fn hear(&self, topic: &str) -> Result<Box<dyn Hear>>;

    /// Says of each name how much of it this node uses or could use, for some seconds to come, and returns what each other
    /// node said of it lately. 0 takes back what was said.
    async fn compare(&self, said: &[(CellName, u64)]) -> Result<Vec<Vec<u64>>>;

    /// What the other nodes are told of this one, from now on, about every second.
    fn introduce(&self, about: Bytes);

    /// The nodes that were heard of lately, this one among them, by id.
    fn nodes(&self) -> Vec<Node>;

    /// Among how many nodes what there is has to be shared: while the others cannot be heard, as many as there were before.
    fn members(&self) -> usize {
        self.nodes().len().max(1)
    }

    /// Whether other nodes may share this memory: whoever keeps facts then has to hear of their changes.
    fn is_shared(&self) -> bool;

    /// Whether the other nodes can be reached now, if there may be any.
    fn is_connected(&self) -> bool;

    /// Takes back what this node has said of itself. Called once, at the end.
    async fn close(&self);
}

/// A node as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// What it says of itself.
    pub about: Bytes,
    /// Whether it is this one.
    pub is_self: bool,
}

/// Somebody who watches a topic, until dropped. Takes the memory of one message, however slow it is.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Waits for a message that is newer than the last one seen, and returns the newest there is. `None` when messages may
    /// have been lost: look at the facts, and go on watching; while nothing can be heard it comes about every second.
    /// Cancel-safe.
    async fn next(&mut self) -> Option<Bytes>;
}

/// Somebody who hears every message of a topic, until dropped.
#[async_trait]
pub trait Hear: Send + Sync {
    /// Waits for the next message. `None` when messages may have been lost since the last one: those who were slow, and
    /// those who could not be reached. More may come afterwards. Cancel-safe.
    async fn next(&mut self) -> Option<Bytes>;
}
