//! One writer per extent. A newer request for the same extent displaces the older one, whose connection is most
//! likely dead: the older is told to stop, and the newer begins once nothing is being written any more.

use carrack_domain::{Code, Error, Result, UploadId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// An extent of an upload by the offset at which it begins, or the upload as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The extent that begins here.
    Extent(UploadId, u64),
    /// The end of an upload whose bytes come in order.
    Tail(UploadId),
    /// The completion.
    Completion(UploadId),
}

/// What becomes of the bytes that a displaced holder has received and not recorded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The newcomer wants to know where to go on: they are recorded first.
    Keep,
    /// The newcomer brings them again: waiting for them would be in vain.
    Discard,
}

/// How a holder is told to stop, and tells that it has.
#[derive(Clone, Default)]
struct Held {
    cancelled: CancellationToken,
    discard: Arc<AtomicBool>,
    gone: CancellationToken,
}

impl Held {
    fn displace(&self, received: Received) {
        // Before the token: whoever wakes up by it sees the flag. Once set it stays, as the bytes may be gone already.
        if received == Received::Discard && !self.cancelled.is_cancelled() {
            self.discard.store(true, Ordering::Release);
        }
        self.cancelled.cancel();
    }
}

/// All claims of this process. Bounded by the requests being served.
#[derive(Default)]
pub(super) struct Claims {
    slots: Mutex<HashMap<Place, Slot>>,
    released: Notify,
}

/// A place that somebody holds or waits for.
#[derive(Default)]
struct Slot {
    /// `None` when nobody holds the place at the moment.
    held: Option<Held>,
    /// Counts who came for the place; of those who wait only the newest gets it.
    newest: u64,
    waiting: usize,
}

/// The right to write to a place, until dropped.
pub(super) struct Claim {
    claims: Arc<Claims>,
    place: Place,
    /// Cancelled when a newer request wants the place.
    pub(super) cancelled: CancellationToken,
    held: Held,
}

impl Claim {
    /// Whether whoever displaced this claim brings the bytes again that are not recorded yet.
    pub(super) fn is_discarded(&self) -> bool {
        self.held.discard.load(Ordering::Acquire)
    }
}

/// Somebody waits for a place; a request that goes away meanwhile is counted out by `Drop`.
struct Waiting<'a> {
    claims: &'a Claims,
    place: Place,
}

impl Claims {
    fn slots(&self) -> MutexGuard<'_, HashMap<Place, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place, displacing whoever holds it; `superseded` when somebody newer came meanwhile.
    pub(super) async fn take(self: &Arc<Claims>, place: Place, received: Received) -> Result<Claim> {
        let (mine, _waiting) = {
            let mut slots = self.slots();
            let slot = slots.entry(place).or_default();
            slot.newest += 1;
            slot.waiting += 1;
            if let Some(holder) = &slot.held {
                holder.displace(received);
            }
            (slot.newest, Waiting { claims: self, place })
        };
        self.wait_for(place, |slot| if slot.newest > mine { Err(superseded()) } else { Ok(()) }).await
    }

    /// Displaces whoever holds the place and waits until it has recorded what it received; whether there was somebody.
    pub(super) async fn displace(&self, place: Place) -> bool {
        let held = self.slots().get(&place).and_then(|slot| slot.held.clone());
        let Some(held) = held else { return false };
        held.displace(Received::Keep);
        held.gone.cancelled().await;
        true
    }

    /// Takes the place when it is free, waiting for whoever holds it to finish without disturbing them.
    pub(super) async fn queue(self: &Arc<Claims>, place: Place) -> Result<Claim> {
        self.slots().entry(place).or_default().waiting += 1;
        let _waiting = Waiting { claims: self, place };
        self.wait_for(place, |_| Ok(())).await
    }

    /// Takes a free place, as long as `entitled` says so.
    async fn wait_for(
        self: &Arc<Claims>,
        place: Place,
        entitled: impl Fn(&Slot) -> Result<()>,
    ) -> Result<Claim> {
        loop {
            // Registered before looking, so that a release in between is not missed.
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            {
                let mut slots = self.slots();
                let slot = slots.entry(place).or_default();
                entitled(slot)?;
                if slot.held.is_none() {
                    let held = Held::default();
                    slot.held = Some(held.clone());
                    return Ok(Claim {
                        claims: self.clone(),
                        place,
                        cancelled: held.cancelled.clone(),
                        held,
                    });
                }
            }
            released.await;
        }
    }

    /// Changes a slot, and forgets it once nobody holds or wants it.
    fn leave(&self, place: Place, change: impl Fn(&mut Slot)) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&place) {
            change(slot);
            if slot.held.is_none() && slot.waiting == 0 {
                slots.remove(&place);
            }
        }
        drop(slots);
        self.released.notify_waiters();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.leave(self.place, |slot| slot.held = None);
        self.held.gone.cancel();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.claims.leave(self.place, |slot| slot.waiting -= 1);
    }
}

/// What the displaced request answers.
pub(super) fn superseded() -> Error {
    Error::new(
        Code::Superseded,
        "A newer request for the same bytes took over. If that was not you, ask for the upload's state.",
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "every spawned task is awaited in its test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_gets_it_and_the_older_are_told() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Extent(UploadId::from_bytes([1; 16]), 0);
        let first = claims.take(place, Received::Keep).await.unwrap();
        let second = tokio::spawn({
            let claims = claims.clone();
            async move { claims.take(place, Received::Keep).await.map(|_| ()) }
        });
        first.cancelled.cancelled().await;
        let third = tokio::spawn({
            let claims = claims.clone();
            async move { claims.take(place, Received::Keep).await.map(drop) }
        });
        while claims.slots()[&place].waiting < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!third.is_finished(), "the first has not let go yet");
        drop(first);
        assert_eq!(second.await.unwrap().unwrap_err().code(), Code::Superseded);
        third.await.unwrap().unwrap();
        drop(claims.take(place, Received::Keep).await.unwrap());
        assert!(claims.slots().is_empty());
    }

    #[tokio::test]
    async fn who_only_looks_waits_until_the_holder_has_recorded() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Tail(UploadId::from_bytes([1; 16]));
        assert!(!claims.displace(place).await, "nobody is there");
        let first = claims.take(place, Received::Keep).await.unwrap();
        let looking = tokio::spawn({
            let claims = claims.clone();
            async move { claims.displace(place).await }
        });
        first.cancelled.cancelled().await;
        assert!(!looking.is_finished() && !first.is_discarded());
        drop(first);
        assert!(looking.await.unwrap());
        assert!(claims.slots().is_empty());
    }

    #[tokio::test]
    async fn bytes_that_somebody_waits_for_are_not_discarded() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Tail(UploadId::from_bytes([1; 16]));
        for (first, second, discarded) in
            [(Received::Keep, Received::Discard, false), (Received::Discard, Received::Keep, true)]
        {
            let claim = claims.take(place, Received::Keep).await.unwrap();
            claim.held.displace(first);
            claim.held.displace(second);
            assert_eq!(claim.is_discarded(), discarded, "the first word counts");
        }
    }

    #[tokio::test]
    async fn completions_queue() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Completion(UploadId::from_bytes([1; 16]));
        let first = claims.queue(place).await.unwrap();
        let second = tokio::spawn({
            let claims = claims.clone();
            async move { drop(claims.queue(place).await.unwrap()) }
        });
        tokio::task::yield_now().await;
        assert!(!first.cancelled.is_cancelled());
        drop(first);
        second.await.unwrap();
    }
}
