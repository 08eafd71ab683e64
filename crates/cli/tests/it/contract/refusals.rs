//! Refusals that come while the client is still sending: it can read why.

use super::answers::{json, nothing_is_left, store};
use super::wire::{Wire, head};
use crate::server::{Server, content};
use serde_json::json as value;

const LARGE: usize = 64 << 20;

/// Sends 64 MiB without waiting for leave, as `curl -T` with a small `Expect` threshold does, and reads the answer after.
async fn refused_while_sending(server: &Server, request: &str, status: u16, code: &str) {
    let mut wire = Wire::with(server, request).await;
    let block = content(1 << 20, 1);
    for _ in 0..LARGE / block.len() {
        // The server may stop listening, but not before its answer can be read.
        if wire.try_send(&block).await.is_err() {
            break;
        }
    }
    wire.answer().await.expect("the answer was lost").refused(status, code);
}

fn put(path: &str, token: &str, rest: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {LARGE}\r\n{rest}\r\n")
}

#[tokio::test]
async fn without_credentials() {
    let server = Server::start();
    let path = "/v1/files/default/large";
    refused_while_sending(&server, &put(path, "", ""), 401, "unauthenticated").await;
    refused_while_sending(&server, &put(path, "Authorization: Bearer wrong\r\n", ""), 401, "invalid_token")
        .await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn over_the_quota() {
    let server = Server::start();
    let quota = value!({"quota_bytes": 1000});
    json(server.put("/v1/buckets/small").json(&quota).send().await.unwrap(), 201).await;
    let length = format!("Content-Length: {LARGE}\r\n");
    refused_while_sending(&server, &head("PUT", "/v1/files/small/large", &length), 413, "quota_exceeded")
        .await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn of_a_bad_key_or_a_failed_precondition() {
    let server = Server::start();
    store(&server, "/v1/files/default/there", b"kept").await;
    let length = format!("Content-Length: {LARGE}\r\n");
    refused_while_sending(&server, &head("PUT", "/v1/files/default/../x", &length), 400, "invalid_key").await;
    let only = format!("{length}If-None-Match: *\r\n");
    refused_while_sending(
        &server,
        &head("PUT", "/v1/files/default/there", &only),
        412,
        "precondition_failed",
    )
    .await;
    assert_eq!(super::answers::fetch(&server, "/v1/files/default/there").await, b"kept");
}

#[tokio::test]
async fn after_a_refusal_with_leave_not_given_nothing_was_sent() {
    let server = Server::start();
    let rest = "Expect: 100-continue\r\n";
    let cases = [
        (put("/v1/files/default/x", "", rest), 401, "unauthenticated"),
        (
            put("/v1/files/nowhere/x", &format!("Authorization: Bearer {}\r\n", crate::server::TOKEN), rest),
            404,
            "bucket_not_found",
        ),
    ];
    for (request, status, code) in cases {
        let mut wire = Wire::with(&server, request).await;
        let answer = wire.answer().await.unwrap();
        assert_ne!(answer.status, 100);
        answer.refused(status, code);
    }
    nothing_is_left(&server).await;
}
