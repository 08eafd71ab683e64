//! A connection's socket: counts what passes, and closes so that the last answer arrives.

use crate::exchange::Exchange;
use crate::metrics::{CONNECTION_RECEIVED, CONNECTION_SENT, CONNECTIONS, RECEIVED_BYTES, SENT_BYTES};
use crate::send;
use crate::unsent::{PLACES, Unsent};
use bytes::Bytes;
use metrics::{Counter, Gauge};
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long, and for how many bytes, a closing connection listens to a client that is still sending. Closing with
/// unread bytes makes the kernel reset the connection, and the client loses the answer that says why (RFC 9112 §9.6).
pub(crate) const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 64 << 20;
/// Read at once while lingering.
const LINGER_BUFFER_BYTES: usize = 16 << 10;

pub(crate) struct Connection {
    stream: TcpStream,
    received: Counter,
    sent: Counter,
    received_here: u64,
    sent_here: u64,
    unsent: Unsent,
    open: Gauge,
    /// Bytes that were read before and are to be read again.
    unread: Bytes,
    exchange: Arc<Exchange>,
    patience: Patience,
    closing: Option<Closing>,
}

/// How long the client may take nothing of what is to be sent.
struct Patience {
    timeout: Duration,
    /// Since when it takes nothing.
    since: Option<Instant>,
    /// Set at the first wait, and again only when it goes off.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// The client took something, or it was not asked to.
    fn is_restored(&mut self) {
        self.since = None;
    }

    /// The client takes nothing: ready when it has taken nothing for too long.
    fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = since + self.timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(alarm.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            // It was set for a wait that is over.
            alarm.as_mut().reset(deadline);
        }
    }
}

/// We have said our last word; the client may not have.
struct Closing {
    deadline: Pin<Box<Sleep>>,
    discarded: u64,
}

impl Connection {
    /// Tells `exchange` what passes; fails when the client takes nothing for `send_timeout`.
    pub(crate) fn new(stream: TcpStream, exchange: Arc<Exchange>, send_timeout: Duration) -> Connection {
        let open = metrics::gauge!(CONNECTIONS);
        open.increment(1);
        let (received, sent) = (metrics::counter!(RECEIVED_BYTES), metrics::counter!(SENT_BYTES));
        Connection {
            stream,
            received,
            sent,
            received_here: 0,
            sent_here: 0,
            unsent: Unsent::new(&PLACES),
            open,
            unread: Bytes::new(),
            exchange,
            patience: Patience { timeout: send_timeout, since: None, alarm: None },
            closing: None,
        }
    }

    /// Looks at the bytes that come next without taking them; waits until there is one. 0 at the end.
    pub(crate) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buffer).await
    }

    /// Gives back what was read and not used.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        // An empty rest would keep the whole buffer that it was cut from.
        self.unread = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    /// Waits until there is something to read, the end included.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.unread.is_empty() { self.stream.readable().await } else { Ok(()) }
    }

    fn poll_send(&self, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || send::send(&self.stream, slices)) {
                // Not writable after all; the next look registers for the moment when it is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Counts what was sent of so many bytes, and fails when none were for too long.
    fn count_sent(
        &mut self,
        offered: usize,
        result: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.patience.is_restored();
        } else if self.patience.poll_lost(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut sent = 0;
        if let Poll::Ready(Ok(bytes)) = &result {
            sent = *bytes;
            self.sent.increment(sent as u64);
            self.sent_here += sent as u64;
            if let Some(bound) = self.unsent.count(sent as u64, Instant::now) {
                // Refused, all stays as it is.
                let _unchanged = SockRef::from(&self.stream).set_tcp_notsent_lowat(bound);
            }
        }
        self.exchange.set_busy(sent < offered);
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.decrement(1);
        metrics::histogram!(CONNECTION_RECEIVED).record(self.received_here as f64);
        metrics::histogram!(CONNECTION_SENT).record(self.sent_here as f64);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let len = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(len));
            self.exchange.hear();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        if !came.is_empty() {
            self.exchange.hear();
        }
        let count = came.len() as u64;
        self.received.increment(count);
        self.received_here += count;
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.poll_send(context, &[io::IoSlice::new(bytes)]);
        self.count_sent(bytes.len(), result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.poll_send(context, slices);
        self.count_sent(slices.iter().map(|slice| slice.len()).sum(), result, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.exchange.set_busy(true);
        if this.closing.is_none() {
            match Pin::new(&mut this.stream).poll_shutdown(context) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let deadline = || Box::pin(tokio::time::sleep_until(Instant::now() + LINGER));
        let closing = this.closing.get_or_insert_with(|| Closing { deadline: deadline(), discarded: 0 });
        let mut bytes = [0; LINGER_BUFFER_BYTES];
        loop {
            if closing.discarded > LINGER_BYTES_MAX || closing.deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => closing.discarded += buffer.filled().len() as u64,
                // The client has gone for good: nothing is left to wait for.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
