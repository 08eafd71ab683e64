//! Sockets: accepting, timeouts, bounds, metering, lingering close, drain. Knows bytes, not routes.
//!
//! *Ownership.* Every connection is a task of a tracker that [`serve`] awaits before it returns.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod check;
mod connection;
mod conversation;
mod exchange;
mod guard;
mod hello;
mod interim;
pub mod metrics;
mod send;
mod stop;
mod tls;
mod unsent;

pub use tls::{OldestVersion, Tls, TlsError, TlsOptions, kernel_offers_tls};

use connection::Connection;
use exchange::{Exchange, Watched};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use interim::Interposed;
use socket2::SockRef;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stop::{Stop, Waiting};
use tls::TlsStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How connections are treated.
#[derive(Clone)]
pub struct Options {
    /// How long a client may take for the first byte, for a request's head, and between two requests.
    pub header_timeout: Duration,
    /// How long a client may take no byte of what waits for it.
    pub send_timeout: Duration,
    /// The most connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long transfers under way may go on once the server is stopping.
    pub shutdown_grace: Duration,
    /// What TLS is spoken with; plain HTTP without it.
    pub tls: Option<Arc<Tls>>,
}

/// Bytes of a request's head, and of the buffer an upload is read into.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Bytes of a stream that wait for the client to open its window; a body's next piece, up to 64 KiB, comes on top.
const STREAM_SEND_BYTES_MAX: usize = 128 << 10;
/// What an HTTP/2 client may send unacknowledged. It hears of room when half of it is there again, so that at
/// 50 ms round trip a window of 12 MiB carries 120 to 240 MiB/s.
const STREAM_WINDOW_BYTES: u32 = 12 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Streams that a client has reset before we looked at them, and streams that we have reset for its errors: a client that
/// makes more of either does nothing else (CVE-2023-44487, CVE-2024-27316 and their kin), and its connection is ended.
const RESET_STREAMS_MAX: usize = 32;
const FAULTY_STREAMS_MAX: usize = 256;
/// Pause after the system refused a connection, usually for want of descriptors: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection without a request so far is waited for at the stop.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(250);
/// How long an answer given while draining may take once no transfer is left to wait for.
const LATE_GRACE: Duration = Duration::from_millis(500);

/// What answers requests; every service of this shape does.
pub trait Answers<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S, B> Answers<B> for S where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The body of an answer; every body that can cross threads is one.
pub trait Content: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

impl<B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static> Content for B {}

/// Serves connections of `listener` with `service` until `stop`, then lets transfers finish for the grace period and
/// breaks off what is left. Returns how many connections were broken off.
///
/// *Draining.* Connections go on being accepted until the last transfer is done, one request each, so that a load
/// balancer is told "not ready" instead of being refused. Nobody waits for them: `service` must refuse work by then.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    options: Options,
    stop: CancellationToken,
) -> usize
where
    S: Answers<B>,
    B: Content,
{
    let door = Door { listener, permits: Arc::new(Semaphore::new(options.connections_max)) };
    let protocol = Protocol {
        header_timeout: options.header_timeout,
        send_timeout: options.send_timeout,
        tls: options.tls,
        keep_alive: true,
        stop: Stop::default(),
    };
    let connections = TaskTracker::new();
    let abort = Stop::default();
    let accepting = async {
        while let Some((stream, permit)) = door.next().await {
            let serving = serve_one(stream, service.clone(), protocol.clone(), permit);
            connections.spawn(unless(abort.wait(), serving));
        }
    };
    stop.run_until_cancelled(accepting).await;
    protocol.stop.come();
    connections.close();
    let late = TaskTracker::new();
    let accepting = async {
        while let Some((stream, permit)) = door.next().await {
            let one = Protocol { keep_alive: false, stop: Stop::default(), ..protocol.clone() };
            let serving = serve_one(stream, service.clone(), one, permit);
            late.spawn(unless(abort.wait(), serving));
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = tokio::time::timeout(options.shutdown_grace, connections.wait()) => {}
    }
    drop(door);
    let left = connections.len();
    late.close();
    if left == 0 {
        // What is cut off here are answers that say no more than "not ready".
        let _cut = tokio::time::timeout(LATE_GRACE, late.wait()).await;
    }
    abort.come();
    connections.wait().await;
    late.wait().await;
    left
}

/// Serves a connection to its end, or until it is broken off.
async fn unless(broken_off: Waiting, serving: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = broken_off => {}
        () = serving => {}
    }
}

/// How one connection is talked to.
#[derive(Clone)]
struct Protocol {
    header_timeout: Duration,
    send_timeout: Duration,
    tls: Option<Arc<Tls>>,
    /// Whether a further request may follow the first (HTTP/1).
    keep_alive: bool,
    /// Ends the connection after the requests that are under way.
    stop: Stop,
}

/// Where connections come in, so many at once.
struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Door {
    /// The next connection; never `None`, as nobody closes the semaphore. Cancel-safe.
    async fn next(&self) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_one<S, B>(stream: TcpStream, service: S, protocol: Protocol, _permit: OwnedSemaphorePermit)
where
    S: Answers<B>,
    B: Content,
{
    if tune(&stream).is_err() {
        return;
    }
    let exchange: Arc<Exchange> = Arc::default();
    let address = stream.peer_addr().ok();
    let connection = Connection::new(stream, exchange.clone(), protocol.send_timeout);
    let service = Watched::new(service, exchange.clone(), address);
    // What is large and soon over is on the heap: a task keeps room for all that it may ever be.
    let ready = tokio::select! {
        ready = Box::pin(prepare(connection, &protocol)) => ready,
        () = stopped(&protocol.stop) => None,
    };
    match ready {
        None => {}
        Some(Ready::Http1(connection)) => {
            conversation::http1(connection, exchange, service, &protocol).await;
        }
        Some(Ready::Http2(stream)) => {
            let serving = http2_builder(&protocol).serve_connection(TokioIo::new(stream), service);
            Box::pin(conversation::to_the_end(serving, &exchange, &protocol)).await;
        }
        Some(Ready::Tls(stream)) => {
            let serving = http1_builder(&protocol)
                .serve_connection(TokioIo::new(Interposed::new(*stream, exchange.clone())), service);
            let serving = serving.with_upgrades();
            Box::pin(conversation::to_the_end(serving, &exchange, &protocol)).await;
        }
    }
}

/// A connection and what is spoken on it.
enum Ready {
    Http1(Connection),
    /// HTTP/1 over TLS.
    Tls(Box<TlsStream>),
    Http2(Either<Connection, Box<TlsStream>>),
}

/// Finds out what is spoken; `None` when it came to nothing.
async fn prepare(connection: Connection, protocol: &Protocol) -> Option<Ready> {
    let Some(tls) = &protocol.tls else {
        let hello = hello::speaks_h2(&connection);
        return match tokio::time::timeout(protocol.header_timeout, hello).await.ok()?? {
            true => Some(Ready::Http2(Either::Left(connection))),
            false => Some(Ready::Http1(connection)),
        };
    };
    let stream = Box::new(tls::accept(tls, connection, protocol.header_timeout).await?);
    match stream.agreed_on_h2() {
        Some(true) => Some(Ready::Http2(Either::Right(stream))),
        Some(false) | None => Some(Ready::Tls(stream)),
    }
}

/// Waits until a connection that has not said anything is to be ended.
async fn stopped(stop: &Stop) {
    stop.wait().await;
    tokio::time::sleep(FIRST_REQUEST_GRACE).await;
}

/// No waiting for more to send, and no more in the kernel than keeps the line busy: a client that stands still would
/// otherwise hold megabytes of its memory.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(unsent::FEW)
}

fn http1_builder(protocol: &Protocol) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .keep_alive(protocol.keep_alive)
        .header_read_timeout(protocol.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .half_close(true);
    builder
}

fn http2_builder(protocol: &Protocol) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(protocol.header_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(FAULTY_STREAMS_MAX)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// Binds an address for [`serve`].
///
/// Where only this machine can reach it, there is no network whose congestion had to be avoided: pacing, which BBR
/// does by a timer for nearly every answer, is pure cost there. Reno, which every kernel has and allows, does not pace.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    if listener.local_addr()?.ip().is_loopback()
        && let Err(error) = SockRef::from(&listener).set_tcp_congestion(b"reno")
    {
        tracing::debug!(%error, "the congestion control of a loopback listener stays as the system has it");
    }
    Ok(listener)
}
