//! What tests say about answers, and about what a server keeps.

use crate::server::Server;
use reqwest::Response;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long something that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asserts that an answer is this problem document, whole and consistent, and returns it.
pub(crate) async fn refused(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let trace = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let answered = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((answered, problem["code"].as_str().unwrap()), (status, code), "{problem}");
    is_problem(&problem, status);
    assert_eq!(problem["trace_id"], trace.as_str());
    problem
}

/// Asserts what holds of every problem document.
pub(crate) fn is_problem(problem: &Value, status: u16) {
    assert_eq!(problem["status"], status, "{problem}");
    for member in ["type", "title", "detail", "code", "trace_id"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
    }
}

/// Asserts the status and reads the JSON.
pub(crate) async fn json(response: Response, status: u16) -> Value {
    let answered = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(answered, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A header as text; empty when it is absent.
pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Stores `bytes` as a file and returns its facts.
pub(crate) async fn store(server: &Server, path: &str, bytes: &[u8]) -> Value {
    let stored = server.put(path).body(bytes.to_vec()).send().await.unwrap();
    assert!(stored.status().is_success(), "{path}: {}", stored.status());
    stored.json().await.unwrap()
}

/// The content of a file.
pub(crate) async fn fetch(server: &Server, path: &str) -> Vec<u8> {
    let got = server.get(path).send().await.unwrap();
    assert_eq!(got.status(), 200, "{path}");
    got.bytes().await.unwrap().to_vec()
}

/// The status of a GET.
pub(crate) async fn status_of(server: &Server, path: &str) -> u16 {
    server.get(path).send().await.unwrap().status().as_u16()
}

/// Keys of all files of a bucket.
pub(crate) async fn keys(server: &Server, bucket: &str) -> Vec<String> {
    let list = json(server.get(&format!("/v1/files/{bucket}")).send().await.unwrap(), 200).await;
    assert!(list["next_cursor"].is_null());
    let files = list["files"].as_array().unwrap().iter();
    files.map(|file| file["key"].as_str().unwrap().to_owned()).collect()
}

/// Names of the stages: bytes of bodies and uploads that are under way.
pub(crate) fn stages(server: &Server) -> Vec<String> {
    names_below(&server.data.join("staging"))
}

/// Names of the blobs: those that are stored as files, and those that the catalog keeps.
pub(crate) fn blobs(server: &Server) -> Vec<String> {
    let mut names = names_below(&server.data.join("blobs"));
    names.extend(crate::operations::disk::contents(&server.data));
    names
}

/// Names of all regular files below a folder.
pub(crate) fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(names_below(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until what has to be asked for holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it never happened: {what}");
    }
}

/// Nothing came of a request: no file, no stage, no blob, and the server goes on.
pub(crate) async fn nothing_is_left(server: &Server) {
    until("every stage is gone", || stages(server).is_empty()).await;
    assert_eq!(keys(server, "default").await, Vec::<String>::new());
    // Small ones go a moment later, many at once.
    until("every blob is gone", || blobs(server).is_empty()).await;
    assert_eq!(status_of(server, "/readyz").await, 200);
}

/// Base64 with padding, as digest headers have it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
