//! `/v1/buckets`.

use super::answers::{fetch, json, nothing_is_left, refused, status_of, store};
use super::wire::{Wire, ask, head};
use crate::server::{Server, content};
use serde_json::json as value;

#[tokio::test]
async fn a_bucket_is_made_changed_listed_and_deleted() {
    let server = Server::start();
    let made = json(server.put("/v1/buckets/photos").send().await.unwrap(), 201).await;
    assert_eq!(made["name"], "photos");
    assert!(made["quota_bytes"].is_null());
    assert_eq!((&made["used_bytes"], &made["file_count"]), (&value!(0), &value!(0)));
    let quota = value!({"quota_bytes": 1000});
    let changed = json(server.put("/v1/buckets/photos").json(&quota).send().await.unwrap(), 200).await;
    assert_eq!(changed["quota_bytes"], 1000);
    assert_eq!(changed["created_at"], made["created_at"]);
    assert_eq!(json(server.get("/v1/buckets/photos").send().await.unwrap(), 200).await, changed);
    let list = json(server.get("/v1/buckets").send().await.unwrap(), 200).await;
    let names: Vec<_> = list["buckets"].as_array().unwrap().iter().map(|bucket| &bucket["name"]).collect();
    assert_eq!(names, ["default", "photos"]);
    let deleted = server.delete("/v1/buckets/photos").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(deleted.bytes().await.unwrap().len(), 0);
    refused(server.get("/v1/buckets/photos").send().await.unwrap(), 404, "bucket_not_found").await;
}

#[tokio::test]
async fn a_bucket_that_holds_something_is_not_deleted() {
    let server = Server::start();
    json(server.put("/v1/buckets/full").send().await.unwrap(), 201).await;
    store(&server, "/v1/files/full/a", b"a").await;
    refused(server.delete("/v1/buckets/full").send().await.unwrap(), 409, "bucket_not_empty").await;
    assert_eq!(fetch(&server, "/v1/files/full/a").await, b"a");
    assert_eq!(server.delete("/v1/files/full/a").send().await.unwrap().status(), 204);
    let upload = value!({"bucket": "full", "key": "b", "size": 10});
    let upload = json(server.post("/v1/uploads").json(&upload).send().await.unwrap(), 201).await;
    refused(server.delete("/v1/buckets/full").send().await.unwrap(), 409, "bucket_not_empty").await;
    let upload = format!("/v1/uploads/{}", upload["upload_id"].as_str().unwrap());
    assert_eq!(server.delete(&upload).send().await.unwrap().status(), 204);
    assert_eq!(server.delete("/v1/buckets/full").send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn what_needs_a_bucket_that_is_not_there_is_not_found() {
    let server = Server::start();
    let upload = value!({"bucket": "nowhere", "key": "b", "size": 10});
    let requests = [
        server.get("/v1/buckets/nowhere"),
        server.delete("/v1/buckets/nowhere"),
        server.get("/v1/files/nowhere"),
        server.get("/v1/files/nowhere/a"),
        server.put("/v1/files/nowhere/a").body("x"),
        server.delete("/v1/files/nowhere/a"),
        server.get("/v1/zip/nowhere"),
        server.post("/v1/uploads").json(&upload),
    ];
    for request in requests {
        refused(request.send().await.unwrap(), 404, "bucket_not_found").await;
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn names_that_no_bucket_may_have_are_refused() {
    let server = Server::start();
    let long = "b".repeat(64);
    let bad = [
        "ab",
        "ABC",
        "Photos",
        "-ab",
        "ab-",
        ".ab",
        "ab.",
        "a..b",
        "..",
        "...",
        "a%2fb",
        "..%2f..%2fetc",
        "a%20b",
        "%c3%bcber",
        "a%00b",
        "a+b",
        "a:b",
        "a%5cb",
        &long,
    ];
    for name in bad {
        for method in ["GET", "PUT", "DELETE"] {
            let request = head(method, &format!("/v1/buckets/{name}"), "Content-Length: 0\r\n");
            ask(&server, request).await.refused(400, "invalid_bucket");
        }
        ask(&server, head("GET", &format!("/v1/files/{name}"), "")).await.refused(400, "invalid_bucket");
        let put = head("PUT", &format!("/v1/files/{name}/key"), "Content-Length: 0\r\n");
        ask(&server, put).await.refused(400, "invalid_bucket");
    }
    let list = json(server.get("/v1/buckets").send().await.unwrap(), 200).await;
    assert_eq!(list["buckets"].as_array().unwrap().len(), 1);
    let longest = "b".repeat(63);
    for name in ["abc", "a-b_c.d", "0-9", &longest] {
        assert_eq!(server.put(&format!("/v1/buckets/{name}")).send().await.unwrap().status(), 201, "{name}");
    }
}

#[tokio::test]
async fn wishes_of_unknown_shape_change_nothing() {
    let server = Server::start();
    json(server.put("/v1/buckets/kept").json(&value!({"quota_bytes": 7})).send().await.unwrap(), 201).await;
    let bad = [
        "{\"quota\": 1}",
        "{\"quota_bytes\": -1}",
        "{\"quota_bytes\": \"1\"}",
        "{\"quota_bytes\": 1.5}",
        "[]",
        "{",
        "1",
    ];
    for body in bad {
        for bucket in ["kept", "new"] {
            let answer = server.put(&format!("/v1/buckets/{bucket}")).body(body).send().await.unwrap();
            refused(answer, 400, "invalid_request").await;
        }
    }
    assert_eq!(status_of(&server, "/v1/buckets/new").await, 404);
    let kept = json(server.get("/v1/buckets/kept").send().await.unwrap(), 200).await;
    assert_eq!(kept["quota_bytes"], 7);
}

#[tokio::test]
async fn over_quota_is_said_before_the_body() {
    let server = Server::start();
    json(server.put("/v1/buckets/small").json(&value!({"quota_bytes": 1000})).send().await.unwrap(), 201)
        .await;
    let cases = [
        // The client waits for leave: none is given, the first answer is the refusal.
        "Content-Length: 1001\r\nExpect: 100-continue\r\n",
        "Content-Length: 1073741824\r\n",
        "Content-Length: 9223372036854775807\r\n",
    ];
    for headers in cases {
        let code = if headers.contains("1001") || headers.contains("1073741824") {
            "quota_exceeded"
        } else {
            "too_large"
        };
        ask(&server, head("PUT", "/v1/files/small/a", headers)).await.refused(413, code);
    }
    let upload = value!({"bucket": "small", "key": "a", "size": 1001});
    refused(server.post("/v1/uploads").json(&upload).send().await.unwrap(), 413, "quota_exceeded").await;
    assert_eq!(status_of(&server, "/v1/files/small/a").await, 404);
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn a_quota_counts_files_uploads_and_what_is_replaced() {
    let server = Server::start();
    json(server.put("/v1/buckets/small").json(&value!({"quota_bytes": 1000})).send().await.unwrap(), 201)
        .await;
    store(&server, "/v1/files/small/a", &content(600, 1)).await;
    let more = server.put("/v1/files/small/b").body(content(401, 2)).send().await.unwrap();
    refused(more, 413, "quota_exceeded").await;
    store(&server, "/v1/files/small/a", &content(1000, 3)).await;
    // Without a length it is known at the end only.
    let mut wire =
        Wire::with(&server, head("PUT", "/v1/files/small/c", "Transfer-Encoding: chunked\r\n")).await;
    wire.send("1\r\nx\r\n0\r\n\r\n").await;
    wire.answer().await.unwrap().refused(413, "quota_exceeded");
    assert_eq!(fetch(&server, "/v1/files/small/a").await, content(1000, 3));
    assert_eq!(status_of(&server, "/v1/files/small/c").await, 404);
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!((&bucket["used_bytes"], &bucket["file_count"]), (&value!(1000), &value!(1)));
    assert_eq!(server.delete("/v1/files/small/a").send().await.unwrap().status(), 204);
    let upload = value!({"bucket": "small", "key": "d", "size": 900});
    json(server.post("/v1/uploads").json(&upload).send().await.unwrap(), 201).await;
    let bucket = json(server.get("/v1/buckets/small").send().await.unwrap(), 200).await;
    assert_eq!((&bucket["used_bytes"], &bucket["reserved_bytes"]), (&value!(0), &value!(900)));
    let more = server.put("/v1/files/small/b").body(content(101, 2)).send().await.unwrap();
    refused(more, 413, "quota_exceeded").await;
    store(&server, "/v1/files/small/b", &content(100, 2)).await;
}
