//! Bytes that are lost behind the server's back: the download breaks, and never ends as if it were whole (T29).

use super::holds::Slow;
use super::{bearer, below, blob_of, client, fetch, load, setup};
use crate::server::{Server, content};
use std::fs::{OpenOptions, remove_file};
use std::path::Path;

const SIZE: u64 = 700_001;

/// A server with a ZIP of three files, none of which it has open, and that ZIP; the first server has the data folder.
async fn start() -> (Server, Vec<u8>, Server) {
    let mut first = setup().start();
    let sizes = [("b/1", 300_000), ("b/2", SIZE as usize), ("b/3", 300_002)];
    load(&first, sizes.map(|(key, size)| (key, content(size, size as u64)))).await;
    let zip = fetch(&first, &below("b/")).await;
    first.stop();
    (setup().data(&first.data).start(), zip, first)
}

fn resize(path: &Path, size: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
}

/// Downloads the archive; whether curl takes it for whole. What it got is right in any case.
async fn is_whole(server: &Server, zip: &[u8], version: &str) -> bool {
    let path = server.folder().join("broken.zip");
    let curl = client("curl", "curl")
        .args(["-sS", version, "-H", &bearer(), "-o"])
        .arg(&path)
        .arg(server.url(&below("b/")))
        .output()
        .unwrap();
    let said = format!("{version} {} {}", curl.status, String::from_utf8_lossy(&curl.stderr));
    let whole = curl.status.success();
    // 18: fewer bytes than announced. 52: not even a head. 56, 92: a reset connection, a reset stream.
    assert!(whole || matches!(curl.status.code(), Some(18 | 52 | 56 | 92)), "{said}");
    let got = std::fs::read(&path).unwrap_or_default();
    assert_eq!(got.len() == zip.len(), whole, "{said}");
    assert!(zip.starts_with(&got), "{said}");
    std::fs::write(path, "").unwrap();
    // The server itself goes on.
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200, "{said}");
    whole
}

async fn assert_breaks(server: &Server, zip: &[u8]) {
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        assert!(!is_whole(server, zip, version).await, "{version}");
    }
}

#[tokio::test]
async fn a_file_that_has_lost_its_end_breaks_the_archive() {
    let (server, zip, _first) = start().await;
    let blob = blob_of(&server, SIZE);
    for size in [SIZE - 1, 1, 0] {
        resize(&blob, size);
        assert_breaks(&server, &zip).await;
    }
}

#[tokio::test]
async fn a_file_that_has_grown_breaks_the_archive() {
    let (server, zip, _first) = start().await;
    resize(&blob_of(&server, SIZE), SIZE + 1);
    assert_breaks(&server, &zip).await;
}

#[tokio::test]
async fn a_file_that_is_gone_breaks_the_archive_but_not_the_ranges_beside_it() {
    let (server, zip, _first) = start().await;
    remove_file(blob_of(&server, SIZE)).unwrap();
    assert_breaks(&server, &zip).await;
    for (first, last) in [(0, 300_000), (zip.len() - 300_000, zip.len() - 1)] {
        let range = format!("bytes={first}-{last}");
        let part = server.get(&below("b/")).header("range", range).send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await.unwrap() == zip[first..=last]);
    }
    let inside = server.get(&below("b/")).header("range", "bytes=500000-600000").send().await;
    assert!(inside.is_err() || inside.unwrap().bytes().await.is_err());
    assert!(server.log().contains("an answer was broken off"));
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_kept_open_is_never_sent_wrong() {
    let damages: [fn(&Path); 4] = [
        |path| resize(path, SIZE - 1),
        |path| resize(path, 0),
        |path| resize(path, SIZE + 1),
        |path| remove_file(path).unwrap(),
    ];
    for damage in damages {
        let (server, zip, _first) = start().await;
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert!(is_whole(&server, &zip, version).await);
        }
        damage(&blob_of(&server, SIZE));
        for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
            is_whole(&server, &zip, version).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_loses_its_end_or_is_gone_while_it_is_sent_breaks_the_archive() {
    for gone in [false, true] {
        let server = setup().start();
        let sizes = [("b/1", 30_000_000), ("b/2", 40_000_000)];
        load(&server, sizes.map(|(key, size)| (key, vec![7; size]))).await;
        let zip = fetch(&server, &below("b/")).await;
        let mut slow = Slow::begin(&server, &below("b/"));
        assert_eq!(slow.length, zip.len());
        slow.read(100_000);
        resize(&blob_of(&server, 30_000_000), 29_000_000);
        if gone {
            remove_file(blob_of(&server, 29_000_000)).unwrap();
            remove_file(blob_of(&server, 40_000_000)).unwrap();
        }
        let got = slow.rest();
        assert!(got.len() < zip.len() && zip.starts_with(&got), "{} of {} bytes", got.len(), zip.len());
    }
}
