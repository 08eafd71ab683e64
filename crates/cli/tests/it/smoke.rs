//! The main job end to end: in, out, many as one.

use crate::server::{Server, content};
use serde_json::Value;

#[tokio::test]
async fn a_file_goes_in_and_comes_out_whole_and_in_part() {
    let server = Server::start();
    let bytes = content(3_000_000, 1);
    let stored = server.put("/v1/files/default/a/b.bin").body(bytes.clone()).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    let file: Value = stored.json().await.unwrap();
    assert_eq!(file["blake3"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&bytes)));
    let got = server.get("/v1/files/default/a/b.bin").send().await.unwrap();
    assert_eq!(got.headers()["etag"], file["etag"].as_str().unwrap());
    assert!(got.bytes().await.unwrap() == bytes);
    let part = server
        .get("/v1/files/default/a/b.bin")
        .header("range", "bytes=1000000-1000009")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 1000000-1000009/3000000");
    assert_eq!(part.bytes().await.unwrap(), bytes[1_000_000..1_000_010]);
}
