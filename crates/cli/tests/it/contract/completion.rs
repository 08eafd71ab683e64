//! Completing an upload.

use super::answers::{blobs, fetch, header, hex, json, keys, refused, stages, status_of, store, until};
use super::uploads::Upload;
use crate::server::{Server, content};
use serde_json::{Value, json as value};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::task::JoinSet;

/// MD5 of `hello`.
const HELLO_MD5: &str = "5d41402abc4b2a76b9719d911017c592";

fn digests(bytes: &[u8]) -> Vec<(&'static str, String)> {
    vec![
        ("blake3", blake3::hash(bytes).to_hex().to_string()),
        ("crc32", format!("{:08x}", crc32fast::hash(bytes))),
        ("sha-256", hex(&Sha256::digest(bytes))),
        ("sha-512", hex(&Sha512::digest(bytes))),
    ]
}

#[tokio::test]
async fn an_empty_file_needs_no_part() {
    let server = Server::start();
    let upload = Upload::begin(&server, "empty", 0, value!({"content_type": "text/plain"})).await;
    let file = upload.completed().await;
    assert_eq!((file["size"].as_u64(), file["content_type"].as_str()), (Some(0), Some("text/plain")));
    assert_eq!(file["blake3"], blake3::hash(b"").to_hex().as_str());
    assert_eq!(file["crc32"], "00000000");
    assert_eq!(fetch(&server, "/v1/files/default/empty").await, b"");
}

#[tokio::test]
async fn what_was_said_at_the_start_is_in_the_file() {
    let server = Server::start();
    let more = value!({"content_type": "text/plain", "metadata": {"a": "ä", "b": ""}});
    let upload = Upload::begin(&server, "dir/k", 5, more).await;
    upload.send_all(b"hello").await;
    let answer = upload.complete(value!({})).send().await.unwrap();
    let (etag, location) = (header(&answer, "etag").to_owned(), header(&answer, "location").to_owned());
    let file = json(answer, 201).await;
    assert_eq!((file["key"].as_str(), file["content_type"].as_str()), (Some("dir/k"), Some("text/plain")));
    assert_eq!(file["metadata"], value!({"a": "ä", "b": ""}));
    assert_eq!((file["etag"].as_str(), location.as_str()), (Some(etag.as_str()), "/v1/files/default/dir/k"));
    let meta = json(server.get("/v1/files/default/dir/k?meta").send().await.unwrap(), 200).await;
    assert_eq!(meta, file);
}

#[tokio::test]
async fn holes_are_named_and_nothing_is_visible() {
    let server = Server::start();
    let whole = content(10, 1);
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 1})).await;
    let steps: [(&[u64], &str); 5] =
        [(&[], "1-10"), (&[1], "2-10"), (&[5, 6], "2-4,7-10"), (&[10, 8], "2-4,7,9"), (&[2, 3, 4, 9], "7")];
    for (numbers, missing) in steps {
        for number in numbers {
            upload.send(&whole, *number).await;
        }
        let problem = refused(upload.complete(value!({})).send().await.unwrap(), 409, "parts_missing").await;
        assert_eq!(problem["missing"], missing);
        assert_eq!(upload.status().await["state"], "open");
        assert_eq!(status_of(&server, "/v1/files/default/k").await, 404);
    }
    upload.send(&whole, 7).await;
    upload.completed().await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, whole);
}

#[tokio::test]
async fn completing_again_is_answered_the_same_whatever_happened_since() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 5, value!({})).await;
    upload.send_all(b"hello").await;
    let file = upload.completed().await;
    assert_eq!(upload.completed().await, file);
    let bare = server.post(&format!("{}/complete", upload.path)).send().await.unwrap();
    assert_eq!(json(bare, 201).await, file);
    store(&server, "/v1/files/default/k", b"newer").await;
    assert_eq!(upload.completed().await, file);
    assert_eq!(fetch(&server, "/v1/files/default/k").await, b"newer", "a repeat replaces nothing");
    assert_eq!(server.delete("/v1/files/default/k").send().await.unwrap().status(), 204);
    assert_eq!(upload.completed().await, file);
    assert_eq!(status_of(&server, "/v1/files/default/k").await, 404, "a repeat brings nothing back");
}

#[tokio::test]
async fn sixteen_completions_at_once_make_one_file() {
    let server = Server::start();
    let whole = content(3_000_000, 1);
    let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 1_000_000})).await;
    upload.send_all(&whole).await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let request = upload.complete(value!({}));
        tasks.spawn(async move { json(request.send().await.unwrap(), 201).await });
    }
    let files: Vec<Value> = tasks.join_all().await;
    assert!(files.iter().all(|file| *file == files[0]), "{files:?}");
    assert_eq!(keys(&server, "default").await, ["k"]);
    assert_eq!((blobs(&server).len(), stages(&server).len()), (1, 0));
    assert!(fetch(&server, "/v1/files/default/k").await == whole);
}

#[tokio::test]
async fn of_two_uploads_to_a_key_the_later_completion_stays() {
    let server = Server::start();
    let first = Upload::begin(&server, "k", 5, value!({})).await;
    let second = Upload::begin(&server, "k", 5, value!({})).await;
    first.send_all(b"first").await;
    second.send_all(b"secnd").await;
    second.completed().await;
    first.completed().await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, b"first");
    until("the replaced bytes are gone", || blobs(&server).len() == 1).await;
}

#[tokio::test]
async fn digests_of_the_whole_are_demanded_in_any_algorithm() {
    let server = Server::start();
    let whole = content(250_001, 1);
    let (good, bad) = (digests(&whole), digests(b"other"));
    for ((name, right), (_, wrong)) in good.iter().zip(&bad) {
        let upload = Upload::begin(&server, "k", whole.len(), value!({"part_size": 100_000})).await;
        upload.send_all(&whole).await;
        let answer = upload.complete(value!({*name: wrong})).send().await.unwrap();
        let problem = refused(answer, 422, "digest_mismatch").await;
        assert!(problem["expected"].is_string() && problem["actual"].is_string(), "{problem}");
        assert_eq!(status_of(&server, "/v1/files/default/k").await, 404);
        assert_eq!(upload.status().await["state"], "open", "the parts are kept");
        let file =
            json(upload.complete(value!({*name: right.to_uppercase()})).send().await.unwrap(), 201).await;
        assert_eq!(file["sha256"].as_str(), (*name == "sha-256").then_some(right.as_str()));
        assert!(fetch(&server, "/v1/files/default/k").await == whole);
        assert_eq!(server.delete("/v1/files/default/k").send().await.unwrap().status(), 204);
    }
    let upload = Upload::begin(&server, "k", 5, value!({"part_size": 3})).await;
    upload.send_all(b"hello").await;
    let wrong = upload.complete(value!({"md5": "0".repeat(32)})).send().await.unwrap();
    refused(wrong, 422, "digest_mismatch").await;
    let mut all = serde_json::Map::new();
    all.extend(digests(b"hello").into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))));
    all.insert("md5".to_owned(), HELLO_MD5.into());
    json(upload.complete(Value::Object(all)).send().await.unwrap(), 201).await;
}

#[tokio::test]
async fn a_digest_given_at_the_start_is_checked_at_the_end() {
    let server = Server::start();
    for (name, right) in digests(b"hello") {
        let upload =
            Upload::begin(&server, "k", 5, value!({"part_size": 2, "digest": {name: right.clone()}})).await;
        upload.send_all(b"hallo").await;
        refused(upload.complete(value!({})).send().await.unwrap(), 422, "digest_mismatch").await;
        let wrong_too =
            upload.complete(value!({name: digests(b"hallo").iter().find(|d| d.0 == name).unwrap().1}));
        refused(wrong_too.send().await.unwrap(), 422, "digest_mismatch").await;
        assert_eq!(status_of(&server, "/v1/files/default/k").await, 404);
        assert_eq!(server.delete(&upload.path).send().await.unwrap().status(), 204);
        let upload = Upload::begin(&server, "k", 5, value!({"part_size": 2, "digest": {name: right}})).await;
        upload.send_all(b"hello").await;
        upload.completed().await;
        assert_eq!(server.delete("/v1/files/default/k").send().await.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn demands_of_unknown_shape_complete_nothing() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 5, value!({})).await;
    upload.send_all(b"hello").await;
    for (body, code) in [
        ("{\"digest\": {\"crc64\": \"00\"}}", "invalid_digest"),
        ("{\"digest\": {\"crc32\": \"0\"}}", "invalid_digest"),
        ("{\"digest\": {\"md5\": \"zz\"}}", "invalid_digest"),
        ("{\"digests\": {}}", "invalid_request"),
        ("{", "invalid_request"),
    ] {
        let answer = server.post(&format!("{}/complete", upload.path)).body(body).send().await.unwrap();
        refused(answer, 400, code).await;
    }
    assert_eq!(status_of(&server, "/v1/files/default/k").await, 404);
    upload.completed().await;
}
