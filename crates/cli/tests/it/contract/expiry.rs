//! Uploads in parts across stops, crashes and their own time.

use super::answers::{eventually, fetch, json, keys, refused, stages, status_of, until};
use super::uploads::Upload;
use super::wire::{Wire, head};
use crate::server::{Server, Setup, content};
use serde_json::json as value;

/// Sends some parts, ends the server one way or the other, and goes on with the rest.
async fn resumes(end: impl Fn(&mut Server)) {
    let mut first = Server::start();
    let whole = content(1_000_003, 1);
    let upload =
        Upload::begin(&first, "k", whole.len(), value!({"part_size": 100_001, "content_type": "a/b"})).await;
    for number in [3, 1, 10, 7] {
        upload.send(&whole, number).await;
    }
    let status = upload.status().await;
    assert_eq!(
        (status["received"].as_str(), status["received_bytes"].as_u64()),
        (Some("1,3,7,10"), Some(399_997))
    );
    let (path, part_size, part_count) = (upload.path.clone(), upload.part_size, upload.part_count);
    // One that was under way must not count.
    let mut torn =
        Wire::with(&first, head("PUT", &format!("{path}/parts/2"), "Content-Length: 100001\r\n")).await;
    torn.send(content(60_000, 9)).await;
    drop(torn);
    end(&mut first);
    let server = Setup::new().data(&first.data).start();
    let upload = Upload { server: &server, path, part_size, part_count };
    assert_eq!(upload.status().await, status);
    let listed = json(server.get("/v1/uploads").send().await.unwrap(), 200).await;
    assert_eq!(listed["uploads"][0], status);
    let problem = refused(upload.complete(value!({})).send().await.unwrap(), 409, "parts_missing").await;
    assert_eq!(problem["missing"], "2,4-6,8-9");
    for number in [2, 4, 5, 6, 8, 9] {
        upload.send(&whole, number).await;
    }
    let file = upload.completed().await;
    assert_eq!(file["blake3"], blake3::hash(&whole).to_hex().as_str());
    assert_eq!(file["content_type"], "a/b");
    assert!(fetch(&server, "/v1/files/default/k").await == whole);
    assert_eq!(stages(&server), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_goes_on_after_a_stop() {
    resumes(Server::stop).await;
}

#[tokio::test]
async fn an_upload_goes_on_after_a_crash() {
    resumes(Server::kill).await;
}

#[tokio::test]
async fn a_completion_is_answered_the_same_after_a_crash() {
    let mut first = Server::start();
    let upload = Upload::begin(&first, "k", 5, value!({})).await;
    upload.send_all(b"hello").await;
    let file = upload.completed().await;
    let path = upload.path.clone();
    first.kill();
    let server = Setup::new().data(&first.data).start();
    let again = server.post(&format!("{path}/complete")).send().await.unwrap();
    assert_eq!(json(again, 201).await, file);
    assert_eq!(fetch(&server, "/v1/files/default/k").await, b"hello");
}

#[tokio::test]
async fn an_upload_without_new_parts_expires_and_leaves_nothing() {
    let mut first = Setup::new().set("CARRACK_UPLOADS__TTL", "1ms").start();
    let quota = value!({"quota_bytes": 100});
    json(first.put("/v1/buckets/small").json(&quota).send().await.unwrap(), 201).await;
    let upload = Upload::begin(&first, "k", 90, value!({"bucket": "small"})).await;
    let path = upload.path.clone();
    let kept = first.put("/v1/files/small/kept").body("12345").send().await.unwrap();
    assert_eq!(kept.status(), 201);
    first.stop();
    let server = Setup::new().data(&first.data).start();
    // Maintenance runs at the start, beside the first requests.
    eventually("the upload has expired", async || status_of(&server, &path).await == 404).await;
    refused(server.put(&format!("{path}/parts/1")).body("x").send().await.unwrap(), 404, "upload_not_found")
        .await;
    until("the stage is gone", || stages(&server).is_empty()).await;
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!((&bucket["reserved_bytes"], &bucket["used_bytes"]), (&value!(0), &value!(5)));
    let wish = value!({"bucket": "small", "key": "k", "size": 95});
    json(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 201).await;
    assert_eq!(fetch(&server, "/v1/files/small/kept").await, b"12345");
}

#[tokio::test]
async fn bodies_that_a_crash_cut_are_gone_after_the_next_start() {
    let mut first = Server::start();
    json(first.put("/v1/files/default/kept").body("kept").send().await.unwrap(), 201).await;
    let mut open = Vec::new();
    for index in 0..4 {
        let request = head("PUT", &format!("/v1/files/default/{index}"), "Content-Length: 1000000\r\n");
        let mut wire = Wire::with(&first, request).await;
        wire.send(content(400_000, index)).await;
        open.push(wire);
    }
    until("the bodies are being stored", || stages(&first).len() == 4).await;
    first.kill();
    let server = Setup::new().data(&first.data).start();
    assert_eq!(stages(&server), Vec::<String>::new());
    assert_eq!(keys(&server, "default").await, ["kept"]);
    assert_eq!(fetch(&server, "/v1/files/default/kept").await, b"kept");
}
