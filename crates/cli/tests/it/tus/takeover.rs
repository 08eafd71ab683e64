//! Who writes to an upload: the newest, and what the one before had received is not lost.

use super::{create, key, offset, patch, tus};
use crate::operations::wait::until_async;
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, content};
use reqwest::Method;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Begins a PATCH of `length` bytes of which only some are sent.
fn begin(server: &Server, url: &str, at: usize, length: usize, bytes: &[u8]) -> Wire {
    let mut wire = Wire::connect(server);
    let path = url.strip_prefix(&server.base).unwrap_or(url);
    wire.request(
        &format!("PATCH {path}"),
        &[
            "tus-resumable: 1.0.0",
            "content-type: application/offset+octet-stream",
            &format!("upload-offset: {at}"),
            &format!("content-length: {length}"),
        ],
    );
    wire.send(bytes).unwrap();
    wire
}

/// Bytes of the only open upload that are stored, asked without disturbing who writes.
async fn recorded(server: &Server) -> u64 {
    let list: Value = server.get("/v1/uploads").send().await.unwrap().json().await.unwrap();
    list["uploads"][0]["received_bytes"].as_u64().unwrap()
}

/// Waits until so many bytes have come in since the start.
async fn arrived(server: &Server, bytes: usize) {
    let line = format!("carrack_upload_bytes_total {bytes}");
    until_async("the bytes are there", async || {
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|found| found == line)
    })
    .await;
}

#[tokio::test]
async fn a_head_displaces_a_writer_that_stands_still_and_finds_its_bytes() {
    let server = Server::start();
    let whole = content(3 << 20, 1);
    let length = whole.len().to_string();
    let url = create(&server, &[("Upload-Length", &length), ("Upload-Metadata", &key("f"))]).await;
    let (mut at, mut took) = (0, Vec::new());
    for round in 1..=20 {
        let end = (whole.len() - 1) * round / 20;
        let mut stalled = begin(&server, &url, at, whole.len() - at, &whole[at..end]);
        // Wait until some of it is there; how much is the network's affair.
        let before = at;
        until_async("bytes have arrived", async || {
            let begun = Instant::now();
            at = offset(&server, &url).await.unwrap().unwrap();
            took.push(begun.elapsed());
            if at > before {
                return true;
            }
            stalled = begin(&server, &url, at, whole.len() - at, &whole[at..end]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            false
        })
        .await;
        assert!(at <= end, "never more than was sent");
        let displaced = stalled.head();
        assert_eq!(displaced.status, 409, "{}", displaced.text);
    }
    took.sort();
    println!(
        "HEAD beside a stalled PATCH: median {:?}, max {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert_eq!(patch(&server, &url, at, &whole[at..]).send().await.unwrap().status(), 204);
    let stored = server.get("/v1/files/default/f").send().await.unwrap().bytes().await.unwrap();
    assert!(stored == whole);
}

#[tokio::test]
async fn a_patch_that_brings_the_same_bytes_again_wins_at_once() {
    let server = Server::start();
    let (old, new) = (content(1 << 20, 1), content(1 << 20, 2));
    let length = new.len().to_string();
    let url = create(&server, &[("Upload-Length", &length), ("Upload-Metadata", &key("f"))]).await;
    let mut stalled = begin(&server, &url, 0, old.len(), &old[..700_000]);
    arrived(&server, 700_000).await;
    let won = patch(&server, &url, 0, &new).send().await.unwrap();
    assert_eq!(won.status(), 204);
    assert_eq!(stalled.head().status, 409);
    let stored = server.get("/v1/files/default/f").send().await.unwrap().bytes().await.unwrap();
    assert!(stored == new, "not a byte of the displaced one");
}

#[tokio::test]
async fn a_wrong_offset_is_told_the_right_one() {
    let server = Server::start();
    let url = create(&server, &[("Upload-Length", "10"), ("Upload-Metadata", &key("f"))]).await;
    assert_eq!(patch(&server, &url, 0, b"abc").send().await.unwrap().status(), 204);
    for wrong in [0, 2, 4, 10] {
        let refused = patch(&server, &url, wrong, b"x").send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["upload-offset"]),
            (409, &"3".parse().unwrap())
        );
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "offset_mismatch");
    }
}

#[tokio::test]
async fn a_long_body_is_recorded_on_the_way_and_a_kill_costs_only_what_came_since() {
    let server = Setup::new().start();
    let whole = content(70 << 20, 1);
    let url = create(&server, &[("Upload-Length", "100000000"), ("Upload-Metadata", &key("f"))]).await;
    let mut wire = begin(&server, &url, 0, 100_000_000, b"");
    let sender = std::thread::spawn(move || {
        wire.send(&whole).unwrap();
        wire
    });
    until_async("64 MiB are recorded", async || recorded(&server).await >= 64 << 20).await;
    let wire = sender.join().unwrap();
    until_async("the rest is recorded after a while", async || recorded(&server).await == 70 << 20).await;
    let path = url.strip_prefix(&server.base).unwrap().to_owned();
    let mut server = server;
    server.kill();
    drop(wire);
    let again = Setup::new().data(&server.data).start();
    assert_eq!(offset(&again, &path).await, Ok(Some(70 << 20)));
}

#[tokio::test]
async fn a_stop_keeps_what_arrived() {
    let mut server = Setup::new().set("CARRACK_SERVER__SHUTDOWN_GRACE", "1s").start();
    let whole = content(1 << 20, 1);
    let url = create(&server, &[("Upload-Length", "2000000"), ("Upload-Metadata", &key("f"))]).await;
    let path = url.strip_prefix(&server.base).unwrap().to_owned();
    let _stalled = begin(&server, &url, 0, 2_000_000, &whole);
    arrived(&server, 1 << 20).await;
    server.stop();
    let again = Setup::new().data(&server.data).start();
    assert_eq!(offset(&again, &path).await, Ok(Some(1 << 20)));
}

#[tokio::test]
async fn an_upload_past_its_length_or_of_unknown_length_leaves_no_byte_too_many() {
    let server = Server::start();
    let metadata = key("f");
    let url = create(&server, &[("Upload-Defer-Length", "1"), ("Upload-Metadata", &metadata)]).await;
    // What a failed checksum leaves in the stage lies beyond the end of the file.
    let refused = patch(&server, &url, 0, &content(50_000, 1))
        .header("Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 460);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["status"], &problem["title"]),
        (&"digest_mismatch".into(), &460.into(), &"Checksum Mismatch".into())
    );
    let last = patch(&server, &url, 0, b"abc").header("Upload-Length", "3").send().await.unwrap();
    assert_eq!(last.status(), 204);
    assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().bytes().await.unwrap(), "abc");
    assert_eq!(tus(&server, Method::DELETE, &url).send().await.unwrap().status(), 204);
    assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().status(), 200, "the file stays");
}
