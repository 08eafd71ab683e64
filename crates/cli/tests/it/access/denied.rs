//! Tokens of others that are good no more although they have not ended.

use super::Caller;
use super::issuers::Issuer;
use super::jwt::now;
use crate::contract::answers::{header, json, refused};
use crate::server::{Setup, TOKEN};
use reqwest::Method;
use serde_json::json as value;

const ISSUER: &str = "https://id.example";

#[tokio::test]
async fn a_denied_token_is_refused_at_once_with_all_that_was_made_with_it() {
    let issuer = Issuer::start().await;
    issuer.publish("k");
    let mut server = issuer.server().start();
    let one = issuer.sign("k", value!({"jti": "one"}));
    let (two, bare) = (issuer.sign("k", value!({"jti": "two"})), issuer.sign("k", value!({})));
    let alice = Caller::with(&server, &one);
    assert_eq!(alice.put("/v1/files/default/f", b"bytes").await.status(), 201);
    let begun = Caller::nobody(&server).post("/v1/session", value!({"token": one})).await;
    assert_eq!(begun.status(), 204);
    let cookie = header(&begun, "set-cookie").split(';').next().unwrap().to_owned();
    let sign = value!({"method": "GET", "path": "/v1/files/default/f", "expires_in": 600});
    let signed = json(alice.post("/v1/sign", sign).await, 200).await["url"].as_str().unwrap().to_owned();
    let by_cookie = async |server: &crate::server::Server| {
        let nobody = Caller::nobody(server);
        nobody
            .request(Method::GET, "/v1/me")
            .header("cookie", &cookie)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(by_cookie(&server).await, 200);
    assert_eq!(Caller::nobody(&server).get(&signed).await.status(), 200);
    let root = Caller::with(&server, TOKEN);
    let deny = value!({"issuer": ISSUER, "jti": "one"});
    let denied = json(root.post("/v1/tokens/denied", deny.clone()).await, 201).await;
    assert_eq!(
        (&denied["jti"], &denied["expires_at"], &denied["denied_by"]),
        (&value!("one"), &value!(null), &value!("root"))
    );
    refused(alice.get("/v1/me").await, 401, "invalid_token").await;
    refused(alice.put("/v1/files/default/g", b"x").await, 401, "invalid_token").await;
    assert_eq!(by_cookie(&server).await, 401, "its session");
    refused(Caller::nobody(&server).get(&signed).await, 401, "invalid_token").await;
    for good in [&two, &bare] {
        assert_eq!(Caller::with(&server, good).get("/v1/me").await.status(), 200);
    }
    json(root.post("/v1/tokens/denied", deny).await, 201).await;
    let listed = json(root.get("/v1/tokens/denied").await, 200).await;
    assert_eq!(listed["denied"].as_array().unwrap().len(), 1, "again is fine");
    // And after a restart.
    server.stop();
    let data = server.data.clone();
    let again: Setup = issuer.server().data(&data);
    let restarted = again.start();
    refused(Caller::with(&restarted, &one).get("/v1/me").await, 401, "invalid_token").await;
    assert_eq!(by_cookie(&restarted).await, 401);
    assert_eq!(Caller::with(&restarted, &two).get("/v1/me").await.status(), 200);
}

#[tokio::test]
async fn who_may_deny_tokens_and_which() {
    let server = crate::server::Server::start();
    let root = Caller::with(&server, TOKEN);
    let alice = Caller::user(&server, "alice").await;
    let deny = value!({"jti": "j"});
    refused(alice.post("/v1/tokens/denied", deny.clone()).await, 403, "forbidden").await;
    refused(alice.get("/v1/tokens/denied").await, 403, "forbidden").await;
    assert_eq!(json(root.post("/v1/tokens/denied", deny).await, 201).await["issuer"], "carrack");
    for bad in [
        value!({}),
        value!({"jti": ""}),
        value!({"jti": "j", "issuer": ""}),
        value!({"jti": "j".repeat(1025)}),
        value!({"jti": "j", "more": 1}),
        value!({"jti": "j", "expires_at": "tomorrow"}),
        value!({"jti": "j", "expires_at": "2020-01-01T00:00:00Z"}),
    ] {
        refused(root.post("/v1/tokens/denied", bad).await, 400, "invalid_request").await;
    }
    let end = format!("{}-01-01T00:00:00Z", 1971 + now() / (366 * 24 * 3600) + 2);
    let brief =
        json(root.post("/v1/tokens/denied", value!({"jti": "b", "expires_at": end})).await, 201).await;
    assert!(brief["expires_at"].is_string());
    assert_eq!(root.delete("/v1/tokens/denied").await.status(), 405);
}
