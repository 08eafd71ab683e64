//! What a download says of itself: name, safety, digest, facts.

use super::answers::{base64, header, json, refused, store};
use super::wire::{ask, head};
use crate::server::{Server, content};
use sha2::{Digest as _, Sha256};

const PATH: &str = "/v1/files/default/d/report.txt";

async fn disposition(server: &Server, query: &str) -> String {
    let answer = ask(server, head("GET", &format!("{PATH}{query}"), "")).await;
    assert_eq!(answer.status, 200, "{query}");
    answer.header("content-disposition").to_owned()
}

#[tokio::test]
async fn the_name_of_a_download_is_one_plain_name() {
    let server = Server::start();
    store(&server, PATH, b"x").await;
    let cases = [
        ("", "inline; filename=\"report.txt\""),
        ("?download", "attachment; filename=\"report.txt\""),
        ("?download=0&filename=", "attachment; filename=\"report.txt\""),
        ("?filename=a%20b.txt", "inline; filename=\"a b.txt\""),
        ("?filename=a+b.txt", "inline; filename=\"a b.txt\""),
        ("?filename=a%22b.txt", "inline; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("?filename=a%5cb.txt", "inline; filename=\"a_b.txt\""),
        ("?filename=..%2f..%2fetc%2fpasswd", "inline; filename=\".._.._etc_passwd\""),
        ("?filename=a%0d%0aSet-Cookie:%20x=1", "inline; filename=\"a__Set-Cookie: x=1\""),
        ("?filename=100%25.txt", "inline; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("?filename=%F0%9F%98%80.txt", "inline; filename=\"_.txt\"; filename*=UTF-8''%F0%9F%98%80.txt"),
        (
            "?filename=%E6%97%A5%E6%9C%AC.txt",
            "inline; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt",
        ),
        ("?filename=exe.%E2%80%AEtxt", "inline; filename=\"exe._txt\"; filename*=UTF-8''exe._txt"),
        ("?filename=it's.txt", "inline; filename=\"it's.txt\""),
        ("?download&filename=b;c.txt", "attachment; filename=\"b;c.txt\""),
    ];
    for (query, expected) in cases {
        let found = disposition(&server, query).await;
        // Where the likeness is the name itself, naming it twice says nothing more.
        let same = found == expected
            || expected.split("; filename*").next().unwrap() == found && !expected.contains('%');
        assert!(same, "{query}: {found}");
    }
    ask(&server, head("GET", &format!("{PATH}?filename=%ff"), "")).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn a_long_name_is_cut_and_keeps_its_extension() {
    let server = Server::start();
    store(&server, PATH, b"x").await;
    let ascii = disposition(&server, &format!("?filename={}.tar", "n".repeat(296))).await;
    let name = ascii.strip_prefix("inline; filename=\"").unwrap().strip_suffix('"').unwrap();
    assert!(name.len() <= 255 && name.starts_with("nnn") && name.ends_with("n.tar"), "{ascii}");
    let kanji = disposition(&server, &format!("?filename={}.zip", "%E6%97%A5".repeat(300))).await;
    let encoded = kanji.split("filename*=UTF-8''").nth(1).unwrap();
    assert!(encoded.ends_with("%E6%97%A5.zip") && encoded.len() <= 3 * 255, "{kanji}");
}

#[tokio::test]
async fn no_browser_guesses_a_type_or_runs_an_upload() {
    let server = Server::start();
    let active = [
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/xml",
        "text/javascript",
    ];
    let passive = ["text/plain", "image/png", "video/mp4", "application/zip", "application/octet-stream"];
    for (kinds, runs) in [(&active[..], true), (&passive[..], false)] {
        for kind in kinds {
            let put = server.put(PATH).header("content-type", *kind).body("<script>alert(1)</script>");
            assert!(put.send().await.unwrap().status().is_success());
            for request in
                [server.get(PATH), server.head(PATH), server.get(PATH).header("range", "bytes=0-3")]
            {
                let answer = request.send().await.unwrap();
                assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
                assert_eq!(header(&answer, "content-security-policy").contains("sandbox"), runs, "{kind}");
                assert_eq!(header(&answer, "content-type"), *kind);
            }
        }
    }
}

#[tokio::test]
async fn the_time_of_a_change_is_a_date_in_whole_seconds() {
    let server = Server::start();
    let file = store(&server, PATH, b"x").await;
    let answer = server.get(PATH).send().await.unwrap();
    let date = header(&answer, "last-modified");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    let clock = &file["created_at"].as_str().unwrap()[11..19];
    assert_eq!(&date[17..25], clock, "the same instant as created_at");
    assert_eq!(header(&answer, "accept-ranges"), "bytes");
    assert_eq!(header(&answer, "content-length"), "1");
}

#[tokio::test]
async fn a_digest_of_the_whole_comes_on_request() {
    let server = Server::start();
    let bytes = content(2_500_000, 7);
    let sha256 = Sha256::digest(&bytes);
    let expected = format!("sha-256=:{}:", base64(&sha256));
    store(&server, PATH, &bytes).await;
    let known = server.put("/v1/files/default/known").header("repr-digest", &expected).body(bytes.clone());
    let known = json(known.send().await.unwrap(), 201).await;
    assert_eq!(known["sha256"], super::answers::hex(&sha256), "the uploader named it");
    for path in [PATH, "/v1/files/default/known"] {
        let plain = server.get(path).send().await.unwrap();
        assert_eq!(header(&plain, "repr-digest"), "");
        for wish in ["sha-256=1", "sha-512=3, sha-256=10"] {
            let whole = server.get(path).header("want-repr-digest", wish).send().await.unwrap();
            assert_eq!(header(&whole, "repr-digest"), expected, "{wish}");
            assert!(whole.bytes().await.unwrap() == bytes);
            let head = server.head(path).header("want-repr-digest", wish).send().await.unwrap();
            assert_eq!(header(&head, "repr-digest"), expected);
            let range = server.get(path).header("want-repr-digest", wish).header("range", "bytes=1-9");
            let range = range.send().await.unwrap();
            assert_eq!((range.status().as_u16(), header(&range, "repr-digest")), (206, expected.as_str()));
        }
        let unwanted =
            server.get(path).header("want-repr-digest", "sha-256=0, sha-512=1").send().await.unwrap();
        assert_eq!(header(&unwanted, "repr-digest"), "");
    }
}

#[tokio::test]
async fn the_facts_of_a_file_are_complete() {
    let server = Server::start();
    let bytes = content(10_000, 8);
    let put = server
        .put(PATH)
        .header("content-type", "text/plain")
        .header("carrack-meta-a", "b")
        .body(bytes.clone());
    let stored = json(put.send().await.unwrap(), 201).await;
    let meta = json(server.get(&format!("{PATH}?meta")).send().await.unwrap(), 200).await;
    assert_eq!(meta, stored);
    let mut members: Vec<&String> = meta.as_object().unwrap().keys().collect();
    members.sort();
    let expected = [
        "blake3",
        "bucket",
        "content_type",
        "crc32",
        "created_at",
        "created_by",
        "etag",
        "key",
        "metadata",
        "size",
    ];
    assert_eq!(members, expected);
    assert_eq!((meta["bucket"].as_str(), meta["key"].as_str()), (Some("default"), Some("d/report.txt")));
    assert_eq!((meta["size"].as_u64(), meta["content_type"].as_str()), (Some(10_000), Some("text/plain")));
    assert_eq!(meta["blake3"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(meta["crc32"], format!("{:08x}", crc32fast::hash(&bytes)));
    assert_eq!(meta["created_by"], "root");
    assert_eq!(meta["metadata"], serde_json::json!({"a": "b"}));
    let time = meta["created_at"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    let listed = json(server.get("/v1/files/default").send().await.unwrap(), 200).await;
    assert_eq!(listed["files"][0], meta);
    refused(server.get("/v1/files/default/none?meta").send().await.unwrap(), 404, "file_not_found").await;
    refused(server.get("/v1/files/default/none?chunks").send().await.unwrap(), 404, "file_not_found").await;
}
