//! Which keys there are, and that none of them is a way out of the data folder.

use super::answers::{blobs, fetch, json, keys, names_below, nothing_is_left, stages, store};
use super::wire::{Wire, ask, head};
use crate::server::{Server, TOKEN};
use std::collections::BTreeSet;

/// Spellings that climb, hide or lie, as they stand in the request's target after `/v1/files/default/`.
#[rustfmt::skip]
const HOSTILE: &[&str] = &[
    // As `curl --path-as-is` sends them.
    "..", "../", "../x", "../../../../etc/passwd", "a/..", "a/../b", "a/../../../b", "./x", "a/./b", "a/.", ".",
    // Encoded, half and whole.
    "%2e%2e", "%2e%2e%2f", "%2e%2e%2fx", "..%2f", "..%2fx", "..%2F..%2Fetc%2Fpasswd", "%2e./x", ".%2e/x", "a%2f..%2fb",
    "a%2f%2e%2e", "%2e", "a/%2e/b", "a%2f.%2fb",
    // Empty segments.
    "", "/", "//", "/x", "//x", "a//b", "a/", "a%2f", "%2f", "%2fx", "%2fetc%2fpasswd", "a%2f%2fb", "a/%2fb",
    // Control characters.
    "%00", "a%00b", "a%00.txt", "../x%00", "a%0ab", "a%0db", "a%0d%0aX-Evil:%201", "a%09b", "a%1fb", "a%7fb", "a%1b[2Jb",
    "a%c2%85b", "a%c2%9fb",
    // Not UTF-8.
    "%ff", "a%ffb", "%c0%ae%c0%ae/x", "%c0%afx", "%ed%a0%80", "%f4%90%80%80", "%c3", "a/%80",
];

/// Everything that exists in and beside the data folder, but for what the server keeps for itself.
fn everything(server: &Server) -> BTreeSet<String> {
    let own = ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "lock", "log"];
    names_below(server.folder()).into_iter().filter(|name| !own.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn hostile_keys_are_refused_and_touch_nothing() {
    let server = Server::start();
    let before = everything(&server);
    for key in HOSTILE {
        let target = format!("/v1/files/default/{key}");
        for method in ["GET", "DELETE"] {
            let answer = ask(&server, head(method, &target, "")).await;
            assert_eq!(answer.status, 400, "{method} {target}: {answer:?}");
            answer.refused(400, "invalid_key");
        }
        let put = head("PUT", &target, "Content-Length: 4\r\n") + "evil";
        let answer = ask(&server, put).await;
        assert_eq!(answer.status, 400, "PUT {target}: {answer:?}");
        answer.refused(400, "invalid_key");
        let mut wire = Wire::with(&server, head("HEAD", &target, "")).await;
        assert_eq!(wire.head_answer().await.unwrap().status, 400, "HEAD {target}");
    }
    assert_eq!(everything(&server), before);
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn hostile_keys_are_refused_in_json_and_queries_too() {
    let server = Server::start();
    let before = everything(&server);
    let long = "k".repeat(1025);
    for key in ["", "/", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "a\0b", "a\nb", "\u{85}", &long]
    {
        let upload = serde_json::json!({"bucket": "default", "key": key, "size": 1});
        let answer = server.post("/v1/uploads").json(&upload).send().await.unwrap();
        super::answers::refused(answer, 400, "invalid_key").await;
        let zip = server.get("/v1/zip/default").query(&[("key", key)]).send().await.unwrap();
        super::answers::refused(zip, 400, "invalid_key").await;
    }
    assert_eq!(everything(&server), before);
}

#[tokio::test]
async fn a_target_that_climbs_out_of_the_route_is_no_route() {
    let server = Server::start();
    for (target, status, code) in [
        ("/v1/files/../x", 400, "invalid_bucket"),
        ("/v1/files/%2e%2e/x", 400, "invalid_bucket"),
        ("/v1/files/..%2f..%2fx/y", 400, "invalid_bucket"),
        ("/v1/files//x", 400, "invalid_bucket"),
        ("/v1//files/default/x", 404, "not_found"),
        ("//v1/files/default/x", 404, "not_found"),
        ("/docs/../livez", 404, "not_found"),
        ("/docs/..%2f..%2fetc%2fpasswd", 404, "not_found"),
    ] {
        let answer = ask(&server, head("GET", target, "")).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        answer.refused(status, code);
    }
}

#[tokio::test]
async fn a_key_has_at_most_1024_bytes() {
    let server = Server::start();
    let longest = "k".repeat(1024);
    let segments = format!("{}/{}", "日".repeat(170), "é".repeat(256) + "k");
    assert_eq!(segments.len(), 510 + 1 + 513);
    for key in [&longest, &segments] {
        let path = format!("/v1/files/default/{key}");
        store(&server, &path, key.as_bytes()).await;
        assert_eq!(fetch(&server, &path).await, key.as_bytes());
        let too_long = server.put(&format!("{path}k")).body("x").send().await.unwrap();
        super::answers::refused(too_long, 400, "invalid_key").await;
    }
    assert_eq!(keys(&server, "default").await.len(), 2);
    let far = server.get(&format!("/v1/files/default/{}", "k".repeat(20_000))).send().await.unwrap();
    super::answers::refused(far, 400, "invalid_key").await;
}

/// Texts that are unusual, and keys all the same.
#[rustfmt::skip]
const UNUSUAL: &[&str] = &[
    "plain",
    "with space",
    " leading",
    "trailing ",
    "plus+plus",
    "100%",
    "%2e%2e",
    "a?b",
    "a#b",
    "a&b=c",
    "a;b",
    "a:b",
    "a\\b",
    "..a",
    "a..",
    "...",
    ".hidden",
    "~",
    "*",
    "\"quoted\"",
    "<tag>",
    "{brace}",
    "a|b",
    "^",
    "`",
    "[x]",
    "@",
    "!$'(),",
    "Grüße",
    "日本語/ファイル.txt",
    "emoji😀",
    "e\u{301}",
    "\u{e9}",
    "CON",
    "a/CON/NUL.txt",
    "deep/a/b/c/d/e/f/g/h/i",
    "\u{feff}bom",
    "\u{202e}reversed",
    "\u{a0}",
];

#[tokio::test]
async fn every_other_text_is_a_key_and_comes_back() {
    let server = Server::start();
    let mut expected = BTreeSet::new();
    for text in UNUSUAL {
        let encoded: String = text
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b == b'/' {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect();
        let path = format!("/v1/files/default/{encoded}");
        let put = head("PUT", &path, &format!("Content-Length: {}\r\n", text.len())) + text;
        let stored = ask(&server, put).await;
        assert_eq!(stored.status, 201, "{text:?}: {stored:?}");
        let file: serde_json::Value = serde_json::from_slice(&stored.body).unwrap();
        assert_eq!(file["key"], *text);
        // Where it says the file is, the file is.
        for target in [stored.header("location"), &path] {
            assert_eq!(ask(&server, head("GET", target, "")).await.body, text.as_bytes(), "{target}");
        }
        expected.insert((*text).to_owned());
    }
    let listed: Vec<String> = keys(&server, "default").await;
    assert!(listed.iter().is_sorted());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    for text in UNUSUAL {
        let list = server.get("/v1/files/default").query(&[("prefix", text)]).send().await.unwrap();
        let list = json(list, 200).await;
        assert!(list["files"].as_array().unwrap().iter().any(|file| file["key"] == *text), "{text:?}");
    }
    assert_eq!((stages(&server).len(), blobs(&server).len()), (0, UNUSUAL.len()));
}

#[tokio::test]
async fn bytes_that_are_no_target_are_refused() {
    let server = Server::start();
    for target in
        ["/v1/files/default/a b", "/v1/files/default/a\x01b", "/v1/files/default/a\tb", "v1/files/default/a"]
    {
        let mut wire = Wire::with(&server, head("GET", target, "")).await;
        let answer = wire.answer().await.unwrap();
        assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
    }
    let mut raw = b"GET /v1/files/default/\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ".to_vec();
    raw.extend_from_slice(TOKEN.as_bytes());
    raw.extend_from_slice(b"\r\n\r\n");
    assert_eq!(ask(&server, raw).await.status, 400);
    nothing_is_left(&server).await;
}
