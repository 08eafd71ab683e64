//! kill -9 while bytes are appended and uploads are joined: what was acknowledged is there, and no offset goes back.
//!
//! `CARRACK_KILLS` says how often (10 unless set).

use super::{base64, key, offset, tus};
use crate::operations::disk::stages;
use crate::operations::wait::until_async;
use crate::server::{Server, Setup, content};
use reqwest::Method;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const WRITERS: usize = 4;
const BYTES: usize = 3 << 20;

/// A client that keeps a ledger of what it was told.
struct Writer {
    name: usize,
    /// Files done, by number.
    done: usize,
    /// Paths of the uploads of the present file: one, or three partial ones.
    uploads: Vec<String>,
    /// What each was last told to have.
    told: Vec<usize>,
    appended: usize,
}

impl Writer {
    fn whole(&self) -> Vec<u8> {
        content(BYTES, (self.name * 10_000 + self.done) as u64)
    }

    fn key(&self) -> String {
        format!("{}-{}", self.name, self.done)
    }

    /// Odd writers join three partial uploads.
    fn pieces(&self) -> usize {
        if self.name.is_multiple_of(2) { 1 } else { 3 }
    }

    /// Goes on where it was; `None` once the server is gone.
    async fn work(&mut self, server: &Server) -> Option<()> {
        loop {
            let whole = self.whole();
            let parts: Vec<&[u8]> = whole.chunks(BYTES / self.pieces()).collect();
            while self.uploads.len() < parts.len() {
                let length = parts[self.uploads.len()].len();
                let mut request = tus(server, Method::POST, "/v1/tus").header("Upload-Length", length);
                request = match self.pieces() {
                    1 => request.header("Upload-Metadata", key(&self.key())),
                    _ => request.header("Upload-Concat", "partial"),
                };
                let answer = request.send().await.ok()?;
                assert_eq!(answer.status(), 201);
                let location = answer.headers()["location"].to_str().unwrap();
                self.uploads.push(location.strip_prefix(&server.base).unwrap().to_owned());
                self.told.push(0);
            }
            for (index, part) in parts.iter().enumerate() {
                self.append(server, index, part).await?;
            }
            if self.pieces() > 1 {
                let answer = tus(server, Method::POST, "/v1/tus")
                    .header("Upload-Concat", format!("final;{}", self.uploads.join(" ")))
                    .header("Upload-Metadata", format!("filename {}", base64(self.key().as_bytes())))
                    .send()
                    .await
                    .ok()?;
                assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
            }
            self.done += 1;
            self.uploads.clear();
            self.told.clear();
        }
    }

    async fn append(&mut self, server: &Server, index: usize, part: &[u8]) -> Option<()> {
        let mut size = 1000;
        while self.told[index] < part.len() {
            let at = self.told[index];
            let end = part.len().min(at + size);
            let answer = super::patch(server, &self.uploads[index], at, &part[at..end]).send().await.ok()?;
            assert_eq!(answer.status(), 204, "{} at {at}", self.uploads[index]);
            assert_eq!(answer.headers()["upload-offset"], end.to_string().as_str());
            self.told[index] = end;
            self.appended += 1;
            size = size * 3 % 700_001;
        }
        Some(())
    }

    /// Compares what is there with what was told.
    async fn verify(&mut self, server: &Server) {
        for index in 0..self.uploads.len() {
            match offset(server, &self.uploads[index]).await {
                Ok(now) => {
                    let now = now.unwrap();
                    assert!(
                        now >= self.told[index],
                        "the offset went back from {} to {now}",
                        self.told[index]
                    );
                    self.told[index] = now;
                }
                // The answer to the last request may have been lost, and the pieces be used up by it.
                Err(status) => {
                    assert_eq!((status, self.pieces()), (404, 3));
                    assert_eq!(self.fetch(server, self.done).await, self.whole(), "joined");
                }
            }
        }
        for number in self.done.saturating_sub(2)..self.done {
            let expected = content(BYTES, (self.name * 10_000 + number) as u64);
            assert!(self.fetch(server, number).await == expected, "file {number} of {}", self.name);
        }
    }

    async fn fetch(&self, server: &Server, number: usize) -> Vec<u8> {
        let answer = server.get(&format!("/v1/files/default/{}-{number}", self.name)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}-{number}", self.name);
        answer.bytes().await.unwrap().to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_offset_goes_back_and_no_file_is_lost_by_kill_9() {
    let kills: u64 = std::env::var("CARRACK_KILLS").map_or(10, |text| text.parse().unwrap());
    let data = tempfile::tempdir().unwrap();
    let new = |name| Writer { name, done: 0, uploads: Vec::new(), told: Vec::new(), appended: 0 };
    let mut writers: Vec<Writer> = (0..WRITERS).map(new).collect();
    for round in 0..=kills {
        let server = Setup::new().data(data.path()).start();
        until_async("ready", async || server.get("/readyz").send().await.unwrap().status() == 200).await;
        for writer in &mut writers {
            writer.verify(&server).await;
        }
        let open: Value = server.get("/v1/uploads").send().await.unwrap().json().await.unwrap();
        let open = open["uploads"].as_array().unwrap().len();
        assert!(stages(data.path()).len() <= open, "every stage belongs to an upload");
        if round == kills {
            break;
        }
        let server = Arc::new(server);
        let mut working = JoinSet::new();
        for mut writer in writers.drain(..) {
            let server = server.clone();
            working.spawn(async move {
                assert!(writer.work(&server).await.is_none());
                writer
            });
        }
        // Not a wait for something: the moment of the kill is any.
        tokio::time::sleep(Duration::from_millis(37 + round * 7919 % 900)).await;
        server.signal("KILL");
        writers = working.join_all().await;
        let mut server = Arc::into_inner(server).unwrap();
        assert!(!server.wait(Duration::from_secs(60)).success(), "it was killed");
    }
    let done: usize = writers.iter().map(|writer| writer.done).sum();
    let appended: usize = writers.iter().map(|writer| writer.appended).sum();
    println!("{kills} kills: {appended} appends acknowledged, {done} files");
    assert!(appended > 0);
}
