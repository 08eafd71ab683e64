//! An archive that is being made while nodes die.

use super::ground::{Ground, PATIENCE, ask};
use crate::archives::text;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FILES: u64 = 40;
const BYTES: usize = 4 << 20;
/// Files that are stored at once.
const AT_ONCE: usize = 4;
/// How often nodes are asked how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A job of new content.
pub(super) struct Job {
    path: String,
    prefix: String,
}

impl Job {
    /// Stores the files and asks for the archive. What was deflated before is not deflated again, so the files are new.
    pub(super) async fn begin(ground: &Ground, set: u64) -> Job {
        let prefix = format!("job-{set}/");
        for some in (0..FILES).collect::<Vec<_>>().chunks(AT_ONCE) {
            let stored = some.iter().map(|number| {
                let (path, body) =
                    (format!("/v1/files/default/{prefix}{number}"), text(BYTES, set * FILES + number));
                async move {
                    let (answer, _) = ask(|| ground.root(Method::PUT, &path).body(body.clone())).await;
                    assert!(answer.status().is_success(), "{}", answer.status());
                }
            });
            futures_util::future::join_all(stored).await;
        }
        let wish = json!({"name": "a", "bucket": "default", "prefix": prefix, "compression": "deflate"});
        let (made, _) = ask(|| ground.root(Method::POST, "/v1/archives").json(&wish)).await;
        let made: Value = made.json().await.unwrap();
        Job { path: format!("/v1/archives/{}", made["id"].as_str().unwrap()), prefix }
    }

    async fn look(&self, ground: &Ground) -> Value {
        ask(|| ground.root(Method::GET, &self.path)).await.0.json().await.unwrap()
    }

    /// Whether it is made.
    pub(super) async fn is_over(&self, ground: &Ground) -> bool {
        let now = self.look(ground).await;
        assert!(!matches!(now["state"].as_str(), Some("failed" | "cancelled")), "{now}");
        now["state"] == "completed"
    }

    /// The node that runs it; `None` once it is over.
    pub(super) async fn runner(&self, ground: &Ground) -> Option<usize> {
        let begun = Instant::now();
        loop {
            for node in 0..ground.nodes.len() {
                if runs(ground, node).await {
                    return Some(node);
                }
            }
            if self.is_over(ground).await {
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody runs it: {}", self.look(ground).await);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it is made, takes it, and deletes its files.
    pub(super) async fn finish(self, ground: &Ground) {
        let begun = Instant::now();
        while !self.is_over(ground).await {
            assert!(begun.elapsed() < PATIENCE * 2, "{}", self.look(ground).await);
            tokio::time::sleep(LOOK_EVERY * 5).await;
        }
        let facts = self.look(ground).await;
        assert_eq!(facts["progress"]["entries_total"], FILES);
        let file = ground.folder(&format!("taken-{}", self.prefix.trim_end_matches('/'))).join("a.zip");
        let whole = loop {
            let (answer, _) = ask(|| ground.root(Method::GET, &format!("{}/content", self.path))).await;
            assert_eq!(answer.status(), 200);
            match answer.bytes().await {
                Ok(bytes) => break bytes,
                Err(error) => assert!(begun.elapsed() < PATIENCE * 2, "{error}"),
            }
        };
        assert_eq!(facts["size"], whole.len() as u64);
        std::fs::write(&file, &whole).unwrap();
        let tested = crate::server::tool("unzip", "unzip").arg("-tq").arg(&file).output().unwrap();
        assert!(tested.status.success(), "{tested:?}");
        std::fs::remove_file(&file).unwrap();
        ask(|| ground.root(Method::DELETE, &self.path)).await;
        for number in 0..FILES {
            ask(|| ground.root(Method::DELETE, &format!("/v1/files/default/{}{number}", self.prefix))).await;
        }
    }
}

/// Whether the node runs a job.
async fn runs(ground: &Ground, node: usize) -> bool {
    let Ok(answer) = ground.at(node, Method::GET, "/v1/cluster").send().await else { return false };
    let Ok(all) = answer.json::<Value>().await else { return false };
    let own = all["nodes"].as_array().unwrap().iter().find(|node| node["self"] == true);
    own.is_some_and(|own| own["jobs"].as_u64().unwrap() > 0)
}

/// Bytes of content that this run of the node has deflated; `None` while it does not answer.
pub(super) async fn deflated(ground: &Ground, node: usize) -> Option<u64> {
    let text = ground.at(node, Method::GET, "/metrics").send().await.ok()?.text().await.ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("carrack_archive_deflated_bytes_total "));
    Some(line.map_or(0, |value| value.parse().unwrap()))
}

/// Waits until one of these nodes has made more of it than it had before, or it is made; when that was.
pub(super) async fn progress(ground: &Ground, job: &Job, nodes: &[(usize, u64)]) -> Instant {
    let begun = Instant::now();
    loop {
        for (node, before) in nodes {
            if deflated(ground, *node).await.is_some_and(|now| now > *before) {
                return Instant::now();
            }
        }
        if job.is_over(ground).await {
            return Instant::now();
        }
        assert!(begun.elapsed() < PATIENCE, "nobody took it: {}", job.look(ground).await);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
