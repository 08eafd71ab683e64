//! Uploads whose content is there already.

use super::Caller;
use crate::contract::answers::{blobs, fetch, hex, json, refused, store};
use crate::server::{Server, content};
use serde_json::{Value, json as value};
use sha2::{Digest as _, Sha256};

fn wish(key: &str, bytes: &[u8]) -> Value {
    let sha256 = hex(&Sha256::digest(bytes));
    value!({"bucket": "default", "key": key, "size": bytes.len(), "digest": {"sha-256": sha256}})
}

fn with(mut wish: Value, more: Value) -> Value {
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wish
}

#[tokio::test]
async fn content_that_is_there_is_not_sent_again() {
    let server = Server::start();
    let bytes = content(100_000, 1);
    store(&server, "/v1/files/default/first", &bytes).await;
    store(&server, "/v1/files/default/as-long", &content(100_000, 2)).await;
    let more = value!({"content_type": "text/plain", "metadata": {"a": "b"}});
    let begin = async |wish: Value| server.post("/v1/uploads").json(&wish).send().await.unwrap();
    let file = json(begin(with(wish("second", &bytes), more)).await, 200).await;
    assert_eq!((&file["key"], &file["content_type"]), (&value!("second"), &value!("text/plain")));
    assert_eq!((&file["metadata"]["a"], &file["size"]), (&value!("b"), &value!(100_000)));
    assert_eq!(file["sha256"], hex(&Sha256::digest(&bytes)));
    assert_eq!(fetch(&server, "/v1/files/default/second").await, bytes);
    assert_eq!(blobs(&server).len(), 2, "both files have the same bytes");
    let bucket = json(server.get("/v1/buckets/default").send().await.unwrap(), 200).await;
    assert_eq!((&bucket["file_count"], &bucket["used_bytes"]), (&value!(3), &value!(300_000)));
    // Each of them stands by itself.
    server.delete("/v1/files/default/first").send().await.unwrap();
    assert_eq!(fetch(&server, "/v1/files/default/second").await, bytes);
    json(begin(wish("second", &bytes)).await, 200).await;
    server.delete("/v1/files/default/second").send().await.unwrap();
    assert_eq!(blobs(&server).len(), 1);
    json(begin(wish("third", &bytes)).await, 201).await;
    let open = json(server.get("/v1/uploads").send().await.unwrap(), 200).await;
    assert_eq!(open["uploads"].as_array().unwrap().len(), 1, "an instant upload leaves none behind");
}

#[tokio::test]
async fn what_does_not_agree_has_to_be_sent() {
    let server = Server::start();
    let bytes = content(1000, 1);
    store(&server, "/v1/files/default/first", &bytes).await;
    let begin = async |wish: Value| server.post("/v1/uploads").json(&wish).send().await.unwrap();
    let sha256 = hex(&Sha256::digest(&bytes));
    let blake3 = hex(blake3::hash(&bytes).as_bytes());
    json(begin(with(wish("k", &bytes), value!({"size": 999}))).await, 201).await;
    json(begin(wish("k", &content(1000, 2))).await, 201).await;
    let of = |digest: Value| with(wish("k", &bytes), value!({ "digest": digest }));
    json(begin(of(value!({ "blake3": blake3 }))).await, 201).await;
    json(begin(of(value!({"sha-256": sha256, "blake3": "0".repeat(64)}))).await, 201).await;
    json(begin(of(value!({"sha-256": sha256, "md5": "0".repeat(32)}))).await, 201).await;
    json(begin(of(value!({"sha-256": sha256, "blake3": blake3}))).await, 200).await;
}

#[tokio::test]
async fn limits_hold_for_what_is_not_sent_too() {
    let server = Server::start();
    let bytes = content(1000, 1);
    store(&server, "/v1/files/default/first", &bytes).await;
    json(server.put("/v1/buckets/small").json(&value!({"quota_bytes": 999})).send().await.unwrap(), 201)
        .await;
    let begin = async |wish: Value| server.post("/v1/uploads").json(&wish).send().await.unwrap();
    let there = with(wish("k", &bytes), value!({"bucket": "small"}));
    refused(begin(there).await, 413, "quota_exceeded").await;
    let only = value!({"if_none_match": "*"});
    refused(begin(with(wish("first", &bytes), only.clone())).await, 412, "precondition_failed").await;
    json(begin(with(wish("other", &bytes), only)).await, 200).await;
}

#[tokio::test]
async fn content_that_the_caller_may_not_read_is_as_if_it_were_not_there() {
    let server = Server::start();
    let (secret, open) = (content(1000, 1), content(1000, 2));
    let policy = value!({"policy": {"rules": [
        {"effect": "allow", "actions": ["read"], "prefix": "open/", "to": ["user:alice"]},
        {"effect": "allow", "actions": ["list", "write"], "to": ["user:alice"]},
    ]}});
    json(server.put("/v1/buckets/vault").json(&policy).send().await.unwrap(), 201).await;
    for learnt in [false, true] {
        store(&server, "/v1/files/vault/secret", &secret).await;
        store(&server, "/v1/files/vault/open/f", &open).await;
        if learnt {
            for path in ["/v1/files/vault/secret", "/v1/files/vault/open/f"] {
                server.get(path).header("want-repr-digest", "sha-256=1").send().await.unwrap();
            }
        }
        let alice = Caller::user(&server, "alice").await;
        let bob = Caller::user(&server, "bob").await;
        json(alice.post("/v1/uploads", wish("a", &secret)).await, 201).await;
        json(bob.post("/v1/uploads", wish("b", &open)).await, 201).await;
        json(alice.post("/v1/uploads", wish("a", &open)).await, 200).await;
        assert_eq!(fetch(&server, "/v1/files/default/a").await, open);
        server.delete("/v1/files/default/a").send().await.unwrap();
    }
}
