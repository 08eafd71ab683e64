//! What cannot be recorded is not done.

use super::{audit, whole};
use crate::operations::mount::Mount;
use crate::server::Setup;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_no_record() {
    let mount = Mount::tmpfs(48);
    let data = mount.path().join("data");
    let mut server = Setup::new().data(&data).start();
    assert_eq!(server.put("/v1/files/default/a").body("a").send().await.unwrap().status(), 201);
    let filler = mount.path().join("filler");
    let mut full = File::create(&filler).unwrap();
    while full.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    let mut refused = 0;
    for number in 0..400 {
        let made = server.put(&format!("/v1/buckets/bucket-{number}")).body("{}").send().await.unwrap();
        let status = made.status().as_u16();
        let answer: Value = made.json().await.unwrap();
        assert!(status == 201 || (status == 507 && answer["code"] == "storage_full"), "{status} {answer}");
        refused += usize::from(status == 507);
    }
    assert!(refused > 0, "the disk was never full");
    for _ in 0..5 {
        assert_eq!(server.get("/v1/files/default/a").send().await.unwrap().status(), 200);
    }
    // As long as it is open it takes its space.
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    server.stop();
    whole(&data, &[]);
    let text = String::from_utf8(audit("export", &data, &[]).stdout).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str, action: &str| {
        records.iter().filter(|record| record["kind"] == kind && record["action"] == action).count()
    };
    // The bucket "default" was made by the server itself.
    assert_eq!(count("change", "bucket.put"), 400 - refused + 1);
    assert_eq!(count("end", "bucket.put"), 400);
    assert_eq!(count("end", "file.read"), 5);
}

/// What waits to be written is bounded: then nothing is done that could not be recorded, until it can be again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_log_takes_nothing_requests_are_refused_until_it_does() {
    let mount = Mount::tmpfs(48);
    let data = mount.path().join("data");
    let mut server = Setup::new().data(&data).start();
    let filler = mount.path().join("filler");
    let mut full = File::create(&filler).unwrap();
    while full.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    // Long keys make long records: some 30,000 of them are too many.
    let path = format!("/v1/files/default/{}", "k".repeat(1000));
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ask = async || {
        while refused.load(Ordering::Relaxed) == 0 {
            let answer = server.get(&path).send().await.unwrap();
            match answer.status().as_u16() {
                404 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                503 => {
                    assert_eq!(answer.headers()["content-type"], "application/problem+json");
                    assert!(answer.headers().contains_key("retry-after"));
                    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "audit_unavailable");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other}"),
            }
            assert!(answered.load(Ordering::Relaxed) < 100_000, "nothing bounds what waits");
        }
    };
    futures_util::future::join_all((0..16).map(|_| ask())).await;
    assert!(answered.load(Ordering::Relaxed) > 10_000);
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200, "probes are not recorded");
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    let begun = Instant::now();
    while server.get(&path).send().await.unwrap().status() != 404 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the log is written again");
    }
    server.stop();
    whole(&data, &[]);
    let text = String::from_utf8(audit("export", &data, &[]).stdout).unwrap();
    let reads = text.lines().filter(|line| line.contains(r#""action":"file.read""#)).count();
    assert_eq!(
        reads,
        answered.into_inner() + 1,
        "what was let in is recorded, what was refused was not done"
    );
}
