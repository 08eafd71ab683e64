//! One request's bytes on their way into an upload whose bytes come in order.

use super::append::{Append, Checksum, Report};
use super::claims::{Claim, superseded};
use super::digests::ExtentDigests;
use super::receive::too_large;
use super::segment::{Bounds, Ended, Segment, length_exceeded};
use super::writers::Writers;
use crate::{Body, Core, metrics};
use bytes::Bytes;
use carrack_catalog::Taken;
use carrack_domain::access::FileRef;
use carrack_domain::digest::{Algorithm, Digest, Piece};
use carrack_domain::error::Fact;
use carrack_domain::upload::{Receipt, UploadState};
use carrack_domain::{Code, Error, Result, UploadId};
use carrack_storage::{Before, Hand};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A body is recorded where the upload has a multiple of so many bytes, or so long after the last time: what a crash may cost.
const CHECKPOINT_BYTES: u64 = 64 << 20;
const CHECKPOINT_TIME: Duration = Duration::from_secs(5);

/// Stores what a request brings; where the upload ends then, and the claim.
pub(super) async fn appended(
    core: &Arc<Core>,
    claim: Claim,
    taken: Taken,
    append: Append,
    mut body: Body,
) -> Result<(u64, Claim)> {
    if append.offset != taken.offset {
        let (true_offset, given) = (taken.offset, append.offset);
        let detail = format!(
            "The upload has {true_offset} bytes, the request begins at {given}: go on at {true_offset}."
        );
        let fact = Fact::Offset { expected: true_offset, given };
        return Err(Error::new(Code::OffsetMismatch, detail).with_fact(fact));
    }
    let end = taken.upload.length().unwrap_or(core.limits.file_size_max);
    let room = end.saturating_sub(taken.offset);
    if append.announced.is_some_and(|announced| announced > room) {
        return Err(match taken.upload.length() {
            Some(length) => length_exceeded(length),
            None => too_large(core.limits.file_size_max),
        });
    }
    if taken.upload.state != UploadState::Open {
        // All bytes are there. A request that was sent again because its answer was lost brings none, and is right.
        return Ok((taken.offset, claim));
    }
    if taken.upload.length().is_none() {
        let target = &taken.upload.target;
        core.catalog.check_quota(&target.bucket, &target.key, append.announced.unwrap_or(0)).await?;
        let place = FileRef { bucket: target.bucket.clone(), key: target.key.clone() };
        core.catalog.check_owner_quota(&taken.upload.owner, &place, append.announced.unwrap_or(0)).await?;
    }
    let mut writer = Writer { core: core.clone(), claim, taken, room, report: append.report };
    let result = match append.checksum {
        Checksum::None => writer.stream(&mut body).await,
        Checksum::Now(digests) => {
            let algorithms: Vec<Algorithm> = digests.iter().map(Digest::algorithm).collect();
            writer.verified(&mut body, &algorithms, || Ok(digests)).await
        }
        Checksum::AtEnd(algorithms, digest) => {
            writer.verified(&mut body, algorithms, || Ok(vec![digest()?])).await
        }
    };
    count(&result);
    result.map(|()| (writer.taken.offset, writer.claim))
}

/// Counts what an append came to.
pub(super) fn count<T>(result: &Result<T>) {
    let label = match result {
        Ok(_) => "ok",
        Err(error) => match error.code() {
            Code::DigestMismatch => "digest",
            Code::Superseded => "superseded",
            _ => "failed",
        },
    };
    ::metrics::counter!(metrics::UPLOAD_APPENDS, "result" => label).increment(1);
}

/// A body being received. Holds the claim until nothing is being written any more.
struct Writer {
    core: Arc<Core>,
    claim: Claim,
    taken: Taken,
    room: u64,
    report: Option<Report>,
}

impl Writer {
    /// Records at checkpoints and at the end; what came before a break is kept.
    async fn stream(&mut self, body: &mut Body) -> Result<()> {
        let mut before: Option<Segment> = None;
        loop {
            let under_way = before.as_ref().map_or(0, |segment| segment.bytes);
            let offset = self.taken.offset + under_way;
            let bounds = Bounds {
                offset,
                room: self.room - under_way,
                checkpoint: Some((CHECKPOINT_BYTES - offset % CHECKPOINT_BYTES, CHECKPOINT_TIME)),
            };
            let rest = before.as_mut().map(|segment| std::mem::take(&mut segment.rest)).unwrap_or_default();
            let (promise, hand) = match before {
                None => {
                    (None, hand(&self.core, self.taken.upload.id, self.taken.receipt.clone().into()).await?)
                }
                Some(_) => {
                    let (promise, coming) = Before::promised();
                    (Some(promise), hand(&self.core, self.taken.upload.id, coming).await?)
                }
            };
            // What came before is made durable while the next bytes arrive.
            let (recorded, segment) = tokio::join!(
                record(&self.core, &self.taken, before.take(), promise),
                Segment::receive(
                    &self.core,
                    self.taken.upload.id,
                    bounds,
                    hand,
                    &[],
                    (rest, body),
                    &self.claim
                ),
            );
            let segment = match (recorded, segment) {
                (Ok((bytes, receipt)), Ok(segment)) => {
                    self.advance(bytes, receipt);
                    // What comes with the end of the body, the answer tells.
                    if let Some(report) = self.report.as_mut().filter(|_| bytes > 0) {
                        report(self.taken.offset);
                    }
                    segment
                }
                (Err(error), Ok(segment)) => {
                    segment.abandon(&self.core.writers).await;
                    return Err(error);
                }
                (recorded, Err(error)) => return Err(recorded.err().unwrap_or(error)),
            };
            match segment.ended {
                Ended::Checkpoint => before = Some(segment),
                Ended::Failed(_) if self.claim.is_discarded() => {
                    segment.abandon(&self.core.writers).await;
                    return Err(superseded());
                }
                Ended::Body | Ended::Failed(_) => return self.last(segment).await,
            }
        }
    }

    /// Records the last bytes of a body, also of one that broke off.
    async fn last(&mut self, mut segment: Segment) -> Result<()> {
        let ended = std::mem::replace(&mut segment.ended, Ended::Body);
        let (bytes, receipt) = record(&self.core, &self.taken, Some(segment), None).await?;
        self.advance(bytes, receipt);
        match ended {
            Ended::Failed(error) => Err(error),
            Ended::Body | Ended::Checkpoint => Ok(()),
        }
    }

    fn advance(&mut self, bytes: u64, receipt: Receipt) {
        self.taken.offset += bytes;
        self.room -= bytes;
        if bytes > 0 {
            self.taken.receipt = receipt;
        }
    }

    /// Records everything at once, and only when it has its digest.
    async fn verified(
        &mut self,
        body: &mut Body,
        algorithms: &[Algorithm],
        digests: impl FnOnce() -> Result<Vec<Digest>>,
    ) -> Result<()> {
        let bounds = Bounds { offset: self.taken.offset, room: self.room, checkpoint: None };
        let id = self.taken.upload.id;
        let hand = hand(&self.core, self.taken.upload.id, self.taken.receipt.clone().into()).await?;
        let segment =
            Segment::receive(&self.core, id, bounds, hand, algorithms, (Bytes::new(), body), &self.claim)
                .await?;
        match segment.ended {
            Ended::Body => {}
            Ended::Failed(_) | Ended::Checkpoint => {
                let ended = into_error(&self.core.writers, segment).await;
                return Err(ended);
            }
        }
        let bytes = segment.bytes;
        let check = |found: &ExtentDigests| found.verify(&digests()?);
        let (piece, receipt) = segment.seal(&self.core.writers, check).await?;
        if bytes > 0 {
            append_piece(&self.core, &self.taken, &piece, &receipt).await?;
        }
        self.advance(bytes, receipt);
        Ok(())
    }
}

/// Gives up a segment that ended before its body did.
async fn into_error(writers: &Writers, mut segment: Segment) -> Error {
    let ended = std::mem::replace(&mut segment.ended, Ended::Body);
    segment.abandon(writers).await;
    match ended {
        Ended::Failed(error) => error,
        Ended::Body | Ended::Checkpoint => Error::broken("a checkpoint in a body with a checksum"),
    }
}

async fn hand(core: &Core, upload: UploadId, before: Before) -> Result<Hand> {
    Ok(Hand { writer: core.writer(upload).await?, before })
}

/// Makes a segment durable and records it; how many bytes that were, and what the storage said. Whoever writes on gets the
/// latter from `promise`.
async fn record(
    core: &Core,
    taken: &Taken,
    segment: Option<Segment>,
    promise: Option<watch::Sender<Option<Receipt>>>,
) -> Result<(u64, Receipt)> {
    let Some(segment) = segment else { return Ok((0, Receipt::new())) };
    let bytes = segment.bytes;
    if bytes == 0 {
        segment.abandon(&core.writers).await;
        return Ok((0, Receipt::new()));
    }
    let (piece, receipt) = segment.seal(&core.writers, |_| Ok(())).await?;
    append_piece(core, taken, &piece, &receipt).await?;
    if let Some(promise) = promise {
        promise.send_replace(Some(receipt.clone()));
    }
    Ok((bytes, receipt))
}

async fn append_piece(core: &Core, taken: &Taken, piece: &Piece, receipt: &Receipt) -> Result<()> {
    let expires_at = core.clock.now().after(core.limits.upload_ttl);
    core.catalog.append(&taken.upload.id, taken.epoch, piece, receipt, expires_at).await?;
    super::watch::hint(core, &taken.upload).await;
    Ok(())
}
