//! Bodies that lie about their length, are cut, or stand still: nothing comes of them.

use super::answers::{eventually, fetch, keys, nothing_is_left, status_of, store};
use super::uploads::Upload;
use super::wire::{Wire, ask, head};
use crate::server::{Server, Setup, content};
use serde_json::json as value;

const PATH: &str = "/v1/files/default/cut";

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It says that nothing more comes, and listens.
    HalfClose,
    /// It is gone.
    Drop,
}

async fn cut(server: &Server, request: &str, sent: &[u8], end: End) {
    let mut wire = Wire::with(server, request).await;
    wire.send(sent).await;
    match end {
        End::HalfClose => {
            wire.finish_sending().await;
            // An answer may come or not; a good one may not.
            if let Some(answer) = wire.answer().await {
                answer.refused(400, "body_incomplete");
            }
        }
        End::Drop => drop(wire),
    }
}

#[tokio::test]
async fn a_body_cut_anywhere_stores_nothing() {
    let server = Server::start();
    let request = head("PUT", PATH, "Content-Length: 300000\r\n");
    for sent in [0, 1, 4096, 65_535, 65_536, 150_000, 299_999] {
        for end in [End::HalfClose, End::Drop] {
            cut(&server, &request, &content(sent, 1), end).await;
            nothing_is_left(&server).await;
        }
    }
}

#[tokio::test]
async fn a_chunked_body_cut_anywhere_stores_nothing() {
    let server = Server::start();
    let request = head("PUT", PATH, "Transfer-Encoding: chunked\r\n");
    let whole = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    // Up to, not with, the very last byte of the end.
    for sent in 0..whole.len() {
        for end in [End::HalfClose, End::Drop] {
            cut(&server, &request, &whole.as_bytes()[..sent], end).await;
        }
    }
    nothing_is_left(&server).await;
    assert_eq!(ask(&server, request + whole).await.status, 201);
    assert_eq!(fetch(&server, PATH).await, b"hello world");
}

#[tokio::test]
async fn a_cut_body_leaves_what_was_there() {
    let server = Server::start();
    store(&server, PATH, b"kept").await;
    for sent in [0, 100_000] {
        for end in [End::HalfClose, End::Drop] {
            cut(&server, &head("PUT", PATH, "Content-Length: 300000\r\n"), &content(sent, 1), end).await;
        }
    }
    super::answers::until("no stage is left", || super::answers::stages(&server).is_empty()).await;
    assert_eq!(fetch(&server, PATH).await, b"kept");
    assert_eq!(super::answers::blobs(&server).len(), 1);
}

#[tokio::test]
async fn a_cut_part_does_not_count_and_can_be_sent_again() {
    let server = Server::start();
    let whole = content(250_000, 1);
    let upload = Upload::begin(&server, "cut", whole.len(), value!({"part_size": 100_000})).await;
    let request = head("PUT", &format!("{}/parts/2", upload.path), "Content-Length: 100000\r\n");
    // Those that are gone come last: nobody waits for them, so one could be seen late and displace what follows.
    for end in [End::HalfClose, End::Drop] {
        for sent in [0, 1, 50_000, 99_999] {
            cut(&server, &request, &content(sent, 2), end).await;
            assert_eq!(upload.status().await["received"], "");
        }
    }
    eventually("the server has seen them go", async || {
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "carrack_uploads_in_progress 0")
    })
    .await;
    upload.send_all(&whole).await;
    upload.completed().await;
    assert!(fetch(&server, PATH).await == whole);
}

#[tokio::test]
async fn bytes_beyond_the_length_are_another_request() {
    let server = Server::start();
    let mut wire =
        Wire::with(&server, head("PUT", PATH, "Content-Length: 5\r\n") + "hello and more\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 201);
    if let Some(next) = wire.answer().await {
        assert_eq!(next.status, 400);
    }
    assert_eq!(fetch(&server, PATH).await, b"hello");
    let second = head("GET", PATH, "");
    let mut wire = Wire::with(&server, head("PUT", PATH, "Content-Length: 3\r\n") + "abc" + &second).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(wire.answer().await.unwrap().body, b"abc", "requests may follow each other at once");
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let server = Server::start();
    let request = head("PUT", PATH, "Transfer-Encoding: chunked\r\n");
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nx",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut wire = Wire::with(&server, request.clone() + body).await;
        wire.finish_sending().await;
        if let Some(answer) = wire.answer().await {
            answer.refused(400, "body_incomplete");
        }
        assert_eq!(status_of(&server, PATH).await, 404, "{body:?}");
    }
    nothing_is_left(&server).await;
}

/// What a proxy that reads the other framing would take for the body, and a server for another request.
fn smuggled() -> String {
    "0\r\n\r\n".to_owned() + &head("DELETE", "/v1/files/default/kept", "")
}

#[tokio::test]
async fn of_two_framings_one_decides_and_the_connection_ends() {
    let server = Server::start();
    store(&server, "/v1/files/default/kept", b"kept").await;
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let mut wire = Wire::with(&server, head("PUT", PATH, framing) + &smuggled()).await;
        // RFC 9112, section 6.1: refused, or read by Transfer-Encoding alone; closed in any case.
        let answer = wire.answer().await.unwrap();
        assert!(matches!(answer.status, 200 | 201 | 400), "{framing:?}: {answer:?}");
        assert_eq!(answer.header("connection"), "close");
        assert!(wire.rest().await.is_empty(), "{framing:?}");
        assert_eq!(fetch(&server, "/v1/files/default/kept").await, b"kept");
    }
}

#[tokio::test]
async fn a_framing_that_makes_no_sense_is_refused() {
    let server = Server::start();
    store(&server, "/v1/files/default/kept", b"kept").await;
    let framings = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ];
    for framing in framings {
        let mut wire = Wire::with(&server, head("PUT", PATH, framing) + &smuggled()).await;
        let answer = wire.answer().await;
        assert!(
            answer.as_ref().is_none_or(|answer| matches!(answer.status, 400 | 501)),
            "{framing:?}: {answer:?}"
        );
        let rest = wire.rest().await;
        assert!(rest.is_empty(), "{framing:?}: {}", String::from_utf8_lossy(&rest));
        assert_eq!(keys(&server, "default").await, ["kept"], "{framing:?}");
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let server = Setup::new().set("CARRACK_SERVER__IDLE_TIMEOUT", "200ms").start();
    for (framing, sent) in [
        ("Content-Length: 300000\r\n", 0),
        ("Content-Length: 300000\r\n", 100_000),
        ("Transfer-Encoding: chunked\r\n", 0),
    ] {
        let mut wire = Wire::with(&server, head("PUT", PATH, framing)).await;
        wire.send(content(sent, 1)).await;
        let answer = wire.answer().await.unwrap();
        answer.refused(408, "request_timeout");
        assert!(!answer.header("retry-after").is_empty());
        nothing_is_left(&server).await;
    }
    let mut wire = Wire::with(&server, head("POST", "/v1/uploads", "Content-Length: 30\r\n")).await;
    wire.send("{").await;
    wire.answer().await.unwrap().refused(408, "request_timeout");
}

#[tokio::test]
async fn a_head_that_never_ends_is_hung_up_on() {
    let server = Setup::new().set("CARRACK_SERVER__HEADER_TIMEOUT", "300ms").start();
    for start in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET",
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: 1",
    ] {
        let mut wire = Wire::with(&server, start).await;
        let rest = String::from_utf8(wire.rest().await).unwrap();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 408") || rest.starts_with("HTTP/1.1 400"),
            "{start}: {rest}"
        );
    }
    assert_eq!(status_of(&server, "/livez").await, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_or_none_is_refused() {
    let server = Server::start();
    let large = head("GET", "/livez", &format!("X-Large: {}\r\n", "x".repeat(2 << 20)));
    let many = head("GET", "/livez", &"X-Many: 1\r\n".repeat(500));
    for request in [
        large.as_str(),
        &many,
        "NONSENSE\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut wire = Wire::connect(&server).await;
        // The server may have hung up before the last byte of it.
        wire.try_send(request).await.ok();
        let status = wire.answer().await.map(|answer| answer.status);
        assert!(status.is_none_or(|status| matches!(status, 400 | 431 | 505)), "{status:?}");
    }
    assert_eq!(status_of(&server, "/livez").await, 200);
}
