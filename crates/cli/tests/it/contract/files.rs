//! `PUT` and `DELETE` of whole files.

use super::answers::{
    base64, blobs, fetch, header, json, keys, nothing_is_left, refused, stages, status_of, store, until,
};
use super::wire::{Wire, ask, head};
use crate::server::{Server, content};
use sha2::{Digest as _, Sha256, Sha512};

const PATH: &str = "/v1/files/default/f";
/// MD5 of `hello`.
const HELLO_MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";

fn digest_headers(bytes: &[u8]) -> [(&'static str, String); 4] {
    let (sha256, sha512) = (base64(&Sha256::digest(bytes)), base64(&Sha512::digest(bytes)));
    [
        ("content-digest", format!("sha-256=:{sha256}:")),
        ("content-digest", format!("sha-512=:{sha512}:")),
        ("repr-digest", format!("sha-256=:{sha256}:")),
        ("repr-digest", format!("unixsum=:AAA=:, sha-512=:{sha512}:, sha-256=:{sha256}:")),
    ]
}

#[tokio::test]
async fn a_body_is_stored_with_and_without_its_length() {
    let server = Server::start();
    for len in [0, 1, 65_536, 1_048_577] {
        let bytes = content(len, 1);
        let stored =
            server.put(&format!("/v1/files/default/known/{len}")).body(bytes.clone()).send().await.unwrap();
        assert_eq!(header(&stored, "location"), format!("/v1/files/default/known/{len}"));
        let etag = header(&stored, "etag").to_owned();
        let file = json(stored, 201).await;
        assert_eq!(file["etag"], etag.as_str());
        assert_eq!(file["size"], len as u64);
        assert_eq!(file["blake3"], blake3::hash(&bytes).to_hex().as_str());
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
            bytes.chunks(10_007).map(|piece| Ok(piece.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let chunked =
            server.put(&format!("/v1/files/default/chunked/{len}")).body(body).send().await.unwrap();
        let chunked = json(chunked, 201).await;
        assert_eq!((&chunked["blake3"], &chunked["crc32"]), (&file["blake3"], &file["crc32"]));
        assert!(fetch(&server, &format!("/v1/files/default/chunked/{len}")).await == bytes);
        assert!(fetch(&server, &format!("/v1/files/default/known/{len}")).await == bytes);
    }
    assert_eq!(keys(&server, "default").await.len(), 8);
    assert_eq!(stages(&server), Vec::<String>::new());
}

#[tokio::test]
async fn a_second_body_replaces_the_first_and_its_bytes_go() {
    let server = Server::start();
    let first = json(server.put(PATH).body("one").send().await.unwrap(), 201).await;
    let second = json(server.put(PATH).body("two!").send().await.unwrap(), 200).await;
    assert_ne!(first["etag"], second["etag"]);
    assert_eq!(fetch(&server, PATH).await, b"two!");
    assert_eq!(keys(&server, "default").await, ["f"]);
    until("the replaced bytes are gone", || blobs(&server).len() == 1).await;
}

#[tokio::test]
async fn preconditions_of_a_put_are_kept() {
    let server = Server::start();
    let put = |name: &'static str, value: String, body: &'static str| {
        let request = server.put(PATH).header(name, value).body(body);
        async { request.send().await.unwrap() }
    };
    refused(put("if-match", "*".into(), "0").await, 412, "precondition_failed").await;
    refused(put("if-match", "\"x\"".into(), "0").await, 412, "precondition_failed").await;
    assert_eq!(status_of(&server, PATH).await, 404);
    let file = json(put("if-none-match", "*".into(), "1").await, 201).await;
    let etag = file["etag"].as_str().unwrap().to_owned();
    refused(put("if-none-match", "*".into(), "2").await, 412, "precondition_failed").await;
    refused(put("if-none-match", etag.clone(), "2").await, 412, "precondition_failed").await;
    refused(put("if-match", "\"x\"".into(), "2").await, 412, "precondition_failed").await;
    refused(put("if-match", format!("W/{etag}"), "2").await, 412, "precondition_failed").await;
    assert_eq!(fetch(&server, PATH).await, b"1");
    json(put("if-match", format!("\"x\", {etag}"), "3").await, 200).await;
    refused(put("if-match", etag, "4").await, 412, "precondition_failed").await;
    json(put("if-match", "*".into(), "5").await, 200).await;
    json(put("if-none-match", "\"x\"".into(), "6").await, 200).await;
    let both = server.put(PATH).header("if-match", "*").header("if-none-match", "*").body("7");
    refused(both.send().await.unwrap(), 400, "invalid_request").await;
    assert_eq!(fetch(&server, PATH).await, b"6");
    assert_eq!(stages(&server), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_precondition_is_said_before_the_body() {
    let server = Server::start();
    store(&server, PATH, b"kept").await;
    let headers = "If-None-Match: *\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n";
    ask(&server, head("PUT", PATH, headers)).await.refused(412, "precondition_failed");
    let mut wire =
        Wire::with(&server, head("PUT", PATH, "Content-Length: 2\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(wire.answer().await.unwrap().status, 100, "leave is given when nothing stands against it");
    wire.send("ok").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(fetch(&server, PATH).await, b"ok");
}

#[tokio::test]
async fn of_sixteen_that_create_the_same_key_one_wins() {
    let server = Server::start();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..16u8 {
        let request = server.put(PATH).header("if-none-match", "*").body(vec![index; 10_000]);
        tasks.spawn(async move { (index, request.send().await.unwrap().status().as_u16()) });
    }
    let answers = tasks.join_all().await;
    let won: Vec<u8> = answers.iter().filter(|(_, status)| *status == 201).map(|(index, _)| *index).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, status)| matches!(status, 201 | 412)), "{answers:?}");
    assert_eq!(fetch(&server, PATH).await, vec![won[0]; 10_000]);
    until("the others left nothing", || stages(&server).is_empty() && blobs(&server).len() == 1).await;
}

#[tokio::test]
async fn the_media_type_is_kept_or_made_up() {
    let server = Server::start();
    for (sent, kept) in
        [(None, "application/octet-stream"), (Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8")]
    {
        let request = server.put(PATH).body("x");
        let request = match sent {
            Some(kind) => request.header("content-type", kind),
            None => request,
        };
        let stored: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(stored["content_type"], kept);
        assert_eq!(header(&server.get(PATH).send().await.unwrap(), "content-type"), kept);
    }
    let long = format!("text/{}", "x".repeat(300));
    for bad in ["text", "", &long] {
        let answer = server.put(PATH).header("content-type", bad).body("y").send().await.unwrap();
        refused(answer, 400, "invalid_request").await;
    }
    assert_eq!(fetch(&server, PATH).await, b"x");
}

#[tokio::test]
async fn metadata_comes_back_in_headers_and_facts() {
    let server = Server::start();
    let put =
        server.put(PATH).header("Carrack-Meta-Colour", "dark blue").header("carrack-meta-n", "1").body("x");
    let file = json(put.send().await.unwrap(), 201).await;
    assert_eq!(file["metadata"], serde_json::json!({"colour": "dark blue", "n": "1"}));
    let got = server.get(PATH).send().await.unwrap();
    assert_eq!((header(&got, "carrack-meta-colour"), header(&got, "carrack-meta-n")), ("dark blue", "1"));
    let utf8 = format!("Carrack-Meta-Title: {}\r\nContent-Length: 1\r\n", "Grüße 日本");
    let answer = ask(&server, head("PUT", "/v1/files/default/g", &utf8) + "x").await;
    assert_eq!(answer.status, 201);
    let meta = json(server.get("/v1/files/default/g?meta").send().await.unwrap(), 200).await;
    assert_eq!(meta["metadata"]["title"], "Grüße 日本");
    let mut latin = b"PUT /v1/files/default/h HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ".to_vec();
    latin.extend_from_slice(crate::server::TOKEN.as_bytes());
    latin.extend_from_slice(b"\r\nCarrack-Meta-Title: \xff\r\nContent-Length: 1\r\n\r\nx");
    ask(&server, latin).await.refused(400, "invalid_request");
    let large = server.put("/v1/files/default/h").header("carrack-meta-x", "y".repeat(9_000)).body("x");
    refused(large.send().await.unwrap(), 400, "invalid_request").await;
    assert_eq!(status_of(&server, "/v1/files/default/h").await, 404);
}

#[tokio::test]
async fn digests_that_fit_are_stored() {
    let server = Server::start();
    let bytes = content(300_000, 4);
    for (name, value) in digest_headers(&bytes) {
        let stored = server.put(PATH).header(name, &value).body(bytes.clone()).send().await.unwrap();
        assert!(stored.status().is_success(), "{name}: {value}");
    }
    // What is not known here is passed over (RFC 9530, section 2).
    let unknown =
        server.put(PATH).header("content-digest", "crc32c=:AAAAAA==:, x=:!:").body("x").send().await.unwrap();
    assert_eq!(unknown.status(), 200);
    let md5 = server.put(PATH).header("content-md5", HELLO_MD5).body("hello").send().await.unwrap();
    assert_eq!(md5.status(), 200);
    assert_eq!(fetch(&server, PATH).await, b"hello");
}

#[tokio::test]
async fn digests_that_do_not_fit_store_nothing() {
    let server = Server::start();
    for (name, value) in digest_headers(b"other") {
        let answer = server.put(PATH).header(name, &value).body(content(300_000, 4)).send().await.unwrap();
        let problem = refused(answer, 422, "digest_mismatch").await;
        assert!(problem["expected"].is_string() && problem["actual"].is_string(), "{problem}");
    }
    let md5 = server.put(PATH).header("content-md5", HELLO_MD5).body("hallo").send().await.unwrap();
    refused(md5, 422, "digest_mismatch").await;
    nothing_is_left(&server).await;
    store(&server, PATH, b"kept").await;
    let again = server.put(PATH).header("content-md5", HELLO_MD5).body("hallo").send().await.unwrap();
    refused(again, 422, "digest_mismatch").await;
    assert_eq!(fetch(&server, PATH).await, b"kept");
}

#[tokio::test]
async fn digests_that_cannot_be_read_are_refused() {
    let server = Server::start();
    let short = base64(&[0; 31]);
    let short = format!("sha-256=:{short}:");
    let cases = [
        ("content-digest", "sha-256"),
        ("content-digest", "sha-256=abc"),
        ("content-digest", "sha-256=:!!!!:"),
        ("content-digest", &short),
        ("repr-digest", "sha-512=:AAAA:"),
        ("content-md5", "AAAA"),
        ("content-md5", "5d41402abc4b2a76b9719d911017c592"),
        ("content-md5", "!"),
    ];
    for (name, value) in cases {
        let answer = server.put(PATH).header(name, value).body("hello").send().await.unwrap();
        refused(answer, 400, "invalid_digest").await;
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn encoded_and_partial_bodies_are_refused() {
    let server = Server::start();
    for coding in ["gzip", "br", "aws-chunked", "identity, gzip"] {
        let answer = server.put(PATH).header("content-encoding", coding).body("x").send().await.unwrap();
        refused(answer, 415, "unsupported_media_type").await;
    }
    let range = server.put(PATH).header("content-range", "bytes 0-0/2").body("x").send().await.unwrap();
    refused(range, 400, "invalid_request").await;
    nothing_is_left(&server).await;
    let identity = server.put(PATH).header("content-encoding", "identity").body("x").send().await.unwrap();
    assert_eq!(identity.status(), 201);
}

#[tokio::test]
async fn a_file_is_deleted_once() {
    let server = Server::start();
    let file = store(&server, PATH, b"x").await;
    let wrong = server.delete(PATH).header("if-match", "\"x\"").send().await.unwrap();
    refused(wrong, 412, "precondition_failed").await;
    assert_eq!(fetch(&server, PATH).await, b"x");
    let right = server.delete(PATH).header("if-match", file["etag"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(right.status(), 204);
    refused(server.delete(PATH).send().await.unwrap(), 404, "file_not_found").await;
    refused(server.get(PATH).send().await.unwrap(), 404, "file_not_found").await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn a_download_that_began_before_a_replacement_or_deletion_gets_the_old_bytes() {
    let server = Server::start();
    let old = content(24 << 20, 1);
    for end in ["replaced", "deleted"] {
        store(&server, PATH, &old).await;
        let mut download = server.get(PATH).send().await.unwrap();
        let mut got = download.chunk().await.unwrap().unwrap().to_vec();
        if end == "replaced" {
            store(&server, PATH, b"new").await;
        } else {
            assert_eq!(server.delete(PATH).send().await.unwrap().status(), 204);
        }
        while let Some(chunk) = download.chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert!(got == old, "{end}");
    }
    assert_eq!(status_of(&server, PATH).await, 404);
    until("no bytes are left", || blobs(&server).is_empty()).await;
}
