//! What is refused, before anything is stored.

use super::{ask, below, made, path, put, setup};
use crate::server::content;
use serde_json::json;

#[tokio::test]
async fn selections_that_cannot_be() {
    let server =
        setup().set("CARRACK_ARCHIVES__MAX_ENTRIES", "3").set("CARRACK_ARCHIVES__MAX_BYTES", "10000").start();
    for number in 0..4 {
        put(&server, &format!("four/{number}"), content(10, number)).await;
    }
    put(&server, "big/a", content(9000, 7)).await;
    put(&server, "big/b", content(9000, 8)).await;
    let of = |rest: serde_json::Value| {
        let mut wish = json!({"name": "x", "bucket": "default"});
        wish.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        wish
    };
    let cases = [
        (of(json!({"prefix": "none/"})), 422, "empty_selection"),
        (of(json!({"keys": []})), 422, "empty_selection"),
        (of(json!({"entries": []})), 422, "empty_selection"),
        (of(json!({"keys": ["four/0", "gone"]})), 404, "file_not_found"),
        (of(json!({"prefix": "four/"})), 422, "archive_too_large"),
        (of(json!({"prefix": "big/"})), 422, "archive_too_large"),
        (of(json!({"prefix": "", "keys": ["a"]})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "format": "tar"})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "compression": "zstd"})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "expires_in": 0})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "expires_in": 400 * 24 * 3600})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "name": "a\nb"})), 400, "invalid_request"),
        (of(json!({"prefix": "four/0", "unknown": 1})), 400, "invalid_request"),
        (of(json!({"keys": ["../x"]})), 400, "invalid_key"),
        (json!({"name": "x", "entries": [{"key": "four/0"}]}), 400, "invalid_request"),
        (json!({"name": "x", "bucket": "nowhere", "prefix": "a"}), 404, "bucket_not_found"),
    ];
    for (wish, status, code) in cases {
        let (found, problem) = ask(&server, &wish).await;
        assert_eq!((found.as_u16(), problem["code"].as_str().unwrap()), (status, code), "{wish}");
    }
    let (_, problem) = ask(&server, &of(json!({"keys": ["four/0", "gone"]}))).await;
    assert!(problem["detail"].as_str().unwrap().contains("'gone'"), "it is named: {problem}");
}

#[tokio::test]
async fn what_is_not_there_or_not_possible() {
    let server = setup().start();
    put(&server, "a", content(10, 1)).await;
    for id in ["x".to_owned(), "0".repeat(32)] {
        for path in [format!("/v1/archives/{id}"), format!("/v1/archives/{id}/content")] {
            let response = server.get(&path).send().await.unwrap();
            assert_eq!(response.status(), 404, "{path}");
            let problem: serde_json::Value = response.json().await.unwrap();
            assert_eq!(problem["code"], "archive_not_found");
        }
    }
    let archive = made(&server, &below("", "store")).await;
    for action in ["pause", "resume", "cancel"] {
        let response = server.post(&format!("{}/{action}", path(&archive))).send().await.unwrap();
        assert_eq!(response.status(), 409);
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "invalid_transition");
    }
}
