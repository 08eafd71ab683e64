//! The parts of an upload.

use super::answers::{base64, eventually, fetch, json, refused, stages, status_of, until};
use super::uploads::Upload;
use super::wire::{Wire, head};
use crate::server::{Server, content};
use serde_json::json as value;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::task::JoinSet;

/// The numbers of an order that is none, the same every time.
fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (1..=count).collect();
    numbers.sort_by_key(|number| *blake3::hash(&number.to_le_bytes()).as_bytes());
    numbers
}

#[tokio::test]
async fn parts_of_odd_sizes_in_any_order_at_once_come_to_the_whole() {
    let server = Server::start();
    for (size, part_size) in
        [(31, 3), (1, 3), (3, 3), (100_000, 1025), (10_500_003, 1_000_001), (20_000_004, 5_000_001)]
    {
        let whole = content(size, size as u64);
        let upload = Upload::begin(&server, "k", size, value!({"part_size": part_size})).await;
        let mut tasks = JoinSet::new();
        for number in shuffled(upload.part_count) {
            if tasks.len() == 8 {
                tasks.join_next().await.unwrap().unwrap();
            }
            let piece = upload.piece(&whole, number).to_vec();
            let request = upload.put(&whole, number);
            tasks.spawn(async move {
                let part = json(request.send().await.unwrap(), 200).await;
                let crc32 = format!("{:08x}", crc32fast::hash(&piece));
                let blake3 = blake3::hash(&piece).to_hex();
                let expected =
                    value!({"part": number, "size": piece.len(), "crc32": crc32, "blake3": blake3.as_str()});
                assert_eq!(part, expected);
            });
        }
        tasks.join_all().await;
        let status = upload.status().await;
        assert_eq!(status["received_bytes"], size as u64);
        let file = upload.completed().await;
        assert_eq!(file["blake3"], blake3::hash(&whole).to_hex().as_str(), "{size} in {part_size}");
        assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&whole)));
        assert_eq!(file["size"], size as u64);
        assert!(fetch(&server, "/v1/files/default/k").await == whole);
    }
    assert_eq!(stages(&server), Vec::<String>::new());
}

#[tokio::test]
async fn the_same_part_again_is_answered_the_same() {
    let server = Server::start();
    let whole = content(250_000, 1);
    let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 100_000})).await;
    let first = upload.send(&whole, 2).await;
    assert_eq!(upload.send(&whole, 2).await, first);
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let request = upload.put(&whole, 2);
        tasks.spawn(async move { request.send().await.unwrap() });
    }
    // Of those at the same time an older one may be told that a newer one took over; none spoils the part.
    for answer in tasks.join_all().await {
        if answer.status() == 409 {
            refused(answer, 409, "superseded").await;
        } else {
            assert_eq!(json(answer, 200).await, first);
        }
    }
    assert_eq!(upload.status().await["received"], "2");
    upload.send_all(&whole).await;
    upload.completed().await;
    assert!(fetch(&server, "/v1/files/default/k").await == whole);
    refused(upload.put(&whole, 2).send().await.unwrap(), 409, "upload_finished").await;
}

#[tokio::test]
async fn other_bytes_under_a_stored_number_are_a_conflict_and_the_first_stay() {
    let server = Server::start();
    let whole = content(250_000, 1);
    let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 100_000})).await;
    upload.send_all(&whole).await;
    let mut other = upload.piece(&whole, 2).to_vec();
    other[99_999] ^= 1;
    refused(upload.put_bytes(2, &other).send().await.unwrap(), 409, "part_conflict").await;
    assert_eq!(upload.status().await["received"], "1-3");
    upload.completed().await;
    assert!(fetch(&server, "/v1/files/default/k").await == whole);
}

#[tokio::test]
async fn numbers_that_no_part_has_are_refused() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 4})).await;
    for number in [
        "0",
        "4",
        "10001",
        "99999999999999999999999",
        "abc",
        "-1",
        "+1",
        "1.0",
        "0x1",
        "%31x",
        "1%20",
        "%ef%bc%91",
    ] {
        let put = server.put(&format!("{}/parts/{number}", upload.path)).body("abcd");
        refused(put.send().await.unwrap(), 400, "invalid_part").await;
    }
    let empty = Upload::begin(&server, "e", 0, value!({})).await;
    refused(empty.put_bytes(1, b"").send().await.unwrap(), 400, "invalid_part").await;
    assert_eq!(upload.status().await["received"], "");
}

#[tokio::test]
async fn a_body_that_is_not_the_part_does_not_count() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 4})).await;
    for (number, len) in [(1, 3), (1, 5), (1, 0), (3, 4), (3, 1), (1, 1_000_000)] {
        let put = upload.put_bytes(number, &content(len, 1));
        refused(put.send().await.unwrap(), 400, "length_mismatch").await;
    }
    let chunked = |len: usize| {
        let pieces = content(len, 1).into_iter().map(|byte| Ok::<_, std::io::Error>(vec![byte]));
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()))
    };
    for len in [0, 3, 5, 100] {
        let put = server.put(&format!("{}/parts/1", upload.path)).body(chunked(len));
        refused(put.send().await.unwrap(), 400, "length_mismatch").await;
    }
    assert_eq!(upload.status().await["received"], "");
    let put = server.put(&format!("{}/parts/1", upload.path)).body(chunked(4));
    json(put.send().await.unwrap(), 200).await;
    for len in [0, 3, 5] {
        let again = server.put(&format!("{}/parts/1", upload.path)).body(chunked(len));
        refused(again.send().await.unwrap(), 400, "length_mismatch").await;
    }
    assert_eq!(upload.status().await["received"], "1");
    let coded = upload.put_bytes(2, b"abcd").header("content-encoding", "gzip");
    refused(coded.send().await.unwrap(), 415, "unsupported_media_type").await;
    let ranged = upload.put_bytes(2, b"abcd").header("content-range", "bytes 4-7/10");
    refused(ranged.send().await.unwrap(), 400, "invalid_request").await;
}

#[tokio::test]
async fn digests_of_a_part_are_checked() {
    let server = Server::start();
    let whole = content(300_000, 1);
    let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 100_000})).await;
    let sha256 = |bytes: &[u8]| format!("sha-256=:{}:", base64(&Sha256::digest(bytes)));
    let sha512 = |bytes: &[u8]| format!("sha-512=:{}:", base64(&Sha512::digest(bytes)));
    let bad = [
        ("content-digest", sha256(b"other")),
        ("content-digest", sha512(b"other")),
        ("repr-digest", sha256(b"other")),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==".to_owned()),
    ];
    for (name, value) in &bad {
        let put = upload.put(&whole, 2).header(*name, value);
        refused(put.send().await.unwrap(), 422, "digest_mismatch").await;
    }
    refused(
        upload.put(&whole, 2).header("content-digest", "sha-256=x").send().await.unwrap(),
        400,
        "invalid_digest",
    )
    .await;
    assert_eq!(upload.status().await["received"], "");
    let piece = upload.piece(&whole, 2);
    for value in [sha256(piece), sha512(piece), format!("{}, {}", sha256(piece), sha512(piece))] {
        json(upload.put(&whole, 2).header("content-digest", value).send().await.unwrap(), 200).await;
    }
    // A repeat is checked like the first.
    let put = upload.put(&whole, 2).header("content-digest", sha256(b"other"));
    refused(put.send().await.unwrap(), 422, "digest_mismatch").await;
    assert_eq!(upload.status().await["received"], "2");
}

#[tokio::test]
async fn a_newer_request_displaces_one_that_stands_still() {
    let server = Server::start();
    let whole = content(200_000, 1);
    let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 100_000})).await;
    let request = head("PUT", &format!("{}/parts/1", upload.path), "Content-Length: 100000\r\n");
    let mut stalled = Wire::with(&server, request).await;
    // Other bytes than the right ones: they must not show.
    stalled.send(content(50_000, 2)).await;
    eventually("the body is being received", async || {
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "carrack_uploads_in_progress 1")
    })
    .await;
    let part = upload.send(&whole, 1).await;
    assert_eq!(part["blake3"], blake3::hash(&whole[..100_000]).to_hex().as_str());
    if let Some(answer) = stalled.answer().await {
        answer.refused(409, "superseded");
    }
    upload.send(&whole, 2).await;
    upload.completed().await;
    assert!(fetch(&server, "/v1/files/default/k").await == whole);
}

#[tokio::test]
async fn an_upload_that_is_given_up_while_a_part_arrives_leaves_nothing() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 200_000, value!({"part_size": 100_000})).await;
    let request = head("PUT", &format!("{}/parts/1", upload.path), "Content-Length: 100000\r\n");
    let mut wire = Wire::with(&server, request).await;
    wire.send(content(50_000, 2)).await;
    assert_eq!(server.delete(&upload.path).send().await.unwrap().status(), 204);
    wire.send(content(50_000, 3)).await;
    let answer = wire.answer().await.unwrap();
    answer.refused(404, "upload_not_found");
    until("no stage is left", || stages(&server).is_empty()).await;
    assert_eq!(status_of(&server, "/v1/files/default/k").await, 404);
}
