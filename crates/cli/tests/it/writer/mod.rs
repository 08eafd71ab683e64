//! The bytes of downloads, on every way they leave and for every client that takes them: what arrives is what was
//! stored, and nothing of it stays behind.

mod bytes;
mod closes;
mod giant;
mod parked;
mod pipelined;
mod slow;
mod ways;

use crate::operations::wire::{Head, Wire};
use crate::server::Server;
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// Stores a file in the bucket `default`.
async fn store(server: &Server, key: &str, bytes: &[u8]) {
    let stored = server.put(&format!("/v1/files/default/{key}")).body(bytes.to_vec()).send().await.unwrap();
    assert_eq!(stored.status(), 201, "{key}");
}

/// The request line of a download.
fn get(key: &str) -> String {
    format!("GET /v1/files/default/{key}")
}

/// A connection whose client takes 4 KiB before the server has to wait.
async fn with_small_window(server: &Server) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let address: SocketAddr = server.address().parse().unwrap();
    let stream = socket.connect(address).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    Wire::over(stream).unwrap()
}

/// Asserts that the next answer is the whole of a file.
fn assert_whole(wire: &mut Wire, bytes: &[u8]) {
    let head = wire.head();
    assert_eq!((head.status, head.length()), (200, bytes.len()));
    assert!(wire.body(bytes.len()) == bytes);
}

/// The body of a `multipart/byteranges` answer, put together from what was stored; ends of ranges are included.
fn multipart(head: &Head, ranges: &[(usize, usize)], bytes: &[u8]) -> Vec<u8> {
    let boundary = head.header("content-type").unwrap().split_once("boundary=").unwrap().1;
    let mut body = Vec::new();
    for (index, (first, last)) in ranges.iter().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{line}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
            bytes.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&bytes[*first..=*last]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body
}
