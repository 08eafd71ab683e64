//! Memory for bytes on their way to S3, bounded. A permit lives in the block it pays for, wherever that goes.
//!
//! Who waits here must hold no block that is not being sent, else all could wait for each other. Who has gathered some and
//! waits for a client that brings no more is told that others need them ([`Budget::pressed`]).

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 128 << 10;

/// See the module's documentation.
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    news: Notify,
}

/// Memory for some bytes.
pub(super) struct Block {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Budget {
        let blocks = usize::try_from(bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        let permits = Arc::new(Semaphore::new(blocks.clamp(1, Semaphore::MAX_PERMITS)));
        Budget { permits, waiting: AtomicUsize::new(0), news: Notify::new() }
    }

    /// A block if there is one now.
    pub(super) fn try_block(&self) -> Option<Block> {
        self.permits.clone().try_acquire_owned().ok().map(Block::new)
    }

    /// A block once there is one; `None`: never, as nobody closes the semaphore.
    pub(super) async fn block(&self) -> Option<Block> {
        let _waiting = Waiting::begin(self);
        self.permits.clone().acquire_owned().await.ok().map(Block::new)
    }

    /// Whether somebody waits.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until somebody waits.
    pub(super) async fn pressed(&self) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.is_pressed() {
                return;
            }
            news.await;
        }
    }
}

struct Waiting<'a>(&'a Budget);

impl<'a> Waiting<'a> {
    fn begin(budget: &'a Budget) -> Waiting<'a> {
        budget.waiting.fetch_add(1, Ordering::AcqRel);
        budget.news.notify_waiters();
        Waiting(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Block {
    fn new(permit: OwnedSemaphorePermit) -> Block {
        Block { bytes: Vec::with_capacity(BLOCK_BYTES), _permit: permit }
    }

    /// Takes what fits, of at most `most` bytes; how many that was.
    pub(super) fn push(&mut self, bytes: &[u8], most: u64) -> usize {
        let room = (BLOCK_BYTES - self.bytes.len()) as u64;
        let count = (bytes.len() as u64).min(room).min(most) as usize;
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() == BLOCK_BYTES
    }

    /// The bytes, with their permit.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_go_with_the_bytes() {
        let budget = Budget::new(2 * BLOCK_BYTES as u64);
        let (mut one, two) = (budget.try_block().unwrap(), budget.try_block().unwrap());
        assert!(budget.try_block().is_none() && !budget.is_pressed());
        assert_eq!(one.push(&[1; 10], 7), 7);
        let (bytes, slice) = {
            let bytes = one.freeze();
            (bytes.clone(), bytes.slice(1..))
        };
        drop(bytes);
        assert!(budget.try_block().is_none(), "a slice of it is left");
        let pressed = async {
            budget.pressed().await;
            drop(slice);
        };
        let (block, ()) = tokio::join!(budget.block(), pressed);
        assert!(block.is_some() && !budget.is_pressed());
        drop(two);
    }
}
