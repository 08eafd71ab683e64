//! Preconditions of GET and HEAD (RFC 9110, section 13).

use super::answers::{header, refused, store};
use crate::server::Server;

const PATH: &str = "/v1/files/default/c.txt";

/// Stands for the file's own tag, and for times around its own.
const SAME: &str = "SAME";
const BEFORE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const AFTER: &str = "Sat, 14 Nov 2099 22:13:20 GMT";

#[rustfmt::skip]
const CASES: &[(&[(&str, &str)], u16)] = &[
    (&[("if-match", SAME)], 200),
    (&[("if-match", "*")], 200),
    (&[("if-match", "\"x\"")], 412),
    (&[("if-match", "\"x\", SAME")], 200),
    (&[("if-match", "W/SAME")], 412),
    (&[("if-match", "")], 412),
    (&[("if-match", "unquoted")], 412),
    (&[("if-none-match", SAME)], 304),
    (&[("if-none-match", "*")], 304),
    (&[("if-none-match", "\"x\"")], 200),
    (&[("if-none-match", "\"x\",SAME")], 304),
    (&[("if-none-match", "\"a,b\", SAME")], 304),
    (&[("if-none-match", "W/SAME")], 304),
    (&[("if-modified-since", "DATE")], 304),
    (&[("if-modified-since", BEFORE)], 200),
    (&[("if-modified-since", AFTER)], 304),
    (&[("if-modified-since", "soon")], 200),
    (&[("if-unmodified-since", "DATE")], 200),
    (&[("if-unmodified-since", BEFORE)], 412),
    (&[("if-unmodified-since", AFTER)], 200),
    (&[("if-unmodified-since", "soon")], 200),
    // If-Match goes before If-Unmodified-Since.
    (&[("if-match", SAME), ("if-unmodified-since", BEFORE)], 200),
    (&[("if-match", "\"x\""), ("if-unmodified-since", AFTER)], 412),
    // If-None-Match goes before If-Modified-Since.
    (&[("if-none-match", "\"x\""), ("if-modified-since", AFTER)], 200),
    (&[("if-none-match", SAME), ("if-modified-since", BEFORE)], 304),
    // 412 goes before 304.
    (&[("if-match", "\"x\""), ("if-none-match", SAME)], 412),
    (&[("if-match", SAME), ("if-none-match", SAME)], 304),
    (&[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)], 412),
    (&[("if-unmodified-since", AFTER), ("if-none-match", SAME)], 304),
    // All of them go before the range.
    (&[("if-none-match", SAME), ("range", "bytes=5000-")], 304),
    (&[("if-match", "\"x\""), ("range", "bytes=5000-")], 412),
    (&[("if-match", SAME), ("range", "bytes=0-1")], 206),
    (&[("if-match", SAME), ("range", "bytes=5000-")], 416),
    (&[("if-none-match", "\"x\""), ("if-range", SAME), ("range", "bytes=0-1")], 206),
    (&[("if-none-match", "\"x\""), ("if-range", "\"x\""), ("range", "bytes=0-1")], 200),
];

#[tokio::test]
async fn every_line_of_the_table_holds_for_get_and_head() {
    let server = Server::start();
    let etag = store(&server, PATH, b"some content").await["etag"].as_str().unwrap().to_owned();
    let date = header(&server.head(PATH).send().await.unwrap(), "last-modified").to_owned();
    for (headers, expected) in CASES {
        for (method, mut request) in [("GET", server.get(PATH)), ("HEAD", server.head(PATH))] {
            for (name, value) in *headers {
                request = request.header(*name, value.replace(SAME, &etag).replace("DATE", &date));
            }
            let answer = request.send().await.unwrap();
            // RFC 9110, section 14.2: a range is for GET alone.
            let expected = if method == "HEAD" && matches!(expected, 206 | 416) { &200 } else { expected };
            assert_eq!(answer.status().as_u16(), *expected, "{method} {headers:?}");
            match expected {
                304 => {
                    assert_eq!(header(&answer, "etag"), etag);
                    assert_eq!(header(&answer, "last-modified"), date);
                    assert_eq!(answer.bytes().await.unwrap().len(), 0);
                }
                412 if method == "GET" => drop(refused(answer, 412, "precondition_failed").await),
                416 => drop(refused(answer, 416, "range_not_satisfiable").await),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_tag_list_may_come_in_several_lines() {
    let server = Server::start();
    let etag = store(&server, PATH, b"some content").await["etag"].as_str().unwrap().to_owned();
    let lines = server.get(PATH).header("if-none-match", "\"a\"").header("if-none-match", &etag);
    assert_eq!(lines.send().await.unwrap().status(), 304);
    let lines = server.get(PATH).header("if-match", "\"a\"").header("if-match", &etag);
    assert_eq!(lines.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_condition_on_what_is_not_there_is_not_found() {
    let server = Server::start();
    for (name, value) in [("if-match", "*"), ("if-none-match", "*"), ("range", "bytes=0-1")] {
        let answer = server.get(PATH).header(name, value).send().await.unwrap();
        refused(answer, 404, "file_not_found").await;
    }
}

#[tokio::test]
async fn the_tag_is_strong_and_belongs_to_the_bytes() {
    let server = Server::start();
    let first = store(&server, PATH, b"same").await["etag"].clone();
    let elsewhere = store(&server, "/v1/files/default/d", b"same").await["etag"].clone();
    let other = store(&server, PATH, b"other").await["etag"].clone();
    assert_eq!(first, elsewhere);
    assert_ne!(first, other);
    let tag = other.as_str().unwrap();
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let got = server.get(PATH).send().await.unwrap();
    assert_eq!(header(&got, "etag"), tag);
    let meta = server.get("/v1/files/default/c.txt?meta").send().await.unwrap();
    assert_eq!(meta.json::<serde_json::Value>().await.unwrap()["etag"], tag);
}
