//! `/v1/archives`: archives that are frozen, made by jobs, watched, and kept.

mod crash;
mod deflated;
mod frozen;
mod jobs;
mod live;
mod refusals;
mod streamed;

use crate::server::{Server, Setup, content};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a job may take.
const SOON: Duration = Duration::from_secs(120);

/// A server that does not wait for the disk: what is tested here is not durability.
fn setup() -> Setup {
    Setup::new().set("CARRACK_UPLOADS__DURABILITY", "process")
}

/// Uploads a file into the bucket `default`.
async fn put(server: &Server, key: &str, bytes: Vec<u8>) {
    put_into(server, "default", key, bytes).await;
}

async fn put_into(server: &Server, bucket: &str, key: &str, bytes: Vec<u8>) {
    let stored = server.put(&format!("/v1/files/{bucket}/{key}")).body(bytes).send().await.unwrap();
    assert!(stored.status().is_success(), "{key}: {}", stored.text().await.unwrap());
}

/// Asks for an archive.
async fn ask(server: &Server, wish: &Value) -> (StatusCode, Value) {
    let response = server.post("/v1/archives").json(wish).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Asks for an archive that is made; it as it was at first.
async fn made(server: &Server, wish: &Value) -> Value {
    let (status, archive) = ask(server, wish).await;
    assert!(status == 201 || status == 202, "{status}: {archive}");
    archive
}

/// Everything below a prefix.
fn below(prefix: &str, compression: &str) -> Value {
    json!({"name": "x", "bucket": "default", "prefix": prefix, "format": "zip", "compression": compression})
}

fn path(archive: &Value) -> String {
    format!("/v1/archives/{}", archive["id"].as_str().unwrap())
}

async fn look(server: &Server, archive: &Value) -> Value {
    let response = server.get(&path(archive)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// Waits for a state.
async fn until(server: &Server, archive: &Value, state: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let now = look(server, archive).await;
        if now["state"] == state {
            return now;
        }
        assert!(now["state"] != "failed" && Instant::now() < deadline, "{state} expected: {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The whole content of a completed archive.
async fn fetch(server: &Server, archive: &Value) -> Vec<u8> {
    let response = server.get(&format!("{}/content", path(archive))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

async fn act(server: &Server, archive: &Value, action: &str) -> (StatusCode, Value) {
    let path = format!("{}/{action}", path(archive));
    let response = server.request(Method::POST, &path).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Text that deflates to about a third, the same for the same seed.
pub(crate) fn text(len: usize, seed: u64) -> Vec<u8> {
    let noise = content(len / 4 + 64, seed);
    let words = ["upload", "archive", "rope", "blob", "lease", "fence", "the", "of", "and", "bytes"];
    let mut text = Vec::with_capacity(len + 32);
    for byte in noise.iter().cycle() {
        if text.len() >= len {
            break;
        }
        text.extend_from_slice(words[usize::from(*byte) % words.len()].as_bytes());
        text.push(if byte % 13 == 0 { b'\n' } else { b' ' });
        if byte % 7 == 0 {
            text.extend_from_slice(byte.to_string().as_bytes());
        }
    }
    text.truncate(len);
    text
}
