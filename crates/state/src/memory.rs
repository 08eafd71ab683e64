//! [`MemoryState`]: the shared memory of a single node.

use crate::{State, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Shared memory within the process. A topic takes memory only while somebody watches it.
#[derive(Default)]
pub struct MemoryState {
    topics: Arc<Topics>,
}

#[derive(Default)]
struct Topics(Mutex<HashMap<String, watch::Sender<Bytes>>>);

impl Topics {
    fn all(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watching {
    topics: Arc<Topics>,
    topic: String,
    /// `None` only while it is being dropped.
    receiver: Option<watch::Receiver<Bytes>>,
}

#[async_trait]
impl State for MemoryState {
    async fn publish(&self, topic: &str, message: Bytes) -> Result<()> {
        let sender = self.topics.all().get(topic).cloned();
        if let Some(sender) = sender {
            sender.send_replace(message);
        }
        Ok(())
    }

    async fn watch(&self, topic: &str) -> Result<Box<dyn Watch>> {
        let mut topics = self.topics.all();
        let sender = topics.entry(topic.to_owned()).or_insert_with(|| watch::channel(Bytes::new()).0);
        let receiver = Some(sender.subscribe());
        Ok(Box::new(Watching { topics: self.topics.clone(), topic: topic.to_owned(), receiver }))
    }
}

#[async_trait]
impl Watch for Watching {
    async fn next(&mut self) -> Option<Bytes> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        Some(receiver.borrow_and_update().clone())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Under the lock, so that nobody begins to watch a topic that is just going.
        let mut topics = self.topics.all();
        drop(self.receiver.take());
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 0) {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms() {
        crate::conformance::run(Arc::new(MemoryState::default())).await;
    }

    #[tokio::test]
    async fn topics_that_nobody_watches_take_no_memory() {
        let state = MemoryState::default();
        let one = state.watch("a").await.unwrap();
        let two = state.watch("a").await.unwrap();
        state.publish("b", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(state.topics.all().len(), 1);
        drop(one);
        assert_eq!(state.topics.all().len(), 1);
        drop(two);
        assert_eq!(state.topics.all().len(), 0);
    }
}
