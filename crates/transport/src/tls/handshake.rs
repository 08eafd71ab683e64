//! From a connection to a stream of bytes that nobody else reads.

use super::stream::{Fault, TlsStream};
use super::{Tls, plain};
use crate::connection::Connection;
use crate::metrics::TLS_HANDSHAKES;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Shakes hands within a time; `None` when it came to nothing, with the connection closed and the client told.
pub(crate) async fn accept(tls: &Tls, connection: Connection, within: Duration) -> Option<TlsStream> {
    let session = match ServerConnection::new(tls.config.clone()) {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "no TLS connection can be made");
            return None;
        }
    };
    let mut stream = TlsStream::new(connection, session, within);
    let result = tokio::time::timeout(within, poll_fn(|context| stream.poll_handshake(context))).await;
    match result {
        Ok(Ok(())) => {
            let session = stream.session();
            let kind =
                if session.handshake_kind() == Some(HandshakeKind::Resumed) { "resumed" } else { "full" };
            count(version(session.protocol_version()), kind);
            Some(stream)
        }
        Ok(Err(Fault::Tls(error))) => {
            let plain = stream.first_byte().is_some_and(plain::begins_a_request);
            count("none", if plain { "plain_http" } else { "failed" });
            tracing::debug!(%error, "a TLS handshake failed");
            let last_word = if plain { Some(plain::REFUSAL) } else { None };
            // A client that does not wait to be told why has gone.
            let _gone = tokio::time::timeout(within, close(stream, last_word)).await;
            None
        }
        Ok(Err(Fault::Io(error))) if error.kind() != ErrorKind::TimedOut => {
            count("none", "failed");
            tracing::debug!(%error, "a connection ended in its TLS handshake");
            None
        }
        // Either clock: the kernel's or ours.
        Ok(Err(Fault::Io(_))) | Err(_) => {
            count("none", "timed_out");
            None
        }
    }
}

/// Says why there will be no conversation, in plain HTTP or by the alert that waits to be sent, and closes.
async fn close(mut stream: TlsStream, plain: Option<&[u8]>) -> std::io::Result<()> {
    match plain {
        Some(bytes) => {
            let mut socket = stream.into_socket();
            socket.write_all(bytes).await?;
            socket.shutdown().await
        }
        None => {
            poll_fn(|context| stream.poll_drain(context)).await?;
            stream.into_socket().shutdown().await
        }
    }
}

fn count(version: &'static str, result: &'static str) {
    metrics::counter!(TLS_HANDSHAKES, "version" => version, "result" => result).increment(1);
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "none",
    }
}
