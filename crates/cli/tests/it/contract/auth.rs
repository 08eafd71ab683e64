//! Who may call: nobody without the token, but for what is public.

use super::answers::{header, json, nothing_is_left, refused};
use super::wire::ask;
use crate::server::{Server, TOKEN};
use reqwest::{Client, Method, Response};
use serde_json::Value;

const PUBLIC: [&str; 3] = ["/livez", "/readyz", "/openapi.json"];

/// Every documented method and path, with its parameters filled in.
async fn documented(server: &Server) -> Vec<(Method, String)> {
    let document: Value = json(server.get("/openapi.json").send().await.unwrap(), 200).await;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path =
                path.replace("{bucket}", "default").replace("{key}", "a/b").replace("{id}", &"0".repeat(32));
            let path = path.replace("{number}", "1");
            assert!(!path.contains('{'), "{path}");
            found.push((method.to_uppercase().parse().unwrap(), path));
        }
    }
    found
}

async fn without_token(server: &Server, method: &Method, path: &str, header: Option<&str>) -> Response {
    let client = Client::builder().no_proxy().build().unwrap();
    let request = client.request(method.clone(), server.url(path));
    let request = match header {
        Some(value) => request.header("authorization", value),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn every_documented_route_but_the_public_ones_needs_credentials() {
    let server = Server::start();
    let routes = documented(&server).await;
    assert!(routes.len() > 20, "{routes:?}");
    for (method, path) in &routes {
        let answer = without_token(&server, method, path, None).await;
        if PUBLIC.contains(&path.as_str()) {
            assert_eq!(answer.status(), 200, "{method} {path}");
            continue;
        }
        if method == Method::OPTIONS {
            assert_eq!(answer.status(), 204, "what the server can do is no secret: {method} {path}");
            continue;
        }
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "www-authenticate")),
            (401, "Bearer"),
            "{method} {path}"
        );
        if method != Method::HEAD {
            refused(answer, 401, "unauthenticated").await;
        }
        for wrong in
            ["Bearer wrong", "Bearer ", "Basic cm9vdDp4", "Bearer test-root-toke", "Bearer test-root-tokenn"]
        {
            let answer = without_token(&server, method, path, Some(wrong)).await;
            assert_eq!(
                (answer.status().as_u16(), header(&answer, "www-authenticate")),
                (401, "Bearer"),
                "{wrong}"
            );
            if method != Method::HEAD {
                refused(answer, 401, "invalid_token").await;
            }
        }
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn every_documented_route_is_served() {
    let server = Server::start();
    super::answers::store(&server, "/v1/files/default/a/b", b"x").await;
    for (method, path) in documented(&server).await {
        if method == Method::DELETE {
            continue;
        }
        let mut request = server.request(method.clone(), &path);
        if path.starts_with("/v1/tus/") {
            // What a POST to an upload means is said beside it.
            request = request.header(
                "x-http-method-override",
                if method == Method::POST { "HEAD" } else { method.as_str() },
            );
        }
        if method == Method::POST && path.starts_with("/v1/files/") {
            request = request.header("upload-complete", "?1");
        }
        let answer = request.send().await.unwrap();
        assert_ne!(answer.status(), 405, "{method} {path}");
        if answer.status() == 404 && method != Method::HEAD {
            let archive = path.starts_with("/v1/archives/");
            let code = if archive { "archive_not_found" } else { "upload_not_found" };
            refused(answer, 404, code).await;
        }
    }
}

#[tokio::test]
async fn the_header_is_read_strictly_and_the_scheme_loosely() {
    let server = Server::start();
    let with = |lines: &str| format!("GET /v1/buckets HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    for good in [
        format!("Authorization: Bearer {TOKEN}\r\n"),
        format!("authorization: bearer {TOKEN}\r\n"),
        format!("AUTHORIZATION: BEARER {TOKEN}\r\n"),
    ] {
        assert_eq!(ask(&server, with(&good)).await.status, 200, "{good}");
    }
    for bad in [
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer other\r\n"),
        format!("Authorization: Bearer other\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}, Bearer {TOKEN}\r\n"),
        format!("Authorization: Token {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN} x\r\n"),
        format!("Authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization:\r\n".to_owned(),
    ] {
        ask(&server, with(&bad)).await.refused(401, "invalid_token");
    }
    ask(&server, format!("GET /v1/buckets?token={TOKEN}&access_token={TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_refused_caller_learns_nothing_of_what_is_there() {
    let server = Server::start();
    super::answers::store(&server, "/v1/files/default/secret", b"x").await;
    for path in [
        "/v1/files/default/secret",
        "/v1/files/default/none",
        "/v1/files/nowhere/none",
        "/v1/files/default/%2e%2e%2fx",
        "/v1/buckets/default",
        "/v1/buckets/none",
    ] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            refused(without_token(&server, &method, path, None).await, 401, "unauthenticated").await;
        }
    }
    assert_eq!(super::answers::fetch(&server, "/v1/files/default/secret").await, b"x");
}

#[tokio::test]
async fn what_no_route_has_is_not_found_and_what_no_method_has_says_which() {
    let server = Server::start();
    for path in [
        "/v1",
        "/v1/",
        "/v2/files/default/a",
        "/v1/file/default/a",
        "/.git/config",
        "/v1/uploads/x/parts",
        "/livez/x",
        "/favicon.ico",
    ] {
        refused(server.get(path).send().await.unwrap(), 404, "not_found").await;
    }
    let cases = [
        (Method::POST, "/v1/buckets", "GET"),
        (Method::DELETE, "/v1/uploads", "GET, POST"),
        (Method::PATCH, "/v1/buckets/default", "DELETE, GET, PUT"),
        (Method::POST, "/v1/buckets/default", "DELETE, GET, PUT"),
        (Method::PATCH, "/v1/files/default/a", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        // POST is for resumable uploads alone.
        (Method::POST, "/v1/files/default/a", "DELETE, GET, HEAD, OPTIONS, PUT"),
        (Method::GET, "/v1/uploads/x/complete", "POST"),
        (Method::POST, "/v1/uploads/x/parts/1", "PUT"),
        (Method::PUT, "/v1/zip/default", "GET, HEAD"),
        (Method::POST, "/livez", "GET, HEAD"),
        (Method::TRACE, "/livez", "GET, HEAD"),
        ("PROPFIND".parse().unwrap(), "/v1/files/default/a", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
    ];
    for (method, path, expected) in cases {
        let answer = server.request(method.clone(), path).send().await.unwrap();
        let mut allowed: Vec<&str> = header(&answer, "allow").split(", ").collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(", "), expected, "{method} {path}");
        refused(answer, 405, "method_not_allowed").await;
    }
}
