//! Requests and answers of one connection, watched: how many are under way, and whether the line is quiet.

use crate::{Answers, Content};
use bytes::Bytes;
use carrack_interim::Outlet;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

/// There is no outlet for interim responses.
const OUTLET_NONE: u8 = 0;
/// There may be interim responses.
const OUTLET_OPEN: u8 = 1;
/// The final response is made, and not yet sent.
const OUTLET_ANSWERED: u8 = 2;

/// What is going on on a connection. Written by the task of the connection, and by those that hold an answer.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    begun: AtomicU64,
    under_way: AtomicUsize,
    /// Bytes came since the last request began or ended.
    heard: AtomicBool,
    /// Bytes wait to be sent, or the connection is closing.
    busy: AtomicBool,
    /// It is no longer HTTP that is spoken.
    upgraded: AtomicBool,
    /// One of the `OUTLET_`s: what is asked with every flush.
    outlet_is: AtomicU8,
    /// Where the interim responses of the request that is under way come from.
    outlet: Mutex<Option<Outlet>>,
}

impl Exchange {
    /// Requests so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// The socket brought bytes.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Release);
    }

    /// Whether the socket has more to do than it could.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Release);
    }

    /// Whether it is no longer HTTP that is spoken.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    fn outlet(&self) -> MutexGuard<'_, Option<Outlet>> {
        self.outlet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_outlet(&self, outlet: Option<Outlet>) {
        let is = if outlet.is_some() { OUTLET_OPEN } else { OUTLET_NONE };
        if self.outlet_is.swap(is, Ordering::AcqRel) != is || is == OUTLET_OPEN {
            *self.outlet() = outlet;
        }
    }

    /// hyper has nothing left to send: an interim response of the request that is under way. Without one, the task of
    /// `context` is woken once there is.
    pub(crate) fn interim(&self, context: &Context<'_>) -> Option<Bytes> {
        match self.outlet_is.load(Ordering::Acquire) {
            OUTLET_OPEN => self.outlet().as_ref()?.next(Some(context)),
            OUTLET_ANSWERED => {
                // The final response has been sent, or its first bytes were.
                self.set_outlet(None);
                None
            }
            _ => None,
        }
    }

    /// hyper begins to send something: `before` takes the interim responses that go ahead of it.
    pub(crate) fn interim_before(&self, mut before: impl FnMut(Bytes)) {
        if self.outlet_is.load(Ordering::Acquire) != OUTLET_NONE
            && let Some(outlet) = &*self.outlet()
        {
            while let Some(bytes) = outlet.next(None) {
                before(bytes);
            }
        }
    }

    /// The answer of the request under way is made: no more comes before it than what was said so far.
    fn answered(&self) {
        let was = self.outlet_is.compare_exchange(
            OUTLET_OPEN,
            OUTLET_ANSWERED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if was.is_ok()
            && let Some(outlet) = &*self.outlet()
        {
            outlet.answered();
        }
    }

    /// Whether nothing has come of a next request and nothing is left of the last.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
            && !self.heard.load(Ordering::Acquire)
            && !self.busy.load(Ordering::Acquire)
    }
}

/// A request under way, until the last of its answer is dropped.
struct UnderWay(Arc<Exchange>);

impl UnderWay {
    fn begin(exchange: &Arc<Exchange>) -> UnderWay {
        exchange.under_way.fetch_add(1, Ordering::AcqRel);
        exchange.heard.store(false, Ordering::Release);
        exchange.begun.fetch_add(1, Ordering::AcqRel);
        UnderWay(exchange.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.heard.store(false, Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A service whose requests are watched.
pub(crate) struct Watched<S, B> {
    service: S,
    exchange: Arc<Exchange>,
    /// Where the connection comes from; every request is told.
    address: Option<SocketAddr>,
    body: PhantomData<fn() -> B>,
}

impl<S: Clone, B> Clone for Watched<S, B> {
    fn clone(&self) -> Watched<S, B> {
        Watched::new(self.service.clone(), self.exchange.clone(), self.address)
    }
}

impl<S, B> Watched<S, B> {
    pub(crate) fn new(service: S, exchange: Arc<Exchange>, address: Option<SocketAddr>) -> Watched<S, B> {
        Watched { service, exchange, address, body: PhantomData }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Watched<S, B>
where
    S: Answers<B>,
    B: Content,
{
    type Response = Response<WatchedBody<B>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Answering<S::Future> {
        // HTTP/1 passes a body's bytes to our socket as they are; HTTP/2 copies them into frames.
        if request.version() <= hyper::Version::HTTP_11 {
            request.extensions_mut().insert(carrack_mapped::Recognised);
        }
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        // Requests that bring something are those that last; one of HTTP/1.0 must not get any (RFC 9110 §15.2).
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if request.version() == Version::HTTP_11 && !reads {
            let (interim, outlet) = carrack_interim::channel();
            request.extensions_mut().insert(interim);
            self.exchange.set_outlet(Some(outlet));
        } else {
            self.exchange.set_outlet(None);
        }
        let under_way = Some(UnderWay::begin(&self.exchange));
        Answering { answer: self.service.call(request), under_way }
    }
}

pin_project! {
    /// An answer that is being made.
    pub(crate) struct Answering<F> {
        #[pin]
        answer: F,
        under_way: Option<UnderWay>,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<WatchedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answer.poll(context));
        let under_way = this.under_way.take();
        if let Some(under_way) = &under_way {
            under_way.0.answered();
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                under_way.0.upgraded.store(true, Ordering::Release);
            }
        }
        Poll::Ready(Ok(response.map(|body| WatchedBody { body, _under_way: under_way })))
    }
}

pin_project! {
    /// The body of an answer, with the request it belongs to.
    pub(crate) struct WatchedBody<B> {
        #[pin]
        body: B,
        _under_way: Option<UnderWay>,
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_between_requests_alone() {
        let exchange = Arc::new(Exchange::default());
        assert!(exchange.is_quiet());
        exchange.hear();
        assert!(!exchange.is_quiet(), "part of a head has come");
        let (first, second) = (UnderWay::begin(&exchange), UnderWay::begin(&exchange));
        exchange.hear();
        drop(first);
        assert!(!exchange.is_quiet());
        drop(second);
        assert!(exchange.is_quiet() && exchange.begun() == 2);
        exchange.set_busy(true);
        assert!(!exchange.is_quiet(), "the answer's last bytes wait for the client");
    }
}
