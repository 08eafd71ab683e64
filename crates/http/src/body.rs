//! Bodies: what arrives, with a bound on waiting for it, and what leaves, counted to the last byte.

use crate::metrics::{self, MethodLabel};
use crate::pipeline::Active;
use crate::watched::Watched;
use bytes::{Bytes, BytesMut};
use carrack_domain::{Code, Error, Result, TraceId};
use carrack_service::download::Transfer;
use futures_util::StreamExt;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Whether a request's body was read to its end. What was not read stands in the way of the next request of an HTTP/1
/// connection, so the answer has to say that there will be none.
#[derive(Clone)]
pub(crate) struct ReadToEnd(Arc<Progress>);

/// How far a body was read.
struct Progress {
    ended: AtomicBool,
    bytes: AtomicU64,
}

impl ReadToEnd {
    /// For a body that nobody has touched yet; an absent one is read to its end.
    pub(crate) fn of(body: &Incoming) -> ReadToEnd {
        ReadToEnd(Arc::new(Progress {
            ended: AtomicBool::new(body.is_end_stream()),
            bytes: AtomicU64::new(0),
        }))
    }

    pub(crate) fn get(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Bytes that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    fn count(&self, bytes: &Bytes) {
        self.0.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// A request's body. Not polled before a handler wants it, so that `Expect: 100-continue` is answered with an early
/// refusal instead of "100 Continue".
pub(crate) struct RequestBody {
    /// Never locked: the mutex only lets a reference to the call cross threads.
    inner: Mutex<Option<Incoming>>,
    pace: Pace,
    read_to_end: ReadToEnd,
    trailers: Trailers,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes per second; 0: any byte is fast enough.
    pub rate_min: u64,
    /// How far a body may be behind that, and so how long it may stand still.
    pub idle_timeout: Duration,
}

impl Pace {
    /// How far a body is behind after `len` bytes for which `waited` was waited, when it was `behind` before. Time in
    /// which nobody wanted its bytes does not count, and being early earns nothing.
    fn behind(self, behind: Duration, waited: Duration, len: usize) -> Duration {
        if self.rate_min == 0 {
            return Duration::ZERO;
        }
        let due = Duration::from_secs_f64(len as f64 / self.rate_min as f64);
        (behind + waited).saturating_sub(due)
    }

    fn too_slow(self) -> Error {
        let (seconds, rate) = (self.idle_timeout.as_secs_f64(), self.rate_min);
        let detail = match rate {
            0 => format!("No byte arrived for {seconds} s. Send it again."),
            _ => format!("The body is {seconds} s behind {rate} bytes per second. Send it again, faster."),
        };
        Error::new(Code::RequestTimeout, detail)
    }
}

/// A body that is being received.
struct Arriving {
    body: Incoming,
    read_to_end: ReadToEnd,
    trailers: Trailers,
    behind: Duration,
}

/// Fields that came after a body.
#[derive(Clone, Default)]
pub(crate) struct Trailers(Arc<Mutex<HeaderMap>>);

impl Trailers {
    /// Those that came so far.
    pub(crate) fn get(&self) -> HeaderMap {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The data that comes next of a body; fields after it are put aside.
async fn next_data(
    body: &mut Incoming,
    trailers: &Trailers,
) -> Option<std::result::Result<Bytes, hyper::Error>> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(frame)) => {
                if let Ok(fields) = frame.into_trailers() {
                    *trailers.0.lock().unwrap_or_else(PoisonError::into_inner) = fields;
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, pace: Pace, read_to_end: ReadToEnd) -> RequestBody {
        RequestBody { inner: Mutex::new(Some(body)), pace, read_to_end, trailers: Trailers::default() }
    }

    /// The bytes that arrive, counted. A body that stops half-way, stands still or trickles is an error, never an end.
    pub(crate) fn into_stream(self) -> carrack_service::Body {
        let RequestBody { inner, pace, read_to_end, trailers } = self;
        let body = inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let state = body.map(|body| Arriving { body, read_to_end, trailers, behind: Duration::ZERO });
        Box::pin(futures_util::stream::unfold(state, move |state| async move {
            let mut state = state?;
            let begun = Instant::now();
            let patience = pace.idle_timeout.saturating_sub(state.behind);
            match tokio::time::timeout(patience, next_data(&mut state.body, &state.trailers)).await {
                Ok(Some(Ok(bytes))) => {
                    state.read_to_end.count(&bytes);
                    ::metrics::counter!(metrics::REQUEST_BYTES).increment(bytes.len() as u64);
                    state.behind = pace.behind(state.behind, begun.elapsed(), bytes.len());
                    Some((Ok(bytes), Some(state)))
                }
                Ok(Some(Err(error))) => Some((Err(incomplete(error)), None)),
                Ok(None) => {
                    state.read_to_end.set();
                    None
                }
                Err(_) => Some((Err(pace.too_slow()), None)),
            }
        }))
    }

    /// The body; an empty one is left.
    pub(crate) fn take(&mut self) -> RequestBody {
        let inner = std::mem::take(self.inner.get_mut().unwrap_or_else(PoisonError::into_inner));
        RequestBody {
            inner: Mutex::new(inner),
            pace: self.pace,
            read_to_end: self.read_to_end.clone(),
            trailers: self.trailers.clone(),
        }
    }

    /// Where the fields after the body will be found once it has ended (RFC 9110 §6.5).
    pub(crate) fn trailers(&self) -> Trailers {
        self.trailers.clone()
    }

    /// Whether it was clear from the head that there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.read_to_end.get()
    }

    /// All of it, at most `limit` bytes.
    pub(crate) async fn collect(&mut self, limit: usize) -> Result<Bytes> {
        let mut stream = self.take().into_stream();
        let mut all = BytesMut::new();
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            if all.len() + bytes.len() > limit {
                return Err(Error::new(Code::TooLarge, format!("The body is larger than {limit} bytes.")));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}

fn incomplete(error: hyper::Error) -> Error {
    Error::new(
        Code::BodyIncomplete,
        "The body ended before its announced length, or is badly framed. Send it again.",
    )
    .with_source(error)
}

/// What leaves. Its end, however it comes, is recorded.
pub struct ResponseBody {
    content: Content,
    remaining: u64,
    sent: u64,
    failed: bool,
    record: Option<Record>,
}

/// What remains of a body whose length nobody knows.
const UNKNOWN: u64 = u64::MAX;

enum Content {
    Bytes(Bytes),
    Transfer(Pin<Box<dyn Future<Output = Step> + Send>>),
    Idle(Box<Transfer>),
    /// Bytes of unknown number.
    Stream(BodyStream),
    Ended,
}

/// Bytes as they come. An error is never the end of a body.
pub(crate) type BodyStream = Pin<Box<dyn futures_util::Stream<Item = Result<Bytes>> + Send>>;

type Step = (Box<Transfer>, Result<Option<Bytes>>);

/// What is recorded when an answer has ended.
pub(crate) struct Record {
    pub(crate) started: Instant,
    pub(crate) trace: TraceId,
    pub(crate) method: MethodLabel,
    pub(crate) active: Active,
    pub(crate) status: u16,
    pub(crate) watched: Watched,
}

impl ResponseBody {
    /// No bytes.
    pub(crate) fn empty() -> ResponseBody {
        ResponseBody::bytes(Bytes::new())
    }

    /// Bytes made here.
    pub(crate) fn bytes(bytes: Bytes) -> ResponseBody {
        let remaining = bytes.len() as u64;
        ResponseBody { content: Content::Bytes(bytes), remaining, sent: 0, failed: false, record: None }
    }

    /// All of the body, if it was made here.
    pub(crate) fn as_bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Transfer(_) | Content::Idle(_) | Content::Stream(_) | Content::Ended => None,
        }
    }

    /// `length` bytes of a rope.
    pub(crate) fn transfer(transfer: Transfer, length: u64) -> ResponseBody {
        let content = Content::Idle(Box::new(transfer));
        ResponseBody { content, remaining: length, sent: 0, failed: false, record: None }
    }

    /// A body without a length.
    pub(crate) fn stream(stream: BodyStream) -> ResponseBody {
        let content = Content::Stream(stream);
        ResponseBody { content, remaining: UNKNOWN, sent: 0, failed: false, record: None }
    }

    /// Bytes that are still to be sent; `None` when nobody knows.
    pub(crate) fn remaining(&self) -> Option<u64> {
        (self.remaining != UNKNOWN).then_some(self.remaining)
    }

    /// What is to be recorded at the end.
    pub(crate) fn record(&mut self, record: Record) {
        self.record = Some(record);
    }

    fn emit(&mut self, bytes: Bytes) -> Poll<Option<std::result::Result<Frame<Bytes>, Error>>> {
        if self.remaining != UNKNOWN {
            self.remaining = self.remaining.saturating_sub(bytes.len() as u64);
        }
        self.sent += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Ends the body as a broken one: the connection is cut short of its length, so nobody takes it for whole.
    fn fail(&mut self, error: Error) -> Poll<Option<std::result::Result<Frame<Bytes>, Error>>> {
        let trace_id = self.record.as_ref().map(|record| tracing::field::display(record.trace));
        tracing::error!(trace_id, error = error.chain(), sent = self.sent, "an answer was broken off");
        self.failed = true;
        self.content = Content::Ended;
        Poll::Ready(Some(Err(error)))
    }
}

async fn step(mut transfer: Box<Transfer>) -> Step {
    let result = transfer.next().await;
    (transfer, result)
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Error>>> {
        loop {
            match std::mem::replace(&mut self.content, Content::Ended) {
                Content::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
                Content::Bytes(bytes) => return self.emit(bytes),
                Content::Idle(transfer) => self.content = Content::Transfer(Box::pin(step(transfer))),
                Content::Transfer(mut reading) => match reading.as_mut().poll(context) {
                    Poll::Pending => {
                        self.content = Content::Transfer(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready((transfer, Ok(Some(bytes)))) => {
                        if self.remaining > bytes.len() as u64 {
                            self.content = Content::Idle(transfer);
                        }
                        return self.emit(bytes);
                    }
                    Poll::Ready((_, Ok(None))) if self.remaining == 0 => return Poll::Ready(None),
                    Poll::Ready((_, Ok(None))) => {
                        return self.fail(Error::broken("a rope was shorter than its length"));
                    }
                    Poll::Ready((_, Err(error))) => return self.fail(error),
                },
                Content::Stream(mut stream) => match stream.as_mut().poll_next(context) {
                    Poll::Pending => {
                        self.content = Content::Stream(stream);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(Ok(bytes))) => {
                        self.content = Content::Stream(stream);
                        return self.emit(bytes);
                    }
                    Poll::Ready(Some(Err(error))) => return self.fail(error),
                    Poll::Ready(None) => {
                        self.remaining = 0;
                        return Poll::Ready(None);
                    }
                },
                Content::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.failed && self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.remaining == UNKNOWN { SizeHint::default() } else { SizeHint::with_exact(self.remaining) }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let Record { started, method, active, status, watched, .. } = record;
        let meters = active.route.meters();
        meters.response_bytes.increment(self.sent);
        meters.record(method, status, started.elapsed().as_secs_f64());
        if self.failed || self.remaining > 0 {
            let by = if self.failed { "server" } else { "client" };
            ::metrics::counter!(metrics::ABORTED, "route" => active.route.path, "by" => by).increment(1);
        }
        watched.end(self.sent, self.failed, self.remaining == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_behind() {
        let second = Duration::from_secs(1);
        let pace = |rate_min| Pace { rate_min, idle_timeout: 60 * second };
        assert_eq!(pace(0).behind(9 * second, 50 * second, 1), Duration::ZERO, "any byte is enough");
        assert_eq!(pace(100).behind(9 * second, 5 * second, 100), 13 * second);
        assert_eq!(
            pace(100).behind(9 * second, 5 * second, 5000),
            Duration::ZERO,
            "being early earns nothing"
        );
        let mut behind = Duration::ZERO;
        for _ in 0..10 {
            behind = pace(100).behind(behind, second, 50);
        }
        assert_eq!(behind, 5 * second, "half as fast, half behind");
    }
}
