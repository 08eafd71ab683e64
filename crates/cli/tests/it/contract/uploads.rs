//! Sessions of uploads in parts: making, watching, listing, giving up.

use super::answers::{fetch, header, json, nothing_is_left, refused, stages, status_of, store, until};
use super::wire::{ask, head};
use crate::server::{Server, Setup, content};
use reqwest::RequestBuilder;
use serde_json::{Value, json as value};

/// An upload in parts, from the client's side.
pub(crate) struct Upload<'a> {
    pub(crate) server: &'a Server,
    pub(crate) path: String,
    pub(crate) part_size: usize,
    pub(crate) part_count: u64,
}

impl Upload<'_> {
    /// Begins one; `more` is merged into the wish.
    pub(crate) async fn begin<'a>(server: &'a Server, key: &str, size: usize, more: Value) -> Upload<'a> {
        let mut wish = value!({"bucket": "default", "key": key, "size": size});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let created = json(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 201).await;
        Upload {
            server,
            path: format!("/v1/uploads/{}", created["upload_id"].as_str().unwrap()),
            part_size: created["part_size"].as_u64().unwrap() as usize,
            part_count: created["part_count"].as_u64().unwrap(),
        }
    }

    /// The bytes of a part.
    pub(crate) fn piece<'b>(&self, whole: &'b [u8], number: u64) -> &'b [u8] {
        let from = (number as usize - 1) * self.part_size;
        &whole[from..whole.len().min(from + self.part_size)]
    }

    /// A request that sends a part of `whole`.
    pub(crate) fn put(&self, whole: &[u8], number: u64) -> RequestBuilder {
        self.put_bytes(number, self.piece(whole, number))
    }

    /// A request that sends these bytes as a part.
    pub(crate) fn put_bytes(&self, number: u64, bytes: &[u8]) -> RequestBuilder {
        self.server.put(&format!("{}/parts/{number}", self.path)).body(bytes.to_vec())
    }

    pub(crate) async fn send(&self, whole: &[u8], number: u64) -> Value {
        json(self.put(whole, number).send().await.unwrap(), 200).await
    }

    pub(crate) async fn send_all(&self, whole: &[u8]) {
        for number in 1..=self.part_count {
            self.send(whole, number).await;
        }
    }

    /// The request that completes it.
    pub(crate) fn complete(&self, digest: Value) -> RequestBuilder {
        self.server.post(&format!("{}/complete", self.path)).json(&value!({ "digest": digest }))
    }

    pub(crate) async fn completed(&self) -> Value {
        json(self.complete(value!({})).send().await.unwrap(), 201).await
    }

    pub(crate) async fn status(&self) -> Value {
        json(self.server.get(&self.path).send().await.unwrap(), 200).await
    }
}

#[tokio::test]
async fn an_upload_says_how_it_is_cut_and_where_it_is() {
    let server = Server::start();
    let mib = 1u64 << 20;
    let cases = [
        (0, None, 8 * mib, 0),
        (1, None, 8 * mib, 1),
        (8 * mib, None, 8 * mib, 1),
        (8 * mib + 1, None, 8 * mib, 2),
        (10, Some(3), 3, 4),
        (9, Some(3), 3, 3),
        (12_000_000, Some(5_000_001), 5_000_001, 3),
        (10_000, Some(1), 1, 10_000),
        (5, Some(mib), mib, 1),
    ];
    for (size, wished, part_size, part_count) in cases {
        let wish = value!({"bucket": "default", "key": "k", "size": size, "part_size": wished});
        let answer = server.post("/v1/uploads").json(&wish).send().await.unwrap();
        let location = header(&answer, "location").to_owned();
        let created = json(answer, 201).await;
        assert_eq!(
            (&created["part_size"], &created["part_count"]),
            (&value!(part_size), &value!(part_count))
        );
        let id = created["upload_id"].as_str().unwrap();
        assert_eq!(created["url"], server.url(&format!("/v1/uploads/{id}")));
        assert_eq!(created["url"], location.as_str());
        assert!(created["expires_at"].as_str().unwrap().ends_with('Z'));
        let status = json(server.get(&format!("/v1/uploads/{id}")).send().await.unwrap(), 200).await;
        assert_eq!((status["state"].as_str(), status["received"].as_str()), (Some("open"), Some("")));
        assert_eq!((&status["size"], &status["received_bytes"]), (&value!(size), &value!(0)));
        assert_eq!(
            (&status["part_size"], &status["part_count"]),
            (&created["part_size"], &created["part_count"])
        );
        assert_eq!(status["expires_at"], created["expires_at"]);
    }
    assert_eq!(status_of(&server, "/v1/files/default/k").await, 404, "nothing is visible before the end");
}

#[tokio::test]
async fn the_url_of_an_upload_names_the_host_that_was_called() {
    let wish = "{\"bucket\": \"default\", \"key\": \"k\", \"size\": 1}";
    let request = |target: &str| head("POST", target, &format!("Content-Length: {}\r\n", wish.len())) + wish;
    let server = Server::start();
    let plain = ask(&server, request("/v1/uploads")).await;
    assert!(plain.header("location").starts_with("http://x/v1/uploads/"), "{plain:?}");
    // As in HTTP/2, where there is no Host.
    let absolute = ask(&server, request("http://files.example:81/v1/uploads")).await;
    assert!(absolute.header("location").starts_with("http://files.example:81/v1/uploads/"), "{absolute:?}");
    let server = Setup::new().set("CARRACK_SERVER__PUBLIC_URL", "https://files.example/").start();
    let public = ask(&server, request("/v1/uploads")).await;
    assert!(public.header("location").starts_with("https://files.example/v1/uploads/"), "{public:?}");
}

#[tokio::test]
async fn wishes_that_make_no_sense_begin_nothing() {
    let server = Server::start();
    let good = value!({"bucket": "default", "key": "k", "size": 10});
    let cases = [
        (value!({"size": -1}), 400, "invalid_request"),
        (value!({"size": "10"}), 400, "invalid_request"),
        (value!({"size": null}), 400, "invalid_request"),
        (value!({"part_size": 0}), 400, "invalid_request"),
        (value!({"part_size": 1, "size": 10_001}), 400, "invalid_request"),
        (value!({"unknown": 1}), 400, "invalid_request"),
        (value!({"if_none_match": "\"x\""}), 400, "invalid_request"),
        (value!({"content_type": "nonsense"}), 400, "invalid_request"),
        (value!({"content_type": "a/b\r\nX: y"}), 400, "invalid_request"),
        (value!({"metadata": {"a": 1}}), 400, "invalid_request"),
        (value!({"metadata": {"a": "x".repeat(9000)}}), 400, "invalid_request"),
        (value!({"digest": {"crc64": "00"}}), 400, "invalid_digest"),
        (value!({"digest": {"sha-256": "00"}}), 400, "invalid_digest"),
        (value!({"digest": {"sha-256": "zz".repeat(32)}}), 400, "invalid_digest"),
        (value!({"bucket": "../x"}), 400, "invalid_bucket"),
        (value!({"bucket": "nowhere"}), 404, "bucket_not_found"),
        (value!({"key": "../x"}), 400, "invalid_key"),
        (value!({"size": 17_592_186_044_417u64}), 413, "too_large"),
        (value!({"size": u64::MAX}), 413, "too_large"),
    ];
    for (change, status, code) in cases {
        let mut wish = good.clone();
        wish.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/v1/uploads").json(&wish).send().await.unwrap();
        assert_eq!(answer.status(), status, "{change}");
        refused(answer, status, code).await;
    }
    for body in ["", "{", "[]", "null", "{\"bucket\":\"default\"}"] {
        refused(server.post("/v1/uploads").body(body).send().await.unwrap(), 400, "invalid_request").await;
    }
    let huge = format!("{{\"bucket\":\"default\",\"key\":\"{}\",\"size\":1}}", "k".repeat(2 << 20));
    refused(server.post("/v1/uploads").body(huge).send().await.unwrap(), 413, "too_large").await;
    let open = json(server.get("/v1/uploads").send().await.unwrap(), 200).await;
    assert_eq!(open, value!({"uploads": []}));
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn an_upload_that_nobody_made_is_not_found() {
    let server = Server::start();
    let unknown = "0".repeat(32);
    for id in [unknown.as_str(), "x", "..%2f..", "%00", "0a1b", &"f".repeat(400)] {
        let path = format!("/v1/uploads/{id}");
        let requests = [
            server.get(&path),
            server.delete(&path),
            server.put(&format!("{path}/parts/1")).body("x"),
            server.post(&format!("{path}/complete")),
        ];
        for request in requests {
            refused(request.send().await.unwrap(), 404, "upload_not_found").await;
        }
    }
}

#[tokio::test]
async fn open_uploads_are_listed_by_age_and_bucket() {
    let server = Server::start();
    json(server.put("/v1/buckets/other").send().await.unwrap(), 201).await;
    let first = Upload::begin(&server, "first", 10, value!({"part_size": 4})).await;
    Upload::begin(&server, "second", 10, value!({"bucket": "other"})).await;
    Upload::begin(&server, "third", 10, value!({})).await;
    first.send(&content(10, 1), 2).await;
    let list = async |query: &str| {
        let list = json(server.get(&format!("/v1/uploads{query}")).send().await.unwrap(), 200).await;
        let uploads = list["uploads"].as_array().unwrap().clone();
        let keys: Vec<String> =
            uploads.iter().map(|upload| upload["key"].as_str().unwrap().to_owned()).collect();
        (keys, uploads)
    };
    let (keys, uploads) = list("").await;
    assert_eq!(keys, ["first", "second", "third"]);
    assert_eq!(uploads[0], first.status().await);
    assert_eq!(
        (uploads[0]["received"].as_str(), uploads[0]["received_bytes"].as_u64()),
        (Some("2"), Some(4))
    );
    assert_eq!(list("?bucket=other").await.0, ["second"]);
    assert_eq!(list("?bucket=default").await.0, ["first", "third"]);
    assert_eq!(list("?bucket=unknown-one").await.0, Vec::<String>::new());
    refused(server.get("/v1/uploads?bucket=..").send().await.unwrap(), 400, "invalid_bucket").await;
    first.send_all(&content(10, 1)).await;
    first.completed().await;
    assert_eq!(list("").await.0, ["second", "third"]);
    assert_eq!(first.status().await["state"], "complete");
    assert_eq!(first.status().await["received"], "1-3");
}

#[tokio::test]
async fn giving_up_returns_what_was_reserved() {
    let server = Server::start();
    json(server.put("/v1/buckets/small").json(&value!({"quota_bytes": 100})).send().await.unwrap(), 201)
        .await;
    let upload = Upload::begin(&server, "k", 80, value!({"bucket": "small", "part_size": 40})).await;
    upload.send(&content(80, 1), 1).await;
    let wish = value!({"bucket": "small", "key": "l", "size": 80});
    refused(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 413, "quota_exceeded").await;
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!(bucket["reserved_bytes"], 80);
    assert_eq!(server.delete(&upload.path).send().await.unwrap().status(), 204);
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!(bucket["reserved_bytes"], 0);
    assert_eq!(stages(&server), Vec::<String>::new());
    refused(upload.put(&content(80, 1), 1).send().await.unwrap(), 404, "upload_not_found").await;
    refused(upload.complete(value!({})).send().await.unwrap(), 404, "upload_not_found").await;
    refused(server.get(&upload.path).send().await.unwrap(), 404, "upload_not_found").await;
    refused(server.delete(&upload.path).send().await.unwrap(), 404, "upload_not_found").await;
    json(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 201).await;
    assert_eq!(status_of(&server, "/v1/files/small/k").await, 404);
}

#[tokio::test]
async fn a_completed_upload_can_be_forgotten_and_its_file_stays() {
    let server = Server::start();
    let bytes = content(10, 1);
    let upload = Upload::begin(&server, "k", 10, value!({})).await;
    upload.send_all(&bytes).await;
    upload.completed().await;
    assert_eq!(server.delete(&upload.path).send().await.unwrap().status(), 204);
    refused(upload.complete(value!({})).send().await.unwrap(), 404, "upload_not_found").await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, bytes);
}

#[tokio::test]
async fn only_creating_is_checked_at_the_start_and_at_the_end() {
    let server = Server::start();
    let only = value!({"if_none_match": "*"});
    let early = Upload::begin(&server, "k", 3, only.clone()).await;
    early.send_all(b"new").await;
    store(&server, "/v1/files/default/k", b"old").await;
    let wish = value!({"bucket": "default", "key": "k", "size": 3, "if_none_match": "*"});
    refused(server.post("/v1/uploads").json(&wish).send().await.unwrap(), 412, "precondition_failed").await;
    refused(early.complete(value!({})).send().await.unwrap(), 412, "precondition_failed").await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, b"old");
    assert_eq!(server.delete("/v1/files/default/k").send().await.unwrap().status(), 204);
    let fresh = Upload::begin(&server, "k", 3, only).await;
    fresh.send_all(b"new").await;
    fresh.completed().await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, b"new");
    server.delete(&early.path).send().await.unwrap();
    until("no stage is left", || stages(&server).is_empty()).await;
}
