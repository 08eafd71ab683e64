//! The first bytes of a connection, which say whether HTTP/1 or HTTP/2 is spoken. Without TLS they are looked at before
//! hyper gets the connection. With TLS the handshake says it, but hyper waits for HTTP/2's first bytes without a bound:
//! without a deadline here, a client that says nothing more would hold a connection for ever.

use crate::connection::Connection;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// What an HTTP/2 client says first (RFC 9113 §3.4). Anything else is HTTP/1, which has a timeout of its own.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client over TLS that has not said yet which HTTP it speaks.
pub(crate) struct Hello {
    deadline: Pin<Box<Sleep>>,
    /// Bytes of the preface that have come.
    heard: usize,
}

impl Hello {
    pub(crate) fn within(time: Duration) -> Hello {
        Hello { deadline: Box::pin(tokio::time::sleep(time)), heard: 0 }
    }

    /// Ready when the client has had its time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.as_mut().poll(context)
    }

    /// Hears what came; whether it is clear now what is spoken.
    fn is_clear_after(&mut self, bytes: &[u8]) -> bool {
        let expected = &PREFACE[self.heard..];
        let len = bytes.len().min(expected.len());
        self.heard += len;
        bytes[..len] != expected[..len] || self.heard == PREFACE.len()
    }
}

/// Hears what a read brought, `hello` becoming `None` once it is clear what is spoken; whether the client is too late.
pub(crate) fn is_late(
    hello: &mut Option<Hello>,
    came: &[u8],
    waits: bool,
    context: &mut Context<'_>,
) -> bool {
    let Some(waiting) = hello else { return false };
    if waiting.is_clear_after(came) {
        *hello = None;
        return false;
    }
    waits && waiting.poll_late(context).is_ready()
}

/// Whether a client that has not said anything yet says it speaks HTTP/2; `None` when it says nothing at all. What it
/// says stays to be read.
pub(crate) async fn speaks_h2(connection: &Connection) -> Option<bool> {
    /// Between two looks at a client that has said part of the preface: what was seen already wakes nobody.
    const PAUSE: Duration = Duration::from_millis(20);
    let mut said = [0; PREFACE.len()];
    loop {
        let said = match connection.peek(&mut said).await {
            Ok(0) | Err(_) => return None,
            Ok(len) => &said[..len],
        };
        if *said != PREFACE[..said.len()] {
            return Some(false);
        }
        if said.len() == PREFACE.len() {
            return Some(true);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clear_as_soon_as_it_is() {
        let cases: [(&[&str], bool); 8] = [
            (&[""], false),
            (&["P"], false),
            (&["G"], true),
            (&["P", "U"], true),
            (&["PRI * HT", "TP/2.0\r\n\r\nSM\r\n"], false),
            (&["PRI * HT", "TP/2.0\r\n\r\nSM\r\n", "\r\n"], true),
            (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more"], true),
            (&["PRI * HTTP/1.1"], true),
        ];
        for (pieces, clear) in cases {
            let mut hello = Hello::within(Duration::from_secs(1));
            let heard: Vec<bool> =
                pieces.iter().map(|piece| hello.is_clear_after(piece.as_bytes())).collect();
            assert_eq!(heard.last(), Some(&clear), "{pieces:?}");
        }
    }
}
