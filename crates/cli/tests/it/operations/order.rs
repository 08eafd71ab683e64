//! The order of system calls, as strace saw them: nothing is acknowledged before it is durable (invariants 1 and 2).

use super::strace::{Call, Trace};
use super::wait::until;
use crate::server::{Server, Setup, content, tool};
use serde_json::Value;
use std::path::PathBuf;

const TRACED: &str = "trace=openat,read,pread64,readv,preadv,preadv2,recvfrom,recvmsg,mmap,sendfile,splice,write,\
    pwrite64,writev,sendto,sendmsg,fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,copy_file_range";

/// A server under strace, and what strace writes.
struct Traced {
    server: Server,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Traced {
    fn start() -> Traced {
        tool("strace", "strace");
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("strace");
        // -D: the server stays our child and gets our signals. -y: descriptors with their paths.
        let path = log.to_str().unwrap();
        let words = ["strace", "-D", "-f", "-y", "-s", "200", "-o", path, "-e", TRACED, "--"];
        Traced { server: Setup::new().under(&words).start(), log, _folder: folder }
    }

    /// Stops the server; all that happened.
    fn stop(mut self) -> Trace {
        let pid = self.server.pid().to_string();
        self.server.stop();
        let written = || std::fs::read_to_string(&self.log).unwrap();
        // Short process ids are padded.
        let last = |line: &str| line.contains(" +++ exited") && line.split(' ').next() == Some(&pid);
        until("strace has written everything", || written().lines().any(last));
        Trace::parse(&written())
    }
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync")
}

/// A sync of this file or folder, or of everything.
fn covers(call: &Call, what: &str) -> bool {
    call.name == "syncfs" || is_sync(call) && call.text.contains(what)
}

fn syncs_catalog(call: &Call) -> bool {
    is_sync(call) && call.text.contains("/catalog.sqlite-wal>")
}

/// What lies between a request's arrival and the first byte of its answer.
fn during(trace: &Trace, request: &str) -> (Vec<Call>, usize) {
    let arrived = trace.arrival(request).unwrap();
    let answered = trace
        .first(arrived.end, |c| c.writes() && c.text.contains("\"HTTP/1.1 2") && !c.text.contains("/log>"))
        .unwrap();
    let between = trace.calls.iter().filter(|c| c.start >= arrived.end && c.start <= answered.start);
    (between.cloned().collect(), answered.start)
}

/// The first of these calls that ends before `before`, having begun after `after`.
fn step(calls: &[Call], after: usize, before: usize, what: &str, is: impl Fn(&Call) -> bool) -> usize {
    let found = calls.iter().find(|c| c.start > after && c.end < before && c.ok && is(c));
    found.unwrap_or_else(|| panic!("no {what} in order in {calls:#?}")).end
}

#[tokio::test]
async fn a_whole_body_is_synced_named_and_recorded_before_it_is_acknowledged() {
    let traced = Traced::start();
    let body = content(300_000, 1);
    let stored = traced.server.put("/v1/files/default/whole").body(body).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    let trace = traced.stop();
    let (calls, answered) = during(&trace, "PUT /v1/files/default/whole");
    let synced =
        step(&calls, 0, answered, "fsync of the stage", |c| is_sync(c) && c.text.contains("/staging/"));
    let named = step(&calls, synced, answered, "rename into blobs/", |c| {
        c.name.starts_with("rename") && c.text.contains("/staging/") && c.text.contains("/blobs/")
    });
    let blobs = step(&calls, named, answered, "fsync of the blobs folder", |c| {
        c.name == "fsync" && c.text.contains("/data/blobs/")
    });
    let staging = step(&calls, named, answered, "fsync of the staging folder", |c| {
        c.name == "fsync" && c.text.contains("/data/staging>")
    });
    step(&calls, blobs.max(staging), answered, "sync of the catalog", syncs_catalog);
}

/// Stores `MANY` bodies at once, of a length of at least `len`; what happened.
async fn many_at_once(len: usize) -> Trace {
    let traced = Traced::start();
    let one = |n: usize| {
        let body = content(len + n, n as u64);
        let request = traced.server.put(&format!("/v1/files/default/many/{n}")).body(body);
        async move { assert_eq!(request.send().await.unwrap().status(), 201) }
    };
    futures_util::future::join_all((0..MANY).map(one)).await;
    traced.stop()
}

const MANY: usize = 64;

/// The calls by which they arrived and were answered, in the order of the answers.
fn answers_to_many(trace: &Trace) -> Vec<(Call, Call)> {
    let descriptor = |call: &Call| call.text.split(['(', ',']).nth(1).unwrap().to_owned();
    let mut answered: Vec<(Call, Call)> = (0..MANY)
        .map(|n| {
            let arrived = trace.arrival(&format!("PUT /v1/files/default/many/{n} HTTP")).unwrap();
            let answer = |c: &Call| c.writes() && descriptor(c) == descriptor(arrived);
            (arrived.clone(), trace.first(arrived.end, answer).unwrap().clone())
        })
        .collect();
    answered.sort_by_key(|(_, answer)| answer.start);
    answered
}

/// Many at once share their syncs, and each of them is covered in the same order as one alone.
#[tokio::test]
async fn of_many_bodies_at_once_each_is_synced_named_and_synced_again_before_it_is_recorded() {
    let trace = many_at_once(40_000).await;
    let calls = &trace.calls;
    let renames = |c: &&Call| c.ok && c.name.starts_with("rename") && c.text.contains("/staging/");
    let mut recorded: Vec<usize> = calls
        .iter()
        .filter(renames)
        .map(|named| {
            let (_, stage) = named.text.split_once("/staging/").unwrap();
            let stage = format!("/staging/{}", &stage[..32]);
            let writes = |c: &&Call| c.name.contains("write") && c.text.contains(&stage);
            let written = calls.iter().filter(writes).map(|c| c.end).max().unwrap();
            step(calls, written, named.start, "sync of the stage", |c| covers(c, &stage));
            let (_, shard) = named.text.split_once("/data/blobs/").unwrap();
            let shard = format!("/data/blobs/{}>", &shard[..2]);
            let shard = step(calls, named.end, usize::MAX, "sync of the shard", |c| covers(c, &shard));
            let staging =
                step(calls, named.end, usize::MAX, "sync of staging", |c| covers(c, "/data/staging>"));
            step(calls, shard.max(staging), usize::MAX, "sync of the catalog", syncs_catalog)
        })
        .collect();
    recorded.sort_unstable();
    assert_eq!(recorded.len(), MANY);
    for (recorded, (_, answer)) in recorded.iter().zip(answers_to_many(&trace)) {
        assert!(*recorded < answer.start, "of any number that are acknowledged as many are durable");
    }
}

/// A small body is kept with its record: it is in the log, and the log is synced, before it is acknowledged. Nothing else
/// is touched.
#[tokio::test]
async fn of_many_small_bodies_at_once_each_is_in_the_log_and_synced_before_it_is_acknowledged() {
    let trace = many_at_once(4_000).await;
    let calls = &trace.calls;
    let logged = |c: &Call| c.name == "pwrite64" && c.text.contains("/catalog.sqlite-wal>");
    let (mut syncs, mut bytes) = (0, 0);
    for (n, (arrived, answer)) in answers_to_many(&trace).iter().enumerate() {
        let written = step(calls, arrived.end, answer.start, "write to the log", logged);
        step(calls, written, answer.start, "sync of the catalog", syncs_catalog);
        // Of any number that are acknowledged, all bytes were written before the last sync that they may count on.
        let synced = calls.iter().filter(|c| c.ok && syncs_catalog(c) && c.end < answer.start);
        let synced = synced.map(|c| c.start).max().unwrap();
        let durable = calls.iter().filter(|c| c.ok && logged(c) && c.end < synced);
        bytes = durable.map(|c| c.text.rsplit(" = ").next().unwrap().trim().parse::<usize>().unwrap()).sum();
        assert!(bytes > (n + 1) * 4_000, "{n} are acknowledged, and {bytes} bytes are durable");
        syncs = calls.iter().filter(|c| syncs_catalog(c) && c.start > 0 && c.end < answer.start).count();
    }
    assert!(syncs < MANY && bytes > MANY * 4_000, "they share {syncs} syncs");
    let stored = |c: &&Call| {
        c.ok && (c.text.contains("/data/blobs/") && c.name != "openat"
            || c.text.contains("/staging/") && c.text.contains("O_CREAT"))
            && !c.text.contains("/staging/probe")
            && c.start > answers_to_many(&trace)[0].0.start
    };
    assert_eq!(calls.iter().find(stored).map(|c| &c.text), None, "no file is made");
}

#[tokio::test]
async fn a_part_is_synced_and_recorded_before_it_is_acknowledged_and_completing_reads_no_byte() {
    let traced = Traced::start();
    let server = &traced.server;
    let bytes = content(500_000, 2);
    let create = r#"{"bucket": "default", "key": "parts", "size": 500000, "part_size": 262144}"#;
    let made: Value = server.post("/v1/uploads").body(create).send().await.unwrap().json().await.unwrap();
    let id = made["upload_id"].as_str().unwrap();
    for (number, part) in bytes.chunks(262_144).enumerate() {
        let path = format!("/v1/uploads/{id}/parts/{}", number + 1);
        assert_eq!(server.put(&path).body(part.to_vec()).send().await.unwrap().status(), 200);
    }
    let done = server.post(&format!("/v1/uploads/{id}/complete")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    let id = id.to_owned();
    let trace = traced.stop();
    let stage = format!("/staging/{id}>");

    let (calls, answered) = during(&trace, "POST /v1/uploads HTTP");
    let named = step(&calls, 0, answered, "fsync of the staging folder", |c| {
        c.name == "fsync" && c.text.contains("/data/staging>")
    });
    step(&calls, named, answered, "sync of the catalog", syncs_catalog);

    for number in 1..=2 {
        let (calls, answered) = during(&trace, &format!("PUT /v1/uploads/{id}/parts/{number} "));
        let synced =
            step(&calls, 0, answered, "sync of the stage", |c| is_sync(c) && c.text.contains(&stage));
        let late =
            calls.iter().find(|c| c.start > synced && c.name.contains("write") && c.text.contains(&stage));
        assert!(late.is_none(), "written after it was synced: {late:?}");
        step(&calls, synced, answered, "sync of the catalog", syncs_catalog);
    }

    let (calls, answered) = during(&trace, &format!("POST /v1/uploads/{id}/complete"));
    let data = |c: &&Call| {
        !is_sync(c)
            && !c.name.starts_with("rename")
            && c.name != "openat"
            && (c.text.contains("/staging/") || c.text.contains("/blobs/"))
    };
    assert_eq!(calls.iter().find(data).map(|c| &c.text), None, "completing moves no byte");
    let synced = step(&calls, 0, answered, "fsync of the stage", |c| is_sync(c) && c.text.contains(&stage));
    let named = step(&calls, synced, answered, "rename", |c| c.name.starts_with("rename"));
    let folders = step(&calls, named, answered, "fsync of the blobs folder", |c| {
        c.name == "fsync" && c.text.contains("/data/blobs/")
    });
    step(&calls, folders, answered, "sync of the catalog", syncs_catalog);
}

#[tokio::test]
async fn appended_bytes_are_synced_and_recorded_before_they_are_acknowledged_and_joining_reads_no_byte() {
    let traced = Traced::start();
    let server = &traced.server;
    let bytes = content(500_000, 3);
    let length = ("Upload-Length", "500000");
    let url = crate::tus::create(server, &[length, ("Upload-Concat", "partial")]).await;
    for (from, to) in [(0, 262_144), (262_144, 500_000)] {
        let stored = crate::tus::patch(server, &url, from, &bytes[from..to]).send().await.unwrap();
        assert_eq!(stored.status(), 204);
    }
    let joined = crate::tus::tus(server, reqwest::Method::POST, "/v1/tus?join")
        .header("Upload-Concat", format!("final;{url} {url}"))
        .send()
        .await
        .unwrap();
    assert_eq!(joined.status(), 201);
    let id = url.rsplit('/').next().unwrap().to_owned();
    let trace = traced.stop();
    let stage = format!("/staging/{id}>");

    let (calls, answered) = during(&trace, &format!("PATCH /v1/tus/{id}"));
    let synced = step(&calls, 0, answered, "sync of the stage", |c| is_sync(c) && c.text.contains(&stage));
    let late = calls.iter().find(|c| c.start > synced && c.name.contains("write") && c.text.contains(&stage));
    assert!(late.is_none(), "written after it was synced: {late:?}");
    step(&calls, synced, answered, "sync of the catalog", syncs_catalog);

    let (calls, answered) = during(&trace, "POST /v1/tus?join");
    let moved = ["read", "pread64", "write", "pwrite64", "copy_file_range", "sendfile"];
    let data = |c: &&Call| {
        moved.contains(&c.name.as_str()) && (c.text.contains("/staging/") || c.text.contains("/blobs/"))
    };
    assert_eq!(calls.iter().find(data).map(|c| &c.text), None, "joining moves no byte");
    let synced = step(&calls, 0, answered, "fsync of the stage", |c| is_sync(c) && c.text.contains(&stage));
    let named = step(&calls, synced, answered, "rename", |c| c.name.starts_with("rename"));
    let folders = step(&calls, named, answered, "fsync of the blobs folder", |c| {
        c.name == "fsync" && c.text.contains("/data/blobs/")
    });
    step(&calls, folders, answered, "sync of the catalog", syncs_catalog);
}

#[tokio::test]
async fn a_deletion_is_recorded_before_the_bytes_go() {
    let traced = Traced::start();
    for (key, len) in [("gone", 100_000), ("small", 1000)] {
        let path = format!("/v1/files/default/{key}");
        traced.server.put(&path).body(content(len, 1)).send().await.unwrap();
        let deleted = traced.server.delete(&path).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
    }
    let trace = traced.stop();
    let unlink = |c: &&Call| c.name.starts_with("unlink") && c.text.contains("/blobs/");
    for key in ["gone", "small"] {
        let (calls, answered) = during(&trace, &format!("DELETE /v1/files/default/{key}"));
        let recorded = step(&calls, 0, answered, "sync of the catalog", syncs_catalog);
        if key == "gone" {
            let unlinked = trace.calls.iter().find(unlink).unwrap();
            assert!(unlinked.start > recorded, "record before data on delete");
        }
    }
    assert_eq!(trace.calls.iter().filter(unlink).count(), 1, "a small one has no file to be deleted");
}
