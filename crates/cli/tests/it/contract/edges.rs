//! What lies at the edges: full disks, limits, old clients, many writers.

use super::answers::{
    blobs, fetch, header, json, keys, nothing_is_left, refused, stages, status_of, store, until,
};
use super::wire::{Wire, ask, head};
use crate::server::{Server, Setup, TOKEN, content};
use serde_json::json as value;
use tokio::task::JoinSet;

const PATH: &str = "/v1/files/default/f";

#[tokio::test]
async fn a_full_disk_takes_nothing_and_loses_nothing() {
    let mut first = Server::start();
    store(&first, "/v1/files/default/kept", b"kept").await;
    store(&first, PATH, b"old").await;
    first.stop();
    let server = Setup::new().data(&first.data).set("CARRACK_STORAGE__RESERVE", "4096TiB").start();
    ask(&server, head("PUT", PATH, "Content-Length: 1000\r\nExpect: 100-continue\r\n"))
        .await
        .refused(507, "storage_full");
    let chunked = head("PUT", PATH, "Transfer-Encoding: chunked\r\n") + "3\r\nnew\r\n0\r\n\r\n";
    ask(&server, chunked).await.refused(507, "storage_full");
    let wish = value!({"bucket": "default", "key": "k", "size": 1000});
    refused(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 507, "storage_full").await;
    assert_eq!(fetch(&server, PATH).await, b"old");
    assert_eq!(json(server.get("/v1/uploads").send().await.unwrap(), 200).await["uploads"], value!([]));
    assert_eq!(server.delete(PATH).send().await.unwrap().status(), 204, "deleting is the way out");
    assert_eq!(keys(&server, "default").await, ["kept"]);
    until("the deleted bytes are gone", || blobs(&server).len() == 1 && stages(&server).is_empty()).await;
}

#[tokio::test]
async fn a_file_larger_than_the_server_takes_is_refused_in_every_way() {
    let server = Setup::new().set("CARRACK_UPLOADS__MAX_SIZE", "100000").start();
    ask(&server, head("PUT", PATH, "Content-Length: 100001\r\nExpect: 100-continue\r\n"))
        .await
        .refused(413, "too_large");
    let mut wire = Wire::with(&server, head("PUT", PATH, "Transfer-Encoding: chunked\r\n")).await;
    for _ in 0..11 {
        // It may refuse, and stop listening, before the last of them.
        wire.try_send("2710\r\n").await.ok();
        wire.try_send(content(10_000, 1)).await.ok();
        wire.try_send("\r\n").await.ok();
    }
    wire.answer().await.unwrap().refused(413, "too_large");
    let wish = value!({"bucket": "default", "key": "k", "size": 100_001});
    refused(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 413, "too_large").await;
    nothing_is_left(&server).await;
    store(&server, PATH, &content(100_000, 1)).await;
}

#[tokio::test]
async fn writers_at_once_never_pass_the_quota_together() {
    let server = Server::start();
    json(server.put("/v1/buckets/small").json(&value!({"quota_bytes": 1000})).send().await.unwrap(), 201)
        .await;
    let mut tasks = JoinSet::new();
    for index in 0..12 {
        let put = server.put(&format!("/v1/files/small/{index}"));
        let bytes = content(300, index);
        // Half of them do not say how much they bring.
        let put = if index % 2 == 0 {
            put.body(bytes)
        } else {
            put.body(reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)])))
        };
        tasks.spawn(async move { put.send().await.unwrap() });
    }
    let mut stored = 0;
    for answer in tasks.join_all().await {
        if answer.status() == 201 {
            stored += 1;
        } else {
            refused(answer, 413, "quota_exceeded").await;
        }
    }
    assert_eq!(stored, 3);
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!(
        (&bucket["used_bytes"], &bucket["file_count"], &bucket["reserved_bytes"]),
        (&value!(900), &value!(3), &value!(0))
    );
    until("the others left nothing", || stages(&server).is_empty() && blobs(&server).len() == 3).await;
}

#[tokio::test]
async fn readers_among_many_writers_see_whole_contents_only() {
    let server = Server::start();
    let contents: Vec<Vec<u8>> = (0..6).map(|seed| content(400_000 + seed as usize * 1000, seed)).collect();
    store(&server, PATH, &contents[0]).await;
    let mut writers = JoinSet::new();
    for bytes in &contents {
        for _ in 0..4 {
            let put = server.put(PATH).body(bytes.clone());
            writers.spawn(async move { put.send().await.unwrap().status().as_u16() });
        }
    }
    while !writers.is_empty() {
        let got = server.get(PATH).send().await.unwrap();
        let tag = header(&got, "etag").to_owned();
        let bytes = got.bytes().await.unwrap();
        let hash = blake3::hash(&bytes).to_hex();
        assert_eq!(tag.trim_matches('"'), &hash[..32], "the tag is that of these bytes");
        assert!(contents.iter().any(|known| *known == bytes));
        while let Some(status) = writers.try_join_next() {
            assert_eq!(status.unwrap(), 200);
        }
    }
    until("one content stays", || stages(&server).is_empty() && blobs(&server).len() == 1).await;
}

#[tokio::test]
async fn old_clients_and_odd_but_valid_requests_are_served() {
    let server = Server::start();
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let put = ask(&server, format!("PUT {PATH} HTTP/1.0\r\n{auth}Content-Length: 3\r\n\r\nabc")).await;
    assert_eq!(put.status, 201);
    let mut wire = Wire::with(&server, format!("GET {PATH} HTTP/1.0\r\n{auth}\r\n")).await;
    assert_eq!(wire.answer().await.unwrap().body, b"abc");
    assert!(wire.rest().await.is_empty(), "HTTP/1.0 ends with the answer");
    let absolute = ask(&server, head("GET", &format!("http://elsewhere{PATH}"), "")).await;
    assert_eq!(absolute.body, b"abc");
    let trailers = head("PUT", PATH, "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n")
        + "3;ext=1\r\nxyz\r\n0\r\nX-Sum: 1\r\n\r\n";
    assert_eq!(ask(&server, trailers).await.status, 200);
    assert_eq!(fetch(&server, PATH).await, b"xyz");
    let spaced = format!("GET {PATH} HTTP/1.1\r\nhost: x\r\nAUTHORIZATION:   Bearer {TOKEN}   \r\n\r\n");
    assert_eq!(ask(&server, spaced).await.body, b"xyz");
    let with_body = ask(&server, head("GET", PATH, "Content-Length: 5\r\n") + "hello").await;
    assert_eq!(with_body.body, b"xyz");
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_on_a_connection_that_goes_on() {
    let server = Server::start();
    store(&server, PATH, b"hello").await;
    let mut wire = Wire::connect(&server).await;
    let targets = [
        (PATH, 200),
        ("/v1/files/default/none", 404),
        ("/v1/files/default/f?meta", 200),
        ("/v1/zip/default", 200),
        ("/nowhere", 404),
    ];
    for (target, status) in targets {
        wire.send(head("HEAD", target, "")).await;
        let answer = wire.head_answer().await.unwrap();
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.header("content-length").parse::<u64>().unwrap() > 0, "{target}");
        wire.send(head("GET", PATH, "")).await;
        assert_eq!(wire.answer().await.unwrap().body, b"hello", "after {target}");
    }
    for end in ["304", "204"] {
        let request = match end {
            "304" => head("GET", PATH, "If-None-Match: *\r\n"),
            _ => head("DELETE", PATH, ""),
        };
        wire.send(request).await;
        assert_eq!(wire.head_answer().await.unwrap().status.to_string(), end);
        wire.send(head("GET", "/livez", "")).await;
        assert_eq!(wire.answer().await.unwrap().body, b"ok\n", "after {end}");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_or_says_that_it_does_not() {
    let server = Server::start();
    for (framing, body) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("Content-Length: 0\r\n", ""),
    ] {
        let requests = [
            head("PUT", "/v1/files/default/..", framing),
            head("PUT", "/nowhere", framing),
            head("PATCH", PATH, framing),
            head("POST", "/v1/uploads", framing),
            head("PUT", PATH, &format!("{framing}Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==\r\n")),
            format!("PUT {PATH} HTTP/1.1\r\nHost: x\r\n{framing}\r\n"),
        ];
        for request in requests {
            let mut wire = Wire::with(&server, request.clone() + body).await;
            let answer = wire.answer().await.unwrap();
            assert!(answer.status >= 400, "{request}");
            if answer.header("connection") == "close" {
                assert!(wire.rest().await.is_empty(), "{request}");
            } else {
                wire.send(head("GET", "/livez", "")).await;
                assert_eq!(wire.answer().await.unwrap().status, 200, "{request}");
            }
        }
    }
    nothing_is_left(&server).await;
    assert_eq!(status_of(&server, PATH).await, 404);
}
