//! A fault at each step of storing: the system call fails, or the server is killed as it makes it. The request is
//! refused or has been done; what was acknowledged before is there; and once the fault is over the same succeeds.

use super::disk::{blobs, stages};
use super::wait::{until, until_async};
use crate::server::{Server, Setup, content, tool};
use reqwest::Response;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PART_BYTES: usize = 262_144;

/// The steps: reserving, writing, syncing, naming, recording, forgetting.
const STEPS: [&str; 7] = ["fallocate", "pwrite64", "fdatasync", "fsync", "syncfs", "renameat2", "unlink"];
const ACTS: [Act; 6] = [Act::Small, Act::Large, Act::Part, Act::Complete, Act::Append, Act::Delete];

/// What is tried while the fault lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Small,
    Large,
    Part,
    Complete,
    Append,
    Delete,
}

/// strace, attached to a server, injecting a fault into one system call.
struct Fault(Child);

impl Fault {
    fn inject(server: &Server, step: &str, what: &str) -> Fault {
        let mut strace = tool("strace", "strace");
        let pid = server.pid().to_string();
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={step}")]);
        strace.args(["-e", &format!("inject={step}:{what}"), "-p", &pid]);
        let mut child = strace.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("attached")), "strace did not attach");
        std::thread::spawn(move || said.for_each(drop));
        Fault(child)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // SIGTERM lets it detach and leave the server running. Of a server that it killed, it may wait for threads that
        // have long gone.
        let mut kill = tool("kill", "procps");
        kill.arg(self.0.id().to_string()).status().unwrap();
        let patience = Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().unwrap().is_none() {
            if Instant::now() > patience {
                self.0.kill().unwrap();
                self.0.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What was acknowledged before the fault.
struct Before {
    /// An upload in parts of which one is there, another of which all are, and a tus upload with its first bytes.
    open: String,
    whole: String,
    appended: String,
    round: usize,
}

impl Before {
    async fn prepare(server: &Server, round: usize) -> Before {
        for key in ["kept", "replaced", "doomed"] {
            let path = format!("/v1/files/default/{key}");
            let stored = server.put(&path).body(content(PART_BYTES, 1)).send().await.unwrap();
            assert!(stored.status().is_success());
        }
        let (open, whole) = (upload(server, round, "open").await, upload(server, round, "whole").await);
        for (id, number) in [(&open, 1), (&whole, 1), (&whole, 2)] {
            assert_eq!(put_part(server, id, number).await.unwrap().status(), 200);
        }
        let key = crate::tus::key(&format!("appended-{round}"));
        let url = crate::tus::create(server, &[("Upload-Length", "300000"), ("Upload-Metadata", &key)]).await;
        let appended = format!("/v1/tus/{}", url.rsplit('/').next().unwrap());
        let first = crate::tus::patch(server, &appended, 0, &content(300_000, 3)[..100_000]);
        assert_eq!(first.send().await.unwrap().status(), 204);
        Before { open, whole, appended, round }
    }

    async fn act(&self, server: &Server, act: Act) -> reqwest::Result<Response> {
        match act {
            Act::Small => server.put("/v1/files/default/replaced").body(content(4_000, 2)).send().await,
            Act::Large => server.put("/v1/files/default/replaced").body(content(400_000, 2)).send().await,
            Act::Part => put_part(server, &self.open, 2).await,
            Act::Complete => server.post(&format!("/v1/uploads/{}/complete", self.whole)).send().await,
            Act::Append => {
                let rest = &content(300_000, 3)[100_000..];
                crate::tus::patch(server, &self.appended, 100_000, rest).send().await
            }
            Act::Delete => server.delete("/v1/files/default/doomed").send().await,
        }
    }

    /// Everything that was acknowledged is as it was; what was tried is done or is not.
    async fn verify(&self, server: &Server, act: Act, done: bool, how: &str) {
        assert_eq!(file(server, "kept").await, Some(content(PART_BYTES, 1)), "{how}");
        let (old, small, large) = (content(PART_BYTES, 1), content(4_000, 2), content(400_000, 2));
        let replaced = file(server, "replaced").await.unwrap();
        match act {
            Act::Small => assert!(replaced == small || !done && replaced == old, "{how}"),
            Act::Large => assert!(replaced == large || !done && replaced == old, "{how}"),
            _ => assert!(replaced == old, "{how}"),
        }
        let doomed = file(server, "doomed").await;
        assert!(
            doomed.is_none() && act == Act::Delete || doomed == Some(old) && !done || act != Act::Delete,
            "{how}"
        );
        let open: Value = json_of(server, &format!("/v1/uploads/{}", self.open)).await;
        let received = open["received"].as_str().unwrap_or_default();
        assert!(received == "1-2" || received == "1" && !(act == Act::Part && done), "{how}: {open}");
        let whole = file(server, &format!("whole-{}", self.round)).await;
        assert!(whole.is_none_or(|bytes| bytes == content(2 * PART_BYTES, 4)), "{how}");
    }

    /// The fault is over: what was refused can be done.
    async fn again(&self, server: &Server, act: Act, step: &str, how: &str) {
        let status = self.act(server, act).await.unwrap().status().as_u16();
        let is_fine = match act {
            // It had been done, all but the answer.
            Act::Delete if status == 404 => true,
            Act::Append if status == 409 => true,
            // An extent that failed to sync is never trusted again: such an upload begins anew.
            Act::Part | Act::Complete | Act::Append if step.contains("sync") && status == 500 => true,
            _ => matches!(status, 200..=299),
        };
        assert!(is_fine, "{how}, and again: {status}");
        let fresh = server.put("/v1/files/default/fresh").body(content(300_000, 5)).send().await.unwrap();
        assert!(fresh.status().is_success(), "{how}: {}", fresh.status());
        assert_eq!(file(server, "fresh").await, Some(content(300_000, 5)), "{how}");
    }
}

async fn upload(server: &Server, round: usize, name: &str) -> String {
    let key = format!("{name}-{round}");
    let new = json!({"bucket": "default", "key": key, "size": 2 * PART_BYTES, "part_size": PART_BYTES});
    let made = server.post("/v1/uploads").body(new.to_string()).send().await.unwrap();
    made.json::<Value>().await.unwrap()["upload_id"].as_str().unwrap().to_owned()
}

async fn put_part(server: &Server, id: &str, number: usize) -> reqwest::Result<Response> {
    let bytes = content(2 * PART_BYTES, 4)[(number - 1) * PART_BYTES..number * PART_BYTES].to_vec();
    server.put(&format!("/v1/uploads/{id}/parts/{number}")).body(bytes).send().await
}

async fn file(server: &Server, key: &str) -> Option<Vec<u8>> {
    let answer = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
    match answer.status().as_u16() {
        404 => None,
        200 => Some(answer.bytes().await.unwrap().to_vec()),
        other => panic!("{key}: {other}"),
    }
}

async fn json_of(server: &Server, path: &str) -> Value {
    server.get(path).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_step_that_fails_refuses_the_request_and_costs_nothing_else() {
    let server = Server::start();
    for (round, (step, errno)) in
        STEPS.iter().flat_map(|step| [(*step, "EIO"), (*step, "ENOSPC")]).enumerate()
    {
        // In turn, so that each act meets several faults in bounded time.
        for act in [ACTS[round % ACTS.len()], ACTS[(round + 1) % ACTS.len()]] {
            let how = format!("{step} fails with {errno} during {act:?}");
            let before = Before::prepare(&server, 100 * round + act as usize).await;
            let fault = Fault::inject(&server, step, &format!("error={errno}"));
            let answer = before.act(&server, act).await.unwrap();
            let status = answer.status().as_u16();
            drop(fault);
            assert!(matches!(status, 200..=299 | 500 | 503 | 507), "{how}: {status}");
            before.verify(&server, act, status < 300, &how).await;
            before.again(&server, act, step, &how).await;
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_step_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (round, (step, act)) in STEPS.iter().flat_map(|step| ACTS.map(|act| (*step, act))).enumerate() {
        let how = format!("killed at {step} during {act:?}");
        let mut server = ready(&data).await;
        let before = Before::prepare(&server, round).await;
        let fault = Fault::inject(&server, step, "signal=KILL");
        let answer = before.act(&server, act).await;
        drop(fault);
        let done = answer.is_ok_and(|answer| answer.status().is_success());
        server.kill();
        let server = ready(&data).await;
        before.verify(&server, act, done, &how).await;
        before.again(&server, act, step, &how).await;
        let open = json_of(&server, "/v1/uploads").await;
        let open: BTreeSet<&str> = open["uploads"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|upload| upload["upload_id"].as_str())
            .collect();
        until("only open uploads have stages", || stages(&data).iter().all(|stage| open.contains(&**stage)));
        assert!(!blobs(&data).is_empty());
    }
}

async fn ready(data: &Path) -> Server {
    let server = Setup::new().data(data).start();
    until_async("ready", async || server.get("/readyz").send().await.unwrap().status() == 200).await;
    server
}
