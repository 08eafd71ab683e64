//! Files that were put together from partial uploads: every way out gives the same bytes as of any other file.

use super::{create, join, location, offset, partial, patch};
use crate::operations::disk::{blobs, stages};
use crate::operations::wait::until_async;
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, content, tool};
use serde_json::Value;

/// A file of four pieces, of which the first comes twice; its bytes and the URL of the upload.
async fn joined(server: &Server, name: &str) -> (Vec<u8>, String) {
    let parts = [content(700_001, 1), content(1, 2), content(300_000, 3)];
    let mut urls = Vec::new();
    for part in &parts {
        urls.push(partial(server, part).await);
    }
    urls.push(urls[0].clone());
    let url = location(join(server, &urls, name).send().await.unwrap()).await;
    ([&parts[0], &parts[1], &parts[2], &parts[0]].map(|part| &part[..]).concat(), url)
}

async fn meta(server: &Server, name: &str) -> Value {
    server.get(&format!("/v1/files/default/{name}?meta")).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn ranges_run_across_pieces() {
    let server = Server::start();
    let (whole, _) = joined(&server, "f").await;
    let get = || server.get("/v1/files/default/f");
    assert_eq!(get().send().await.unwrap().bytes().await.unwrap(), whole);
    let edges = [0, 1, 700_000, 700_001, 700_002, 1_000_001, 1_000_002, 1_000_003, whole.len() - 1];
    for from in edges {
        for to in edges.into_iter().filter(|to| *to >= from) {
            let answer = get().header("Range", format!("bytes={from}-{to}")).send().await.unwrap();
            assert_eq!(answer.status(), 206, "{from}-{to}");
            assert_eq!(answer.bytes().await.unwrap(), whole[from..=to], "{from}-{to}");
        }
    }
    let several = get().header("Range", "bytes=699999-700003,-5").send().await.unwrap();
    assert_eq!(several.status(), 206);
    let body = several.bytes().await.unwrap();
    assert!(body.windows(5).any(|window| *window == whole[699_999..700_004]));
    assert!(body.windows(5).any(|window| *window == whole[whole.len() - 5..]));
}

#[tokio::test]
async fn digests_are_those_of_the_whole_and_the_tag_stays() {
    let server = Server::start();
    let (whole, _) = joined(&server, "f").await;
    let blake3 = blake3::hash(&whole).to_string();
    let listing = || async {
        server.get("/v1/files/default").send().await.unwrap().json::<Value>().await.unwrap()["files"][0]
            .clone()
    };
    let before = listing().await;
    assert_eq!(before["size"], whole.len());
    assert_eq!(before["blake3"], Value::Null, "nobody has read it from end to end yet");
    assert_eq!(before["crc32"], format!("{:08x}", crc32fast::hash(&whole)));
    let facts = meta(&server, "f").await;
    assert_eq!(facts["blake3"], blake3.as_str());
    let after = listing().await;
    assert_eq!((&after["blake3"], &after["etag"]), (&facts["blake3"], &before["etag"]));
    let chunks: Value = server.get("/v1/files/default/f?chunks").send().await.unwrap().json().await.unwrap();
    assert_eq!(chunks["blake3"], blake3.as_str());
    assert_eq!(chunks["chunks"][0]["blake3"], blake3.as_str(), "one chunk is the whole");
    let head =
        server.head("/v1/files/default/f").header("Want-Repr-Digest", "sha-256=1").send().await.unwrap();
    let sha256 = super::base64(&<sha2::Sha256 as sha2::Digest>::digest(&whole));
    assert_eq!(head.headers()["repr-digest"], format!("sha-256=:{sha256}:").as_str());
    assert_eq!(head.headers()["etag"], before["etag"].as_str().unwrap());

    let one = partial(&server, &whole).await;
    location(join(&server, &[one], "alone").send().await.unwrap()).await;
    let alone =
        server.get("/v1/files/default?prefix=alone").send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(alone["files"][0]["blake3"], blake3.as_str(), "of one piece it is known");
}

#[tokio::test]
async fn a_zip_has_all_pieces() {
    let server = Server::start();
    let (whole, _) = joined(&server, "docs/f").await;
    server.put("/v1/files/default/docs/plain").body("plain").send().await.unwrap();
    let zip = server.get("/v1/zip/default?prefix=docs/").send().await.unwrap().bytes().await.unwrap();
    let path = server.folder().join("docs.zip");
    std::fs::write(&path, &zip).unwrap();
    assert!(tool("unzip", "unzip").arg("-tqq").arg(&path).status().unwrap().success());
    let unpacked = tool("unzip", "unzip").arg("-p").arg(&path).arg("f").output().unwrap();
    assert_eq!(unpacked.stdout, whole);
    for from in [700_030, 1_000_000] {
        let part = server
            .get("/v1/zip/default?prefix=docs/")
            .header("Range", format!("bytes={from}-{}", from + 99_999))
            .send()
            .await
            .unwrap();
        assert_eq!(part.bytes().await.unwrap(), zip[from..from + 100_000]);
    }
}

#[tokio::test]
async fn deletion_takes_all_pieces_and_waits_for_who_reads_them() {
    let server = Server::start();
    let (whole, url) = joined(&server, "f").await;
    assert_eq!((blobs(&server.data).len(), stages(&server.data).len()), (3, 0));
    let mut reader = Wire::connect(&server);
    reader.request("GET /v1/files/default/f", &["range: bytes=1-"]);
    let length = reader.head().length();
    let begun = reader.body(10);
    assert_eq!(server.delete("/v1/files/default/f").send().await.unwrap().status(), 204);
    assert_eq!([begun, reader.body(length - 10)].concat(), whole[1..], "the download goes on to its end");
    assert_eq!(offset(&server, &url).await, Ok(Some(whole.len())), "what the upload came to is still told");

    joined(&server, "g").await;
    assert_eq!(server.delete("/v1/files/default/g").send().await.unwrap().status(), 204);
    joined(&server, "h").await;
    let replaced = server.put("/v1/files/default/h").body("other").send().await.unwrap();
    assert_eq!(replaced.status(), 200);
    // f's are left for the next round of maintenance when the reader was still there.
    until_async("pieces of g and h are gone", async || blobs(&server.data).len() <= 3).await;
}

#[tokio::test]
async fn partial_uploads_that_end_together_are_joined_once() {
    let server = Server::start();
    for round in 0..10 {
        let parts: Vec<Vec<u8>> = (0..6).map(|seed| content(50_000, seed)).collect();
        let mut urls = Vec::new();
        for _ in &parts {
            urls.push(create(&server, &[("Upload-Length", "50000"), ("Upload-Concat", "partial")]).await);
        }
        let name = format!("f{round}");
        let url = location(join(&server, &urls, &name).send().await.unwrap()).await;
        assert_eq!(offset(&server, &url).await, Ok(None), "not complete yet");
        let mut sending = tokio::task::JoinSet::new();
        for (url, part) in urls.iter().zip(&parts) {
            sending.spawn(patch(&server, url, 0, part).send());
        }
        for answer in sending.join_all().await {
            assert_eq!(answer.unwrap().status(), 204);
        }
        assert_eq!(offset(&server, &url).await, Ok(Some(300_000)));
        let stored = server.get(&format!("/v1/files/default/{name}")).send().await.unwrap();
        assert!(stored.bytes().await.unwrap() == parts.concat());
    }
    assert_eq!((blobs(&server.data).len(), stages(&server.data).len()), (60, 0));
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut server = Server::start();
    let (whole, url) = joined(&server, "f").await;
    let etag = meta(&server, "f").await["etag"].clone();
    server.stop();
    let again = Setup::new().data(&server.data).start();
    let path = url.strip_prefix(&server.base).unwrap();
    assert_eq!(offset(&again, path).await, Ok(Some(whole.len())));
    assert_eq!(meta(&again, "f").await["etag"], etag);
    let body = again.get("/v1/files/default/f").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(body, whole);
}

#[tokio::test]
async fn a_thousand_partial_uploads_become_one_file_and_more_are_refused() {
    let server = Setup::new().set("CARRACK_UPLOADS__DURABILITY", "process").start();
    let mut urls = Vec::new();
    for number in 0..1000u32 {
        urls.push(partial(&server, &number.to_le_bytes()).await);
    }
    let paths =
        |urls: &[String]| urls.iter().map(|url| url[server.base.len()..].to_owned()).collect::<Vec<_>>();
    let more = [paths(&urls), paths(&urls[..1])].concat();
    let refused = join(&server, &more, "f").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "invalid_concatenation");
    location(join(&server, &paths(&urls), "f").send().await.unwrap()).await;
    let whole: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().bytes().await.unwrap(), whole);
    assert_eq!(meta(&server, "f").await["blake3"], blake3::hash(&whole).to_string());
}

#[tokio::test]
async fn quota_is_that_of_the_bucket_of_the_file() {
    let server = Server::start();
    server.put("/v1/buckets/small").body("{\"quota_bytes\": 5}").send().await.unwrap();
    let urls = [partial(&server, b"abc").await, partial(&server, b"def").await];
    let metadata = format!("bucket {},key {}", super::base64(b"small"), super::base64(b"f"));
    let into_small = |urls: &[String]| {
        super::tus(&server, reqwest::Method::POST, "/v1/tus")
            .header("Upload-Concat", format!("final;{}", urls.join(" ")))
            .header("Upload-Metadata", metadata.clone())
    };
    let refused = into_small(&urls).send().await.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "quota_exceeded");
    location(into_small(&urls[..1]).send().await.unwrap()).await;
    location(join(&server, &urls[1..], "f").send().await.unwrap()).await;
    let bucket: Value = server.get("/v1/buckets/default").send().await.unwrap().json().await.unwrap();
    assert_eq!((&bucket["used_bytes"], &bucket["reserved_bytes"]), (&3.into(), &0.into()));
}

#[tokio::test]
async fn uploads_that_are_not_in_parts_are_listed_and_refused_as_parts() {
    let server = Server::start();
    let url = create(&server, &[("Upload-Defer-Length", "1"), ("Upload-Metadata", &super::key("k"))]).await;
    assert_eq!(patch(&server, &url, 0, b"abc").send().await.unwrap().status(), 204);
    let id = url.rsplit('/').next().unwrap();
    let listed: Value = server.get("/v1/uploads").send().await.unwrap().json().await.unwrap();
    let upload = &listed["uploads"][0];
    assert_eq!((&upload["upload_id"], &upload["received_bytes"]), (&id.into(), &3.into()));
    assert_eq!(
        (&upload["size"], &upload["part_count"], &upload["received"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    for request in [
        server.put(&format!("/v1/uploads/{id}/parts/1")).body("x"),
        server.post(&format!("/v1/uploads/{id}/complete")),
    ] {
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 409);
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "upload_shape");
    }
}
