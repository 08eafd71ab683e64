//! What is compressed, and what never is.

use crate::server::{Server, content, tool};
use reqwest::Response;
use serde_json::Value;

async fn ask(server: &Server, path: &str, accept: &str) -> Response {
    server.get(path).header("accept-encoding", accept).send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A server with enough files for a listing that is worth it.
async fn with_files() -> Server {
    let server = Server::start();
    for index in 0..30 {
        server.put(&format!("/v1/files/default/listed/{index}")).body("x").send().await.unwrap();
    }
    server
}

#[tokio::test]
async fn listings_metrics_and_documentation_come_compressed_as_wished() {
    let server = with_files().await;
    let paths = [
        "/v1/files/default",
        "/metrics",
        "/openapi.json",
        "/docs/",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
    ];
    for path in paths {
        let plain = server.get(path).send().await.unwrap();
        assert_eq!(
            (header(&plain, "content-encoding"), header(&plain, "vary")),
            ("", "accept-encoding"),
            "{path}"
        );
        let plain = plain.bytes().await.unwrap();
        for coding in ["gzip", "br", "zstd"] {
            // Twice: what is kept has to be right, too.
            for _ in 0..2 {
                let answer = ask(&server, path, coding).await;
                assert_eq!(answer.status(), 200, "{path} {coding}");
                if plain.len() < 1024 {
                    assert_eq!(header(&answer, "content-encoding"), "", "{path} is too short");
                    continue;
                }
                assert_eq!(header(&answer, "content-encoding"), coding, "{path}");
                assert_eq!(header(&answer, "vary"), "accept-encoding", "{path}");
                let length: usize = header(&answer, "content-length").parse().unwrap();
                let bytes = answer.bytes().await.unwrap();
                assert!(bytes.len() == length && length < plain.len(), "{path} {coding}: {length}");
            }
            if path != "/metrics" && plain.len() >= 1024 {
                assert!(by_curl(&server, path, coding) == plain, "{path} {coding}");
            }
        }
    }
}

/// What a client that is not ours makes of it. Debian's curl knows all three codings.
fn by_curl(server: &Server, path: &str, coding: &str) -> Vec<u8> {
    let output = tool("curl", "curl")
        .args(["-sSf", "--compressed", "-H", &format!("Accept-Encoding: {coding}")])
        .args(["-H", &format!("Authorization: Bearer {}", crate::server::TOKEN), &server.url(path)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn weights_are_honoured() {
    let server = with_files().await;
    for (accept, expected) in [
        ("gzip;q=0.5, br", "br"),
        ("gzip, br;q=0.5", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, br;q=0, *", "gzip"),
        ("identity, gzip;q=0.1", ""),
        ("gzip;q=0, identity", ""),
        ("deflate", ""),
        ("", ""),
    ] {
        let answer = ask(&server, "/v1/files/default", accept).await;
        assert_eq!(header(&answer, "content-encoding"), expected, "{accept}");
        assert_eq!(header(&answer, "vary"), "accept-encoding", "{accept}");
    }
    let whole: Value = ask(&server, "/v1/files/default", "identity").await.json().await.unwrap();
    assert_eq!(whole["files"].as_array().unwrap().len(), 30);
}

#[tokio::test]
async fn heads_say_what_a_get_would() {
    let server = Server::start();
    for accept in ["br", "identity"] {
        let get = ask(&server, "/openapi.json", accept).await;
        let head = server.head("/openapi.json").header("accept-encoding", accept).send().await.unwrap();
        for name in ["content-encoding", "content-length", "vary", "content-type"] {
            assert_eq!(header(&get, name), header(&head, name), "{accept} {name}");
        }
    }
}

/// Content is sent as it was stored: its ETag, digests and ranges are those of these bytes.
#[tokio::test]
async fn files_ranges_zips_and_small_answers_are_never_compressed() {
    let server = Server::start();
    let text = "compress me ".repeat(10_000);
    let stored =
        server.put("/v1/files/default/a.txt").header("content-type", "text/plain").body(text.clone());
    assert_eq!(stored.send().await.unwrap().status(), 201);
    server.put("/v1/files/default/b").body(content(5000, 1)).send().await.unwrap();
    for path in [
        "/v1/files/default/a.txt",
        "/v1/zip/default?prefix=",
        "/v1/files/default/a.txt?meta",
        "/v1/buckets",
        "/v1/files/default/absent",
        "/readyz",
    ] {
        let answer = ask(&server, path, "gzip, br, zstd").await;
        assert_eq!(header(&answer, "content-encoding"), "", "{path}");
    }
    let whole = ask(&server, "/v1/files/default/a.txt", "gzip").await.text().await.unwrap();
    assert!(whole == text);
    let part =
        server.get("/v1/files/default/a.txt").header("accept-encoding", "br").header("range", "bytes=0-4999");
    let part = part.send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-encoding")), (206, ""));
    assert!(part.text().await.unwrap() == text[..5000]);
}
