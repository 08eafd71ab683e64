//! A run of a body on its way into the stage: cut where a checkpoint is due, kept where the body breaks off.

use super::claims::{Claim, superseded};
use super::digests::{ExtentHasher, SharedHasher};
use super::receive::{InProgress, next, while_settling};
use crate::upload::writers::Writers;
use crate::{Body, Core, metrics};
use bytes::Bytes;
use carrack_domain::digest::{Algorithm, Piece};
use carrack_domain::upload::Receipt;
use carrack_domain::{Code, Error, Result, UploadId};
use carrack_storage::{ExtentWriter, Flush, Hand};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::Instant;

/// How long a displaced request may go on taking what is there, and how long it waits for more of it: the newcomer is to
/// be let in within 100 ms.
const LAST_CALL: Duration = Duration::from_millis(50);
const LAST_GAP: Duration = Duration::from_millis(10);

/// Where a segment begins and how long it may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Where in the stage it begins.
    pub(super) offset: u64,
    /// Bytes that the upload may still take; more is `length_exceeded`.
    pub(super) room: u64,
    /// It ends after so many bytes, or so long after its first byte; `None`: only with the body.
    pub(super) checkpoint: Option<(u64, Duration)>,
}

/// Why a segment ended.
pub(super) enum Ended {
    /// The body did.
    Body,
    /// A checkpoint is due; more may follow.
    Checkpoint,
    /// No more will come: the body broke off, or a newer request took over. What came is in the segment.
    Failed(Error),
}

/// Bytes that were handed to a writer and are not acknowledged yet.
pub(super) struct Segment {
    stage: UploadId,
    writer: Box<dyn ExtentWriter>,
    hasher: SharedHasher,
    pub(super) bytes: u64,
    pub(super) ended: Ended,
    /// What came beyond the checkpoint: the next segment begins with it.
    pub(super) rest: Bytes,
}

impl Segment {
    /// Receives one, computing `algorithms` besides what the ledger needs. An error is the storage's: nothing of the
    /// segment can be kept then.
    pub(super) async fn receive(
        core: &Core,
        stage: UploadId,
        bounds: Bounds,
        hand: Hand,
        algorithms: &[Algorithm],
        (first, body): (Bytes, &mut Body),
        claim: &Claim,
    ) -> Result<Segment> {
        let hasher = SharedHasher::new(ExtentHasher::for_joining(bounds.offset, algorithms));
        let mut writer = core.storage.extent_writer(stage, bounds.offset, hand, hasher.observer()).await?;
        match fill(&mut *writer, bounds, (first, body), claim).await {
            Ok((bytes, ended, rest)) => Ok(Segment { stage, writer, hasher, bytes, ended, rest }),
            Err(error) => {
                core.writers.forget(stage);
                writer.abandon().await;
                Err(error)
            }
        }
    }

    /// Makes the bytes as durable as configured; what the ledger is to know of them, once `check` agrees.
    pub(super) async fn seal(
        self,
        writers: &Writers,
        check: impl FnOnce(&super::digests::ExtentDigests) -> Result<()>,
    ) -> Result<(Piece, Receipt)> {
        let receipt = self.writer.finish(Flush::Now).await.inspect_err(|_| writers.forget(self.stage))?;
        let digests = self.hasher.finish(self.bytes)?;
        check(&digests)?;
        Ok((digests.piece, receipt))
    }

    /// Waits until nothing is being written any more; the bytes are given up.
    pub(super) async fn abandon(self, writers: &Writers) {
        if !self.writer.abandon().await {
            writers.forget(self.stage);
        }
    }
}

async fn fill(
    writer: &mut dyn ExtentWriter,
    bounds: Bounds,
    (first, body): (Bytes, &mut Body),
    claim: &Claim,
) -> Result<(u64, Ended, Bytes)> {
    let _counted = InProgress::begin();
    let mut bytes = 0;
    let mut due: Option<Instant> = None;
    let mut last_call: Option<Instant> = None;
    let mut first = Some(first).filter(|first| !first.is_empty());
    let mut rest = Bytes::new();
    let ended = loop {
        let waited = match first.take() {
            Some(first) => Waited::Arrived(Some(Ok(first))),
            None => while_settling(writer, wait(body, due, claim, &mut last_call)).await?,
        };
        let arrived = match waited {
            Waited::Arrived(arrived) => arrived,
            Waited::Due => break Ended::Checkpoint,
            Waited::Displaced(error) => break Ended::Failed(error),
        };
        let mut arrived: Bytes = match arrived {
            None => break Ended::Body,
            Some(Err(error)) => break Ended::Failed(error),
            Some(Ok(arrived)) => arrived,
        };
        if bytes + arrived.len() as u64 > bounds.room {
            break Ended::Failed(length_exceeded(bounds.offset + bounds.room));
        }
        // Exactly: where one ends is where storage that keeps parts begins a new one.
        if let Some((most, _)) = bounds.checkpoint
            && bytes + arrived.len() as u64 > most
        {
            rest = arrived.split_off((most - bytes) as usize);
        }
        bytes += arrived.len() as u64;
        ::metrics::counter!(metrics::UPLOAD_BYTES).increment(arrived.len() as u64);
        due = due.or_else(|| bounds.checkpoint.map(|(_, after)| Instant::now() + after));
        writer.write(arrived).await?;
        if bounds.checkpoint.is_some_and(|(most, _)| bytes >= most) {
            break Ended::Checkpoint;
        }
    };
    Ok((bytes, ended, rest))
}

enum Waited {
    Arrived(Option<Result<Bytes>>),
    Due,
    Displaced(Error),
}

/// What comes next of a body, unless the checkpoint is due first or a newer request takes over.
async fn wait(
    body: &mut Body,
    due: Option<Instant>,
    claim: &Claim,
    last_call: &mut Option<Instant>,
) -> Waited {
    if claim.cancelled.is_cancelled() {
        return displaced(body, claim, last_call).await;
    }
    let arrived = match due {
        None => next(body, &claim.cancelled).await,
        Some(due) if due <= Instant::now() => return Waited::Due,
        Some(due) => match tokio::time::timeout_at(due, next(body, &claim.cancelled)).await {
            Ok(arrived) => arrived,
            Err(_) => return Waited::Due,
        },
    };
    match arrived {
        Ok(arrived) => Waited::Arrived(arrived),
        Err(_) => displaced(body, claim, last_call).await,
    }
}

/// What is here already is taken before the newcomer is let in, unless it brings that itself: of a connection that just
/// died the last bytes are still on their way through this process.
async fn displaced(body: &mut Body, claim: &Claim, last_call: &mut Option<Instant>) -> Waited {
    let now = Instant::now();
    let end = *last_call.get_or_insert(now + LAST_CALL);
    if claim.is_discarded() || end <= now {
        return Waited::Displaced(superseded());
    }
    match tokio::time::timeout_at(end.min(now + LAST_GAP), body.next()).await {
        Ok(arrived) => Waited::Arrived(arrived),
        Err(_) => Waited::Displaced(superseded()),
    }
}

/// The answer to bytes beyond the end of an upload of `length` bytes.
pub(super) fn length_exceeded(length: u64) -> Error {
    Error::new(
        Code::LengthExceeded,
        format!("The upload ends after {length} bytes, and these go beyond: send no more than is missing."),
    )
}
