//! Bytes that a user may keep.

use crate::access::{Caller, make_token};
use crate::contract::answers::{json, refused};
use crate::contract::wire::{Wire, head};
use crate::server::{Setup, content};
use serde_json::json as value;

#[tokio::test]
async fn a_user_keeps_so_much_in_all_buckets_together_and_is_told_before_the_body() {
    let server = Setup::new().set("CARRACK_LIMITS__ROLES__USER__QUOTA_PER_USER", "1000").start();
    let policy = value!({"policy": {"rules": [{"effect": "allow", "actions": ["*"], "prefix": "", "to": ["role:user"]}]}});
    server.put("/v1/buckets/other").json(&policy).send().await.unwrap();
    let (token, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let alice = Caller::with(&server, &token);
    let put = async |path: &str, len: usize| alice.put(path, &content(len, 1)).await;
    assert_eq!(put("/v1/files/default/a", 600).await.status(), 201);
    let created =
        json(alice.post("/v1/uploads", value!({"bucket": "other", "key": "up", "size": 300})).await, 201)
            .await;
    refused(put("/v1/files/other/b", 101).await, 413, "quota_exceeded").await;
    assert_eq!(put("/v1/files/other/b", 100).await.status(), 201);
    assert_eq!(put("/v1/files/default/a", 600).await.status(), 200, "in place of what is there");
    refused(put("/v1/files/default/a", 601).await, 413, "quota_exceeded").await;
    let wish = value!({"bucket": "default", "key": "more", "size": 1});
    refused(alice.post("/v1/uploads", wish).await, 413, "quota_exceeded").await;
    // Of unknown length: nothing is stored of what turns out to be too much.
    let endless = format!(
        "PUT /v1/files/default/c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n\
         c8\r\n{}\r\n0\r\n\r\n",
        "x".repeat(200)
    );
    Wire::with(&server, endless).await.answer().await.unwrap().refused(413, "quota_exceeded");
    let id = created["upload_id"].as_str().unwrap();
    assert_eq!(alice.delete(&format!("/v1/uploads/{id}")).await.status(), 204);
    assert_eq!(put("/v1/files/default/c", 300).await.status(), 201, "given back");
    let bob = Caller::user(&server, "bob").await;
    assert_eq!(bob.put("/v1/files/default/d", &content(1000, 1)).await.status(), 201);
    assert_eq!(server.put("/v1/files/default/e").body(content(5000, 1)).send().await.unwrap().status(), 201);
    assert_eq!(alice.delete("/v1/files/default/a").await.status(), 204);
    assert_eq!(put("/v1/files/default/f", 600).await.status(), 201);
    let announced = "Content-Length: 100000\r\nExpect: 100-continue\r\n";
    let mut wire = Wire::with(&server, head("PUT", "/v1/files/default/root", announced)).await;
    assert_eq!(wire.answer().await.unwrap().status, 100, "administrators have no quota");
}

#[tokio::test]
async fn quotas_that_are_taken_away_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Setup::new().data(&data).set("CARRACK_LIMITS__QUOTA_PER_USER", "10").start();
    refused(
        server.put("/v1/files/default/a").body("eleven byte").send().await.unwrap(),
        413,
        "quota_exceeded",
    )
    .await;
    server.stop();
    let server = Setup::new().data(&data).start();
    assert_eq!(server.put("/v1/files/default/a").body("eleven byte").send().await.unwrap().status(), 201);
}
