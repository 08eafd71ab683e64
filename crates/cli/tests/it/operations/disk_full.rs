//! A disk that is full: told early, nothing lost, and it can be cleaned up with the server's own means.

use super::disk::stages;
use super::mount::Mount;
use super::wait::{until, until_async};
use super::wire::Wire;
use crate::server::{Server, Setup, content};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const MIB: usize = 1 << 20;
/// What the server leaves free, see `storage.reserve`; and what its catalog may need of that here.
const RESERVE: u64 = 16 << 20;
const CATALOG: u64 = 6 << 20;

fn on(mount: &Mount) -> Server {
    Setup::new().data(&mount.path().join("data")).start()
}

/// The problem that an answer by hand says.
fn problem(wire: &mut Wire) -> (u16, Value) {
    let head = wire.head();
    let body = wire.body(head.length());
    (head.status, serde_json::from_slice(&body).unwrap())
}

/// Stores files of this size, many at once, until `count` of them were tried; those that were acknowledged.
async fn fill(server: &Server, prefix: &str, len: usize, count: u64) -> (BTreeMap<String, u64>, usize) {
    let mut puts = JoinSet::new();
    for seed in 0..count {
        let key = format!("{prefix}{seed}");
        let request = server.put(&format!("/v1/files/default/{key}")).body(content(len, seed)).send();
        puts.spawn(async move { (key, seed, request.await) });
    }
    let (mut stored, mut full) = (BTreeMap::new(), 0);
    while let Some(done) = puts.join_next().await {
        let (key, seed, answer) = done.unwrap();
        let answer = answer.unwrap();
        match answer.status().as_u16() {
            201 => drop(stored.insert(key, seed)),
            507 => full += 1,
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    (stored, full)
}

async fn all_whole(server: &Server, len: usize, stored: &BTreeMap<String, u64>) {
    for (key, seed) in stored {
        let got = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
        assert_eq!(got.status(), 200, "{key}");
        assert!(got.bytes().await.unwrap() == content(len, *seed), "{key}");
    }
}

#[tokio::test]
async fn what_cannot_fit_is_refused_before_a_byte_of_it_is_read() {
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    for more in [None, Some("expect: 100-continue")] {
        let mut headers = vec!["content-length: 100000000"];
        headers.extend(more);
        let mut wire = Wire::connect(&server);
        wire.request("PUT /v1/files/default/large", &headers);
        let (status, problem) = problem(&mut wire);
        assert_eq!((status, problem["code"].as_str()), (507, Some("storage_full")), "{more:?}");
    }
    let create = r#"{"bucket": "default", "key": "large", "size": 100000000}"#;
    let refused = server.post("/v1/uploads").body(create).send().await.unwrap();
    assert_eq!(refused.status(), 507);
    let list: Value = server.get("/v1/uploads").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["uploads"].as_array().unwrap().len(), 0);
    assert!(stages(&server.data).is_empty());
    let fits = server.put("/v1/files/default/small").body(content(MIB, 1)).send().await.unwrap();
    assert_eq!(fits.status(), 201);
}

/// What the catalog keeps makes it larger, and what is deleted makes room in it for others.
#[tokio::test]
async fn small_files_fill_the_disk_and_make_room_for_each_other() {
    const LEN: usize = 30_000;
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    let (mut stored, full) = fill(&server, "a-", LEN, 2000).await;
    assert!(stored.len() > 600 && full > 0, "{} stored, {full} refused", stored.len());
    assert!(mount.free() > RESERVE - CATALOG, "{} free", mount.free());
    all_whole(&server, LEN, &stored).await;
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    for number in 0..300 {
        if stored.remove(&format!("a-{number}")).is_some() {
            let path = format!("/v1/files/default/a-{number}");
            assert_eq!(server.delete(&path).send().await.unwrap().status(), 204);
        }
    }
    let (again, _) = fill(&server, "b-", LEN, 100).await;
    assert!(again.len() >= 50, "{} of 100 found room", again.len());
    all_whole(&server, LEN, &stored).await;
    all_whole(&server, LEN, &again).await;
}

#[tokio::test]
async fn space_that_an_upload_in_parts_has_reserved_is_its_own() {
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    let create = format!(r#"{{"bucket": "default", "key": "parts", "size": {}}}"#, 24 * MIB);
    let made: Value = server.post("/v1/uploads").body(create).send().await.unwrap().json().await.unwrap();
    let (stored, full) = fill(&server, "other-", 2 * MIB, 20).await;
    assert!(!stored.is_empty() && full > 0);
    let (id, part_size) = (made["upload_id"].as_str().unwrap(), made["part_size"].as_u64().unwrap() as usize);
    let bytes = content(24 * MIB, 77);
    for (number, part) in bytes.chunks(part_size).enumerate() {
        let path = format!("/v1/uploads/{id}/parts/{}", number + 1);
        let answer = server.put(&path).body(part.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    let done = server.post(&format!("/v1/uploads/{id}/complete")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    let got = server.get("/v1/files/default/parts").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == bytes);
    all_whole(&server, 2 * MIB, &stored).await;
}

#[tokio::test]
async fn uploads_that_are_begun_at_once_do_not_eat_up_the_reserve_together() {
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    let mut creates = JoinSet::new();
    for key in 0..60 {
        let create = format!(r#"{{"bucket": "default", "key": "{key}", "size": {}}}"#, 4 * MIB);
        creates.spawn(server.post("/v1/uploads").body(create).send());
    }
    let statuses: Vec<u16> =
        creates.join_all().await.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    let begun = statuses.iter().filter(|status| **status == 201).count();
    assert!(statuses.iter().all(|status| matches!(status, 201 | 507)), "{statuses:?}");
    assert!((1..=12).contains(&begun), "{begun} of 4 MiB were begun");
    assert_eq!(stages(&server.data).len(), begun);
    assert!(mount.free() >= RESERVE - CATALOG, "{} bytes of the reserve are left", mount.free());
}

#[tokio::test]
async fn a_body_of_unknown_length_that_fills_the_disk_ends_as_507_and_leaves_nothing() {
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    server.put("/v1/files/default/before").body("before").send().await.unwrap();
    let free = mount.free();
    let mut wire = Wire::connect(&server);
    wire.request("PUT /v1/files/default/endless", &["transfer-encoding: chunked"]);
    let chunk = content(MIB, 2);
    let mut sent = 0;
    while !wire.answered() && wire.chunk(&chunk).is_ok() {
        sent += 1;
        assert!(sent < 1000, "a disk of 64 MiB took it all");
    }
    let (status, problem) = problem(&mut wire);
    assert_eq!((status, problem["code"].as_str()), (507, Some("storage_full")));
    drop(wire);
    until("the stage is gone", || stages(&server.data).is_empty());
    until("its space is given back", || mount.free() + MIB as u64 >= free);
    assert_eq!(server.get("/v1/files/default/endless").send().await.unwrap().status(), 404);
    let before = server.get("/v1/files/default/before").send().await.unwrap();
    assert_eq!(before.text().await.unwrap(), "before");
}

#[tokio::test]
async fn a_full_disk_serves_deletes_and_takes_files_again() {
    let mount = Mount::tmpfs(64);
    let mut server = on(&mount);
    let len = 2 * MIB;
    let (mut stored, full) = fill(&server, "a-", len, 40).await;
    assert!(stored.len() >= 10 && full > 0, "{} stored, {full} refused", stored.len());
    // To the last block that files of this size and smaller ones can take.
    let (small, full) = fill(&server, "b-", 100_000, 60).await;
    assert!(full > 0, "the disk is not full: {} more", small.len());
    // The catalog lives of the reserve; those who came at once have not.
    assert!(mount.free() >= RESERVE - CATALOG, "{} bytes of the reserve are left", mount.free());
    all_whole(&server, len, &stored).await;
    all_whole(&server, 100_000, &small).await;
    assert!(stages(&server.data).is_empty());
    server.stop();

    let server = on(&mount);
    all_whole(&server, len, &stored).await;
    all_whole(&server, 100_000, &small).await;
    let free = mount.free();
    let gone: Vec<String> = stored.keys().step_by(2).cloned().collect();
    for key in &gone {
        let deleted = server.delete(&format!("/v1/files/default/{key}")).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
        stored.remove(key);
    }
    let freed = (gone.len() * len) as u64 - MIB as u64;
    until("space is given back", || mount.free() >= free + freed);
    let (again, _) = fill(&server, "c-", len, gone.len() as u64).await;
    assert!(again.len() + 4 >= gone.len(), "of {} deleted, {} fit again", gone.len(), again.len());
    all_whole(&server, len, &stored).await;
    all_whole(&server, len, &again).await;
}

/// Somebody else has filled the disk to the last byte, reserve and all: what is stored is served, and nothing breaks.
#[tokio::test]
async fn a_disk_that_others_filled_to_the_last_byte_is_survived() {
    let mount = Mount::tmpfs(64);
    let server = on(&mount);
    let (stored, _) = fill(&server, "a-", MIB, 8).await;
    assert_eq!(stored.len(), 8);
    let filler = mount.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let block = vec![1; 4096];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    assert_eq!(mount.free(), 0);
    all_whole(&server, MIB, &stored).await;
    for key in ["a-0", "new"] {
        let refused = server.put(&format!("/v1/files/default/{key}")).body("more").send().await.unwrap();
        assert_eq!(refused.status(), 507);
    }
    let create = r#"{"bucket": "default", "key": "k", "size": 10}"#;
    assert_eq!(server.post("/v1/uploads").body(create).send().await.unwrap().status(), 507);
    let deleted = server.delete("/v1/files/default/a-0").send().await.unwrap().status().as_u16();
    assert!(matches!(deleted, 204 | 507), "{deleted}");
    all_whole(&server, MIB, &stored.iter().skip(1).map(|(k, v)| (k.clone(), *v)).collect()).await;
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let ready = async || server.get("/readyz").send().await.unwrap().status() == 200;
    until_async("ready again", ready).await;
    let put = server.put("/v1/files/default/new").body("more").send().await.unwrap();
    assert_eq!(put.status(), 201, "it recovers by itself");
    let deleted = server.delete("/v1/files/default/a-1").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
}
