//! How many bytes the kernel takes of a connection before it has sent those it has (`TCP_NOTSENT_LOWAT`).
//!
//! With few, a client that stands still holds little memory; but each time half of them have left we are woken, which a
//! fast line makes dear. So a connection begins with few, gets more once it has shown that it is fast, and loses them
//! when it is no longer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What every connection may have.
pub(crate) const FEW: u32 = 512 << 10;
/// What a fast one may have: about as much as its send buffer grows to by Linux's defaults.
const MANY: u32 = 4 << 20;
/// A connection is judged each time it has sent so much.
const STRETCH_BYTES: u64 = 8 << 20;
/// It is fast if that took no longer.
const STRETCH: Duration = Duration::from_millis(125);
/// So many may be fast at once: clients that stop reading after a fast beginning hold 256 MiB at most.
const FAST_MAX: usize = 64;

/// Places for fast connections.
pub(crate) struct Places(AtomicUsize);

/// Those of this process.
pub(crate) static PLACES: Places = Places(AtomicUsize::new(FAST_MAX));

impl Places {
    fn take(&'static self) -> Option<Place> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| Place(self))
    }
}

/// Given back when dropped.
struct Place(&'static Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bound of one connection.
pub(crate) struct Unsent {
    places: &'static Places,
    /// When the stretch began that is being sent, and how much of it is left.
    began: Option<Instant>,
    left: u64,
    place: Option<Place>,
}

impl Unsent {
    pub(crate) fn new(places: &'static Places) -> Unsent {
        Unsent { places, began: None, left: STRETCH_BYTES, place: None }
    }

    /// Counts bytes that the kernel took; the new bound, when it changes.
    pub(crate) fn count(&mut self, bytes: u64, now: impl FnOnce() -> Instant) -> Option<u32> {
        if self.began.is_some() && bytes < self.left {
            self.left -= bytes;
            return None;
        }
        let now = now();
        self.left = STRETCH_BYTES;
        let is_fast = now.duration_since(self.began.replace(now)?) <= STRETCH;
        match (is_fast, self.place.is_some()) {
            (true, false) => self.place = Some(self.places.take()?),
            (false, true) => self.place = None,
            (true, true) | (false, false) => return None,
        }
        Some(if is_fast { MANY } else { FEW })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes while stretches are sent that take so many milliseconds each.
    fn changes(unsent: &mut Unsent, clock: &mut Instant, millis: u64, stretches: u64) -> Vec<u32> {
        const PIECES: u64 = 16;
        let piece = Duration::from_millis(millis) / PIECES as u32;
        let mut send = || {
            *clock += piece;
            unsent.count(STRETCH_BYTES / PIECES, || *clock)
        };
        (0..stretches * PIECES).filter_map(|_| send()).collect()
    }

    #[test]
    fn fast_connections_get_more_and_slow_ones_lose_it() {
        static PLACES: Places = Places(AtomicUsize::new(1));
        let (mut clock, mut unsent) = (Instant::now(), Unsent::new(&PLACES));
        assert_eq!(changes(&mut unsent, &mut clock, 4000, 5), []);
        assert_eq!(changes(&mut unsent, &mut clock, 10, 5), [MANY]);
        let mut second = Unsent::new(&PLACES);
        assert_eq!(changes(&mut second, &mut clock, 10, 5), [], "there is one place");
        assert_eq!(changes(&mut unsent, &mut clock, 4000, 5), [FEW]);
        assert_eq!(changes(&mut second, &mut clock, 10, 5), [MANY]);
        drop(second);
        assert_eq!(changes(&mut unsent, &mut clock, 10, 5), [MANY], "a closed connection leaves its place");
    }

    #[test]
    fn no_bytes_are_no_stretch() {
        let mut unsent = Unsent::new(&PLACES);
        let now = Instant::now();
        assert!((0..100).all(|_| unsent.count(0, || now).is_none()));
    }
}
