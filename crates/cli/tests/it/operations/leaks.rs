//! Clients that go away leave nothing open and nothing stored.

use super::disk::{blobs, contents, descriptors, stages};
use super::wait::{until, until_async};
use super::wire::Wire;
use crate::server::{Server, TOKEN, content};
use serde_json::Value;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const TIMES: usize = 200;
/// At once, so that aborts overlap each other.
const TOGETHER: usize = 20;

/// Descriptors once every file was read: threads, listeners and pools have theirs by then, and so has the cache of
/// open blobs.
async fn baseline(server: &Server) -> usize {
    server.put("/v1/files/default/warm").body("warm").send().await.unwrap();
    let list: Value = server.get("/v1/files/default").send().await.unwrap().json().await.unwrap();
    for file in list["files"].as_array().unwrap() {
        let path = format!("/v1/files/default/{}", file["key"].as_str().unwrap());
        server.get(&path).send().await.unwrap().bytes().await.unwrap();
    }
    descriptors(server.pid())
}

#[tokio::test]
async fn downloads_that_are_aborted_leave_no_descriptor_open() {
    let server = Server::start();
    let bytes = content(16 << 20, 5);
    server.put("/v1/files/default/big").body(bytes).send().await.unwrap();
    let before = baseline(&server).await;
    for _ in 0..TIMES / TOGETHER {
        let mut wires: Vec<Wire> = (0..TOGETHER).map(|_| Wire::connect(&server)).collect();
        for wire in &mut wires {
            wire.request("GET /v1/files/default/big", &[]);
        }
        for mut wire in wires {
            assert_eq!(wire.head().status, 200);
            wire.abort();
        }
    }
    until("descriptors are back", || descriptors(server.pid()) <= before);
    assert_eq!(server.get("/v1/files/default/warm").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn uploads_that_are_aborted_leave_no_descriptor_open_and_no_stage() {
    let server = Server::start();
    let before = baseline(&server).await;
    let bytes = content(200_000, 6);
    for round in 0..TIMES / TOGETHER {
        let mut wires: Vec<Wire> = (0..TOGETHER).map(|_| Wire::connect(&server)).collect();
        for (index, wire) in wires.iter_mut().enumerate() {
            let line = format!("PUT /v1/files/default/aborted-{index}");
            if round % 2 == 0 {
                wire.request(&line, &["content-length: 1000000"]);
                wire.send(&bytes).unwrap();
            } else {
                wire.request(&line, &["transfer-encoding: chunked"]);
                wire.chunk(&bytes).unwrap();
            }
        }
        wires.into_iter().for_each(Wire::abort);
    }
    until("stages are gone", || stages(&server.data).is_empty());
    until("descriptors are back", || descriptors(server.pid()) <= before);
    let list: Value = server.get("/v1/files/default").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["files"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!((blobs(&server.data).len(), contents(&server.data).len()), (0, 1));
}

/// The connection is reset, so that the server drops the request at whatever point it is.
#[tokio::test]
async fn a_deletion_whose_client_has_gone_is_done_wholly_or_not_at_all() {
    let server = Server::start();
    for round in 0..100 {
        // A file of its own each time: the deletion may be read as late as it likes.
        let path = format!("/v1/files/default/{round}/f");
        let request =
            format!("DELETE {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        server.put(&path).body("some bytes").send().await.unwrap();
        assert_eq!(server.get(&path).send().await.unwrap().status(), 200);
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_zero_linger().unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // Not a wait for something: another moment in each round.
        tokio::time::sleep(Duration::from_micros(round * 40)).await;
        drop(stream);
        until_async("listing and file agree", async || {
            let list = server.get(&format!("/v1/files/default?prefix={round}/")).send().await.unwrap();
            let list: Value = list.json().await.unwrap();
            let listed = !list["files"].as_array().unwrap().is_empty();
            listed == (server.get(&path).send().await.unwrap().status() == 200)
        })
        .await;
    }
}
