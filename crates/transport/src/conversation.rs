//! A connection from its first request to its last.
//!
//! *Parking.* hyper keeps some 20 KiB of buffers for each connection. One that has been quiet for a second is taken from
//! it and waits as a bare socket; when bytes come, hyper is given it back.

use crate::connection::Connection;
use crate::exchange::{Exchange, Watched};
use crate::interim::Interposed;
use crate::stop::{Stop, Waiting};
use crate::{Answers, Content, FIRST_REQUEST_GRACE, Protocol, http1_builder};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// How often a connection is looked at, whether it is quiet.
const LOOK: Duration = Duration::from_secs(1);

/// What hyper serves a connection with, whichever HTTP it is.
pub(crate) trait Serving: Future<Output = hyper::Result<()>> {
    /// No requests after those that are under way.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Serving for http1::UpgradeableConnection<TokioIo<I>, Watched<S, B>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answers<B>,
    B: Content,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::UpgradeableConnection::graceful_shutdown(self);
    }
}

impl<I, S, B> Serving for http2::Connection<TokioIo<I>, Watched<S, B>, TokioExecutor>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Answers<B>,
    B: Content,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http2::Connection::graceful_shutdown(self);
    }
}

/// How a look at a conversation ended.
enum Look {
    Over,
    Quiet,
}

/// HTTP/1.1 on a plain connection, to its end.
pub(crate) async fn http1<S, B>(
    connection: Connection,
    exchange: Arc<Exchange>,
    service: Watched<S, B>,
    protocol: &Protocol,
) where
    S: Answers<B>,
    B: Content,
{
    let builder = http1_builder(protocol);
    let mut connection = connection;
    loop {
        // On the heap, so that a parked connection does not go on taking the room of a busy one.
        let interposed = Interposed::new(connection, exchange.clone());
        let serving = builder.serve_connection(TokioIo::new(interposed), service.clone());
        let mut serving = Box::pin(serving.with_upgrades());
        match Box::pin(talk(serving.as_mut(), &exchange, &protocol.stop, Some(LOOK))).await {
            Look::Over => return,
            Look::Quiet => {}
        }
        // Without parts it is no longer HTTP: whoever asked for the upgrade has the socket.
        let Some(parts) = Pin::into_inner(serving).into_parts() else { return };
        let (socket, held) = parts.io.into_inner().into_parts();
        connection = socket;
        connection.put_back(if held.is_empty() {
            parts.read_buf
        } else {
            [&*parts.read_buf, &*held].concat().into()
        });
        let timeout = protocol.header_timeout.saturating_sub(LOOK);
        tokio::select! {
            came = connection.readable() => if came.is_err() { return },
            () = tokio::time::sleep(timeout) => return,
            () = protocol.stop.wait() => return,
        }
    }
}

/// Whatever is spoken, to its end.
pub(crate) async fn to_the_end<C: Serving>(serving: C, exchange: &Exchange, protocol: &Protocol) {
    talk(std::pin::pin!(serving), exchange, &protocol.stop, None).await;
}

/// Drives a conversation until it is over, or, looking every so often, until it is quiet.
async fn talk<C: Serving>(
    mut serving: Pin<&mut C>,
    exchange: &Exchange,
    stop: &Stop,
    look: Option<Duration>,
) -> Look {
    let mut ending = Ending { stop: stop.wait(), first_request: None, told: false };
    let mut quiet = look.map(|every| Quiet { next: Box::pin(tokio::time::sleep(every)), every, begun: None });
    poll_fn(|context| {
        if let Poll::Ready(result) = serving.as_mut().poll(context) {
            if let Err(error) = result {
                // A client that goes away, or talks something else than HTTP: nothing an operator has to act on.
                tracing::debug!(%error, "a connection ended early");
            }
            return Poll::Ready(Look::Over);
        }
        if ending.poll_due(exchange, context) {
            serving.as_mut().graceful_shutdown();
            // Looked at once more: a connection without a request ends at once.
            context.waker().wake_by_ref();
        }
        let is_quiet = quiet.as_mut().is_some_and(|quiet| quiet.poll(exchange, context));
        if is_quiet && !ending.told { Poll::Ready(Look::Quiet) } else { Poll::Pending }
    })
    .await
}

/// When a conversation is to be ended.
struct Ending {
    stop: Waiting,
    /// One that was opened just before the stop has its first request on the way: closing it at once would reset a
    /// client that did nothing wrong.
    first_request: Option<Pin<Box<Sleep>>>,
    told: bool,
}

impl Ending {
    /// Whether now is the moment; true once.
    fn poll_due(&mut self, exchange: &Exchange, context: &mut Context<'_>) -> bool {
        if self.told || (self.first_request.is_none() && Pin::new(&mut self.stop).poll(context).is_pending())
        {
            return false;
        }
        let patience = || Box::pin(tokio::time::sleep(FIRST_REQUEST_GRACE));
        let waited = self.first_request.get_or_insert_with(patience).as_mut().poll(context).is_ready();
        self.told = waited || exchange.begun() > 0;
        self.told
    }
}

/// Whether nothing happened between two looks.
struct Quiet {
    next: Pin<Box<Sleep>>,
    every: Duration,
    /// The requests so far at the last look, if all was quiet then.
    begun: Option<u64>,
}

impl Quiet {
    fn poll(&mut self, exchange: &Exchange, context: &mut Context<'_>) -> bool {
        while self.next.as_mut().poll(context).is_ready() {
            let begun = exchange.begun();
            let before = self.begun.replace(begun);
            if !exchange.is_quiet() {
                self.begun = None;
            } else if before == Some(begun) {
                return true;
            }
            self.next.as_mut().reset(Instant::now() + self.every);
        }
        false
    }
}
