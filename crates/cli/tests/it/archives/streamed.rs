//! The one-shot deflated ZIP while nothing is deflated yet: made as it is sent.

use super::{put, setup, text};
use crate::server::content;
use crate::zip::unpack::{Expected, accepted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_no_length_and_every_reader_accepts_it() {
    let server = setup().start();
    let mut expected = Expected::default();
    let files = [
        ("s/a.txt", text(100_000, 1)),
        ("s/b.bin", content(50_000, 2)),
        ("s/c-large.txt", text((9 << 20) + 5, 3)),
        ("s/d-large.bin", content(6 << 20, 4)),
        ("s/e-empty", Vec::new()),
        ("s/f.txt", text(3 << 20, 5)),
        ("s/g", b"tiny".to_vec()),
    ];
    for (key, bytes) in &files {
        put(&server, key, bytes.clone()).await;
        expected.add(&key[2..], bytes);
    }
    let path = "/v1/zip/default?prefix=s/&compression=deflate";
    let response = server.get(path).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(response.status(), 200, "there is nothing to take a range of");
    for name in ["content-length", "accept-ranges", "etag"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let zip = response.bytes().await.unwrap();
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(zip.len() < total * 2 / 3, "{} of {total}", zip.len());
    let file = server.folder().join("streamed.zip");
    std::fs::write(&file, &zip).unwrap();
    accepted(&file, &expected);
    let again = server.get(path).send().await.unwrap().bytes().await.unwrap();
    assert!(again == zip, "the same bytes each time");
    let head = server.head(path).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_on_the_way_breaks_the_body() {
    let server = setup().start();
    put(&server, "s/a", text(20 << 20, 1)).await;
    put(&server, "s/b", text(777_777, 2)).await;
    let blobs = crate::operations::disk::blobs(&server.data);
    let lost = blobs.iter().find(|path| std::fs::metadata(path).unwrap().len() == 777_777).unwrap();
    std::fs::remove_file(lost).unwrap();
    let response = server.get("/v1/zip/default?prefix=s/&compression=deflate").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "nobody takes it for whole");
}
