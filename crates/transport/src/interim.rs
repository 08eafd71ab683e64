//! Interim responses between what hyper writes to an HTTP/1 connection, which knows of none but `100 Continue`.
//!
//! *Where they may stand.* hyper reads the head of a request only after it has tried to send the whole answer to the one
//! before, and flushes only when it has nothing left to send. So at a flush while a request is under way, no message is
//! half sent, and the same holds until hyper's next write: what that begins is `100 Continue` or the final response.
//! These two moments are the only ones at which an interim response is put in. When the answer to a request before is
//! still on its way (pipelining), there is no such moment until it is gone; an answer made by then is not held up.

use crate::exchange::Exchange;
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
}

impl<I: AsyncWrite + Unpin> Interposed<I> {
    pub(crate) fn new(io: I, exchange: Arc<Exchange>) -> Interposed<I> {
        Interposed { io, exchange, rest: Bytes::new(), between_messages: true }
    }

    /// The connection, once hyper has nothing to do with it any more.
    pub(crate) fn into_inner(self) -> I {
        self.io
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
        Pin::new(&mut self.io).poll_read(context, buffer)
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
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
