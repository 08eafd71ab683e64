//! `GET /v1/files/{bucket}` against a naive model.

use super::answers::{json, refused};
use crate::server::{Server, content};
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// A few hundred keys with folders, folders called like files, and characters around `/`.
fn some_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for index in 0..120 {
        keys.insert(format!("logs/2024/{:02}/{index:03}.log", index % 12 + 1));
        keys.insert(format!("photos/{}/{index}.jpg", ["a", "b", "ü", "日本"][index % 4]));
    }
    for key in [
        "a",
        "a!",
        "a-b",
        "a.b",
        "a/b",
        "a/b/c",
        "a/b!",
        "a0",
        "ab",
        "logs",
        "logs-old",
        "logs.txt",
        "logs0",
        "photos",
        "photoz",
        "z",
        "Ω",
        "\u{10ffff}",
        "x y/z w",
        "x+y/z",
        "100%/a",
        "\u{e000}/x",
    ] {
        keys.insert(key.to_owned());
    }
    keys
}

async fn with_keys(keys: &BTreeSet<String>) -> Server {
    let server = Server::start();
    let mut tasks = JoinSet::new();
    for key in keys {
        let encoded: String =
            key.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect();
        let put = server.put(&format!("/v1/files/default/{encoded}")).body(key.clone());
        tasks.spawn(async move { put.send().await.unwrap().status().as_u16() });
        if tasks.len() >= 16 {
            assert_eq!(tasks.join_next().await.unwrap().unwrap(), 201);
        }
    }
    assert!(tasks.join_all().await.iter().all(|status| *status == 201));
    server
}

/// What a listing shows, a prefix being told from a file by the flag.
type Entry = (String, bool);

fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<char>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let folded = delimiter.and_then(|delimiter| {
            let at = key[prefix.len()..].find(delimiter)?;
            Some(key[..prefix.len() + at + delimiter.len_utf8()].to_owned())
        });
        match folded {
            Some(common) if entries.last() == Some(&(common.clone(), true)) => {}
            Some(common) => entries.push((common, true)),
            None => entries.push((key.clone(), false)),
        }
    }
    entries
}

/// One page, in the order in which the model has it.
fn entries_of(page: &Value) -> Vec<Entry> {
    let files = page["files"].as_array().unwrap().iter().map(|file| (&file["key"], false));
    let prefixes = page["prefixes"].as_array().unwrap().iter().map(|prefix| (prefix, true));
    let mut entries: Vec<Entry> =
        files.chain(prefixes).map(|(text, common)| (text.as_str().unwrap().to_owned(), common)).collect();
    entries.sort();
    entries
}

async fn walk(server: &Server, prefix: &str, delimiter: Option<char>, limit: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut query = vec![("prefix", prefix.to_owned()), ("limit", limit.to_string())];
        query.extend(delimiter.map(|delimiter| ("delimiter", delimiter.to_string())));
        if !cursor.is_empty() {
            query.push(("cursor", cursor));
        }
        let page = json(server.get("/v1/files/default").query(&query).send().await.unwrap(), 200).await;
        let found = entries_of(&page);
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(found.len(), limit, "a page that is not the last is full");
                cursor = next.to_owned();
            }
            None => {
                assert!(page["next_cursor"].is_null() && found.len() <= limit);
                entries.extend(found);
                return entries;
            }
        }
        entries.extend(found);
    }
}

#[tokio::test]
async fn every_walk_equals_the_model() {
    let keys = some_keys();
    let server = with_keys(&keys).await;
    let prefixes = [
        "",
        "a",
        "a/",
        "a/b",
        "logs",
        "logs/",
        "logs/2024/0",
        "photos/",
        "photos/ü/",
        "photos/日",
        "x ",
        "x+",
        "100%",
        "none",
        "z",
        "/",
    ];
    for prefix in prefixes {
        for delimiter in [None, Some('/'), Some('0'), Some('日')] {
            let expected = model(&keys, prefix, delimiter);
            for limit in [1, 7, 1000] {
                // One entry at a time is slow, and tells nothing new of the longest.
                if limit > 1 || expected.len() < 60 {
                    assert_eq!(
                        walk(&server, prefix, delimiter, limit).await,
                        expected,
                        "{prefix:?} {delimiter:?} {limit}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn without_a_limit_a_page_has_a_thousand() {
    let keys = some_keys();
    let server = with_keys(&keys).await;
    let page = json(server.get("/v1/files/default?delimiter=&cursor=").send().await.unwrap(), 200).await;
    assert_eq!(page["files"].as_array().unwrap().len(), keys.len());
    assert_eq!(page["prefixes"], serde_json::json!([]));
    assert!(page["next_cursor"].is_null());
}

#[tokio::test]
async fn a_walk_shows_what_stays_although_other_keys_come_and_go() {
    let server = with_keys(&(0..40).map(|index| format!("k{index:02}")).collect()).await;
    let first = json(server.get("/v1/files/default?limit=10").send().await.unwrap(), 200).await;
    for gone in ["k09", "k10"] {
        assert_eq!(server.delete(&format!("/v1/files/default/{gone}")).send().await.unwrap().status(), 204);
    }
    super::answers::store(&server, "/v1/files/default/k00a", &content(3, 1)).await;
    super::answers::store(&server, "/v1/files/default/k11a", &content(3, 1)).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest =
        json(server.get("/v1/files/default").query(&[("cursor", cursor)]).send().await.unwrap(), 200).await;
    let rest = entries_of(&rest).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let expected: Vec<String> =
        ["k11".to_owned(), "k11a".to_owned()].into_iter().chain((12..40).map(|i| format!("k{i}"))).collect();
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused() {
    let server = Server::start();
    let bad = [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=",
        "limit=ten",
        "limit=1.5",
        "limit=99999999999999999999",
        "delimiter=//",
        "delimiter=ab",
        "cursor=!",
        "cursor=%2f",
        "cursor=_w",
        "prefix=%ff",
    ];
    for query in bad {
        let answer = server.get(&format!("/v1/files/default?{query}")).send().await.unwrap();
        refused(answer, 400, "invalid_request").await;
    }
    let long = "p".repeat(1025);
    for prefix in ["a%00", "a%0a", &long] {
        let answer = server.get(&format!("/v1/files/default?prefix={prefix}")).send().await.unwrap();
        refused(answer, 400, "invalid_key").await;
    }
    let empty =
        json(server.get("/v1/files/default?limit=1&delimiter=%E6%97%A5").send().await.unwrap(), 200).await;
    assert_eq!(empty, serde_json::json!({"files": [], "prefixes": [], "next_cursor": null}));
}
