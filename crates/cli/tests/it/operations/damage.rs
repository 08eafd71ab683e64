//! Damage behind the server's back: told as what it is, never sent as if it were the file.

use super::disk::{blobs, stages};
use super::wait::until;
use super::wire::Wire;
use crate::server::{Server, Setup, content};
use serde_json::Value;
use std::fs::File;
use std::time::Duration;

async fn with_file(len: usize) -> (Server, Vec<u8>) {
    let server = Server::start();
    let bytes = content(len, 9);
    let stored = server.put("/v1/files/default/f").body(bytes.clone()).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    (server, bytes)
}

/// Every way to ask for the content is refused before its first byte, and the operator is told.
async fn lost(server: &Server) {
    for range in [None, Some("bytes=0-9"), Some("bytes=-1"), Some("bytes=0-0,5-6")] {
        let mut request = server.get("/v1/files/default/f");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 500, "{range:?}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(answer.headers().get("etag").is_none(), "an error has no validator of the file");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "data_lost");
        let text = problem.to_string();
        assert!(!text.contains("blobs") && !text.contains(server.data.to_str().unwrap()), "{text}");
    }
    let told = |line: &str| line.contains("\"level\":\"ERROR\"") && line.contains("data_lost");
    assert!(server.log().lines().any(told), "{}", server.log());
    assert_eq!(server.get("/v1/files/default/f?meta").send().await.unwrap().status(), 200);
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200, "one lost file is not all of them");
    let replaced = server.put("/v1/files/default/f").body("anew").send().await.unwrap();
    assert_eq!(replaced.status(), 200, "it can be replaced");
    let got = server.get("/v1/files/default/f").send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "anew");
}

#[tokio::test]
async fn a_blob_that_was_deleted_is_told_as_lost() {
    let (server, _) = with_file(100_000).await;
    std::fs::remove_file(&blobs(&server.data)[0]).unwrap();
    lost(&server).await;
}

#[tokio::test]
async fn a_blob_that_was_cut_short_is_told_as_lost() {
    let (server, _) = with_file(100_000).await;
    let blob = File::options().write(true).open(&blobs(&server.data)[0]).unwrap();
    blob.set_len(99_999).unwrap();
    lost(&server).await;
}

#[tokio::test]
async fn a_blob_that_grew_is_told_as_lost() {
    let (server, _) = with_file(100_000).await;
    let blob = File::options().write(true).open(&blobs(&server.data)[0]).unwrap();
    blob.set_len(100_001).unwrap();
    lost(&server).await;
}

/// How long the server may take a file for whole that it has seen to be whole, and a little more.
const TRUST: Duration = Duration::from_millis(2500);

/// Sends it once, so that whatever the server keeps open or in memory of it is there.
async fn made_hot(server: &Server, bytes: &[u8]) {
    for _ in 0..2 {
        let got = server.get("/v1/files/default/f").send().await.unwrap();
        assert!(got.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_blob_that_was_deleted_after_it_was_read_is_told_as_lost() {
    let (server, bytes) = with_file(1 << 20).await;
    made_hot(&server, &bytes).await;
    std::fs::remove_file(&blobs(&server.data)[0]).unwrap();
    tokio::time::sleep(TRUST).await;
    lost(&server).await;
}

#[tokio::test]
async fn a_blob_that_was_cut_short_after_it_was_read_is_told_as_lost() {
    let (server, bytes) = with_file(1 << 20).await;
    made_hot(&server, &bytes).await;
    let blob = File::options().write(true).open(&blobs(&server.data)[0]).unwrap();
    blob.set_len(4096).unwrap();
    tokio::time::sleep(TRUST).await;
    lost(&server).await;
}

#[tokio::test]
async fn an_archive_of_a_lost_file_does_not_end_as_a_whole_one() {
    let (server, _) = with_file(100_000).await;
    std::fs::remove_file(&blobs(&server.data)[0]).unwrap();
    let whole = match server.get("/v1/zip/default").send().await {
        Ok(answer) if answer.status() == 500 => false,
        Ok(answer) => answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "{}", server.log());
}

#[tokio::test]
async fn a_blob_cut_short_while_it_is_sent_ends_the_answer_short_and_nothing_is_padded() {
    let (server, bytes) = with_file(48 << 20).await;
    let mut wire = Wire::connect(&server);
    wire.request("GET /v1/files/default/f", &[]);
    let head = wire.head();
    assert_eq!((head.status, head.length()), (200, bytes.len()));
    let blob = File::options().write(true).open(&blobs(&server.data)[0]).unwrap();
    blob.set_len(40 << 20).unwrap();
    let got = wire.rest();
    assert!(got.len() <= 40 << 20, "{} bytes", got.len());
    assert!(got == bytes[..got.len()]);
    until("the operator is told", || server.log().contains("broken off"));
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200, "nothing else is disturbed");
}

#[tokio::test]
async fn an_archive_of_a_blob_cut_short_after_it_was_read_does_not_end_as_a_whole_one() {
    let (server, bytes) = with_file(1 << 20).await;
    made_hot(&server, &bytes).await;
    let blob = File::options().write(true).open(&blobs(&server.data)[0]).unwrap();
    blob.set_len(4096).unwrap();
    let whole = match server.get("/v1/zip/default").send().await {
        Ok(answer) if answer.status() == 500 => false,
        Ok(answer) => answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "{}", server.log());
    for facts in ["chunks", "meta"] {
        let answer = server.get(&format!("/v1/files/default/f?{facts}")).send().await.unwrap();
        assert!(matches!(answer.status().as_u16(), 200 | 500), "{facts}");
    }
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200, "it is still there");
}

#[tokio::test]
async fn a_stage_without_an_upload_goes_at_the_start_and_one_with_an_upload_stays() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Setup::new().data(data.path()).start();
    let create = r#"{"bucket": "default", "key": "k", "size": 1000}"#;
    let made: Value = server.post("/v1/uploads").body(create).send().await.unwrap().json().await.unwrap();
    let id = made["upload_id"].as_str().unwrap().to_owned();
    server.kill();
    let stray = data.path().join("staging/00112233445566778899aabbccddeeff");
    std::fs::write(&stray, "left over").unwrap();
    let server = Setup::new().data(data.path()).start();
    assert_eq!(stages(data.path()), [id.as_str()]);
    let state = server.get(&format!("/v1/uploads/{id}")).send().await.unwrap();
    assert_eq!(state.status(), 200);
}

#[tokio::test]
async fn young_bytes_without_a_record_are_left_alone() {
    let data = tempfile::tempdir().unwrap();
    Setup::new().data(data.path()).start().stop();
    let stray = data.path().join("blobs/00/00112233445566778899aabbccddeeff");
    let foreign = data.path().join("blobs/00/README");
    std::fs::write(&stray, "perhaps being committed").unwrap();
    std::fs::write(&foreign, "not ours").unwrap();
    let mut server = Setup::new().data(data.path()).start();
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    server.stop();
    assert!(stray.exists() && foreign.exists());
}

/// An upload of one part, that part stored or not.
async fn upload(server: &Server, with_part: bool) -> String {
    let wished = serde_json::json!({"bucket": "default", "key": "u", "size": 5});
    let made = server.post("/v1/uploads").body(wished.to_string()).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let path = format!("/v1/uploads/{}", made["upload_id"].as_str().unwrap());
    if with_part {
        let part = server.put(&format!("{path}/parts/1")).body("12345").send().await.unwrap();
        assert_eq!(part.status(), 200);
    }
    path
}

#[tokio::test]
async fn an_upload_whose_stage_is_gone_is_told_as_lost_and_can_be_given_up() {
    for with_part in [true, false] {
        let server = Server::start();
        let path = upload(&server, with_part).await;
        std::fs::remove_dir_all(server.data.join("staging")).unwrap();
        std::fs::create_dir(server.data.join("staging")).unwrap();
        let answer = if with_part {
            server.post(&format!("{path}/complete")).send().await.unwrap()
        } else {
            server.put(&format!("{path}/parts/1")).body("12345").send().await.unwrap()
        };
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "data_lost");
        assert_eq!(server.get("/v1/files/default/u").send().await.unwrap().status(), 404);
        assert_eq!(server.delete(&path).send().await.unwrap().status(), 204);
        let bucket: Value = server.get("/v1/buckets/default").send().await.unwrap().json().await.unwrap();
        assert_eq!(bucket["reserved_bytes"], 0, "its reservation is given back");
    }
}

#[tokio::test]
async fn an_upload_that_ran_out_of_time_says_so_before_it_is_swept() {
    let server = Setup::new().set("CARRACK_UPLOADS__TTL", "1ms").start();
    let path = upload(&server, false).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    for request in [server.get(&path), server.put(&format!("{path}/parts/1")).body("12345")] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 410);
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "upload_expired");
    }
}
