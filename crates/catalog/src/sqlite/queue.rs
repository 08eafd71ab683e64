//! What waits for the thread that writes.

use super::readers::stopping;
use super::writer::Command;
use carrack_domain::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A queue that many fill and one empties. Whoever comes when it is full waits; the one who empties it can say how long
/// it waits for the next.
pub(super) struct Queue {
    /// As many as there is room for commands.
    room: Semaphore,
    state: Mutex<State>,
    /// Signalled when somebody waits for a command and there is one, or there will be none any more.
    come: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<dyn Command>>,
    closed: bool,
    /// The one who empties it is waiting.
    idle: bool,
}

impl Queue {
    pub(super) fn new(room: usize) -> Arc<Queue> {
        let room = Semaphore::new(room.clamp(1, Semaphore::MAX_PERMITS));
        Arc::new(Queue { room, state: Mutex::default(), come: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a command; `shutting_down` once it is closed.
    pub(super) async fn push(&self, command: Box<dyn Command>) -> Result<()> {
        self.room.acquire().await.map_err(|_| stopping())?.forget();
        let mut state = self.state();
        if state.closed {
            return Err(stopping());
        }
        state.waiting.push_back(command);
        if state.idle {
            self.come.notify_one();
        }
        Ok(())
    }

    /// Takes no more commands; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.room.close();
        self.state().closed = true;
        self.come.notify_one();
    }

    /// How many commands wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// The next command. Waits for it as long as it takes; `None` when there will be none any more.
    pub(super) fn next(&self) -> Option<Box<dyn Command>> {
        let mut state = self.state();
        while state.waiting.is_empty() && !state.closed {
            state.idle = true;
            state = self.come.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
        self.taken(&mut state)
    }

    /// The next command if it is there, or comes within `patience`.
    pub(super) fn next_within(&self, patience: Duration) -> Option<Box<dyn Command>> {
        let mut state = self.state();
        if state.waiting.is_empty() && !state.closed && !patience.is_zero() {
            state.idle = true;
            let waited = self.come.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            state.idle = false;
        }
        self.taken(&mut state)
    }

    fn taken(&self, state: &mut State) -> Option<Box<dyn Command>> {
        let command = state.waiting.pop_front()?;
        self.room.add_permits(1);
        Some(command)
    }
}

/// Held by the one who empties a queue: once it is gone, whoever waits for an answer is told.
pub(super) struct Emptying(pub(super) Arc<Queue>);

impl Drop for Emptying {
    fn drop(&mut self) {
        self.0.close();
        self.0.state().waiting.clear();
    }
}
