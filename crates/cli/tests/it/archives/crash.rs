//! kill -9 at any moment of a job: what was made is kept, and the archive is completed by whoever starts next.
//!
//! `CARRACK_JOB_KILLS` says how often (6 unless set).

use super::{below, fetch, look, made, put, setup, text, until};
use crate::operations::disk::blobs;
use crate::server::Server;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const FILES: u64 = 60;
const BYTES: usize = 3 << 20;
/// Bytes of deflated forms that are recorded together: what a crash may cost at most.
const GROUP_BYTES: u64 = 8 << 20;

/// Stored runs with their sizes, without the small ones: those are lists of entries, of which the plan goes in the end.
fn stored(data: &std::path::Path) -> BTreeMap<PathBuf, u64> {
    let sizes = blobs(data).into_iter().map(|path| {
        let size = std::fs::metadata(&path).unwrap().len();
        (path, size)
    });
    sizes.filter(|(_, size)| *size > 100_000).collect()
}

/// Bytes of content that this run of the server has deflated.
async fn deflated(server: &Server) -> u64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("carrack_archive_deflated_bytes_total "));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Content that is done, and of that what an earlier run of the server had done; the latter is known once this run has begun
/// to deflate.
async fn done_and_kept(server: &Server, archive: &Value) -> (u64, Option<u64>) {
    let done = look(server, archive).await["progress"]["bytes_done"].as_u64().unwrap();
    let here = deflated(server).await;
    (done, (here > 0).then(|| done.saturating_sub(here)))
}

/// Kills the server again and again while it makes an archive of new files, until that is made or was killed often enough;
/// how often that was, and the bytes that were made again at most.
async fn killed(server: &mut Server, set: u64, most: u64, dice: &mut u64) -> (u64, u64) {
    let data = server.data.clone();
    for number in 0..FILES {
        put(server, &format!("{set}/{number:02}"), text(BYTES, set * FILES + number)).await;
    }
    let wish = below(&format!("{set}/"), "deflate");
    let archive = made(server, &wish).await;
    let (mut killed, mut before, mut redone, mut kept) = (0, 0_u64, 0, BTreeMap::new());
    while killed < most {
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis((*dice >> 33) % 700)).await;
        if look(server, &archive).await["state"] == "completed" {
            break;
        }
        let (done, known) = done_and_kept(server, &archive).await;
        server.kill();
        killed += 1;
        if let Some(known) = known {
            redone = redone.max(before.saturating_sub(known));
            before = 0;
        }
        before = done.max(before);
        let now = stored(&data);
        assert!(kept.iter().all(|(path, size)| now.get(path) == Some(size)), "what was stored is kept");
        kept = now;
        *server = setup().data(&data).start();
        let now = look(server, &archive).await;
        assert_ne!(now["state"], "failed", "{now}");
    }
    until(server, &archive, "completed").await;
    if killed > 0 {
        let all = FILES * BYTES as u64;
        redone = redone.max(before.saturating_sub(all - deflated(server).await));
    }
    let zip = fetch(server, &archive).await;
    let again = made(server, &wish).await;
    assert!(fetch(server, &until(server, &again, "completed").await).await == zip);
    let file = server.folder().join("crashed.zip");
    std::fs::write(&file, &zip).unwrap();
    let mut expected = crate::zip::unpack::Expected::default();
    for number in 0..FILES {
        expected.add(&format!("{number:02}"), &text(BYTES, set * FILES + number));
    }
    crate::zip::unpack::accepted(&file, &expected);
    // One group, the content that no longer fitted into it, and what was made between two questions.
    let group = GROUP_BYTES * FILES * BYTES as u64 / zip.len() as u64 + 3 * BYTES as u64;
    assert!(redone <= group, "{redone} bytes were made again, a group has {group}");
    (killed, redone)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_after_kill_9_at_any_moment() {
    let kills: u64 = std::env::var("CARRACK_JOB_KILLS").map_or(6, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut server = setup().data(folder.path()).start();
    let (mut dice, mut done, mut worst) = (12_345_u64, 0, 0_u64);
    for set in 0..=kills {
        let (killed, redone) = killed(&mut server, set, kills - done, &mut dice).await;
        (done, worst) = (done + killed, worst.max(redone));
        if done == kills {
            break;
        }
    }
    println!("{done} kills in the middle of jobs, at most {} MiB of content deflated again", worst >> 20);
    assert_eq!(done, kills, "jobs are over too soon to be killed");
}
