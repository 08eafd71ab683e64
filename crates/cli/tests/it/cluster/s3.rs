//! Bytes in S3: everything that works on a disk works there, without a byte on the disk, and S3 may fail.

use super::liar::Liar;
use crate::server::{Server, Setup, content};
use crate::tus::{create, key, offset, patch, tus};
use carrack_engines::Garage;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// Garage in a folder that goes with it.
pub(super) fn garage() -> (Garage, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Garage::start(folder.path()).unwrap(), folder)
}

pub(super) fn setup(garage: &Garage) -> Setup {
    setup_at(garage, &garage.endpoint(0))
}

pub(crate) fn setup_at(garage: &Garage, endpoint: &str) -> Setup {
    Setup::new()
        .set("CARRACK_STORAGE__KIND", "s3")
        .set("CARRACK_STORAGE__S3__ENDPOINT", endpoint)
        .set("CARRACK_STORAGE__S3__REGION", garage.region())
        .set("CARRACK_STORAGE__S3__BUCKET", garage.bucket())
        .set("CARRACK_STORAGE__S3__ACCESS_KEY_ID", garage.access_key_id())
        .set("CARRACK_STORAGE__S3__SECRET_ACCESS_KEY", garage.secret_access_key())
        .set("CARRACK_STORAGE__S3__MEMORY", "64MiB")
}

/// How many objects the bucket has.
pub(super) fn objects(garage: &Garage) -> u64 {
    let info = garage.run(&["bucket", "info", garage.bucket()]).unwrap();
    let line = info.lines().find(|line| line.trim_start().starts_with("Objects:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(super) async fn ok(answer: Response) -> Response {
    let status = answer.status();
    if status.is_success() { answer } else { panic!("{status}: {}", answer.text().await.unwrap()) }
}

async fn put(server: &Server, name: &str, bytes: &[u8]) {
    ok(server.put(&format!("/v1/files/default/{name}")).body(bytes.to_vec()).send().await.unwrap()).await;
}

pub(super) async fn fetch(server: &Server, name: &str) -> Vec<u8> {
    let answer = server.get(&format!("/v1/files/default/{name}")).send().await.unwrap();
    ok(answer).await.bytes().await.unwrap().to_vec()
}

pub(crate) async fn begin_parts(server: &Server, name: &str, size: usize, part_size: usize) -> Value {
    let wish = json!({"bucket": "default", "key": name, "size": size, "part_size": part_size});
    ok(server.post("/v1/uploads").json(&wish).send().await.unwrap()).await.json().await.unwrap()
}

pub(super) fn upload_path(upload: &Value) -> String {
    format!("/v1/uploads/{}", upload["upload_id"].as_str().unwrap())
}

pub(crate) async fn part(server: &Server, upload: &Value, whole: &[u8], number: usize) -> Response {
    let size = upload["part_size"].as_u64().unwrap() as usize;
    let piece = whole[(number - 1) * size..whole.len().min(number * size)].to_vec();
    server.put(&format!("{}/parts/{number}", upload_path(upload))).body(piece).send().await.unwrap()
}

pub(crate) async fn complete(server: &Server, upload: &Value, wish: &Value) -> Response {
    server.post(&format!("{}/complete", upload_path(upload))).json(wish).send().await.unwrap()
}

/// Counts of storage operations so far, by the name of the operation.
pub(super) async fn operations(server: &Server) -> std::collections::BTreeMap<String, u64> {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for line in
        text.lines().filter_map(|line| line.strip_prefix("carrack_storage_operation_duration_seconds_count{"))
    {
        let (labels, count) = line.split_once("} ").unwrap();
        let op = labels.split('"').nth(1).unwrap().to_owned();
        *counts.entry(op).or_default() += count.parse::<f64>().unwrap() as u64;
    }
    counts
}

#[tokio::test]
async fn whole_bodies_come_back_and_go_again() {
    let (garage, _folder) = garage();
    let mut server = setup(&garage).start();
    for len in [0, 1, 40_000, 5 * MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB + 3] {
        let bytes = content(len, len as u64);
        put(&server, "f", &bytes).await;
        assert!(fetch(&server, "f").await == bytes, "{len}");
        let chunks =
            bytes.chunks(300_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
        let body = reqwest::Body::wrap_stream(tokio_stream(chunks));
        ok(server.put("/v1/files/default/g").body(body).send().await.unwrap()).await;
        assert!(fetch(&server, "g").await == bytes, "{len} without a length");
    }
    let whole = fetch(&server, "f").await;
    for (from, to) in
        [(0, 0), (8 * MIB - 1, 8 * MIB), (1, whole.len() - 2), (whole.len() - 1, whole.len() - 1)]
    {
        let get = server.get("/v1/files/default/f").header("Range", format!("bytes={from}-{to}"));
        let answer = get.send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert!(answer.bytes().await.unwrap() == whole[from..=to], "{from}-{to}");
    }
    let get = server.get("/v1/files/default/f").header("Range", "bytes=5-9,9000000-9000004");
    let several = get.send().await.unwrap().bytes().await.unwrap();
    for from in [5, 9_000_000] {
        assert!(several.windows(5).any(|window| *window == whole[from..from + 5]));
    }
    for name in ["f", "g"] {
        ok(server.delete(&format!("/v1/files/default/{name}")).send().await.unwrap()).await;
    }
    assert_eq!(objects(&garage), 0, "what nothing points at is deleted");
    let mut stored: Vec<_> =
        std::fs::read_dir(&server.data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    stored.retain(|name| matches!(name.to_str().unwrap(), "blobs" | "staging"));
    assert!(stored.is_empty(), "no byte is on the disk: {stored:?}");
    let log = server.log();
    assert!(!log.contains(garage.secret_access_key()));
    server.stop();
}

fn tokio_stream(
    chunks: Vec<Result<Vec<u8>, std::io::Error>>,
) -> impl futures_util::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures_util::stream::iter(chunks)
}

#[tokio::test]
async fn parts_cost_nothing_beyond_their_own_request() {
    let (garage, _folder) = garage();
    let server = setup(&garage).start();
    let whole = content(40 * MIB + 5, 1);
    let upload = begin_parts(&server, "f", whole.len(), 8 * MIB).await;
    let before = operations(&server).await;
    for number in [3, 1, 6, 2, 5, 4] {
        ok(part(&server, &upload, &whole, number).await).await;
    }
    let mut after = operations(&server).await;
    for (op, count) in before {
        *after.get_mut(&op).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    let expected = [("write_part".to_owned(), 6)];
    assert_eq!(after, expected.into_iter().collect(), "six parts, six requests");
    let again = part(&server, &upload, &content(whole.len(), 2), 3).await;
    assert_eq!(again.status(), 409, "stored parts do not change");
    // For this one the bytes have to be read; they stay, and can be completed.
    let wrong = complete(&server, &upload, &json!({"digest": {"sha-256": "00".repeat(32)}})).await;
    assert_eq!(wrong.status(), 422);
    let file: Value = ok(complete(&server, &upload, &json!({})).await).await.json().await.unwrap();
    assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&whole)));
    assert!(fetch(&server, "f").await == whole);
    assert_eq!(objects(&garage), 1, "nothing but the blob is left");
    // Parts that S3 would not take are made larger, as the answer says.
    let small = begin_parts(&server, "g", 12 * MIB, 1000).await;
    assert_eq!(small["part_size"], 5 * MIB);
    ok(server.delete(&upload_path(&small)).send().await.unwrap()).await;
    assert_eq!(objects(&garage), 1);
}

#[tokio::test]
async fn tus_in_small_and_large_requests_and_over_a_kill() {
    let (garage, _folder) = garage();
    let data = tempfile::tempdir().unwrap();
    let mut server = setup(&garage).data(data.path()).start();
    let whole = content(25 * MIB + 17, 4);
    let length = whole.len().to_string();
    let known = create(&server, &[("Upload-Length", &length), ("Upload-Metadata", &key("known"))]).await;
    let deferred =
        create(&server, &[("Upload-Defer-Length", "1"), ("Upload-Metadata", &key("deferred"))]).await;
    let path = |url: &str| format!("/v1/tus{}", url.split_once("/v1/tus").unwrap().1);
    let mut at = 0;
    for (round, step) in [200_000, 8 * MIB, 64 << 10, 7 * MIB + 1, 1].into_iter().enumerate() {
        for _ in 0..if step < MIB { 40 } else { 1 } {
            let end = whole.len().min(at + step);
            for url in [&known, &deferred] {
                let answer = patch(&server, &path(url), at, &whole[at..end]).send().await.unwrap();
                assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
            }
            at = end;
        }
        if round % 2 == 1 {
            server.kill();
            server = setup(&garage).data(data.path()).start();
            for url in [&known, &deferred] {
                assert_eq!(offset(&server, &path(url)).await, Ok(Some(at)), "nothing acknowledged is lost");
            }
        }
    }
    for (url, name) in [(&known, "known"), (&deferred, "deferred")] {
        let last = patch(&server, &path(url), at, &whole[at..]).header("Upload-Length", &length);
        assert_eq!(last.send().await.unwrap().status(), 204);
        assert!(fetch(&server, name).await == whole, "{name}");
    }
    assert_eq!(objects(&garage), 2, "nothing else is left");
}

#[tokio::test]
async fn partial_uploads_are_joined_and_archives_are_made() {
    let (garage, _folder) = garage();
    let server = setup(&garage).start();
    let parts = [content(700_001, 1), content(6 * MIB, 2), content(1, 3)];
    let mut urls = Vec::new();
    for bytes in &parts {
        let length = bytes.len().to_string();
        let url = create(&server, &[("Upload-Concat", "partial"), ("Upload-Length", &length)]).await;
        assert_eq!(patch(&server, &url, 0, bytes).send().await.unwrap().status(), 204);
        urls.push(url);
    }
    let joined = tus(&server, Method::POST, "/v1/tus")
        .header("Upload-Concat", format!("final;{}", urls.join(" ")))
        .header("Upload-Metadata", key("d/joined"));
    assert_eq!(joined.send().await.unwrap().status(), 201);
    assert!(fetch(&server, "d/joined").await == parts.concat());
    for number in 0..60 {
        put(&server, &format!("d/{number:02}"), &vec![b'a' + number as u8 % 26; 33_000 + number * 500]).await;
    }
    let zip = server.get("/v1/zip/default?prefix=d/").send().await.unwrap();
    let tag = zip.headers()["etag"].to_str().unwrap().to_owned();
    let zip = zip.bytes().await.unwrap();
    let file = server.folder().join("x.zip");
    std::fs::write(&file, &zip).unwrap();
    assert!(crate::server::tool("unzip", "unzip").arg("-tqq").arg(&file).status().unwrap().success());
    let rest =
        server.get("/v1/zip/default?prefix=d/").header("Range", "bytes=1000000-").header("If-Range", tag);
    let rest = rest.send().await.unwrap();
    assert_eq!(rest.status(), 206);
    assert!(rest.bytes().await.unwrap() == zip[1_000_000..]);

    let wish =
        json!({"name": "x", "bucket": "default", "prefix": "d/", "format": "zip", "compression": "deflate"});
    let archive: Value =
        ok(server.post("/v1/archives").json(&wish).send().await.unwrap()).await.json().await.unwrap();
    let path = format!("/v1/archives/{}", archive["id"].as_str().unwrap());
    let begin = Instant::now();
    loop {
        let now: Value = server.get(&path).send().await.unwrap().json().await.unwrap();
        if now["state"] == "completed" {
            break;
        }
        assert!(now["state"] != "failed" && begin.elapsed() < Duration::from_secs(60), "{now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deflated =
        ok(server.get(&format!("{path}/content")).send().await.unwrap()).await.bytes().await.unwrap();
    assert!(deflated.len() < zip.len());
    std::fs::write(&file, &deflated).unwrap();
    assert!(crate::server::tool("unzip", "unzip").arg("-tqq").arg(&file).status().unwrap().success());
}

/// A request that must be answered in time, however S3 is.
async fn status(request: reqwest::RequestBuilder) -> u16 {
    tokio::time::timeout(Duration::from_secs(45), request.send())
        .await
        .expect("no answer")
        .unwrap()
        .status()
        .as_u16()
}

async fn until_works(server: &Server, bytes: &[u8]) {
    let begin = Instant::now();
    while status(server.put("/v1/files/default/again").body(bytes.to_vec())).await >= 300 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(fetch(server, "again").await == bytes);
}

#[tokio::test]
async fn an_s3_that_is_gone_or_hangs_is_told_and_comes_back_without_a_restart() {
    let (mut garage, _folder) = garage();
    let server = setup(&garage).start();
    let whole = content(20 * MIB, 9);
    put(&server, "f", &whole).await;
    let upload = begin_parts(&server, "parts", whole.len(), 8 * MIB).await;
    ok(part(&server, &upload, &whole, 1).await).await;
    let length = whole.len().to_string();
    let url = create(&server, &[("Upload-Length", &length), ("Upload-Metadata", &key("tus"))]).await;
    assert_eq!(patch(&server, &url, 0, &whole[..9 * MIB]).send().await.unwrap().status(), 204);

    garage.node(0).kill();
    let get = server.get("/v1/files/default/f").send().await.unwrap();
    assert_eq!((get.status().as_u16(), get.headers().contains_key("retry-after")), (503, true));
    assert!(get.text().await.unwrap().contains("storage_unavailable"));
    assert_eq!(part(&server, &upload, &whole, 2).await.status(), 503);
    assert_eq!(status(server.put("/v1/files/default/no").body(whole.clone())).await, 503);
    assert_eq!(status(patch(&server, &url, 9 * MIB, &whole[9 * MIB..])).await, 503);
    assert_eq!(offset(&server, &url).await, Ok(Some(9 * MIB)), "the ledger answers without S3");
    assert_eq!(status(server.get("/readyz")).await, 503);
    assert_eq!(status(server.put("/v1/files/default/small").body("in the catalog")).await, 201);
    garage.node(0).start_again().unwrap();
    until_works(&server, &whole[..3 * MIB]).await;

    garage.node(0).freeze();
    let (download, uploaded) = tokio::join!(
        status(server.get("/v1/files/default/f")),
        status(patch(&server, &url, 9 * MIB, &whole[9 * MIB..])),
    );
    assert_eq!((download, uploaded), (503, 503));
    garage.node(0).thaw();
    until_works(&server, &whole[..3 * MIB]).await;
    let at = offset(&server, &url).await.unwrap().unwrap();
    assert!(at >= 9 * MIB);
    assert_eq!(status(patch(&server, &url, at, &whole[at..])).await, 204);
    assert!(fetch(&server, "tus").await == whole);
    for number in [2, 3] {
        ok(part(&server, &upload, &whole, number).await).await;
    }
    ok(complete(&server, &upload, &json!({})).await).await;
    assert!(fetch(&server, "parts").await == whole);
}

#[tokio::test]
async fn what_s3_says_is_not_believed_where_it_can_be_known() {
    let (garage, _folder) = garage();
    let liar = Liar::start(&garage.endpoint(0));
    let server = setup_at(&garage, &liar.endpoint).start();
    let whole = content(20 * MIB + 1, 3);
    let upload = begin_parts(&server, "f", whole.len(), 8 * MIB).await;
    liar.lies.checksums.store(1, Ordering::SeqCst);
    let lied = part(&server, &upload, &whole, 1).await;
    assert_eq!(lied.status(), 500, "nothing is acknowledged that S3 may have wrong");
    liar.lies.errors_for_parts.store(1, Ordering::SeqCst);
    assert_eq!(part(&server, &upload, &whole, 1).await.status(), 503, "an error inside a 200 is one");
    for number in [1, 2, 3] {
        ok(part(&server, &upload, &whole, number).await).await;
    }
    liar.lies.errors_inside_a_200.store(100, Ordering::SeqCst);
    assert_eq!(complete(&server, &upload, &json!({})).await.status(), 503);
    liar.lies.errors_inside_a_200.store(0, Ordering::SeqCst);
    liar.lies.checksums.store(100, Ordering::SeqCst);
    let lied = complete(&server, &upload, &json!({})).await;
    assert_eq!(lied.status(), 500, "nor is a file made of which S3 tells another checksum");
    assert_eq!(server.head("/v1/files/default/f").send().await.unwrap().status(), 404);
    liar.lies.checksums.store(0, Ordering::SeqCst);
    liar.lies.errors_inside_a_200.store(1, Ordering::SeqCst);
    ok(complete(&server, &upload, &json!({})).await).await;
    liar.lies.cuts.store(5, Ordering::SeqCst);
    assert!(fetch(&server, "f").await == whole, "what is cut off is asked for again");
    assert_eq!(liar.lies.cuts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_s3_that_takes_its_permission_back_is_told_to_the_operator() {
    let (garage, _folder) = garage();
    let server = setup(&garage).start();
    put(&server, "f", &content(9 * MIB, 3)).await;
    garage.run(&["bucket", "deny", "--read", garage.bucket(), "--key", garage.access_key_id()]).unwrap();
    let begin = Instant::now();
    while server.get("/v1/files/default/f").send().await.unwrap().status() != 503 {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    assert!(server.log().contains("storage.s3.access_key_id"), "the operator is told what to do");
}
