//! Which bytes other nodes are just sending: what nothing points at any more must not be deleted under them.
//!
//! Whoever is about to delete asks all nodes that are known. Each answers which of these it reads. Without an answer from
//! every one, and while nobody can be asked, nothing is deleted: the next round asks again.

use crate::Core;
use crate::maintenance::Maintenance;
use bytes::Bytes;
use carrack_domain::BlobId;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// By which it is asked, and what answers begin with.
const QUESTIONS: &str = "reads";
/// How long the others may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that tell one question from another.
const NAME_BYTES: usize = 16;

#[derive(Serialize, Deserialize)]
struct Question {
    /// By which it is to be answered.
    answer: String,
    blobs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    /// Which node says so.
    node: String,
    /// Those that it reads.
    reads: Vec<String>,
}

/// This node's name.
fn own_name(core: &Core) -> String {
    core.state.nodes().into_iter().find(|node| node.is_self).map(|node| node.id).unwrap_or_default()
}

/// Those of `blobs` that no other node reads; none of them when that cannot be told.
pub(crate) async fn free_elsewhere(core: &Core, blobs: Vec<BlobId>) -> Vec<BlobId> {
    if blobs.is_empty() || !core.state.is_shared() {
        return blobs;
    }
    match tokio::time::timeout(PATIENCE, ask(core, &blobs)).await {
        Ok(Some(read)) => blobs.into_iter().filter(|blob| !read.contains(&blob.to_string())).collect(),
        Ok(None) | Err(_) => {
            tracing::debug!(blobs = blobs.len(), "not every node says what it reads: deleted later");
            Vec::new()
        }
    }
}

/// What the others read of these; `None` when they cannot be asked.
async fn ask(core: &Core, blobs: &[BlobId]) -> Option<HashSet<String>> {
    let mut name = [0; NAME_BYTES];
    core.entropy.fill(&mut name);
    let answer = format!("{QUESTIONS}:{}", carrack_domain::id::hex(&name));
    let mut answers = core.state.hear(&answer).await.ok()?;
    let question = Question { answer, blobs: blobs.iter().map(BlobId::to_string).collect() };
    core.state.publish(QUESTIONS, serde_json::to_vec(&question).ok()?.into()).await.ok()?;
    // Whoever could not be told of: while Redis is away, only this one is known, and nobody was asked.
    if !core.state.is_connected() {
        return None;
    }
    let mut missing: HashSet<String> =
        core.state.nodes().into_iter().filter(|node| !node.is_self).map(|node| node.id).collect();
    let mut read = HashSet::new();
    while !missing.is_empty() {
        // Lost messages may have been answers.
        let said: Answer = serde_json::from_slice(&answers.next().await?).ok()?;
        missing.remove(&said.node);
        read.extend(said.reads);
    }
    Some(read)
}

/// Answers the others, until `stop`.
pub(crate) async fn answer(core: Arc<Core>, maintenance: Arc<Maintenance>, stop: CancellationToken) {
    if core.state.is_shared() {
        stop.run_until_cancelled(listen(&core, &maintenance)).await;
    }
}

async fn listen(core: &Core, maintenance: &Maintenance) {
    let mut questions = match core.state.hear(QUESTIONS).await {
        Ok(questions) => questions,
        Err(error) => {
            tracing::error!(error = error.chain(), "the other nodes cannot be told what is read here");
            return;
        }
    };
    loop {
        // One that is missed is asked again.
        let Some(question) = questions.next().await else { continue };
        let Some((topic, answer)) = reply(core, maintenance, &question) else { continue };
        if let Err(error) = core.state.publish(&topic, answer).await {
            tracing::debug!(error = error.chain(), "what is read here could not be told");
        }
    }
}

fn reply(core: &Core, maintenance: &Maintenance, question: &[u8]) -> Option<(String, Bytes)> {
    let question: Question = serde_json::from_slice(question).ok()?;
    let is_read = |blob: &String| BlobId::parse(blob).is_none_or(|blob| maintenance.is_read(blob));
    let reads = question.blobs.into_iter().filter(is_read).collect();
    let answer = serde_json::to_vec(&Answer { node: own_name(core), reads }).ok()?;
    Some((question.answer, answer.into()))
}
