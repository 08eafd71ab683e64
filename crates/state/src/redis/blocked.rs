//! Cells that were found empty: who comes again before one is back is refused without asking.

use crate::{CellName, Taken};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Cells that are kept, some 100 bytes each. When there are more, those that are over go, then any.
const BLOCKED_MAX: usize = 8192;
/// How long nobody is asked, so that a limit that was raised is noticed.
const BELIEVED: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Empty {
    /// When one is back.
    back_at: Instant,
    /// When all are.
    whole_at: Instant,
    /// When to ask again.
    ask_at: Instant,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Blocked(Mutex<HashMap<CellName, Empty>>);

impl Blocked {
    fn all(&self) -> MutexGuard<'_, HashMap<CellName, Empty>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal of a cell that is known to be empty.
    pub(super) fn look(&self, cell: &CellName) -> Option<Taken> {
        let now = Instant::now();
        let mut all = self.all();
        let empty = *all.get(cell)?;
        if empty.ask_at <= now {
            all.remove(cell);
            return None;
        }
        Some(Taken {
            is_admitted: false,
            left: 0,
            retry_after: empty.back_at - now,
            whole_after: empty.whole_at - now,
        })
    }

    /// Keeps a refusal.
    pub(super) fn keep(&self, cell: &CellName, refused: Taken) {
        let now = Instant::now();
        let back_at = now + refused.retry_after;
        let empty =
            Empty { back_at, whole_at: now + refused.whole_after, ask_at: back_at.min(now + BELIEVED) };
        let mut all = self.all();
        if all.len() >= BLOCKED_MAX {
            all.retain(|_, empty| empty.ask_at > now);
            if all.len() >= BLOCKED_MAX {
                all.clear();
            }
        }
        all.insert(*cell, empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_refused_until_one_is_back_and_asks_again_after_a_while() {
        let blocked = Blocked::default();
        let refused = |seconds| Taken {
            is_admitted: false,
            left: 0,
            retry_after: Duration::from_secs(seconds),
            whole_after: Duration::from_secs(60),
        };
        assert_eq!(blocked.look(&[1; 16]), None);
        blocked.keep(&[1; 16], refused(2));
        blocked.keep(&[2; 16], refused(60));
        tokio::time::advance(Duration::from_secs(1)).await;
        let still = blocked.look(&[1; 16]).unwrap();
        assert_eq!((still.retry_after, still.whole_after), (Duration::from_secs(1), Duration::from_secs(59)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(blocked.look(&[1; 16]), None);
        assert!(blocked.look(&[2; 16]).is_some());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(blocked.look(&[2; 16]), None, "a limit may have been raised");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let blocked = Blocked::default();
        let refused = Taken {
            is_admitted: false,
            left: 0,
            retry_after: Duration::from_secs(60),
            whole_after: Duration::from_secs(60),
        };
        for number in 0..3 * BLOCKED_MAX as u128 {
            blocked.keep(&number.to_be_bytes(), refused);
        }
        assert!(blocked.all().len() <= BLOCKED_MAX);
    }
}
