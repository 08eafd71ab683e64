//! A bound on bytes per second that everything under one name shares: a link's or signed URL's rate is not multiplied by
//! opening connections.
//!
//! Whoever is about to send takes the next free span of time, as long as its bytes last at the rate, and waits for its
//! beginning. Spans are taken in the order of asking, so connections share the rate evenly, and what one leaves the others
//! have.

use crate::Body;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// The least rate, in bytes per second: below it a connection would look dead.
pub const RATE_MIN: u64 = 1024;
/// Bytes that go out together, at most and at least; in between a tenth of a second's.
const PIECE_BYTES_MAX: u64 = 256 << 10;
const PIECE_BYTES_MIN: u64 = 256;
/// How far behind the rate may be caught up: what a busy machine was late.
const LATE_MAX: Duration = Duration::from_millis(200);

/// Names of what shares a rate.
pub type Name = [u8; 16];

/// The rates that are in use.
#[derive(Default)]
pub struct Paces {
    table: Mutex<HashMap<Name, Weak<Pace>>>,
}

/// One rate.
pub struct Pace {
    bytes_per_second: NonZeroU64,
    /// When the next span of time is free.
    free: Mutex<Instant>,
}

impl Paces {
    /// The rate under this name; whoever uses it at the same time shares it.
    pub fn of(&self, name: Name, bytes_per_second: NonZeroU64) -> Arc<Pace> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = table.get(&name).and_then(Weak::upgrade)
            && pace.bytes_per_second == bytes_per_second
        {
            return pace;
        }
        // Those that nobody uses any more go when another comes.
        table.retain(|_, pace| pace.strong_count() > 0);
        let pace = Arc::new(Pace { bytes_per_second, free: Mutex::new(Instant::now()) });
        table.insert(name, Arc::downgrade(&pace));
        pace
    }
}

impl Pace {
    /// The most bytes to be sent together.
    pub(crate) fn piece_bytes(&self) -> u64 {
        (self.bytes_per_second.get() / 10).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
    }

    /// Waits until `len` bytes may be sent.
    pub async fn wait(&self, len: u64) {
        let begin = self.take(len, Instant::now());
        tokio::time::sleep_until(begin).await;
    }

    fn take(&self, len: u64, now: Instant) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free).max(now.checked_sub(LATE_MAX).unwrap_or(now));
        *free = begin + Duration::from_secs_f64(len as f64 / self.bytes_per_second.get() as f64);
        begin
    }
}

/// A body that is taken no faster than its pace, if it has one.
pub fn paced(body: Body, pace: Option<Arc<Pace>>) -> Body {
    let Some(pace) = pace else { return body };
    Box::pin(body.then(move |bytes| {
        let pace = pace.clone();
        async move {
            if let Ok(bytes) = &bytes {
                pace.wait(bytes.len() as u64).await;
            }
            bytes
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).unwrap()
    }

    #[test]
    fn all_who_share_a_rate_have_it_together() {
        let paces = Paces::default();
        let (one, two) = (paces.of([1; 16], rate(1000)), paces.of([1; 16], rate(1000)));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &paces.of([2; 16], rate(1000))));
        let start = Instant::now() + Duration::from_secs(10);
        let begin = |pace: &Pace| pace.take(500, start).saturating_duration_since(start);
        assert_eq!(begin(&one), Duration::ZERO);
        let late = begin(&two);
        assert!(late <= Duration::from_millis(500) && late >= Duration::from_millis(300), "{late:?}");
        assert_eq!(begin(&one) - late, Duration::from_millis(500));
        assert_eq!(begin(&two) - late, Duration::from_millis(1000));
        drop((one, two));
        paces.of([3; 16], rate(1));
        assert_eq!(paces.table.lock().unwrap().len(), 1, "what nobody uses is forgotten");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let pace = Paces::default().of([1; 16], rate(1000));
        let later = Instant::now() + Duration::from_secs(3600);
        pace.take(1000, later);
        let next = pace.take(1000, later);
        assert!(
            next >= later + Duration::from_millis(800),
            "an hour of silence is worth a fifth of a second"
        );
    }

    #[test]
    fn pieces_are_a_tenth_of_a_second_within_bounds() {
        let of = |bytes| Paces::default().of([1; 16], rate(bytes)).piece_bytes();
        assert_eq!((of(1024), of(100_000), of(1 << 30)), (256, 10_000, 256 << 10));
    }
}
