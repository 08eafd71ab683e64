//! kill -9 at any moment: what was acknowledged is there, whole; what was not is there whole or not at all.
//!
//! `CARRACK_KILLS` says how often (50 unless set), `CARRACK_SEED` repeats a run.

use super::disk::{blobs, stages};
use super::ledger::{Fate, Ledger};
use super::wait::until_async;
use super::writer::{Acknowledged, Dice, Writer};
use crate::server::{Server, Setup};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WRITERS: u64 = 6;
/// Load lasts so long at most before the kill: from the first system calls of a request to many requests deep.
const LOAD_MILLIS_MAX: u64 = 400;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let (kills, seed) = (number("CARRACK_KILLS", 50), number("CARRACK_SEED", 1));
    let data = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|name| Writer::new(name, seed)).collect();
    let mut starts = Vec::new();
    let mut done = Acknowledged::default();
    for round in 0..=kills {
        let (server, start) = start(data.path()).await;
        starts.push(start);
        for writer in &mut writers {
            writer.verify(&server).await;
        }
        only_what_is_known(&server, &writers).await;
        if round == kills {
            break;
        }
        writers = load_and_kill(server, writers, &mut dice, &mut done).await;
    }
    starts.sort();
    println!(
        "{kills} kills (seed {seed}): {done:?}; start to ready: median {:?}, max {:?}; {} files, {} blobs at the end",
        starts[starts.len() / 2],
        starts[starts.len() - 1],
        writers.iter().map(|writer| writer.ledger.files().count()).sum::<usize>(),
        blobs(data.path()).len(),
    );
}

/// A server on this folder, once it is ready, and how long that took.
async fn start(data: &Path) -> (Server, Duration) {
    let begun = Instant::now();
    let server = Setup::new().data(data).start();
    until_async("ready", async || server.get("/readyz").send().await.unwrap().status() == 200).await;
    (server, begun.elapsed())
}

/// Lets all writers loose on the server and kills it in the middle.
async fn load_and_kill(
    server: Server,
    writers: Vec<Writer>,
    dice: &mut Dice,
    done: &mut Acknowledged,
) -> Vec<Writer> {
    let server = Arc::new(server);
    let mut working = JoinSet::new();
    for mut writer in writers {
        let server = server.clone();
        working.spawn(async move {
            let done = writer.work(&server).await;
            (writer, done)
        });
    }
    // Not a wait for something: the moment of the kill is what the dice say.
    tokio::time::sleep(Duration::from_micros(dice.below(LOAD_MILLIS_MAX * 1000))).await;
    server.signal("KILL");
    let mut writers = Vec::new();
    for (writer, of_writer) in working.join_all().await {
        done.add(&of_writer);
        writers.push(writer);
    }
    let mut server = Arc::into_inner(server).unwrap();
    assert!(!server.wait(Duration::from_secs(60)).success(), "it was killed");
    writers.sort_by_key(|writer| writer.name);
    writers
}

/// The listing and the folders hold what the writers know of and nothing else.
async fn only_what_is_known(server: &Server, writers: &[Writer]) {
    let list: Value = server.get("/v1/files/default").send().await.unwrap().json().await.unwrap();
    assert!(list["next_cursor"].is_null(), "one page");
    let listed: Vec<(String, Fate)> =
        list["files"].as_array().unwrap().iter().map(|f| (text(f, "key"), Fate::of(f))).collect();
    let mut known: Vec<(String, Fate)> =
        writers.iter().flat_map(|writer| writer.ledger.files()).map(Ledger::described).collect();
    known.sort();
    assert_eq!(listed, known);
    let uploads: Value = server.get("/v1/uploads").send().await.unwrap().json().await.unwrap();
    let open: BTreeSet<String> =
        uploads["uploads"].as_array().unwrap().iter().map(|upload| text(upload, "upload_id")).collect();
    for stage in stages(&server.data) {
        assert!(open.contains(&stage), "stage {stage} belongs to no upload");
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}
