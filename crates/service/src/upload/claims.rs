//! One writer per extent. A newer request for the same extent displaces the older one, whose connection is most
//! likely dead: the older is told to stop, and the newer begins once nothing is being written any more.

use carrack_domain::{Code, Error, Result, UploadId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// An extent of an upload by the offset at which it begins, or the upload as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The extent that begins here.
    Extent(UploadId, u64),
    /// The completion.
    Completion(UploadId),
}

/// All claims of this process. Bounded by the requests being served.
#[derive(Default)]
pub(super) struct Claims {
    holders: Mutex<HashMap<Place, Holder>>,
    released: Notify,
}

struct Holder {
    /// Tells the present holder to stop.
    cancel: CancellationToken,
    /// Counts who came for the place; only the newest gets it.
    newest: u64,
}

/// The right to write to a place, until dropped.
pub(super) struct Claim {
    claims: Arc<Claims>,
    place: Place,
    /// Cancelled when a newer request wants the place.
    pub(super) cancelled: CancellationToken,
}

impl Claims {
    fn holders(&self) -> MutexGuard<'_, HashMap<Place, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place, displacing whoever holds it; `superseded` when somebody newer came meanwhile.
    pub(super) async fn take(self: &Arc<Claims>, place: Place) -> Result<Claim> {
        let mut turn = None;
        loop {
            // Registered before looking, so that a release in between is not missed.
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(claim) = self.try_take(place, &mut turn)? {
                return Ok(claim);
            }
            released.await;
        }
    }

    fn try_take(self: &Arc<Claims>, place: Place, turn: &mut Option<u64>) -> Result<Option<Claim>> {
        let mut holders = self.holders();
        let Some(holder) = holders.get_mut(&place) else {
            let cancel = CancellationToken::new();
            holders.insert(place, Holder { cancel: cancel.clone(), newest: turn.unwrap_or(0) });
            return Ok(Some(Claim { claims: self.clone(), place, cancelled: cancel }));
        };
        match *turn {
            None => {
                holder.newest += 1;
                *turn = Some(holder.newest);
                holder.cancel.cancel();
                Ok(None)
            }
            Some(mine) if mine < holder.newest => Err(superseded()),
            Some(_) => Ok(None),
        }
    }

    /// Takes the place when it is free, waiting for whoever holds it to finish without disturbing them.
    pub(super) async fn queue(self: &Arc<Claims>, place: Place) -> Claim {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Entry::Vacant(place_free) = self.holders().entry(place) {
                let cancelled = CancellationToken::new();
                place_free.insert(Holder { cancel: cancelled.clone(), newest: 0 });
                return Claim { claims: self.clone(), place, cancelled };
            }
            released.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.holders().remove(&self.place);
        self.claims.released.notify_waiters();
    }
}

/// What the displaced request answers.
pub(super) fn superseded() -> Error {
    Error::new(
        Code::Superseded,
        "A newer request for the same part took over. If that was not you, ask for the upload's state.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_newest_gets_it_and_the_older_are_told() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Extent(UploadId::from_bytes([1; 16]), 0);
        let first = claims.take(place).await.unwrap();
        let second = tokio::spawn({
            let claims = claims.clone();
            async move { claims.take(place).await.map(|_| ()) }
        });
        first.cancelled.cancelled().await;
        let third = tokio::spawn({
            let claims = claims.clone();
            async move { claims.take(place).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!third.is_finished(), "the first has not let go yet");
        drop(first);
        assert_eq!(second.await.unwrap().unwrap_err().code(), Code::Superseded);
        third.await.unwrap().unwrap();
        drop(claims.take(place).await.unwrap());
    }

    #[tokio::test]
    async fn completions_queue() {
        let claims: Arc<Claims> = Arc::default();
        let place = Place::Completion(UploadId::from_bytes([1; 16]));
        let first = claims.queue(place).await;
        let second = tokio::spawn({
            let claims = claims.clone();
            async move { drop(claims.queue(place).await) }
        });
        tokio::task::yield_now().await;
        assert!(!first.cancelled.is_cancelled());
        drop(first);
        second.await.unwrap();
    }
}
