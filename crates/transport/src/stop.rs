//! A moment that every connection waits for while it does something else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A cancellation that is asked for each time a connection has something to do: until it has come that costs a load,
/// where a token takes a lock.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Moment>);

#[derive(Default)]
struct Moment {
    has_come: AtomicBool,
    token: CancellationToken,
}

impl Stop {
    /// Now.
    pub(crate) fn come(&self) {
        // In this order: whoever is woken sees it.
        self.0.has_come.store(true, Ordering::Release);
        self.0.token.cancel();
    }

    /// Ready once it has come.
    pub(crate) fn wait(&self) -> Waiting {
        let future = Box::pin(self.0.token.clone().cancelled_owned());
        Waiting { stop: self.clone(), future, known: None }
    }
}

/// See [`Stop::wait`].
pub(crate) struct Waiting {
    stop: Stop,
    future: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who will be woken: known to the token, which need not be told again.
    known: Option<Waker>,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let has_come = self.stop.0.has_come.load(Ordering::Acquire);
        if !has_come && self.known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.known = Some(context.waker().clone());
        self.future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn wakes_whoever_waits_and_whoever_comes_late() {
        let stop = Stop::default();
        let mut waiting = stop.wait();
        for _ in 0..3 {
            let first = poll_fn(|context| Poll::Ready(Pin::new(&mut waiting).poll(context)));
            assert!(first.await.is_pending());
        }
        let later = stop.clone();
        let come = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            later.come();
        };
        // In another task than the one it was polled in first: this one is woken.
        let elsewhere = async { tokio::time::timeout(Duration::from_secs(5), waiting).await };
        let (woken, ()) = tokio::join!(elsewhere, come);
        assert!(woken.is_ok());
        stop.wait().await;
    }
}
