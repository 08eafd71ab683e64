//! Short-lived shared memory. Losing all of it loses no data: what is told here is known to the catalog, or is not worth
//! keeping.
//!
//! [`State`] is implemented by [`MemoryState`]; every implementation passes [`conformance::run`].

mod cell;
pub mod conformance;
mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::{Result, Timestamp};

pub use cell::{Refill, Taken};
pub use memory::MemoryState;

/// Names a cell: a hash of what it counts and of whom.
pub type CellName = [u8; 16];

/// See the module's documentation.
#[async_trait]
pub trait State: Send + Sync + 'static {
    /// Tells all who watch `topic` its newest message. It replaces the one before it: whoever has not seen that never will.
    /// Costs next to nothing when nobody watches, and never waits for those who do.
    async fn publish(&self, topic: &str, message: Bytes) -> Result<()>;

    /// Takes one of the cell of this name, or with `only_look` says what taking one would come to. A cell that nobody has
    /// touched is whole. Whoever takes at the same time, on whichever node, takes from the same cell; a name has the same
    /// `refill` each time, or one that was just changed by the operator.
    async fn take(&self, cell: &CellName, refill: Refill, only_look: bool, now: Timestamp) -> Result<Taken>;

    /// Watches a topic from now on. What was published before this returned may or may not be seen.
    async fn watch(&self, topic: &str) -> Result<Box<dyn Watch>>;
}

/// Somebody who watches a topic, until dropped. Takes the memory of one message, however slow it is.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Waits for a message that is newer than the last one seen, and returns the newest there is. `None` when no more can
    /// come: look at the facts, and watch anew. Cancel-safe.
    async fn next(&mut self) -> Option<Bytes>;
}
