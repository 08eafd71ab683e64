//! Length, tag and bytes: the same for the same files, everywhere and each time (T14, T15, T20 to T22).

use super::layout::unpack;
use super::{below, fetch, header, load, remove, setup, tag};
use crate::server::{Server, Setup, content};
use reqwest::header::HeaderMap;
use std::time::Duration;

async fn start() -> Server {
    let server = setup().start();
    let size = |i: usize| [0, 1, 70_000, 300][i % 4] + i;
    load(&server, (0..40).map(|i| (format!("s/{}/ü{i}", i % 3), content(size(i), i as u64)))).await;
    load(&server, [("t/outside", vec![1]), ("s", vec![2])]).await;
    server
}

/// What has to be the same in answers to GET and HEAD.
fn head(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for own in ["date", "x-request-id", "traceparent", "connection"] {
        headers.remove(own);
    }
    headers
}

#[tokio::test]
async fn the_length_is_exact_the_tag_is_strong_and_head_says_what_get_says() {
    let server = start().await;
    let get = server.get(&below("s/")).send().await.unwrap();
    let asked = server.head(&below("s/")).header("range", "bytes=0-0").send().await.unwrap();
    assert_eq!((get.status().as_u16(), asked.status().as_u16()), (200, 200));
    assert_eq!(head(get.headers()), head(asked.headers()));
    let etag = header(&get, "etag");
    assert!(etag.starts_with("\"z1-") && etag.ends_with('"'), "{etag}");
    assert_eq!(header(&get, "content-type"), "application/zip");
    assert_eq!(header(&get, "accept-ranges"), "bytes");
    assert_eq!(header(&get, "x-accel-buffering"), "no");
    assert!(get.headers().contains_key("last-modified"));
    let length: usize = header(&get, "content-length").parse().unwrap();
    assert_eq!(get.bytes().await.unwrap().len(), length);
    assert!(asked.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn bytes_and_tag_are_the_same_each_time_and_after_restarts_elsewhere() {
    let mut server = start().await;
    let (zip, etag) = (fetch(&server, &below("s/")).await, tag(&server, &below("s/")).await);
    for _ in 0..3 {
        assert!(fetch(&server, &below("s/")).await == zip);
    }
    server.stop();
    let places: [(&str, &str, &str); 3] = [
        ("Asia/Kathmandu", "C", "C"),
        ("America/St_Johns", "tr_TR.UTF-8", "de_DE.UTF-8"),
        ("Pacific/Kiritimati", "C.UTF-8", "C.UTF-8"),
    ];
    for (zone, lang, all) in places {
        let setup = setup().data(&server.data).set("TZ", zone).set("LANG", lang).set("LC_ALL", all);
        let mut there = Setup::start(setup);
        assert!(fetch(&there, &below("s/")).await == zip, "{zone}");
        assert_eq!(tag(&there, &below("s/")).await, etag, "{zone}");
        there.stop();
    }
}

/// Two contents of one length and one CRC-32: they differ by the polynomial itself.
fn twins() -> (Vec<u8>, Vec<u8>) {
    let one = content(100, 3);
    let mut other = one.clone();
    let polynomial = (0xEDB8_8320_u64 << 1) | 1;
    for (byte, by) in other[40..].iter_mut().zip(polynomial.to_le_bytes()) {
        *byte ^= by;
    }
    assert!(one != other && crc32fast::hash(&one) == crc32fast::hash(&other));
    (one, other)
}

#[tokio::test]
async fn the_tag_changes_with_any_file_and_with_nothing_else() {
    let server = start().await;
    let (one, other) = twins();
    load(&server, [("s/twin", one)]).await;
    let mut tags = vec![tag(&server, &below("s/")).await];
    let outside = ["s2", "r/x", "t/outside", "s"];
    load(&server, outside.map(|key| (key, vec![9; 9]))).await;
    remove(&server, "t/outside").await;
    assert_eq!(tag(&server, &below("s/")).await, tags[0], "what is outside does not count");

    load(&server, [("s/twin", other.clone())]).await;
    tags.push(tag(&server, &below("s/")).await);
    load(&server, [("s/added", Vec::new())]).await;
    tags.push(tag(&server, &below("s/")).await);
    remove(&server, "s/twin").await;
    tags.push(tag(&server, &below("s/")).await);
    load(&server, [("s/twin2", other)]).await;
    tags.push(tag(&server, &below("s/")).await);
    remove(&server, "s/added").await;
    load(&server, [("s/Added", Vec::new())]).await;
    tags.push(tag(&server, &below("s/")).await);
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count, "changed, added, deleted, renamed: each gives another tag");
}

#[tokio::test]
async fn preconditions_are_answered_before_any_byte() {
    let server = start().await;
    let (zip, etag) = (fetch(&server, &below("s/")).await, tag(&server, &below("s/")).await);
    let weak = format!("W/{etag}");
    let modified = header(&server.head(&below("s/")).send().await.unwrap(), "last-modified");
    let (other, range) = ("\"z1-other\"", ("range", "bytes=10-19"));
    let cases: [(&[(&str, &str)], u16); 14] = [
        (&[("if-none-match", &etag)], 304),
        (&[("if-none-match", &weak), range], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", other), ("if-modified-since", &modified)], 200),
        // The date of the newest file stays when an older one is deleted: it proves nothing.
        (&[("if-modified-since", &modified)], 200),
        (&[("if-match", &etag), range], 206),
        (&[("if-match", other), range], 412),
        (&[("if-match", &weak)], 412),
        (&[("if-match", other), ("if-none-match", &etag)], 412),
        (&[("if-unmodified-since", &modified), range], 206),
        (&[("if-range", &etag), range], 206),
        (&[("if-range", other), range], 200),
        (&[("if-range", &weak), range], 200),
        (&[("if-range", &modified), range], 200),
    ];
    for (headers, status) in cases {
        let request =
            headers.iter().fold(server.get(&below("s/")), |r, (name, value)| r.header(*name, *value));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{headers:?}");
        if status != 412 {
            assert_eq!(header(&answer, "etag"), etag, "{headers:?}");
        }
        let body = answer.bytes().await.unwrap();
        match status {
            200 => assert!(body == zip, "{headers:?}"),
            206 => assert!(body == zip[10..20], "{headers:?}"),
            304 => assert!(body.is_empty(), "{headers:?}"),
            _ => assert!(!body.starts_with(b"PK"), "{headers:?}"),
        }
    }
}

#[tokio::test]
async fn an_archive_that_lost_an_older_file_is_not_taken_for_the_same_by_its_date() {
    let server = start().await;
    let before = server.head(&below("s/")).send().await.unwrap();
    let oldest = unpack(&fetch(&server, &below("s/")).await).remove(0).0;
    // A later date than those of all others, which are deleted before it.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    load(&server, [("s/newest", vec![1])]).await;
    let modified = header(&server.head(&below("s/")).send().await.unwrap(), "last-modified");
    remove(&server, &format!("s/{oldest}")).await;
    let now = fetch(&server, &below("s/")).await;
    let after = server.head(&below("s/")).send().await.unwrap();
    assert_eq!(header(&after, "last-modified"), modified, "the newest file is still the newest");
    assert_ne!(header(&after, "etag"), header(&before, "etag"));
    for (name, range) in [("if-modified-since", None), ("if-range", Some("bytes=10-19"))] {
        let request = server.get(&below("s/")).header(name, &modified);
        let request = if let Some(range) = range { request.header("range", range) } else { request };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        assert!(answer.bytes().await.unwrap() == now, "{name}");
    }
}
