//! HTTP/2 by hand, for what no library sends (RFC 9113).

use crate::contract::answers::store;
use crate::server::{Server, TOKEN};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

struct Connection(TcpStream);

impl Connection {
    fn open(server: &Server) -> Connection {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut connection = Connection(stream);
        assert!(connection.send(SETTINGS, 0, 0, &[]));
        connection
    }

    /// Sends a frame; false when the other side has ended the connection.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&frame(kind, flags, stream, payload)).is_ok()
    }

    /// The error code with which the other side ends the connection, if it says one.
    fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        let mut head = [0; 9];
        while self.0.read_exact(&mut head).is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if self.0.read_exact(&mut payload).is_err() {
                break;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }

    /// Whether the connection has ended within a time.
    fn is_ended(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => return true,
            }
        }
        false
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as HPACK's literal without indexing, with a new name (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn request(path: &str) -> Vec<u8> {
    let auth = format!("Bearer {TOKEN}");
    [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path), ("authorization", &auth)]
        .map(|(name, value)| literal(name, value))
        .concat()
}

/// Another client is answered meanwhile.
async fn others_are_served(server: &Server) {
    let answer =
        tokio::time::timeout(Duration::from_secs(20), server.get("/v1/files/default/f").send()).await;
    assert_eq!(answer.unwrap().unwrap().status(), 200);
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let mut connection = Connection::open(&server);
    let block = request("/v1/files/default/f");
    let mut stream = 1;
    let ended = tokio::task::block_in_place(|| {
        for _ in 0..400 {
            let mut burst = Vec::new();
            for _ in 0..250 {
                burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
                burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            if connection.0.write_all(&burst).is_err() {
                return true;
            }
        }
        connection.goaway().is_some() || connection.is_ended()
    });
    assert!(ended, "100,000 streams were opened and reset");
    others_are_served(&server).await;
}

/// CVE-2024-27316 and its kin.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_ends_the_connection() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let before = memory(&server);
    let mut connection = Connection::open(&server);
    assert!(connection.send(HEADERS, END_STREAM, 1, &request("/v1/files/default/f")));
    let more = literal("x-a", &"y".repeat(100)).repeat(100);
    let ended = tokio::task::block_in_place(|| {
        // 100 MB of fields.
        (0..10_000).any(|_| !connection.send(CONTINUATION, 0, 1, &more)) || connection.is_ended()
    });
    assert!(ended, "10,000 frames of one head were taken");
    assert!(memory(&server) < before + (32 << 10), "{} KiB, {before} KiB before", memory(&server));
    others_are_served(&server).await;
}

/// Empty frames cost the sender nothing.
#[tokio::test(flavor = "multi_thread")]
async fn empty_continuations_are_not_taken_for_ever() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let mut connection = Connection::open(&server);
    assert!(connection.send(HEADERS, END_STREAM, 1, &request("/v1/files/default/f")));
    let burst = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    let ended = tokio::task::block_in_place(|| {
        (0..100).any(|_| connection.0.write_all(&burst).is_err()) || connection.is_ended()
    });
    assert!(ended, "100,000 empty frames of one head were taken");
    others_are_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_streams_at_once_and_no_more() {
    let server = Server::start();
    let mut connection = Connection::open(&server);
    let mut head = [0; 9];
    let most = loop {
        connection.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        connection.0.read_exact(&mut payload).unwrap();
        if head[3] == SETTINGS && head[4] == 0 {
            let setting = |id: u16| {
                let found = payload.chunks(6).find(|pair| pair[..2] == id.to_be_bytes());
                found.map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
            };
            break (setting(3), setting(6));
        }
    };
    assert_eq!(most, (Some(256), Some(64 << 10)), "streams, bytes of a head");
    assert!(connection.send(PING, 0, 0, &[0; 8]));
}

/// KiB of memory that the server holds.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
