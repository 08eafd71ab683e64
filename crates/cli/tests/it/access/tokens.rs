//! Access tokens: made, limited, listed, revoked.

use super::{Caller, make_token};
use crate::contract::answers::{eventually, header, json, refused, store};
use crate::contract::uploads::Upload;
use crate::server::{Server, Setup, TOKEN};
use reqwest::Method;
use serde_json::{Value, json as value};

#[tokio::test]
async fn a_token_is_told_once_and_says_who_calls() {
    let server = Server::start();
    let wish = value!({"subject": "alice", "role": "user", "expires_in": 3600, "buckets": ["default"]});
    let answer = server.post("/v1/tokens").json(&wish).send().await.unwrap();
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let made = json(answer, 201).await;
    let secret = made["token"].as_str().unwrap();
    let alice = Caller::with(&server, secret);
    let me = json(alice.get("/v1/me").await, 200).await;
    assert_eq!((&me["subject"], &me["role"]), (&value!("alice"), &value!("user")));
    assert_eq!((&me["expires_at"], &me["limits"]["buckets"]), (&made["expires_at"], &value!(["default"])));
    let stored = json(alice.put("/v1/files/default/f", b"x").await, 201).await;
    assert_eq!(stored["created_by"], "alice");
    let listed = json(server.get("/v1/tokens").send().await.unwrap(), 200).await;
    let token = &listed["tokens"][0];
    assert_eq!(
        (&token["id"], &token["subject"], &token["created_by"]),
        (&made["id"], &value!("alice"), &value!("root"))
    );
    assert!(!listed.to_string().contains(secret), "a secret is told once");
    let root = json(server.get("/v1/me").send().await.unwrap(), 200).await;
    assert_eq!(
        (&root["subject"], &root["role"], &root["expires_at"]),
        (&value!("root"), &value!("admin"), &Value::Null)
    );
    refused(Caller::nobody(&server).get("/v1/me").await, 401, "unauthenticated").await;
}

#[tokio::test]
async fn no_secret_is_kept() {
    let mut server = Server::start();
    let (secret, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    Caller::with(&server, &secret).get("/v1/me").await;
    server.stop();
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "signing-keys"] {
        let bytes = std::fs::read(server.data.join(name)).unwrap_or_default();
        for secret in [secret.as_str(), TOKEN] {
            assert!(!bytes.windows(secret.len()).any(|found| found == secret.as_bytes()), "{name}");
        }
    }
    assert!(!server.log().contains(&secret) && !server.log().contains(TOKEN));
    let again = Setup::new().data(&server.data).start();
    json(Caller::with(&again, &secret).get("/v1/me").await, 200).await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_then_on() {
    let server = Server::start();
    let (secret, id) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let (other, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let alice = Caller::with(&server, &secret);
    for _ in 0..3 {
        json(alice.get("/v1/me").await, 200).await;
    }
    assert_eq!(server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap().status(), 204);
    refused(alice.get("/v1/me").await, 401, "invalid_token").await;
    json(Caller::with(&server, &other).get("/v1/me").await, 200).await;
    for id in [id.as_str(), "x", "..", &"0".repeat(32)] {
        let answer = server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap();
        if answer.status() != 404 || id != ".." {
            refused(answer, 404, "token_not_found").await;
        }
    }
    assert_eq!(
        json(server.get("/v1/tokens").send().await.unwrap(), 200).await["tokens"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn revoking_races_with_use_and_wins() {
    let server = Server::start();
    for round in 0..20 {
        let (secret, id) =
            make_token(&server, value!({"subject": format!("u{round}"), "role": "user"})).await;
        let caller = Caller::with(&server, &secret);
        let path = format!("/v1/tokens/{id}");
        let using = async {
            for _ in 0..5 {
                caller.get("/v1/me").await;
            }
        };
        let (_, revoked) = tokio::join!(using, server.delete(&path).send());
        assert_eq!(revoked.unwrap().status(), 204);
        refused(caller.get("/v1/me").await, 401, "invalid_token").await;
    }
}

#[tokio::test]
async fn a_token_ends_by_itself() {
    let server = Server::start();
    let (secret, _) =
        make_token(&server, value!({"subject": "alice", "role": "user", "expires_in": 1})).await;
    let alice = Caller::with(&server, &secret);
    eventually("the token ends", async || alice.get("/v1/me").await.status() == 401).await;
    refused(alice.get("/v1/me").await, 401, "invalid_token").await;
    assert_eq!(json(server.get("/v1/tokens").send().await.unwrap(), 200).await, value!({"tokens": []}));
}

#[tokio::test]
async fn wishes_that_make_no_sense_make_no_token() {
    let server = Server::start();
    let good = value!({"subject": "alice", "role": "user"});
    for change in [
        value!({"subject": ""}),
        value!({"subject": "root"}),
        value!({"subject": "guest"}),
        value!({"subject": " alice"}),
        value!({"subject": "a\nb"}),
        value!({"subject": "x".repeat(257)}),
        value!({"subject": 1}),
        value!({"role": "root"}),
        value!({"role": "Admin"}),
        value!({"expires_in": 0}),
        value!({"expires_in": -1}),
        value!({"expires_in": u64::MAX}),
        value!({"expires_in": "1h"}),
        value!({"buckets": "default"}),
        value!({"unknown": 1}),
    ] {
        let mut wish = good.clone();
        wish.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        refused(server.post("/v1/tokens").json(&wish).send().await.unwrap(), 400, "invalid_request").await;
    }
    let wish = value!({"subject": "alice", "role": "user", "buckets": [".."]});
    refused(server.post("/v1/tokens").json(&wish).send().await.unwrap(), 400, "invalid_bucket").await;
    assert_eq!(json(server.get("/v1/tokens").send().await.unwrap(), 200).await, value!({"tokens": []}));
}

#[tokio::test]
async fn only_administrators_of_everything_manage_tokens_and_buckets() {
    let server = Server::start();
    let alice = Caller::user(&server, "alice").await;
    let wish = value!({"subject": "ops", "role": "admin", "buckets": ["default"]});
    let ops = Caller::with(&server, &make_token(&server, wish).await.0);
    let made = make_token(&server, value!({"subject": "boss", "role": "admin"})).await;
    for caller in [&alice, &ops] {
        refused(caller.get("/v1/tokens").await, 403, "forbidden").await;
        refused(caller.post("/v1/tokens", value!({"subject": "x", "role": "admin"})).await, 403, "forbidden")
            .await;
        refused(caller.delete(&format!("/v1/tokens/{}", made.1)).await, 403, "forbidden").await;
        refused(caller.put("/v1/buckets/new-one", b"").await, 403, "forbidden").await;
        refused(caller.delete("/v1/buckets/other").await, 403, "forbidden").await;
        refused(caller.get("/metrics").await, 403, "forbidden").await;
    }
    json(ops.put("/v1/buckets/default", b"").await, 200).await;
    let boss = Caller::with(&server, &made.0);
    json(boss.put("/v1/buckets/new-one", b"").await, 201).await;
    assert_eq!(boss.get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 4, value!({})).await;
    let alice = Caller::user(&server, "alice").await;
    for (method, path) in [
        (Method::GET, upload.path.clone()),
        (Method::DELETE, upload.path.clone()),
        (Method::PUT, format!("{}/parts/1", upload.path)),
        (Method::POST, format!("{}/complete", upload.path)),
    ] {
        refused(alice.request(method, &path).send().await.unwrap(), 404, "upload_not_found").await;
    }
    assert_eq!(json(alice.get("/v1/uploads").await, 200).await, value!({"uploads": []}));
    store(&server, "/v1/files/default/f", b"x").await;
    json(server.put("/v1/buckets/hidden").send().await.unwrap(), 201).await;
    store(&server, "/v1/files/hidden/f", b"x").await;
    for bucket in ["hidden", "nowhere"] {
        for path in
            [format!("/v1/files/{bucket}/f"), format!("/v1/files/{bucket}"), format!("/v1/zip/{bucket}")]
        {
            refused(alice.get(&path).await, 404, "bucket_not_found").await;
        }
        refused(alice.put(&format!("/v1/files/{bucket}/f"), b"y").await, 404, "bucket_not_found").await;
        refused(alice.delete(&format!("/v1/files/{bucket}/f")).await, 404, "bucket_not_found").await;
    }
    let seen = json(alice.get("/v1/buckets").await, 200).await;
    let names: Vec<_> =
        seen["buckets"].as_array().unwrap().iter().map(|bucket| bucket["name"].clone()).collect();
    assert_eq!(names, ["default"]);
}
