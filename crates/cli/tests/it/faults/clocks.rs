//! Nodes whose clocks are an hour apart: all go by the database's, so that what one begins is neither over nor stolen at the
//! other.

use super::cells::{metric, start};
use super::postgres::Database;
use crate::contract::answers::json;
use crate::server::{Server, Setup, content};
use crate::tus;
use serde_json::{Value, json as value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where Debian has it, whatever the machine.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = folders.map(|folder| folder.unwrap().path().join("faketime/libfaketime.so.1"));
    found.find(|path| path.exists()).expect("libfaketime is missing: apt-get install faketime")
}

/// A machine whose clock is off.
fn off(setup: Setup, by: &str) -> Setup {
    setup
        .set("LD_PRELOAD", library().to_str().unwrap())
        .set("FAKETIME", by)
        .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

fn path<'a>(server: &Server, url: &'a str) -> &'a str {
    url.strip_prefix(&server.base).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_whose_clocks_are_an_hour_apart_are_one() {
    let database = Database::start();
    let port = database.postgres.port();
    let shared = |setup: Setup| {
        let setup = setup.data(&database.folder.path().join("data")).set("CARRACK_STORAGE__SHARED", "true");
        // Less than the difference.
        setup.set("CARRACK_UPLOADS__TTL", "30m").set("CARRACK_ARCHIVES__TTL", "30m")
    };
    let right = start(shared(database.node("clocks", port)));
    let bytes = content(300_000, 1);
    let length = bytes.len().to_string();
    let url = tus::create(&right, &[("Upload-Length", &length), ("Upload-Metadata", &tus::key("tus"))]).await;
    assert_eq!(tus::patch(&right, &url, 0, &bytes[..1000]).send().await.unwrap().status(), 204);
    let ahead = start(off(shared(database.another("clocks", port)), "+3600s"));
    let behind = start(off(shared(database.another("clocks", port)), "-3600s"));
    assert_eq!(metric(&right, "carrack_clock_offset_seconds").await, 0.0);
    for (node, offset) in [(&ahead, -3600.0), (&behind, 3600.0)] {
        let found = metric(node, "carrack_clock_offset_seconds").await;
        assert!((found - offset).abs() < 5.0, "{found}");
        assert!(node.log().contains("set it, with NTP"), "the operator is told: {}", node.log());
    }
    let upload = path(&right, &url);
    let nodes = [&right, &ahead, &behind];
    let mut at = 1000;
    for (turn, piece) in bytes[1000..].chunks(60_000).enumerate() {
        let node = nodes[(turn + 1) % 3];
        assert_eq!(tus::offset(node, upload).await, Ok(Some(at)), "it is not over at any of them");
        assert_eq!(tus::patch(node, upload, at, piece).send().await.unwrap().status(), 204);
        at += piece.len();
    }
    for (number, maker) in nodes.iter().enumerate() {
        links_and_tokens(maker, &nodes, &bytes).await;
        archive(maker, nodes[(number + 1) % 3]).await;
    }
    let listed = json(right.get("/v1/files/default").send().await.unwrap(), 200).await;
    assert_eq!(listed["files"].as_array().unwrap().len(), 1, "nothing was taken for expired: {listed}");
}

/// What one node makes for a minute, all honour now.
async fn links_and_tokens(maker: &Arc<Server>, nodes: &[&Arc<Server>; 3], bytes: &[u8]) {
    let wish = value!({"bucket": "default", "key": "tus", "expires_in": 60});
    let link = json(maker.post("/v1/links").json(&wish).send().await.unwrap(), 201).await;
    let link = path(maker, link["url"].as_str().unwrap()).to_owned();
    let wish = value!({"subject": "ann", "role": "user", "expires_in": 60});
    let token = json(maker.post("/v1/tokens").json(&wish).send().await.unwrap(), 201).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for node in nodes {
        let got = client.get(node.url(&link)).header("accept", "application/octet-stream");
        assert!(got.send().await.unwrap().bytes().await.unwrap() == bytes, "{}", node.log());
        let me = client.get(node.url("/v1/me")).bearer_auth(token["token"].as_str().unwrap());
        assert_eq!(me.send().await.unwrap().status(), 200);
    }
}

/// A job that one node is asked for is done once, and its result is not over at another.
async fn archive(maker: &Server, reader: &Server) {
    let wish =
        value!({"name": "a", "bucket": "default", "prefix": "", "format": "zip", "compression": "deflate"});
    let made: Value = json(maker.post("/v1/archives").json(&wish).send().await.unwrap(), 202).await;
    let path = format!("/v1/archives/{}", made["id"].as_str().unwrap());
    let begun = Instant::now();
    loop {
        let now = json(reader.get(&path).send().await.unwrap(), 200).await;
        if now["state"] == "completed" {
            break;
        }
        assert!(now["state"] != "failed" && begun.elapsed() < Duration::from_secs(30), "{now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(reader.get(&format!("{path}/content")).send().await.unwrap().status(), 200);
}
