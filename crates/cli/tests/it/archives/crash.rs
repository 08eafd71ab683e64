//! kill -9 at any moment of a job: what was made is kept, and the archive is completed by whoever starts next.
//!
//! `CARRACK_JOB_KILLS` says how often (6 unless set).

use super::{below, fetch, look, made, put, setup, text, until};
use crate::operations::disk::blobs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const FILES: u64 = 60;
const BYTES: usize = 3 << 20;

/// Stored runs with their sizes, without the small ones: those are lists of entries, of which the plan goes in the end.
fn stored(data: &std::path::Path) -> BTreeMap<PathBuf, u64> {
    let sizes = blobs(data).into_iter().map(|path| {
        let size = std::fs::metadata(&path).unwrap().len();
        (path, size)
    });
    sizes.filter(|(_, size)| *size > 100_000).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_after_kill_9_at_any_moment() {
    let kills: u64 = std::env::var("CARRACK_JOB_KILLS").map_or(6, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut server = setup().data(folder.path()).start();
    for number in 0..FILES {
        put(&server, &format!("w/{number:02}"), text(BYTES, number)).await;
    }
    let archive = made(&server, &below("w/", "deflate")).await;
    let (mut dice, mut done, mut killed) = (12_345_u64, 0, 0);
    let mut kept = BTreeMap::new();
    for _ in 0..kills {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis((dice >> 33) % 120)).await;
        if look(&server, &archive).await["state"] == "completed" {
            break;
        }
        server.kill();
        killed += 1;
        for (path, size) in &kept {
            assert_eq!(stored(folder.path()).get(path), Some(size), "what was stored is kept");
        }
        kept = stored(folder.path());
        server = setup().data(folder.path()).start();
        let now = look(&server, &archive).await;
        assert_ne!(now["state"], "failed", "{now}");
        let recorded = now["progress"]["entries_done"].as_u64().unwrap();
        done = recorded.max(done);
    }
    until(&server, &archive, "completed").await;
    println!("{killed} kills in the middle of the job");
    let zip = fetch(&server, &archive).await;
    let again = made(&server, &below("w/", "deflate")).await;
    let again = until(&server, &again, "completed").await;
    assert!(fetch(&server, &again).await == zip);
    let file = server.folder().join("crashed.zip");
    std::fs::write(&file, &zip).unwrap();
    let mut expected = crate::zip::unpack::Expected::default();
    for number in 0..FILES {
        expected.add(&format!("{number:02}"), &text(BYTES, number));
    }
    crate::zip::unpack::accepted(&file, &expected);
}
