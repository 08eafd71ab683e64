//! The power goes at any moment: whatever of that which was not synced is lost, what was acknowledged is there, whole;
//! what was not is there whole or not at all.
//!
//! A server works under strace; its disk is then put together as it may be found after a cut (`disk_model`), and another
//! server is started on that. `CARRACK_CUTS` says at how many random moments (12 unless set), `CARRACK_SEED` which.

use super::disk_model::{Disk, Mercy};
use super::strace::{Call, Trace};
use super::wait::{until, until_async};
use super::writer::Dice;
use crate::server::{Server, Setup, content, tool};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const TRACED: &str = "trace=openat,read,recvfrom,recvmsg,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,\
    fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate,copy_file_range,\
    mkdir,mkdirat,link,linkat,symlink";
const PART_BYTES: usize = 262_144;
const LOCKED: u16 = 423;

/// What is to be found once a request was answered.
enum Promise {
    /// This state of a file, or a later one.
    File(String, usize),
    /// This part of the upload, unless it was completed since.
    Part(String, usize),
    /// So many bytes of the tus upload.
    Offset(String, usize),
}

/// Requests by what their first line contains, in the order in which each file's were answered.
#[derive(Default)]
struct Work {
    promises: Vec<(String, Promise)>,
    /// The states that each key was to have, one after the other: a content, or none.
    states: BTreeMap<String, Vec<Option<Vec<u8>>>>,
}

impl Work {
    fn file(&mut self, request: &str, key: &str, content: Option<&[u8]>) {
        let states = self.states.entry(key.to_owned()).or_insert_with(|| vec![None]);
        states.push(content.map(<[u8]>::to_vec));
        self.promises.push((request.to_owned(), Promise::File(key.to_owned(), states.len() - 1)));
    }

    async fn put(&mut self, server: &Server, key: &str, bytes: Vec<u8>, number: usize) {
        let path = format!("/v1/files/default/{key}?n={number}");
        self.file(&format!("PUT {path} "), key, Some(&bytes));
        assert!(server.put(&path).body(bytes).send().await.unwrap().status().is_success());
    }

    /// All dialects, small and large bodies, one after the other and at once.
    async fn do_all(&mut self, server: &Server) {
        self.put(server, "small", content(4_000, 1), 1).await;
        self.put(server, "large", content(300_000, 2), 2).await;
        self.put(server, "twice", content(5_000, 3), 3).await;
        self.put(server, "twice", content(150_001, 4), 4).await;
        self.put(server, "gone", content(6_000, 5), 5).await;
        let deleted = server.delete("/v1/files/default/gone").send().await.unwrap();
        assert_eq!(deleted.status(), 204);
        self.file("DELETE /v1/files/default/gone ", "gone", None);
        let many = (0..12).map(|n| (n, content(3_000 + n, n as u64))).collect::<Vec<_>>();
        for (n, bytes) in &many {
            self.file(&format!("PUT /v1/files/default/many/{n} "), &format!("many/{n}"), Some(bytes));
        }
        let puts = many
            .into_iter()
            .map(|(n, bytes)| server.put(&format!("/v1/files/default/many/{n}")).body(bytes).send());
        for stored in futures_util::future::join_all(puts).await {
            assert_eq!(stored.unwrap().status(), 201);
        }
        self.parts(server).await;
        self.appends(server).await;
    }

    async fn parts(&mut self, server: &Server) {
        let bytes = content(2 * PART_BYTES - 12_345, 6);
        let new = serde_json::json!({
            "bucket": "default", "key": "parts", "size": bytes.len(), "part_size": PART_BYTES,
        });
        let made = server.post("/v1/uploads").body(new.to_string()).send().await.unwrap();
        let made: Value = made.json().await.unwrap();
        let id = made["upload_id"].as_str().unwrap();
        for (index, part) in bytes.chunks(PART_BYTES).enumerate().rev() {
            let number = index + 1;
            let path = format!("/v1/uploads/{id}/parts/{number}");
            assert_eq!(server.put(&path).body(part.to_vec()).send().await.unwrap().status(), 200);
            self.promises.push((format!("PUT {path} "), Promise::Part(id.to_owned(), number)));
        }
        let path = format!("/v1/uploads/{id}/complete");
        assert_eq!(server.post(&path).send().await.unwrap().status(), 201);
        self.file(&format!("POST {path} "), "parts", Some(&bytes));
    }

    async fn appends(&mut self, server: &Server) {
        let bytes = content(400_000, 7);
        let fields = [("Upload-Length", "400000"), ("Upload-Metadata", &*crate::tus::key("appended"))];
        let url = crate::tus::create(server, &fields).await;
        let resource = format!("/v1/tus/{}", url.rsplit('/').next().unwrap());
        for (number, (from, to)) in [(0, 1_000), (1_000, 201_001), (201_001, 400_000)].into_iter().enumerate()
        {
            let path = format!("{resource}?n={number}");
            let stored = crate::tus::patch(server, &path, from, &bytes[from..to]).send().await.unwrap();
            assert_eq!(stored.status(), 204);
            if to < bytes.len() {
                self.promises.push((format!("PATCH {path} "), Promise::Offset(resource.clone(), to)));
            } else {
                self.file(&format!("PATCH {path} "), "appended", Some(&bytes));
            }
        }
    }

    /// Whether a server that found this disk keeps what was promised before the cut; what it lost, if not.
    async fn verify(&self, server: &Server, answered: &[usize], cut: usize) -> Result<(), String> {
        let promised: Vec<&Promise> =
            self.promises.iter().zip(answered).filter(|(_, at)| **at <= cut).map(|((_, p), _)| p).collect();
        for (key, states) in &self.states {
            let answer = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
            let found = match answer.status().as_u16() {
                404 => None,
                200 => Some(answer.bytes().await.map_err(|error| format!("{key}: {error}"))?),
                status => return Err(format!("{key}: {status}")),
            };
            let promised = promised.iter().filter_map(|promise| match promise {
                Promise::File(of, state) if of == key => Some(*state),
                _ => None,
            });
            let least = promised.max().unwrap_or(0);
            if !states[least..].iter().any(|state| state.as_deref() == found.as_deref()) {
                return Err(format!("{key} is not what it was"));
            }
        }
        for promise in promised {
            let (what, kept) = match promise {
                Promise::Part(id, number) => {
                    (format!("part {number}"), part_is_there(server, id, *number).await)
                }
                Promise::Offset(path, bytes) => {
                    let mut found = Err(LOCKED);
                    // An upload that was being finished is finished after the start, and locked until then.
                    until_async("unlocked", async || {
                        found = crate::tus::offset(server, path).await;
                        found != Err(LOCKED)
                    })
                    .await;
                    let kept = matches!(found, Ok(Some(found)) if found >= *bytes);
                    (format!("of {bytes} bytes all but {found:?}"), kept)
                }
                Promise::File(..) => continue,
            };
            if !kept {
                return Err(format!("{what} of an upload lost"));
            }
        }
        Ok(())
    }
}

async fn part_is_there(server: &Server, upload: &str, number: usize) -> bool {
    let status = server.get(&format!("/v1/uploads/{upload}")).send().await.unwrap();
    let status: Value = status.json().await.unwrap();
    let received = status["received"].as_str().unwrap_or_default();
    status["state"] == "complete" || received == "1-2" || received == number.to_string()
}

/// Works under strace in `data`; what was done, and what was promised.
async fn work(data: &Path, durability: &str) -> (Trace, Work) {
    tool("strace", "strace");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("strace");
    let words =
        ["strace", "-D", "-f", "-y", "-x", "-s", "1000000", "-o", log.to_str().unwrap(), "-e", TRACED, "--"];
    let setup = Setup::new().data(data).set("CARRACK_UPLOADS__DURABILITY", durability);
    let mut server = setup.under(&words).start();
    let mut work = Work::default();
    work.do_all(&server).await;
    let pid = server.pid().to_string();
    server.stop();
    let written = || std::fs::read_to_string(&log).unwrap();
    let last = |line: &str| line.contains(" +++ exited") && line.split(' ').next() == Some(&pid);
    until("strace has written everything", || written().lines().rev().take(50).any(last));
    (Trace::parse(&written()), work)
}

/// The line on which each request's answer was sent.
fn answers(trace: &Trace, work: &Work) -> Vec<usize> {
    let socket = |call: &Call| call.text.split(['(', ',']).nth(1).unwrap_or_default().to_owned();
    let said = |call: &Call, what: &str| {
        call.strings().iter().any(|bytes| bytes.windows(what.len()).any(|part| part == what.as_bytes()))
    };
    let answered = |(request, _): &(String, Promise)| {
        let arrived = trace.calls.iter().find(|call| call.ok && call.reads() && said(call, request));
        let arrived = arrived.unwrap_or_else(|| panic!("no {request}"));
        let is_answer = |call: &Call| {
            call.ok && call.writes() && socket(call) == socket(arrived) && said(call, "HTTP/1.1 2")
        };
        trace.first(arrived.end, is_answer).unwrap_or_else(|| panic!("no answer to {request}")).start
    };
    work.promises.iter().map(answered).collect()
}

/// A server on the disk as it is found.
async fn restart(data: &Path, found: &BTreeMap<String, Vec<u8>>) -> Server {
    for name in ["staging", "blobs"] {
        for entry in std::fs::read_dir(data.join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            } else {
                let inside = std::fs::read_dir(path).unwrap();
                inside.for_each(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap());
            }
        }
    }
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    for (path, bytes) in found {
        std::fs::write(path, bytes).unwrap();
    }
    let server = Setup::new().data(data).start();
    until_async("ready", async || server.get("/readyz").send().await.unwrap().status() == 200).await;
    server
}

/// What a server did in a new folder and promised there, and when it did so.
struct Recorded {
    data: PathBuf,
    disk: Disk,
    work: Work,
    answered: Vec<usize>,
    end: usize,
    _folder: tempfile::TempDir,
}

impl Recorded {
    async fn with(durability: &str) -> Recorded {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Setup::new().data(&data).start().stop();
        let mut disk = Disk::of(&data);
        let (trace, work) = work(&data, durability).await;
        disk.record(&data, &trace);
        assert!(disk.changes() > 100, "the model saw what was done: {}", disk.changes());
        let answered = answers(&trace, &work);
        let end = trace.calls.iter().map(|call| call.end).max().unwrap();
        Recorded { data, disk, work, answered, end, _folder: folder }
    }

    async fn cut(&self, at: usize, mercy: Mercy, how: &str) -> Result<(), String> {
        let server = restart(&self.data, &self.disk.after(at, mercy)).await;
        let kept = self.work.verify(&server, &self.answered, at).await;
        kept.map_err(|lost| format!("a power cut at line {at}, {how}: {lost}"))
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_whatever_else_the_disk_forgot() {
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let mut dice = Dice::new(number("CARRACK_SEED", 1));
    let recorded = Recorded::with("power").await;
    for at in &recorded.answered {
        recorded.cut(*at, Mercy::None, "nothing else kept").await.unwrap();
    }
    for _ in 0..number("CARRACK_CUTS", 12) {
        let mercy = Mercy::Dice(Dice::new(dice.below(u64::MAX)));
        recorded.cut(dice.below(recorded.end as u64) as usize, mercy, "anything kept").await.unwrap();
    }
    recorded.cut(recorded.end, Mercy::None, "nothing else kept").await.unwrap();
}

/// Without syncs a crash of the process costs nothing, and a power cut does: the model tells one from the other.
#[tokio::test]
async fn durability_process_survives_a_crash_and_not_a_power_cut() {
    let recorded = Recorded::with("process").await;
    for at in &recorded.answered {
        recorded.cut(*at, Mercy::All, "everything kept").await.unwrap();
    }
    let last = *recorded.answered.iter().max().unwrap();
    recorded.cut(last, Mercy::None, "nothing else kept").await.unwrap_err();
}
