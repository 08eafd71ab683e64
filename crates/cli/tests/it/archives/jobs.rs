//! Jobs: pause, resume, cancel, failure, quota.

use super::{act, below, fetch, look, made, path, put, setup, text, until};
use crate::server::{Server, content};

/// Enough work that a job is not over before the next request.
async fn load(server: &Server) {
    for number in 0..12 {
        put(server, &format!("w/{number}"), text(8 << 20, number)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_resumed_cancelled() {
    let server = setup().set("CARRACK_ARCHIVES__WORKERS", "1").start();
    load(&server).await;
    let archive = made(&server, &below("w/", "deflate")).await;
    let (status, paused) = act(&server, &archive, "pause").await;
    assert_eq!((status.as_u16(), paused["state"].as_str()), (200, Some("paused")));
    let (status, again) = act(&server, &archive, "pause").await;
    assert_eq!((status.as_u16(), again["code"].as_str()), (409, Some("invalid_transition")));
    let content = server.get(&format!("{}/content", path(&archive))).send().await.unwrap();
    assert_eq!(content.status(), 409);
    let problem: serde_json::Value = content.json().await.unwrap();
    assert_eq!(problem["code"], "archive_not_ready");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let rested = look(&server, &archive).await;
    assert_eq!(rested["state"], "paused", "nobody takes it up by himself");
    let (status, _) = act(&server, &archive, "resume").await;
    assert_eq!(status, 200);
    until(&server, &archive, "completed").await;
    let (status, _) = act(&server, &archive, "cancel").await;
    assert_eq!(status, 409, "it is over");

    for number in 0..12 {
        put(&server, &format!("w/{number}"), text(8 << 20, 50 + number)).await;
    }
    let archive = made(&server, &below("w/", "deflate")).await;
    let (status, cancelled) = act(&server, &archive, "cancel").await;
    assert_eq!((status.as_u16(), cancelled["state"].as_str()), (200, Some("cancelled")));
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(act(&server, &archive, action).await.0, 409, "{action}");
    }
    assert_eq!(look(&server, &archive).await["state"], "cancelled");
}

/// Bytes that are gone do not come back: the job fails at once, and says at which entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lasting_fault_names_the_entry() {
    let server = setup().start();
    put(&server, "w/a", text(100_000, 1)).await;
    put(&server, "w/b", text(200_000, 2)).await;
    let blob = crate::operations::disk::blobs(&server.data);
    let lost = blob.iter().find(|path| std::fs::metadata(path).unwrap().len() == 200_000).unwrap();
    std::fs::remove_file(lost).unwrap();
    let archive = made(&server, &below("w/", "deflate")).await;
    let deadline = std::time::Instant::now() + super::SOON;
    let failed = loop {
        let now = look(&server, &archive).await;
        if now["state"] == "failed" {
            break now;
        }
        assert!(std::time::Instant::now() < deadline, "{now}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(failed["error"]["code"], "data_lost");
    assert_eq!(failed["error"]["entry"], "b");
}

/// What nobody needs is evicted over the quota, what an archive needs is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_of_deflated_forms() {
    let setup = || setup().set("CARRACK_ARCHIVES__ENCODINGS_QUOTA", "0");
    let mut server = setup().start();
    put(&server, "w/a", text(3_000_000, 1)).await;
    put(&server, "w/b", content(40_000, 1)).await;
    let archive = made(&server, &below("w/", "deflate")).await;
    until(&server, &archive, "completed").await;
    let zip = fetch(&server, &archive).await;
    let before = crate::operations::disk::blobs(&server.data).len();
    assert_eq!(before, 4, "two files, a pack and a manifest");
    server.stop();
    let mut server = setup().data(&server.data).start();
    assert!(fetch(&server, &archive).await == zip, "needed, so not evicted");
    assert_eq!(server.delete(&path(&archive)).send().await.unwrap().status(), 204);
    server.stop();
    let server = setup().data(&server.data).start();
    crate::operations::wait::until("the pack to be evicted", || {
        crate::operations::disk::blobs(&server.data).len() == 2
    });
}
