//! HTTP as bytes on a socket, for what a well-behaved client would never send.

use super::answers::{PATIENCE, is_problem};
use crate::server::{Server, TOKEN};
use serde_json::Value;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty when it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Asserts that it is this problem document.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!((self.status, problem["code"].as_str().unwrap_or("")), (status, code), "{self:?}");
        is_problem(&problem, status);
        problem
    }
}

/// The head of a request with the administrator's token; `rest` is further header lines, each with its CRLF.
pub(crate) fn head(method: &str, target: &str, rest: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{rest}\r\n")
}

impl Wire {
    pub(crate) async fn connect(server: &Server) -> Wire {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        Wire { stream, received: Vec::new() }
    }

    /// Connects, sends a head and what follows it.
    pub(crate) async fn with(server: &Server, bytes: impl AsRef<[u8]>) -> Wire {
        let mut wire = Wire::connect(server).await;
        wire.send(bytes).await;
        wire
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads some more; false at the end, however it comes.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        read.expect("the server neither answers nor closes").is_ok_and(|bytes| bytes > 0)
    }

    /// Reads some more; how many bytes came so far.
    pub(crate) async fn some(&mut self) -> usize {
        self.more().await;
        self.received.len()
    }

    /// The next answer to anything but HEAD; `None` when the connection ends before one is whole.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.next(true).await
    }

    /// The next answer to HEAD.
    pub(crate) async fn head_answer(&mut self) -> Option<Answer> {
        self.next(false).await
    }

    async fn next(&mut self, with_body: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let text = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").parse().unwrap_or(0);
        if with_body {
            while self.received.len() < length {
                if !self.more().await {
                    return None;
                }
            }
            answer.body = self.received.drain(..length).collect();
        }
        Some(answer)
    }

    /// Reads until the server closes, and returns what came.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.received)
    }
}

/// Sends one request on a connection of its own and returns the answer.
pub(crate) async fn ask(server: &Server, bytes: impl AsRef<[u8]>) -> Answer {
    Wire::with(server, bytes).await.answer().await.expect("no answer")
}
