//! Random writes against a client that knows what has to arrive.

use super::{OldestVersion, Tls, TlsOptions, TlsStream, accept};
use crate::connection::Connection;
use carrack_mapped::MappedFile;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::future::poll_fn;
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(30);

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/testdata").join(name)
}

/// A sequence that looks random and is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Our side.
struct Server {
    tls: Tls,
    listener: TcpListener,
}

impl Server {
    async fn start() -> Server {
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let tls = Tls::load(TlsOptions { cert, key, oldest: OldestVersion::Tls12 }, 0).unwrap();
        Server { tls, listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn accept(&self) -> TlsStream {
        let (socket, _) = self.listener.accept().await.unwrap();
        accept(&self.tls, Connection::new(socket, Arc::default(), PATIENCE), PATIENCE).await.unwrap()
    }
}

/// Reads so many bytes, says so by one byte, and reads on to the end, which has to be a proper one.
fn client(address: SocketAddr, protocol: &[u8], expected: usize) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let mut got = vec![0; expected];
    stream.read_exact(&mut got).unwrap();
    stream.write_all(b"!").unwrap();
    assert_eq!(stream.read_to_end(&mut got).unwrap(), 0, "nothing more, and a goodbye");
    got
}

/// What a library does between two writes: it only waits for the client.
async fn heard_from_client(stream: &mut TlsStream) {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await.unwrap();
    assert_eq!(buffer.filled(), b"!");
}

/// Writes random pieces of memory and of a file, several at once, flushing now and then and at the end.
async fn write_at_random(stream: &mut TlsStream, content: &[u8], mapped: &Arc<MappedFile>, dice: &mut Dice) {
    let mut at = 0;
    while at < content.len() {
        let mut pieces = Vec::new();
        let mut end = at;
        for _ in 0..=dice.below(20) {
            let longest = [20, 9_000, 16_385, 70_000][dice.below(4)];
            let len = dice.below(longest).min(content.len() - end);
            let piece = if dice.below(2) == 0 {
                mapped.bytes(end as u64, len as u64).unwrap()
            } else {
                bytes::Bytes::copy_from_slice(&content[end..end + len])
            };
            pieces.push(piece);
            end += len;
        }
        if end == at {
            continue;
        }
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let write = poll_fn(|context| Pin::new(&mut *stream).poll_write_vectored(context, &slices));
        at += write.await.unwrap();
        if dice.below(3) == 0 {
            poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await.unwrap();
        }
    }
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_in_order_without_another_write() {
    let server = Server::start().await;
    let address = server.address();
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let largest = if seed % 4 == 0 { 3_000_000 } else { 50_000 };
        let content: Vec<u8> = (0..1 + dice.below(largest)).map(|_| dice.below(256) as u8).collect();
        let mut stored = tempfile::tempfile().unwrap();
        stored.write_all(&content).unwrap();
        let mapped = MappedFile::new(stored, content.len() as u64).unwrap();
        let protocol: &[u8] = if seed % 2 == 0 { b"h2" } else { b"http/1.1" };
        let expected = content.len();
        let reading = std::thread::spawn(move || client(address, protocol, expected));
        let mut stream = server.accept().await;
        assert_eq!(stream.agreed_on_h2(), Some(protocol == b"h2"));
        write_at_random(&mut stream, &content, &mapped, &mut dice).await;
        heard_from_client(&mut stream).await;
        stream.shutdown().await.unwrap();
        assert!(reading.join().unwrap() == content, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_shrank_is_an_error_and_nothing_made_up_is_sent() {
    let server = Server::start().await;
    let address = server.address();
    let reading = std::thread::spawn(move || client(address, b"http/1.1", 4));
    let mut stream = server.accept().await;
    let stored = tempfile::tempfile().unwrap();
    stored.set_len(100_000).unwrap();
    let mapped = MappedFile::new(stored.try_clone().unwrap(), 100_000).unwrap();
    let bytes = mapped.bytes(0, 100_000).unwrap();
    stored.set_len(10).unwrap();
    let slices = [IoSlice::new(b"head"), IoSlice::new(&bytes)];
    let write = poll_fn(|context| Pin::new(&mut stream).poll_write_vectored(context, &slices));
    assert_eq!(write.await.unwrap(), 4, "what comes before it is sent");
    let write = poll_fn(|context| Pin::new(&mut stream).poll_write_vectored(context, &slices[1..]));
    assert_eq!(write.await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    heard_from_client(&mut stream).await;
    stream.shutdown().await.unwrap();
    assert_eq!(reading.join().unwrap(), b"head");
}

#[tokio::test]
async fn reading_while_nothing_comes_waits() {
    let server = Server::start().await;
    let address = server.address();
    let reading = std::thread::spawn(move || client(address, b"h2", 1));
    let mut stream = server.accept().await;
    let mut byte = [0];
    let once = poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut byte);
        Poll::Ready(Pin::new(&mut stream).poll_read(context, &mut buffer).is_pending())
    });
    assert!(once.await);
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    heard_from_client(&mut stream).await;
    stream.shutdown().await.unwrap();
    assert_eq!(reading.join().unwrap(), b"x");
}
