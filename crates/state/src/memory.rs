//! [`MemoryState`]: the shared memory of a single node.

use crate::{CellName, Refill, State, Taken, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::{Result, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Shared memory within the process. A topic takes memory only while somebody watches it.
#[derive(Default)]
pub struct MemoryState {
    topics: Arc<Topics>,
    cells: Cells,
}

/// Cells in one part of [`Cells`], at most: all of them together take some 4 MiB.
const CELLS_MAX: usize = 4096;
/// Parts, so that those who count different things do not wait for each other.
const PARTS: usize = 16;

/// When each cell is whole again, in microseconds since 1970. Those that are whole are forgotten, which loses nothing.
#[derive(Default)]
struct Cells([Mutex<HashMap<CellName, u64>>; PARTS]);

impl Cells {
    fn take(&self, name: &CellName, refill: Refill, only_look: bool, now: u64) -> Taken {
        let part = &self.0[usize::from(name[0]) % PARTS];
        let mut cells = part.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cells.get(name).copied();
        let (taken, whole) = refill.take(known.unwrap_or(0), now, only_look);
        if only_look || (known.is_none() && !taken.is_admitted) {
            return taken;
        }
        if known.is_none() && cells.len() >= CELLS_MAX {
            make_room(&mut cells, now);
        }
        cells.insert(*name, whole);
        taken
    }
}

/// Forgets the cells that are whole; if that is not enough, the half that will be whole first: what is counted of those
/// is the least.
fn make_room(cells: &mut HashMap<CellName, u64>, now: u64) {
    cells.retain(|_, whole| *whole > now);
    if cells.len() < CELLS_MAX {
        return;
    }
    let mut moments: Vec<u64> = cells.values().copied().collect();
    let (_, middle, _) = moments.select_nth_unstable(CELLS_MAX / 2);
    let middle = *middle;
    cells.retain(|_, whole| *whole > middle);
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

    async fn take(&self, cell: &CellName, refill: Refill, only_look: bool, now: Timestamp) -> Result<Taken> {
        let now = u64::try_from(now.as_millis()).unwrap_or(0).saturating_mul(1000);
        Ok(self.cells.take(cell, refill, only_look, now))
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

    #[test]
    fn cells_are_bounded_and_those_that_count_most_stay() {
        let cells = Cells::default();
        let refill = Refill::per_minute(10).unwrap();
        let name = |number: u32| {
            let mut name = [0; 16];
            name[4..8].copy_from_slice(&number.to_be_bytes());
            name
        };
        let now = 1_000_000_000;
        for _ in 0..10 {
            cells.take(&name(u32::MAX), refill, false, now);
        }
        for number in 0..100_000 {
            cells.take(&name(number), refill, false, now);
        }
        assert!(cells.0[0].lock().unwrap().len() <= CELLS_MAX);
        assert!(
            !cells.take(&name(u32::MAX), refill, false, now).is_admitted,
            "a flood of others frees nobody"
        );
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
