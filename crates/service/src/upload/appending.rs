//! One request's bytes on their way into an upload whose bytes come in order.

use super::append::{Append, Checksum, Report};
use super::claims::{Claim, superseded};
use super::digests::ExtentDigests;
use super::receive::too_large;
use super::segment::{Bounds, Ended, Segment, length_exceeded};
use crate::{Body, Core, metrics};
use carrack_catalog::Taken;
use carrack_domain::access::FileRef;
use carrack_domain::digest::{Algorithm, Digest, Piece};
use carrack_domain::error::Fact;
use carrack_domain::upload::UploadState;
use carrack_domain::{Code, Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// A body is recorded after so many bytes, or so long after the last time: what a crash may cost.
const CHECKPOINT: (u64, Duration) = (64 << 20, Duration::from_secs(5));

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
            let bounds = Bounds {
                offset: self.taken.offset + before.as_ref().map_or(0, |segment| segment.bytes),
                room: self.room - before.as_ref().map_or(0, |segment| segment.bytes),
                checkpoint: Some(CHECKPOINT),
            };
            // What came before is made durable while the next bytes arrive.
            let (recorded, segment) = tokio::join!(
                record(&self.core, &self.taken, before.take()),
                Segment::receive(&self.core, self.taken.upload.id, bounds, &[], body, &self.claim),
            );
            let segment = match (recorded, segment) {
                (Ok(bytes), Ok(segment)) => {
                    self.advance(bytes);
                    // What comes with the end of the body, the answer tells.
                    if let Some(report) = self.report.as_mut().filter(|_| bytes > 0) {
                        report(self.taken.offset);
                    }
                    segment
                }
                (Err(error), Ok(segment)) => {
                    segment.abandon().await;
                    return Err(error);
                }
                (recorded, Err(error)) => return Err(recorded.err().unwrap_or(error)),
            };
            match segment.ended {
                Ended::Checkpoint => before = Some(segment),
                Ended::Failed(_) if self.claim.is_discarded() => {
                    segment.abandon().await;
                    return Err(superseded());
                }
                Ended::Body | Ended::Failed(_) => return self.last(segment).await,
            }
        }
    }

    /// Records the last bytes of a body, also of one that broke off.
    async fn last(&mut self, mut segment: Segment) -> Result<()> {
        let ended = std::mem::replace(&mut segment.ended, Ended::Body);
        let bytes = record(&self.core, &self.taken, Some(segment)).await?;
        self.advance(bytes);
        match ended {
            Ended::Failed(error) => Err(error),
            Ended::Body | Ended::Checkpoint => Ok(()),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.taken.offset += bytes;
        self.room -= bytes;
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
        let segment = Segment::receive(&self.core, id, bounds, algorithms, body, &self.claim).await?;
        match segment.ended {
            Ended::Body => {}
            Ended::Failed(_) | Ended::Checkpoint => {
                let ended = into_error(segment).await;
                return Err(ended);
            }
        }
        let bytes = segment.bytes;
        let piece = segment.seal(|found: &ExtentDigests| found.verify(&digests()?)).await?;
        if bytes > 0 {
            append_piece(&self.core, &self.taken, &piece).await?;
        }
        self.advance(bytes);
        Ok(())
    }
}

/// Gives up a segment that ended before its body did.
async fn into_error(mut segment: Segment) -> Error {
    let ended = std::mem::replace(&mut segment.ended, Ended::Body);
    segment.abandon().await;
    match ended {
        Ended::Failed(error) => error,
        Ended::Body | Ended::Checkpoint => Error::broken("a checkpoint in a body with a checksum"),
    }
}

/// Makes a segment durable and records it; how many bytes that were.
async fn record(core: &Core, taken: &Taken, segment: Option<Segment>) -> Result<u64> {
    let Some(segment) = segment else { return Ok(0) };
    let bytes = segment.bytes;
    if bytes == 0 {
        segment.abandon().await;
        return Ok(0);
    }
    let piece = segment.seal(|_| Ok(())).await?;
    append_piece(core, taken, &piece).await?;
    Ok(bytes)
}

async fn append_piece(core: &Core, taken: &Taken, piece: &Piece) -> Result<()> {
    let expires_at = core.clock.now().after(core.limits.upload_ttl);
    core.catalog.append(&taken.upload.id, taken.epoch, piece, expires_at).await?;
    super::watch::hint(core, &taken.upload).await;
    Ok(())
}
