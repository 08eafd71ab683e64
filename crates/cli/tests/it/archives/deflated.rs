//! Archives whose entries are deflated by a job: readers take them, slices are slices, and what was made once is used again.

use super::{below, fetch, made, path, put, setup, text, until};
use crate::server::{Server, content};
use crate::zip::unpack::{Expected, accepted};
use serde_json::Value;
use std::time::Instant;

/// Files of every kind: tiny, empty, text, noise, and text and noise of several blocks.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("d/empty".to_owned(), Vec::new()),
        ("d/large.txt".to_owned(), text((5 << 20) + 12_345, 1)),
        ("d/larger.txt".to_owned(), text((17 << 20) + 3, 5)),
        ("d/noise.bin".to_owned(), content((2 << 20) + 77, 2)),
        ("d/one-block.txt".to_owned(), text(1 << 20, 3)),
        ("d/tiny".to_owned(), b"x".to_vec()),
        ("d/twin.txt".to_owned(), text((5 << 20) + 12_345, 1)),
    ];
    files.extend(
        (0..300).map(|number| (format!("d/z/{number:03}.txt"), text(number * 40, 100 + number as u64))),
    );
    files
}

async fn load(server: &Server, files: &[(String, Vec<u8>)]) -> Expected {
    let mut expected = Expected::default();
    for (key, bytes) in files {
        put(server, key, bytes.clone()).await;
        expected.add(key.strip_prefix("d/").unwrap(), bytes);
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_accepts_them_and_every_slice_is_one_of_the_whole() {
    let mut server = setup().start();
    let files = files();
    let expected = load(&server, &files).await;
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let archive = made(&server, &below("d/", "deflate")).await;
    assert_eq!(archive["progress"]["bytes_total"], total);
    let done = until(&server, &archive, "completed").await;
    assert_eq!(done["progress"]["entries_done"], files.len());
    assert_eq!(done["progress"]["bytes_done"], total);
    let zip = fetch(&server, &archive).await;
    assert_eq!(done["size"], zip.len());
    assert!(zip.len() < total / 2, "{} of {total}", zip.len());
    let file = server.folder().join("deflated.zip");
    std::fs::write(&file, &zip).unwrap();
    accepted(&file, &expected);

    let mut state = 7_u64;
    let url = format!("{}/content", path(&archive));
    for _ in 0..300 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let begin = (state >> 20) as usize % zip.len();
        let end = zip.len().min(begin + 1 + (state >> 8) as usize % 100_000);
        let range = format!("bytes={begin}-{}", end - 1);
        let slice = server.get(&url).header("range", &range).send().await.unwrap();
        assert_eq!(slice.status(), 206);
        assert!(slice.bytes().await.unwrap() == zip[begin..end], "{range}");
    }

    server.stop();
    let server = setup().data(&server.data).start();
    assert!(fetch(&server, &archive).await == zip, "the same after a restart");
    let begun = Instant::now();
    let again = made(&server, &below("d/", "deflate")).await;
    let again = until(&server, &again, "completed").await;
    println!("a second archive over the same files: {:?}", begun.elapsed());
    assert_eq!((&again["etag"], &again["size"]), (&done["etag"], &done["size"]));
    assert!(fetch(&server, &again).await == zip, "the same bytes for the same files");
    let one_shot = server.get("/v1/zip/default?prefix=d/&compression=deflate").send().await.unwrap();
    assert_eq!(one_shot.headers()["etag"].to_str().unwrap(), done["etag"].as_str().unwrap());
    assert!(one_shot.bytes().await.unwrap() == zip, "and the one-shot ZIP has a length now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_makes_the_same_bytes() {
    let files: Vec<_> = files().into_iter().filter(|(_, bytes)| bytes.len() < 6 << 20).collect();
    let mut zips = Vec::new();
    for workers in ["1", "5"] {
        let server = setup().set("CARRACK_ARCHIVES__WORKERS", workers).start();
        load(&server, &files).await;
        let archive = made(&server, &below("d/", "deflate")).await;
        until(&server, &archive, "completed").await;
        zips.push(entries(&fetch(&server, &archive).await));
    }
    assert!(zips[0] == zips[1]);
}

/// The archive without its times, which differ between uploads: data of all entries, as they lie in it.
fn entries(zip: &[u8]) -> Vec<Vec<u8>> {
    let le = |at: usize, len: usize| {
        zip[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    let mut at = 0;
    let mut all = Vec::new();
    while le(at, 4) == 0x0403_4b50 {
        let data = at + 30 + le(at + 26, 2) + le(at + 28, 2);
        at = data + le(at + 18, 4);
        all.push(zip[data..at].to_vec());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_leaves_alone_what_looks_hopeless() {
    let server = setup().start();
    put(&server, "d/noise", content(3 << 20, 1)).await;
    put(&server, "d/text", text(3 << 20, 2)).await;
    let archive = made(&server, &below("d/", "auto")).await;
    until(&server, &archive, "completed").await;
    let zip = fetch(&server, &archive).await;
    assert!(zip.len() > 3 << 20 && zip.len() < 5 << 20, "{}", zip.len());
    let file = server.folder().join("auto.zip");
    std::fs::write(&file, &zip).unwrap();
    let mut expected = Expected::default();
    expected.add("noise", &content(3 << 20, 1));
    expected.add("text", &text(3 << 20, 2));
    accepted(&file, &expected);
    let again = made(&server, &below("d/", "auto")).await;
    let again: Value = until(&server, &again, "completed").await;
    assert_eq!(again["size"], zip.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_asks_for_one_and_tidies_up() {
    let server = setup().start();
    put(&server, "d/a.txt", text(2 << 20, 1)).await;
    put(&server, "d/b.bin", content(100_000, 2)).await;
    let done =
        crate::server::carrack(&server, &["zip", "default/d/", "-o", "d.zip", "--compression", "deflate"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let file = server.folder().join("d.zip");
    assert!(std::fs::metadata(&file).unwrap().len() < 1 << 20);
    let mut expected = Expected::default();
    expected.add("a.txt", &text(2 << 20, 1));
    expected.add("b.bin", &content(100_000, 2));
    accepted(&file, &expected);
    let list: Value = server.get("/v1/archives").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["archives"], serde_json::json!([]), "the archive was for this download alone");
}
