//! Interim responses between what hyper writes to an HTTP/1 connection, which knows of none but `100 Continue`.
//!
//! *Where they may stand.* hyper reads the head of a request only after it has tried to send the whole answer to the one
//! before, and flushes only when it has nothing left to send. So at a flush while a request is under way, no message is
//! half sent, and the same holds until hyper's next write: what that begins is `100 Continue` or the final response.
//! These two moments are the only ones at which an interim response is put in. When the answer to a request before is
//! still on its way (pipelining), there is no such moment until it is gone; an answer made by then is not held up.

use crate::exchange::Exchange;
use crate::guard::Guard;
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that hyper serves, and interim responses with it.
pub(crate) struct Interposed<I> {
    io: I,
    exchange: Arc<Exchange>,
    /// What was begun to be sent of an interim response. Nothing else is written before it is gone.
    rest: Bytes,
    /// Whether hyper has begun to write nothing since it flushed.
    between_messages: bool,
    /// Looks at what comes in.
    guard: Guard,
}

impl<I: AsyncWrite + Unpin> Interposed<I> {
    pub(crate) fn new(io: I, exchange: Arc<Exchange>) -> Interposed<I> {
        Interposed { io, exchange, rest: Bytes::new(), between_messages: true, guard: Guard::new() }
    }

    /// The connection, once hyper has nothing to do with it any more, and what came and was not passed on.
    pub(crate) fn into_parts(self) -> (I, BytesMut) {
        (self.io, self.guard.into_held())
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.rest.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Before hyper's own bytes.
    fn poll_before_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // At once, whether or not it can be sent now: what hyper sends is no longer about to begin afterwards.
        if std::mem::take(&mut self.between_messages) {
            let mut before = BytesMut::new();
            self.exchange.interim_before(|bytes| before.extend_from_slice(&bytes));
            if !before.is_empty() {
                self.rest = [&*self.rest, &*before].concat().into();
            }
        }
        self.poll_rest(context)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Interposed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.exchange.is_upgraded() {
            this.guard.open();
        }
        loop {
            // Of what is refused nothing is passed on: hyper sees the end.
            if this.guard.pass_on(buffer) || this.guard.has_refused() {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            if this.guard.judge(buffer, before) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Interposed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(context))?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(context))?;
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.between_messages = true;
        loop {
            ready!(this.poll_rest(context))?;
            match this.exchange.interim(context) {
                Some(bytes) => this.rest = bytes,
                None => break,
            }
        }
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Behind the answers to all that came before.
        if let Some(refusal) = self.guard.take_refusal() {
            self.rest = [&*self.rest, &refusal.answer()].concat().into();
        }
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Watched;
    use carrack_interim::Interim;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::header::HeaderMap;
    use hyper::{Request, Response, StatusCode};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A request and how it is answered.
    #[derive(Debug, Clone)]
    struct Exchanged {
        /// Interim responses said at once.
        before: usize,
        /// Said with each piece of the body that comes.
        during: usize,
        body: usize,
        answer: usize,
        expects: bool,
    }

    fn exchanged() -> impl Strategy<Value = Exchanged> {
        (0..4usize, 0..2usize, 0..3000usize, 0..3000usize, any::<bool>()).prop_map(
            |(before, during, body, answer, expects)| Exchanged { before, during, body, answer, expects },
        )
    }

    /// Does what the path says: `/NUMBER/BEFORE/DURING/ANSWER`.
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let interim = request.extensions().get::<Interim>().cloned().unwrap();
        let path = request.uri().path().to_owned();
        let numbers: Vec<usize> = path.split('/').skip(1).map(|number| number.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        headers.insert("of", numbers[0].into());
        let say = || interim.send(StatusCode::from_u16(104).unwrap(), "Said", &headers);
        (0..numbers[1]).for_each(|_| say());
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            (0..numbers[2]).for_each(|_| say());
            tokio::task::yield_now().await;
        }
        Ok(Response::new(Full::new(vec![b'x'; numbers[3]].into())))
    }

    /// All that a client gets that sends these requests without waiting, over a line that holds `capacity` bytes.
    async fn received(requests: &[Exchanged], capacity: usize, step: usize) -> Vec<u8> {
        let (near, far) = tokio::io::duplex(capacity);
        let exchange: Arc<Exchange> = Arc::default();
        let service = Watched::new(hyper::service::service_fn(answer), exchange.clone(), None);
        let io = TokioIo::new(Interposed::new(far, exchange));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let (mut reader, mut writer) = tokio::io::split(near);
        let sending = async {
            for (number, request) in requests.iter().enumerate() {
                let Exchanged { before, during, body, answer, expects } = request;
                let expect = if *expects { "expect: 100-continue\r\n" } else { "" };
                let last = if number + 1 == requests.len() { "connection: close\r\n" } else { "" };
                let head = format!(
                    "POST /{number}/{before}/{during}/{answer} HTTP/1.1\r\nhost: x\r\n{expect}{last}content-length: {body}\r\n\r\n"
                );
                let mut bytes = head.into_bytes();
                bytes.resize(bytes.len() + body, b'y');
                for part in bytes.chunks(step) {
                    writer.write_all(part).await.unwrap();
                }
            }
        };
        let mut all = Vec::new();
        let receiving = async { reader.read_to_end(&mut all).await.unwrap() };
        let (served, (), _) = tokio::join!(serving, sending, receiving);
        served.unwrap();
        all
    }

    /// Takes a head off the front.
    fn head<'a>(rest: &mut &'a [u8]) -> &'a str {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let (head, after) = rest.split_at(end);
        *rest = after;
        std::str::from_utf8(head).expect("a head, and no part of a body")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn no_message_is_cut_and_each_is_before_its_answer(
            requests in prop::collection::vec(exchanged(), 1..6),
            capacity in prop::sample::select(vec![1usize, 40, 700, 100_000]),
            step in prop::sample::select(vec![1usize, 100, 100_000]),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let all = runtime.block_on(received(&requests, capacity, step));
            let mut rest = all.as_slice();
            for (number, request) in requests.iter().enumerate() {
                let mut said = 0;
                loop {
                    let head = head(&mut rest);
                    if head.starts_with("HTTP/1.1 104 Said\r\n") {
                        prop_assert_eq!(head, format!("HTTP/1.1 104 Said\r\nof: {number}\r\n\r\n"));
                        said += 1;
                    } else if head != "HTTP/1.1 100 Continue\r\n\r\n" {
                        prop_assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", head);
                        break;
                    }
                }
                let (body, after) = rest.split_at(request.answer);
                prop_assert!(body.iter().all(|byte| *byte == b'x'));
                rest = after;
                prop_assert!(number > 0 || said >= request.before.min(1), "the first has nothing before it");
                prop_assert!(request.before + request.during > 0 || said == 0);
            }
            prop_assert!(rest.is_empty());
        }
    }
}
