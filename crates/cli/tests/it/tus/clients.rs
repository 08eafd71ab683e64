//! Clients in the field, unmodified, over a network that breaks 20 times in 64 MiB: the bytes arrive whole, no upload
//! begins again, and little is sent twice.

use super::proxy::BadNetwork;
use crate::server::{Server, TOKEN, content, tool};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: usize = 64 << 20;
const BREAKS: usize = 20;

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients")
}

/// Lets a client upload a file over the bad network; `command` gets the endpoint, the token, the file and its name.
async fn survives(seed: usize, command: impl FnOnce(&[&str]) -> Command) -> String {
    let (said, sent) = survives_at("/v1/tus", seed, command).await;
    assert!(sent <= BYTES * 6 / 5, "sent {sent} bytes of {BYTES}");
    said
}

/// The same with another endpoint; also how many bytes were sent.
async fn survives_at(path: &str, seed: usize, command: impl FnOnce(&[&str]) -> Command) -> (String, usize) {
    let server = Server::start();
    let whole = content(BYTES, seed as u64);
    let file = server.folder().join("file.bin");
    std::fs::write(&file, &whole).unwrap();
    let network = BadNetwork::start(server.address(), BREAKS, seed);
    let endpoint = format!("{}{path}", network.base);
    let mut command = command(&[&endpoint, TOKEN, file.to_str().unwrap(), "sent.bin"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    let stored = server.get("/v1/files/default/sent.bin").send().await.unwrap();
    assert_eq!(stored.status(), 200);
    assert!(stored.bytes().await.unwrap() == whole, "other bytes are stored");
    assert_eq!(network.breaks_left(), 0, "the network was to break {BREAKS} times");
    println!("sent {:.3} times the file; {}", network.sent() as f64 / BYTES as f64, said.trim());
    (said, network.sent())
}

async fn tus_js(seed: usize, library: &str, chunk: &str, parallel: &str) {
    let said = survives(seed, |args| {
        let mut node = tool("node", "nodejs");
        let [endpoint, token, file, name] = args else { panic!("four arguments") };
        let script = clients().join("tus.mjs");
        node.arg(script).args([library, endpoint, token, file, name, chunk, parallel]);
        node
    })
    .await;
    let counts: Value = serde_json::from_str(said.trim()).unwrap();
    let parallel: u64 = parallel.parse().unwrap();
    let made = if parallel > 1 { parallel + 1 } else { 1 };
    assert_eq!(counts["created"], made, "each upload was begun once: {counts}");
}

#[tokio::test]
async fn tus_js_client_4_in_one_request() {
    tus_js(1, "tus4", "infinite", "1").await;
}

#[tokio::test]
async fn tus_js_client_4_in_chunks() {
    tus_js(2, "tus4", "5242880", "1").await;
}

#[tokio::test]
async fn tus_js_client_4_in_parallel() {
    tus_js(3, "tus4", "infinite", "4").await;
}

#[tokio::test]
async fn tus_js_client_5_in_one_request() {
    tus_js(4, "tus5", "infinite", "1").await;
}

#[tokio::test]
async fn tus_js_client_5_in_chunks_in_parallel() {
    tus_js(5, "tus5", "5242880", "4").await;
}

/// The iterations of the IETF's draft that tus-js-client speaks.
async fn tus_js_by_the_draft(seed: usize, protocol: &str, chunk: &str) {
    let (said, sent) = survives_at("/v1/files/default/sent.bin", seed, |args| {
        let mut node = tool("node", "nodejs");
        node.arg(clients().join("tus.mjs")).arg("tus4").args(args).args([chunk, "1", protocol]);
        node
    })
    .await;
    let counts: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(counts["created"], 1, "{counts}");
    assert!(sent <= BYTES * 6 / 5, "sent {sent} bytes of {BYTES}");
}

#[tokio::test]
async fn tus_js_client_4_by_draft_03() {
    tus_js_by_the_draft(21, "ietf-draft-03", "infinite").await;
}

#[tokio::test]
async fn tus_js_client_4_by_draft_05_in_chunks() {
    tus_js_by_the_draft(22, "ietf-draft-05", "5242880").await;
}

async fn uppy(seed: usize, chunk: &str) {
    let (said, sent) = survives_at("/v1/tus", seed, |args| {
        let mut node = tool("node", "nodejs");
        node.arg(clients().join("uppy.mjs")).args(args).arg(chunk);
        node
    })
    .await;
    let counts: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&counts["created"], &counts["progress"]), (&1.into(), &BYTES.into()), "{counts}");
    // Chromium sends a request again by itself, from its first byte on, when a connection breaks that it had used before:
    // these breaks Uppy does not hear of, and no server can spare what is sent twice.
    let unheard = BREAKS - usize::try_from(counts["retries"].as_u64().unwrap()).unwrap().min(BREAKS);
    // The others cost what was under way when they came, more of it on a busy machine.
    let most = BYTES * 11 / 10 + unheard * BadNetwork::CARRIED_MAX;
    assert!(sent <= most, "sent {sent} bytes of {BYTES}, {unheard} breaks unheard of");
}

#[tokio::test]
async fn uppy_in_a_browser_in_one_request() {
    uppy(8, "infinite").await;
}

#[tokio::test]
async fn uppy_in_a_browser_in_chunks() {
    uppy(9, "5242880").await;
}

#[tokio::test]
async fn tuspy_in_chunks() {
    survives(6, |args| {
        let mut python = Command::new(clients().join("venv/bin/python"));
        python.arg(clients().join("tus.py")).args(args).arg("5242880");
        python
    })
    .await;
}

#[tokio::test]
async fn curl_alone() {
    survives(7, |args| {
        let mut script = tool("bash", "bash");
        script.arg(clients().join("tus.sh")).args(args);
        script
    })
    .await;
}
