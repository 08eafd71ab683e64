//! Policies of buckets.

use super::{Caller, make_token};
use crate::contract::answers::{json, refused, store};
use crate::server::{Server, Setup};
use serde_json::{Value, json as value};

async fn put(server: &Server, bucket: &str, rules: Value) {
    let answer = server.put(&format!("/v1/buckets/{bucket}")).json(&value!({"policy": {"rules": rules}}));
    assert!(answer.send().await.unwrap().status().is_success(), "{bucket}");
}

fn rule(effect: &str, actions: &[&str], prefix: &str, to: &str) -> Value {
    value!({"effect": effect, "actions": actions, "prefix": prefix, "to": [to]})
}

#[tokio::test]
async fn each_action_is_granted_by_itself() {
    let server = Server::start();
    let names = ["read", "write", "delete", "list", "archive", "share"];
    let alice = Caller::user(&server, "alice").await;
    for granted in names {
        put(&server, "vault", value!([rule("allow", &[granted], "", "user:alice")])).await;
        store(&server, "/v1/files/vault/f", b"x").await;
        let sign = value!({"method": "GET", "path": "/v1/files/vault/f"});
        for asked in names {
            let answer = match asked {
                "read" => alice.get("/v1/files/vault/f").await,
                "write" => alice.put("/v1/files/vault/f", b"y").await,
                "list" => alice.get("/v1/files/vault").await,
                "archive" => alice.get("/v1/zip/vault").await,
                "delete" => alice.delete("/v1/files/vault/f").await,
                _ => alice.post("/v1/sign", sign.clone()).await,
            };
            // To share is to let others do what one may do oneself.
            if asked == granted && asked != "share" {
                assert!(answer.status().is_success(), "{asked}: {}", answer.status());
            } else {
                refused(answer, 403, "forbidden").await;
            }
        }
    }
    put(&server, "vault", value!([rule("allow", &["read", "share"], "", "user:alice")])).await;
    let sign = value!({"method": "GET", "path": "/v1/files/vault/f"});
    json(alice.post("/v1/sign", sign).await, 200).await;
}

#[tokio::test]
async fn a_changed_policy_holds_at_once_also_for_what_was_signed() {
    let server = Server::start();
    put(&server, "vault", value!([rule("allow", &["*"], "", "role:user")])).await;
    store(&server, "/v1/files/vault/f", b"x").await;
    let alice = Caller::user(&server, "alice").await;
    let nobody = Caller::nobody(&server);
    let wish = value!({"method": "GET", "path": "/v1/files/vault/f"});
    let signed = json(alice.post("/v1/sign", wish).await, 200).await;
    let url = signed["url"].as_str().unwrap();
    for _ in 0..5 {
        put(&server, "vault", value!([rule("allow", &["*"], "", "role:user")])).await;
        assert_eq!(alice.get("/v1/files/vault/f").await.status(), 200);
        assert_eq!(nobody.get(url).await.status(), 200);
        put(&server, "vault", value!([rule("allow", &["list"], "", "role:user")])).await;
        refused(alice.get("/v1/files/vault/f").await, 403, "forbidden").await;
        refused(nobody.get(url).await, 403, "forbidden").await;
    }
    let upload = value!({"bucket": "vault", "key": "k", "size": 4});
    put(&server, "vault", value!([rule("allow", &["write"], "", "role:user")])).await;
    let begun = json(alice.post("/v1/uploads", upload).await, 201).await;
    let id = begun["upload_id"].as_str().unwrap();
    let part = json(alice.get(&format!("/v1/uploads/{id}/parts/1/url")).await, 200).await;
    put(&server, "vault", value!([rule("allow", &["read"], "", "role:user")])).await;
    refused(nobody.put(part["url"].as_str().unwrap(), b"1234").await, 403, "forbidden").await;
    refused(alice.put(&format!("/v1/uploads/{id}/parts/1"), b"1234").await, 403, "forbidden").await;
}

#[tokio::test]
async fn deny_wins_and_a_narrow_rule_is_not_widened() {
    let server = Server::start();
    put(
        &server,
        "vault",
        value!([
            rule("allow", &["*"], "", "everyone"),
            rule("deny", &["*"], "secret/", "role:user"),
            rule("deny", &["read", "write"], "secret/", "everyone"),
            rule("deny", &["write"], "", "user:bob"),
        ]),
    )
    .await;
    for key in ["open", "secret/f"] {
        store(&server, &format!("/v1/files/vault/{key}"), b"x").await;
    }
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let nobody = Caller::nobody(&server);
    assert_eq!(alice.get("/v1/files/vault/open").await.status(), 200);
    assert_eq!(nobody.get("/v1/files/vault/open").await.status(), 200);
    refused(alice.get("/v1/files/vault/secret/f").await, 403, "forbidden").await;
    refused(nobody.get("/v1/files/vault/secret/f").await, 401, "unauthenticated").await;
    for path in [
        "/v1/files/vault",
        "/v1/files/vault?prefix=secret/",
        "/v1/files/vault?prefix=s",
        "/v1/zip/vault",
        "/v1/zip/vault?key=secret/f",
    ] {
        refused(alice.get(path).await, 403, "forbidden").await;
    }
    json(alice.get("/v1/files/vault?prefix=o").await, 200).await;
    assert_eq!(alice.put("/v1/files/vault/new", b"x").await.status(), 201);
    refused(bob.put("/v1/files/vault/new", b"x").await, 403, "forbidden").await;
    refused(nobody.put("/v1/files/vault/secret/f", b"x").await, 401, "unauthenticated").await;
    assert_eq!(
        server.get("/v1/files/vault/secret/f").send().await.unwrap().status(),
        200,
        "administrators may"
    );
}

#[tokio::test]
async fn conditions_are_those_of_the_request() {
    let server = Setup::new().set("CARRACK_SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]").start();
    let alice = Caller::user(&server, "alice").await;
    let cases = [
        (value!({"ip": ["127.0.0.0/8"]}), true),
        (value!({"ip": ["10.0.0.0/8", "2001:db8::/32"]}), false),
        (value!({"tls": false}), true),
        (value!({"tls": true}), false),
        (value!({"after": "2020-01-01T00:00:00Z", "before": "2099-01-01T00:00:00Z"}), true),
        (value!({"after": "2099-01-01T00:00:00Z"}), false),
        (value!({"before": "2020-01-01T00:00:00Z"}), false),
        (value!({}), true),
    ];
    store(&server, "/v1/files/default/f", b"x").await;
    for (when, allowed) in cases {
        let mut rule = rule("allow", &["read"], "", "user:alice");
        rule["when"] = when.clone();
        put(
            &server,
            "default",
            value!([rule, {"effect": "allow", "actions": ["list"], "to": ["user:alice"]}]),
        )
        .await;
        let status = alice.get("/v1/files/default/f").await.status().as_u16();
        assert_eq!(status, if allowed { 200 } else { 403 }, "{when}");
    }
    let mut rule = rule("allow", &["read"], "", "user:alice");
    rule["when"] = value!({"ip": ["10.0.0.0/8"], "tls": true});
    put(&server, "default", value!([rule])).await;
    let request = alice.request(reqwest::Method::GET, "/v1/files/default/f");
    let request = request.header("x-forwarded-for", "10.1.1.1").header("x-forwarded-proto", "https");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_changes_nothing() {
    let server = Server::start();
    put(&server, "vault", value!([rule("allow", &["read"], "", "user:alice")])).await;
    let kept = json(server.get("/v1/buckets/vault").send().await.unwrap(), 200).await;
    for policy in [
        value!([]),
        value!("x"),
        value!({"rules": "x"}),
        value!({"rules": [{}]}),
        value!({}),
        value!({"rules": [], "more": 1}),
        value!({"rules": [rule("permit", &["read"], "", "everyone")]}),
        value!({"rules": [rule("allow", &["fly"], "", "everyone")]}),
        value!({"rules": [rule("allow", &[], "", "everyone")]}),
        value!({"rules": [rule("allow", &["read"], "", "alice")]}),
        value!({"rules": [rule("allow", &["read"], "", "role:boss")]}),
        value!({"rules": [rule("allow", &["read"], "", "user:")]}),
        value!({"rules": [rule("allow", &["read"], "a\u{0}", "everyone")]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": []}]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": "everyone"}]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": ["everyone"], "unless": 1}]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": ["everyone"], "when": {"ip": ["x"]}}]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": ["everyone"], "when": {"after": "soon"}}]}),
        value!({"rules": [{"effect": "allow", "actions": ["read"], "to": ["everyone"], "when": {"day": 1}}]}),
        value!({"rules": vec![rule("allow", &["read"], "", "everyone"); 501]}),
    ] {
        for bucket in ["vault", "new-one"] {
            let answer = server
                .put(&format!("/v1/buckets/{bucket}"))
                .json(&value!({"policy": policy, "quota_bytes": 7}));
            refused(answer.send().await.unwrap(), 400, "invalid_policy").await;
        }
    }
    assert_eq!(json(server.get("/v1/buckets/vault").send().await.unwrap(), 200).await, kept);
    refused(server.get("/v1/buckets/new-one").send().await.unwrap(), 404, "bucket_not_found").await;
}

#[tokio::test]
async fn a_policy_is_shown_as_it_was_set_and_survives_a_restart() {
    let mut server = Server::start();
    let rules = value!([
        {"effect": "allow", "actions": ["read", "list"], "prefix": "a/", "to": ["everyone", "role:user", "user:alice"],
         "when": {"ip": ["10.0.0.0/8"], "tls": true, "after": "2026-01-01T00:00:00.000Z"}},
        {"effect": "deny", "actions": ["*"], "prefix": "", "to": ["user:bob"]},
    ]);
    put(&server, "vault", rules.clone()).await;
    let shown = json(server.get("/v1/buckets/vault").send().await.unwrap(), 200).await;
    assert_eq!(shown["policy"]["rules"], rules);
    put(&server, "default", value!([rule("allow", &["read"], "", "user:alice")])).await;
    let (token, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    server.stop();
    let server = Setup::new().data(&server.data).start();
    let shown = json(server.get("/v1/buckets/vault").send().await.unwrap(), 200).await;
    assert_eq!(shown["policy"]["rules"], rules);
    refused(Caller::with(&server, &token).put("/v1/files/default/f", b"x").await, 403, "forbidden").await;
    json(server.put("/v1/buckets/default").send().await.unwrap(), 200).await;
    assert_eq!(
        Caller::with(&server, &token).put("/v1/files/default/f", b"x").await.status(),
        201,
        "the default again"
    );
}

#[tokio::test]
async fn guests_read_where_they_may() {
    let server = Setup::new().set("CARRACK_AUTH__ANONYMOUS_READ", "true").start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    json(server.put("/v1/buckets/other").send().await.unwrap(), 201).await;
    let nobody = Caller::nobody(&server);
    for path in ["/v1/files/default/f", "/v1/files/default", "/v1/zip/default"] {
        assert_eq!(nobody.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(json(nobody.get("/v1/me").await, 200).await["role"], "guest");
    let buckets = json(nobody.get("/v1/buckets").await, 200).await;
    assert_eq!(buckets["buckets"].as_array().unwrap().len(), 1);
    for bucket in ["default", "other", "nowhere"] {
        refused(nobody.put(&format!("/v1/files/{bucket}/f"), b"x").await, 401, "unauthenticated").await;
        refused(nobody.delete(&format!("/v1/files/{bucket}/f")).await, 401, "unauthenticated").await;
    }
    for path in ["/v1/files/other/f", "/v1/files/nowhere/f", "/v1/tokens", "/v1/buckets/default", "/metrics"]
    {
        refused(nobody.get(path).await, 401, "unauthenticated").await;
    }
    refused(Caller::with(&server, "wrong").get("/v1/files/default/f").await, 401, "invalid_token").await;
    put(&server, "default", value!([])).await;
    refused(nobody.get("/v1/files/default/f").await, 401, "unauthenticated").await;
}

#[tokio::test]
async fn guests_see_no_uploads_of_other_guests_in_a_list() {
    let server = Server::start();
    put(&server, "drop-box", value!([rule("allow", &["write"], "", "everyone")])).await;
    let nobody = Caller::nobody(&server);
    let begun =
        json(nobody.post("/v1/uploads", value!({"bucket": "drop-box", "key": "k", "size": 4})).await, 201)
            .await;
    let path = format!("/v1/uploads/{}", begun["upload_id"].as_str().unwrap());
    assert_eq!(json(nobody.get("/v1/uploads").await, 200).await, value!({"uploads": []}));
    json(nobody.put(&format!("{path}/parts/1"), b"1234").await, 200).await;
    json(nobody.post(&format!("{path}/complete"), value!({})).await, 201).await;
    refused(nobody.get("/v1/files/drop-box/k").await, 401, "unauthenticated").await;
}
