//! [`MemoryState`]: the shared memory of a single node.

use crate::topics::Topics;
use crate::{CellName, Hear, Node, Refill, State, Taken, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::{Result, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared memory within the process. A topic takes memory only while somebody watches it.
pub struct MemoryState {
    topics: Arc<Topics<()>>,
    cells: Cells,
    node: String,
    about: Mutex<Bytes>,
}

impl MemoryState {
    /// The memory of the node of this name.
    pub fn new(node: String) -> MemoryState {
        MemoryState {
            topics: Arc::new(Topics::new(())),
            cells: Cells::default(),
            node,
            about: Mutex::default(),
        }
    }
}

/// Cells in one part of [`Cells`], at most: all of them together take some 4 MiB.
const CELLS_MAX: usize = 4096;
/// Parts, so that those who count different things do not wait for each other.
const PARTS: usize = 16;

/// When each cell is whole again, in microseconds since 1970. Those that are whole are forgotten, which loses nothing.
#[derive(Default)]
pub(crate) struct Cells([Mutex<HashMap<CellName, u64>>; PARTS]);

impl Cells {
    pub(crate) fn take(&self, name: &CellName, refill: Refill, only_look: bool, now: u64) -> Taken {
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

/// Microseconds since 1970.
pub(crate) fn micros(now: Timestamp) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0).saturating_mul(1000)
}

#[async_trait]
impl State for MemoryState {
    async fn publish(&self, topic: &str, message: Bytes) -> Result<()> {
        self.topics.tell(topic, message);
        Ok(())
    }

    async fn take(&self, cell: &CellName, refill: Refill, only_look: bool, now: Timestamp) -> Result<Taken> {
        Ok(self.cells.take(cell, refill, only_look, micros(now)))
    }

    async fn watch(&self, topic: &str) -> Result<Box<dyn Watch>> {
        Ok(Box::new(self.topics.watch(topic)))
    }

    async fn hear(&self, topic: &str) -> Result<Box<dyn Hear>> {
        Ok(Box::new(self.topics.hear(topic)))
    }

    async fn compare(&self, said: &[(CellName, u64)]) -> Result<Vec<Vec<u64>>> {
        Ok(vec![Vec::new(); said.len()])
    }

    fn introduce(&self, about: Bytes) {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    fn nodes(&self) -> Vec<Node> {
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![Node { id: self.node.clone(), about, is_self: true }]
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn is_connected(&self) -> bool {
        true
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms() {
        let now = std::sync::Mutex::new(Timestamp::from_millis(1_800_000_000_000));
        let passing = |span| {
            let mut now = now.lock().unwrap();
            *now = now.after(span);
            let now = *now;
            async move { now }
        };
        crate::conformance::run(Arc::new(MemoryState::new("one".to_owned())), passing).await;
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
        let state = MemoryState::new("one".to_owned());
        let one = state.watch("a").await.unwrap();
        let two = state.watch("a").await.unwrap();
        state.publish("b", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(state.topics.count(), 1);
        drop(one);
        assert_eq!(state.topics.count(), 1);
        drop(two);
        assert_eq!(state.topics.count(), 0);
    }
}
