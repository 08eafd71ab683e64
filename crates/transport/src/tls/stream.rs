//! A socket that encrypts. Bytes of files are read into a buffer of the thread, encrypted into records, and taken from
//! there by the kernel.
//!
//! *HTTP/2* writes and flushes each frame by itself: 9 bytes and 16 KiB, which is one record and a bit. Here such a flush
//! only promises: frames are put together to whole records, and sent when a batch is full or, at the latest, when the
//! task is polled next, which it asks for.

use super::socket::{FirstByte, Socket};
use crate::connection::{Connection, LINGER};
use crate::hello::{Hello, is_late};
use crate::send::read_file;
use carrack_mapped::locate;
use rustls::ServerConnection;
use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes that are encrypted at once, and the most that a connection keeps encrypted while its client does not read; twice
/// that over HTTP/2. Four whole records: more do not stay in a core's own cache, fewer make more system calls.
const BATCH_BYTES: usize = 64 << 10;
/// Pieces of memory that are encrypted at once.
const PIECES_MAX: usize = 16;
/// Plaintext of a whole record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 << 10;

thread_local! {
    /// Where bytes of files are read to before they are encrypted: none stay here when the call is over.
    static PLAINTEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH_BYTES]);
}

/// A TLS connection, once [`TlsStream::poll_handshake`] is ready.
pub(crate) struct TlsStream {
    socket: Connection,
    session: ServerConnection,
    hello: Option<Hello>,
    first_byte: Option<u8>,
    /// Whether flushes are put off, as for HTTP/2.
    gathers: bool,
    /// Less than a record that was written and is not encrypted yet.
    tail: Vec<u8>,
    /// Plaintext bytes of the records that wait for the socket, at least.
    queued: usize,
    /// Whether something was written since the last flush.
    wrote: bool,
    /// Whether a flush was put off.
    owes_flush: bool,
    /// Set once the last record is encrypted: until when it is waited for the socket to take it.
    goodbye: Option<Pin<Box<Sleep>>>,
}

/// Why a handshake came to nothing.
pub(super) enum Fault {
    /// What came was not TLS, or not what we speak; an alert waits to be sent.
    Tls(rustls::Error),
    /// The socket failed or the client went away.
    Io(io::Error),
}

impl TlsStream {
    /// The client has `hello_timeout`, after the handshake, to show which HTTP it speaks.
    pub(super) fn new(
        socket: Connection,
        mut session: ServerConnection,
        hello_timeout: Duration,
    ) -> TlsStream {
        // The bound is kept here: nothing is handed over while bytes of before wait.
        session.set_buffer_limit(None);
        let hello = Some(Hello::within(hello_timeout));
        TlsStream {
            socket,
            session,
            hello,
            first_byte: None,
            gathers: false,
            tail: Vec::new(),
            queued: 0,
            wrote: false,
            owes_flush: false,
            goodbye: None,
        }
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// The first byte that came.
    pub(super) fn first_byte(&self) -> Option<u8> {
        self.first_byte
    }

    pub(super) fn into_socket(self) -> Connection {
        self.socket
    }

    /// Whether HTTP/2 was agreed on; `None` when the client has not said what it speaks (RFC 7301).
    pub(crate) fn agreed_on_h2(&self) -> Option<bool> {
        self.session.alpn_protocol().map(|name| name == b"h2")
    }

    pub(super) fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.poll_drain(context)).map_err(Fault::Io)?;
            if !self.session.is_handshaking() {
                self.gathers = self.agreed_on_h2() == Some(true);
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(context)).map_err(Fault::Io)? == 0 {
                return Poll::Ready(Err(Fault::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            self.session.process_new_packets().map_err(Fault::Tls)?;
        }
    }

    /// Sends what is encrypted.
    pub(super) fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket { connection: &mut self.socket, context }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.queued = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes encrypted bytes from the socket; 0 at the end.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = FirstByte {
            socket: Socket { connection: &mut self.socket, context },
            first: &mut self.first_byte,
        };
        match self.session.read_tls(&mut socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Decrypts into `buffer` until it is full or the socket has no more. Pending only when nothing came.
    fn poll_decrypt(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            match self.session.reader().read(buffer.initialize_unfilled()) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(count) => buffer.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Gone without a goodbye. HTTP's own framing tells whether something is missing (RFC 9112 §9.8).
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match self.poll_receive(context) {
                Poll::Pending if buffer.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(received) => received?,
            };
            if let Err(error) = self.session.process_new_packets() {
                // Tells the client why, if it still listens; the error ends the connection either way.
                let _told = self.poll_drain(context);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    /// Encrypts the beginning of these slices, which together are not empty; returns how many bytes.
    fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        PLAINTEXT.with_borrow_mut(|plaintext| {
            let mut free = &mut plaintext[..];
            let mut room = BATCH_BYTES;
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                if room == 0 || count == PIECES_MAX {
                    break;
                }
                let len = slice.len().min(room);
                let piece = match locate(slice) {
                    // Never read through the mapping: a file that shrank would be a fatal signal.
                    Some(file) => {
                        let (target, rest) = std::mem::take(&mut free).split_at_mut(len);
                        free = rest;
                        match read_file(file, target) {
                            Ok(()) => &*target,
                            // What comes before it is whole; the next write fails.
                            Err(_) if count > 0 => break,
                            Err(error) => return Err(error),
                        }
                    }
                    None => &slice[..len],
                };
                pieces[count] = IoSlice::new(piece);
                count += 1;
                room -= len;
            }
            let pieces = &pieces[..count];
            if self.gathers {
                self.seal_whole_records(pieces)?
            } else {
                self.seal(pieces)?
            }
            Ok(BATCH_BYTES - room)
        })
    }

    /// Encrypts all of these pieces.
    fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        // Without a limit on its buffer, rustls takes all.
        self.queued += self.session.writer().write_vectored(pieces)?;
        Ok(())
    }

    /// Encrypts what fills records; the rest stays as the tail.
    fn seal_whole_records(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let total = self.tail.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let mut take = total - total % RECORD_BYTES;
        if take == 0 {
            pieces.iter().for_each(|piece| self.tail.extend_from_slice(piece));
            return Ok(());
        }
        let before = std::mem::take(&mut self.tail);
        take -= before.len();
        let mut whole = [IoSlice::new(&[]); PIECES_MAX + 1];
        whole[0] = IoSlice::new(&before);
        for (whole, piece) in whole[1..].iter_mut().zip(pieces.iter()) {
            let now = piece.len().min(take);
            take -= now;
            *whole = IoSlice::new(&piece[..now]);
            self.tail.extend_from_slice(&piece[now..]);
        }
        self.seal(&whole)
    }

    /// Encrypts the tail and sends all there is.
    fn poll_send_all(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.owes_flush = false;
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.seal(&[IoSlice::new(&tail)])?;
        }
        self.poll_drain(context)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whatever is left is sent before anything is waited for, so that a promise is kept without another write.
        if (self.owes_flush || self.session.wants_write())
            && let Poll::Ready(Err(error)) = self.poll_send_all(context)
        {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let result = self.poll_decrypt(context, buffer);
        if is_late(&mut self.hello, &buffer.filled()[before..], result.is_pending(), context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let full = if self.gathers { BATCH_BYTES } else { 1 };
        if self.queued >= full {
            ready!(self.poll_drain(context))?;
        }
        let taken = self.encrypt(slices)?;
        self.wrote = true;
        if self.queued >= full
            && let Poll::Ready(Err(error)) = self.poll_drain(context)
        {
            return Poll::Ready(Err(error));
        }
        // What the socket does not take now is sent by the next write, flush or shutdown.
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A second flush without a write in between means it, whoever asks.
        if self.gathers && std::mem::take(&mut self.wrote) {
            if !self.owes_flush {
                self.owes_flush = true;
                context.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send_all(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.goodbye.is_none() {
            // Whether or not the socket takes it now: the goodbye comes behind it.
            if let Poll::Ready(Err(error)) = this.poll_send_all(context) {
                return Poll::Ready(Err(error));
            }
        }
        let goodbye = this.goodbye.get_or_insert_with(|| {
            this.session.send_close_notify();
            Box::pin(tokio::time::sleep(LINGER))
        });
        if goodbye.as_mut().poll(context).is_pending() {
            ready!(this.poll_drain(context))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
