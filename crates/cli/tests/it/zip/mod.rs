//! The one-shot ZIP `GET /v1/zip/{bucket}` through the real binary and real readers.
//!
//! Numbers such as T19 are those of the checklist in the design notes.

mod broken;
mod bytes;
pub(crate) mod giants;
mod holds;
pub(crate) mod layout;
mod names;
mod proxy;
mod ranges;
mod readers;
mod resume;
mod select;
pub(crate) mod unpack;

use crate::server::{Server, Setup, TOKEN, tool};
use futures_util::{StreamExt, stream};
use reqwest::Response;
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// Uploads under way at once.
const LOADERS: usize = 16;

/// A server that does not wait for the disk: what is tested here is not durability.
fn setup() -> Setup {
    Setup::new().set("CARRACK_UPLOADS__DURABILITY", "process")
}

/// Percent-encodes what belongs into a path or a query; `/` stays.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap();
        }
        escaped
    })
}

/// Uploads files into the bucket `default`, several at a time.
async fn load<K: AsRef<str>>(server: &Server, files: impl IntoIterator<Item = (K, Vec<u8>)>) {
    let put = |(key, bytes): (K, Vec<u8>)| async move {
        let path = format!("/v1/files/default/{}", escape(key.as_ref()));
        let stored = server.put(&path).body(bytes).send().await.unwrap();
        assert!(stored.status().is_success(), "{}: {}", key.as_ref(), stored.text().await.unwrap());
    };
    stream::iter(files).for_each_concurrent(LOADERS, put).await;
}

/// Deletes a file.
async fn remove(server: &Server, key: &str) {
    let gone = server.delete(&format!("/v1/files/default/{}", escape(key))).send().await.unwrap();
    assert_eq!(gone.status(), 204, "{key}");
}

/// The path of the ZIP of everything below a prefix.
fn below(prefix: &str) -> String {
    format!("/v1/zip/default?prefix={}", escape(prefix))
}

/// The path of the ZIP of some files.
fn of_keys(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("key={}", escape(key))).collect();
    format!("/v1/zip/default?{}", keys.join("&"))
}

/// The whole ZIP at a path.
async fn fetch(server: &Server, path: &str) -> Vec<u8> {
    let response = server.get(path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.bytes().await.unwrap().to_vec()
}

/// The strong tag of the ZIP at a path.
async fn tag(server: &Server, path: &str) -> String {
    let response = server.head(path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    header(&response, "etag")
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.unwrap_or_else(|| panic!("no header {name} in {response:?}")).to_str().unwrap().to_owned()
}

/// Asserts that a request is refused with a status and a code, and returns the explanation.
async fn refused(server: &Server, path: &str, status: u16, code: &str) -> String {
    let response = server.get(path).send().await.unwrap();
    assert_eq!(response.status(), status, "{path}");
    assert_eq!(header(&response, "content-type"), "application/problem+json", "{path}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], code, "{path}");
    problem["detail"].as_str().unwrap().to_owned()
}

/// All stored blobs.
fn blobs(server: &Server) -> Vec<PathBuf> {
    let mut folders = vec![server.data.join("blobs")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let is_folder = entry.file_type().unwrap().is_dir();
            if is_folder { &mut folders } else { &mut found }.push(entry.path());
        }
    }
    found
}

/// The stored blob of so many bytes, of which there is one.
fn blob_of(server: &Server, size: u64) -> PathBuf {
    let mut found: Vec<PathBuf> = blobs(server);
    found.retain(|path| std::fs::metadata(path).unwrap().len() == size);
    assert_eq!(found.len(), 1, "blobs of {size} bytes");
    found.remove(0)
}

/// An external program that talks to the server, and to nothing in between.
fn client(program: &str, package: &str) -> Command {
    let mut command = tool(program, package);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// The header with which such a program says who it is.
fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}
