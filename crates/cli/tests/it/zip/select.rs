//! What goes into the archive, under which names, and what is refused before the first byte (T28, T35).

use super::layout::unpack;
use super::{below, escape, fetch, header, load, of_keys, refused, setup};
use crate::server::Server;

async fn start() -> Server {
    let server = setup().start();
    let keys = ["a/b/1", "a/b/c/2", "a/bc/3", "a/b", "x/4", "ä/5", "å/6"];
    load(&server, keys.map(|key| (key, key.as_bytes().to_vec()))).await;
    server
}

/// Names in the archive, each of which holds its own key.
async fn names(server: &Server, path: &str) -> Vec<String> {
    let entries = unpack(&fetch(server, path).await);
    let own = |(name, content): &(String, Vec<u8>)| String::from_utf8_lossy(content).ends_with(&**name);
    assert!(entries.iter().all(own), "{entries:?}");
    entries.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn names_are_what_follows_the_last_slash_of_the_prefix() {
    let server = start().await;
    let cases: [(&str, &[&str]); 7] = [
        ("a/b/", &["1", "c/2"]),
        ("a/b/c", &["c/2"]),
        ("a/b/c/", &["2"]),
        ("a/bc", &["bc/3"]),
        ("x", &["x/4"]),
        ("x/4", &["4"]),
        ("ä", &["ä/5"]),
    ];
    for (prefix, expected) in cases {
        assert_eq!(names(&server, &below(prefix)).await, expected, "{prefix}");
    }
    // A file "b" beside a folder "b": the file makes way.
    let entries = unpack(&fetch(&server, &below("a/b")).await);
    let found: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, ["b (1)", "b/1", "b/c/2", "bc/3"]);
    assert_eq!(entries[0].1, b"a/b");
    for path in ["/v1/zip/default", "/v1/zip/default?prefix="] {
        assert_eq!(unpack(&fetch(&server, path).await).len(), 7, "{path}");
    }
}

#[tokio::test]
async fn names_are_the_keys_without_the_folder_they_all_share() {
    let server = start().await;
    let cases: [(&[&str], &[&str]); 6] = [
        (&["a/b/c/2"], &["2"]),
        (&["a/b/1", "a/b/c/2"], &["1", "c/2"]),
        (&["a/b/1", "a/bc/3"], &["b/1", "bc/3"]),
        (&["x/4", "a/b/1"], &["x/4", "a/b/1"]),
        (&["ä/5", "å/6"], &["ä/5", "å/6"]),
        (&["x/4", "x/4"], &["4"]),
    ];
    for (keys, expected) in cases {
        assert_eq!(names(&server, &of_keys(keys)).await, expected, "{keys:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_an_archive_is_refused_with_a_reason() {
    let server = start().await;
    let said = refused(&server, &of_keys(&["x/4", "x/none here"]), 404, "file_not_found").await;
    assert!(said.contains("x/none here"), "{said}");
    refused(&server, &below("none/"), 422, "empty_selection").await;
    refused(&server, "/v1/zip/default?prefix=a/&key=x/4", 400, "invalid_request").await;
    refused(&server, "/v1/zip/nowhere?prefix=a/", 404, "bucket_not_found").await;
    refused(&server, "/v1/zip/nowhere?key=a", 404, "bucket_not_found").await;
    refused(&server, "/v1/zip/default?key=a/../b", 400, "invalid_key").await;
    refused(&server, "/v1/zip/default?key=", 400, "invalid_key").await;
    for other in ["auto", "bzip2", ""] {
        let path = format!("/v1/zip/default?prefix=a/&compression={other}");
        let said = refused(&server, &path, 400, "invalid_request").await;
        assert!(said.contains("store"), "{said}");
    }
    let path = "/v1/zip/default?prefix=a/b/&compression=store";
    assert!(fetch(&server, path).await == fetch(&server, &below("a/b/")).await);
}

#[tokio::test]
async fn archives_beyond_the_limits_are_refused_before_the_first_byte() {
    let limited = setup().set("CARRACK_ARCHIVES__MAX_ENTRIES", "3").set("CARRACK_ARCHIVES__MAX_BYTES", "100");
    let server = limited.start();
    load(&server, ["m/1", "m/2", "m/3", "n/1", "n/2", "n/3", "n/4"].map(|key| (key, vec![0]))).await;
    load(&server, [("b/1", vec![0; 60]), ("b/2", vec![0; 40]), ("c/1", vec![0; 60]), ("c/2", vec![0; 41])])
        .await;
    for fits in ["m/", "b/"] {
        fetch(&server, &below(fits)).await;
    }
    for path in [below("n/"), below("c/"), of_keys(&["n/1", "n/2", "n/3", "n/4"]), of_keys(&["c/1", "c/2"])] {
        let said = refused(&server, &path, 422, "archive_too_large").await;
        assert!(said.contains('3') && said.contains("100"), "{said}");
    }
}

#[tokio::test]
async fn the_download_is_named_as_wished_or_after_what_it_holds() {
    let server = start().await;
    let long = "x".repeat(300);
    let cut = format!("attachment; filename=\"{}.zip\"", "x".repeat(236));
    let cases = [
        ("a/b/", None, "attachment; filename=\"b.zip\""),
        ("x", None, "attachment; filename=\"x.zip\""),
        ("", None, "attachment; filename=\"default.zip\""),
        ("x", Some("trip.zip"), "attachment; filename=\"trip.zip\""),
        ("x", Some("trip"), "attachment; filename=\"trip.zip\""),
        ("x", Some("../a\"b\\c"), "attachment; filename=\".._a_b_c.zip\"; filename*=UTF-8''.._a%22b_c.zip"),
        ("x", Some("a\r\nSet-Cookie: x"), "attachment; filename=\"a__Set-Cookie: x.zip\""),
        (
            "x",
            Some("日本 100%"),
            "attachment; filename=\"__ 100_.zip\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC%20100%25.zip",
        ),
        ("x", Some("\u{1F600}"), "attachment; filename=\"_.zip\"; filename*=UTF-8''%F0%9F%98%80.zip"),
        ("x", Some(&long), &cut),
    ];
    for (prefix, name, expected) in cases {
        let name = name.map(|name| format!("&name={}", escape(name))).unwrap_or_default();
        let answer = server.head(&format!("{}{name}", below(prefix))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "content-disposition"), expected, "{prefix} {name}");
        assert!(!answer.headers().contains_key("set-cookie"));
    }
}
