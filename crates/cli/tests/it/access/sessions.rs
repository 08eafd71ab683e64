//! The web app's cookie.

use super::{Caller, make_token};
use crate::contract::answers::{header, json, refused, store};
use crate::server::{Server, TOKEN};
use reqwest::{Method, Response};
use serde_json::json as value;

/// Begins a session; what goes into `Cookie`.
async fn begin(server: &Server, token: &str) -> String {
    let answer = Caller::nobody(server).post("/v1/session", value!({ "token": token })).await;
    assert_eq!(answer.status(), 204);
    let set = header(&answer, "set-cookie").to_owned();
    for part in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age="] {
        assert!(set.contains(part), "{part}: {set}");
    }
    assert!(!set.contains("Domain") && !set.contains("Secure"), "this host alone, in plain text: {set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    assert!(!cookie.contains(token), "{cookie}");
    cookie
}

async fn with(server: &Server, cookie: &str, method: Method, path: &str, more: &[(&str, &str)]) -> Response {
    let mut request = Caller::nobody(server).request(method, path).header("cookie", cookie);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body("x").send().await.unwrap()
}

#[tokio::test]
async fn a_session_is_its_user_until_it_is_ended() {
    let server = Server::start();
    let (token, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let cookie = begin(&server, &token).await;
    let me = json(with(&server, &cookie, Method::GET, "/v1/me", &[]).await, 200).await;
    assert_eq!((&me["subject"], &me["role"]), (&value!("alice"), &value!("user")));
    assert!(me["expires_at"].is_string(), "a session ends");
    let others = format!("a=b; {cookie}; c=d");
    assert_eq!(with(&server, &others, Method::GET, "/v1/me", &[]).await.status(), 200);
    let ended = with(&server, &cookie, Method::DELETE, "/v1/session", &[]).await;
    assert_eq!(ended.status(), 204);
    assert!(header(&ended, "set-cookie").contains("Max-Age=0"));
    refused(with(&server, &cookie, Method::GET, "/v1/me", &[]).await, 401, "invalid_token").await;
    assert_eq!(
        with(&server, &cookie, Method::DELETE, "/v1/session", &[]).await.status(),
        204,
        "again is fine"
    );
    json(Caller::with(&server, &token).get("/v1/me").await, 200).await;
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let server = Server::start();
    let (token, id) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let cookie = begin(&server, &token).await;
    assert_eq!(with(&server, &cookie, Method::GET, "/v1/me", &[]).await.status(), 200);
    server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap();
    refused(with(&server, &cookie, Method::GET, "/v1/me", &[]).await, 401, "invalid_token").await;
}

#[tokio::test]
async fn a_cookie_is_no_token_and_a_token_no_cookie() {
    let server = Server::start();
    let cookie = begin(&server, TOKEN).await;
    let (name, session) = cookie.split_once('=').unwrap();
    refused(Caller::with(&server, session).get("/v1/me").await, 401, "invalid_token").await;
    let (token, _) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    for wrong in [token.as_str(), TOKEN, "", "x"] {
        let answer = with(&server, &format!("{name}={wrong}"), Method::GET, "/v1/me", &[]).await;
        refused(answer, 401, "invalid_token").await;
    }
    for body in [value!({"token": session}), value!({"token": "wrong"}), value!({"token": ""})] {
        refused(Caller::nobody(&server).post("/v1/session", body).await, 401, "invalid_token").await;
    }
    let tokens = json(server.get("/v1/tokens").send().await.unwrap(), 200).await;
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1, "sessions are not tokens");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_a_session() {
    let server = Server::start();
    let cookie = begin(&server, TOKEN).await;
    store(&server, "/v1/files/default/f", b"bytes").await;
    let (own, path) = (server.base.clone(), "/v1/files/default/f");
    for foreign in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", &own)],
    ] {
        for method in [Method::PUT, Method::DELETE] {
            refused(with(&server, &cookie, method, path, foreign).await, 403, "forbidden").await;
        }
        let login =
            Caller::nobody(&server).request(Method::POST, "/v1/session").json(&value!({"token": TOKEN}));
        let login = foreign.iter().fold(login, |login, (name, value)| login.header(*name, *value));
        refused(login.send().await.unwrap(), 403, "forbidden").await;
    }
    for same in [&[("origin", own.as_str())][..], &[("sec-fetch-site", "same-origin")], &[]] {
        assert_eq!(with(&server, &cookie, Method::PUT, path, same).await.status(), 200, "{same:?}");
    }
    let answer = with(&server, &cookie, Method::GET, "/v1/me", &[("origin", "https://evil.example")]).await;
    assert_eq!(header(&answer, "access-control-allow-credentials"), "", "nor read what it gets");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_open_a_websocket_by_a_session() {
    let server = Server::start();
    let cookie = begin(&server, TOKEN).await;
    let own = server.base.clone();
    let open = async |origin: &str| {
        let request = Caller::nobody(&server).request(Method::GET, "/v1/ws").header("cookie", &cookie);
        let request = request.header("origin", origin).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send().await.unwrap()
    };
    refused(open("https://evil.example").await, 403, "forbidden").await;
    assert_eq!(open(&own).await.status(), 101);
}
