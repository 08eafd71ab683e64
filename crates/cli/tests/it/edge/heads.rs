//! Heads that mean two things, or nothing, to somebody.

use crate::contract::answers::{fetch, keys, store};
use crate::contract::wire::{Wire, head};
use crate::server::{Server, TOKEN};
use crate::tls::{curl, https};
use serde_json::Value;

const PATH: &str = "/v1/files/default/f";

/// What follows a head that is refused, and must not be taken for a request.
fn smuggled() -> String {
    "0\r\n\r\n".to_owned() + &head("DELETE", "/v1/files/default/kept", "")
}

async fn refuses(server: &Server, request: &str, status: u16, code: &str) {
    // Behind a request that is good: its answer comes first.
    let good = head("GET", "/livez", "");
    let mut wire = Wire::with(server, good + request + &smuggled()).await;
    assert_eq!(wire.answer().await.unwrap().status, 200, "{request:?}");
    let answer = wire.answer().await.unwrap_or_else(|| panic!("no answer to {request:?}"));
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, problem["code"].as_str().unwrap()), (status, code), "{request:?}");
    assert_eq!((&problem["status"], answer.header("connection")), (&status.into(), "close"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(wire.rest().await.is_empty(), "{request:?}");
    assert_eq!(keys(server, "default").await, ["kept"], "{request:?}");
}

#[tokio::test]
async fn a_length_and_a_transfer_encoding_together_are_refused() {
    let server = Server::start();
    store(&server, "/v1/files/default/kept", b"kept").await;
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding:chunked\r\nCONTENT-LENGTH:5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        refuses(&server, &head("PUT", PATH, framing), 400, "malformed_head").await;
    }
    assert_eq!(fetch(&server, "/v1/files/default/kept").await, b"kept");
}

#[tokio::test]
async fn lines_that_end_or_go_on_in_odd_ways_are_refused() {
    let server = Server::start();
    store(&server, "/v1/files/default/kept", b"kept").await;
    let auth = format!("Authorization: Bearer {TOKEN}");
    for request in [
        format!("PUT {PATH} HTTP/1.1\nHost: x\r\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nContent-Length: 5\n\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nContent-Length:\r\n 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nA: b\r\n\tc\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nA: b\rContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\nHost: y\r\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.9\r\nHost: x\r\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT  {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nno field\r\nContent-Length: 5\r\n\r\n"),
        format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{auth}\r\nA: \0\r\nContent-Length: 5\r\n\r\n"),
    ] {
        refuses(&server, &request, 400, "malformed_head").await;
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_in_words() {
    let server = Server::start();
    store(&server, "/v1/files/default/kept", b"kept").await;
    refuses(&server, &head("GET", PATH, &format!("A: {}\r\n", "x".repeat(70_000))), 431, "head_too_large")
        .await;
    refuses(&server, &head("GET", PATH, &"A: b\r\n".repeat(150)), 431, "head_too_large").await;
}

#[tokio::test]
async fn a_head_is_a_head_however_it_comes() {
    let server = Server::start();
    store(&server, PATH, b"hello").await;
    let bytes = [
        head("GET", PATH, ""),
        head("PUT", PATH, "Transfer-Encoding: chunked\r\n"),
        "5;x\r\nother\r\n0\r\n\r\n".to_owned(),
    ]
    .concat();
    for step in [1, 7, 100] {
        let mut wire = Wire::connect(&server).await;
        for piece in bytes.as_bytes().chunks(step) {
            wire.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert!([&b"hello"[..], b"other"].contains(&wire.answer().await.unwrap().body.as_slice()));
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
}

#[test]
fn browsers_are_told_to_come_by_https_alone_if_the_operator_wishes() {
    let headers = |setup: crate::server::Setup| {
        let server = setup.start();
        let output =
            curl("--http2").args(["-D", "-", "-o", "/dev/null"]).arg(server.url("/livez")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().to_ascii_lowercase()
    };
    let told = headers(https().set("CARRACK_TLS__HSTS", "365d"));
    assert!(told.contains("strict-transport-security: max-age=31536000\r\n"), "{told}");
    assert!(!headers(https()).contains("strict-transport-security"));
}
