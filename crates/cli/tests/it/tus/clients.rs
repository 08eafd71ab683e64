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
    let server = Server::start();
    let whole = content(BYTES, seed as u64);
    let path = server.folder().join("file.bin");
    std::fs::write(&path, &whole).unwrap();
    let network = BadNetwork::start(server.address(), BREAKS, seed);
    let endpoint = format!("{}/v1/tus", network.base);
    let mut command = command(&[&endpoint, TOKEN, path.to_str().unwrap(), "sent.bin"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
    let stored = server.get("/v1/files/default/sent.bin").send().await.unwrap();
    assert_eq!(stored.status(), 200);
    assert!(stored.bytes().await.unwrap() == whole, "other bytes are stored");
    assert_eq!(network.breaks_left(), 0, "the network was to break {BREAKS} times");
    let sent = network.sent() as f64 / BYTES as f64;
    println!("sent {sent:.3} times the file; {}", said.trim());
    assert!(sent <= 1.2, "sent {sent:.3} times the file");
    said
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
