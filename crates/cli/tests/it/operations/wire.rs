//! HTTP by hand over a plain socket, for what no client does: stand still, stop half-way, look at the bytes.

use crate::server::{Server, TOKEN};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a read may stand still before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

const READ_BYTES: usize = 64 << 10;

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    /// Read from the socket and not yet consumed.
    ahead: Vec<u8>,
    /// Bytes that are read at once, at most.
    most: usize,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Lower-cased, as it came.
    pub(crate) text: String,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> Head {
        let text = std::str::from_utf8(bytes).unwrap().to_lowercase();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        Head { status, text }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length").unwrap().parse().unwrap()
    }
}

impl Wire {
    pub(crate) fn connect(server: &Server) -> Wire {
        Wire::to(server.address()).unwrap()
    }

    pub(crate) fn to(address: &str) -> io::Result<Wire> {
        Wire::over(TcpStream::connect(address)?)
    }

    /// A connection that was made elsewhere, with options of its own.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Wire> {
        // What is sent in pieces arrives in pieces.
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { stream, ahead: Vec::new(), most: READ_BYTES })
    }

    /// Sends the head of a request with the administrator's token; `headers` are whole lines without their ends.
    pub(crate) fn request(&mut self, line: &str, headers: &[&str]) {
        let mut head = format!("{line} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends, and listens meanwhile: fails when the other side has ended the connection, also without a word.
    pub(crate) fn send_listening(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_millis(50)))?;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
            if self.answered() && self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE))
    }

    /// One chunk of a chunked body; the empty one is the last.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        write!(self.stream, "{:x}\r\n", bytes.len())?;
        self.stream.write_all(bytes)?;
        self.stream.write_all(b"\r\n")
    }

    /// The head of the answer, once it is there.
    pub(crate) fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().unwrap() > 0, "the connection ended before an answer");
        };
        Head::parse(&self.ahead.drain(..end).collect::<Vec<u8>>())
    }

    /// As [`Wire::head`]; nothing when the connection ends before, however it does.
    pub(crate) fn try_head(&mut self) -> Option<Head> {
        while !self.ahead.windows(4).any(|window| window == b"\r\n\r\n") {
            self.more().ok().filter(|count| *count > 0)?;
        }
        Some(self.head())
    }

    /// As [`Wire::body`]; nothing when the connection ends before.
    pub(crate) fn try_body(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < len {
            self.more().ok().filter(|count| *count > 0)?;
        }
        Some(self.body(len))
    }

    /// Exactly `len` bytes of the body.
    pub(crate) fn body(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            assert!(self.more().unwrap() > 0, "the body ended early");
        }
        self.ahead.drain(..len).collect()
    }

    /// Everything up to the end of the connection, however it ends.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        while self.more().is_ok_and(|count| count > 0) {}
        self.ahead
    }

    /// Whether the server has answered or closed, without waiting.
    pub(crate) fn answered(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Whether nothing more comes, once the connection has ended.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.ahead.is_empty() && self.more().unwrap() == 0
    }

    /// What has come and was not taken yet, or some more; nothing at the end.
    pub(crate) fn some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() {
            self.more().unwrap();
        }
        std::mem::take(&mut self.ahead)
    }

    /// Takes one byte at a time from here on.
    pub(crate) fn by_bytes(self) -> Wire {
        Wire { most: 1, ..self }
    }

    /// Goes away without a word.
    pub(crate) fn abort(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ_BYTES];
        let count = self.stream.read(&mut bytes[..self.most])?;
        self.ahead.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}
