//! From a stage to a blob: the parts that the ledger knows of are named to S3, what is loose becomes parts first, and what S3
//! makes of them is looked at. No byte of a whole part is sent or read again.

use super::client::{Body, COMPLETION, Call};
use super::fault::{Fault, error, lost};
use super::plan::Slot;
use super::read::crc32_of;
use super::receipt::{self, Runs};
use super::stage::{Stage, base64, blob_key, session_key};
use super::{Inner, xml};
use crate::Whole;
use bytes::Bytes;
use carrack_domain::digest::join_crc32;
use carrack_domain::{Code, Error, Result, UploadId};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use std::collections::HashMap;
use std::sync::Arc;

/// Slots that are put together from loose objects at once.
const JOINING_MAX: usize = 4;
/// How often a completion is tried whose parts have changed meanwhile.
const TRIES: usize = 3;

impl Inner {
    /// Makes the final object, and leaves the stage as it is. Again is fine.
    pub(super) async fn seal(self: &Arc<Self>, id: UploadId, whole: &Whole) -> Result<()> {
        let mut runs = Runs::default();
        for receipt in &whole.receipts {
            runs.extend(Runs::parse(receipt)?);
        }
        let (blob, size) = (id.blob(), whole.size);
        if size > 0 && runs.is_whole(size) {
            return self.confirm(id, whole).await;
        }
        let Some(stage) = self.find(id).await? else { return self.confirm(id, whole).await };
        if size == 0 {
            self.put("publish", blob_key(blob), Bytes::new()).await?;
            return self.confirm(id, whole).await;
        }
        let single = stage.plan.slot(0)?.end >= size;
        if let Some(loose) = runs.loose(0, size).filter(|_| single) {
            let body = Body::Source(self.loose_body(id, &loose), size);
            check_crc32(crc32_of(&loose), whole)?;
            let put = self.put_body("publish", blob_key(blob), body, crc32_of(&loose)).await;
            // Whoever died while removing what the blob was made from had made the blob: it is there, whole.
            return match (put, self.confirm(id, whole).await) {
                (Ok(_), confirmed) => confirmed,
                (Err(_), Ok(())) => Ok(()),
                (Err(error), Err(_)) => Err(error),
            };
        }
        for _ in 1..TRIES {
            match self.complete(&stage, &runs, whole).await {
                // Something that a displaced writer had under way came in between, for a slot that was loose.
                Err(fault) if fault.code() == Code::Superseded => {}
                done => return done,
            }
        }
        self.complete(&stage, &runs, whole).await
    }

    async fn complete(self: &Arc<Self>, stage: &Arc<Stage>, runs: &Runs, whole: &Whole) -> Result<()> {
        let upload = self.upload_of(stage).await?;
        let Some(stored) = self.parts(stage, &upload).await? else {
            // Completed before a crash, or by somebody else just now.
            return self.confirm(stage.id, whole).await;
        };
        let slots = slots(stage, whole.size)?;
        let named = slots.into_iter().map(|slot| self.part_of(stage, runs, slot, &stored));
        let parts: Vec<xml::Part> = stream::iter(named).buffered(JOINING_MAX).try_collect().await?;
        check_parts(&parts, whole)?;
        let mut call = Call::new("complete_upload", Method::POST, blob_key(stage.id.blob()))
            .query("uploadId", upload)
            .header("if-none-match", "*")
            .body(Body::Text(xml::complete(&parts).into()));
        if let Some(crc32) = whole.crc32.filter(|_| self.full_object) {
            call = call
                .header("x-amz-checksum-crc32", base64(crc32))
                .header("x-amz-checksum-type", "FULL_OBJECT");
        }
        call.patience = COMPLETION;
        let completed: std::result::Result<xml::Completed, Fault> = self.client.say(&call).await;
        match completed {
            Ok(completed) => tracing::debug!(stage = %stage.id, tag = completed.e_tag, "completed"),
            // Named before by a request whose answer was lost.
            Err(fault) if fault.is_absent() => {}
            Err(Fault::Refused { status: 412, .. }) => {}
            Err(Fault::Refused { code, .. }) if code == "InvalidPart" => {
                return Err(Error::new(
                    Code::Superseded,
                    "A part has changed while the upload was completed.",
                ));
            }
            Err(fault) => return Err(error("complete_upload", fault)),
        }
        self.confirm(stage.id, whole).await
    }

    /// The part that holds a slot, made from loose objects if there is none.
    async fn part_of(
        self: &Arc<Self>,
        stage: &Arc<Stage>,
        runs: &Runs,
        slot: Slot,
        stored: &HashMap<u64, xml::Part>,
    ) -> Result<xml::Part> {
        let missing =
            |what: &str| lost(format!("bytes {} to {} of stage {}: {what}", slot.start, slot.end, stage.id));
        if let Some(lane) = runs.lane(slot.start, slot.end) {
            let part =
                stored.get(&stage.plan.number(slot, lane)).ok_or_else(|| missing("S3 has lost a part"))?;
            if part.size != slot.end - slot.start {
                return Err(missing("S3 has a part of another size"));
            }
            return Ok(part.clone());
        }
        if let Some((lane, mark)) = runs.direct(slot.start, slot.end) {
            let part = stored.get(&stage.plan.number(slot, lane));
            let same =
                |part: &&xml::Part| part.size == slot.end - slot.start && receipt::mark(&part.e_tag) == mark;
            return part.filter(same).cloned().ok_or_else(|| {
                let detail =
                    "A part was sent to the storage again while the upload was completed: complete it again.";
                Error::new(Code::Superseded, detail)
            });
        }
        let loose = runs.loose(slot.start, slot.end).ok_or_else(|| missing("nobody has stored them"))?;
        let crc32 = crc32_of(&loose);
        let number = stage.plan.number(slot, stage.plan.writers().saturating_sub(1));
        let size = slot.end - slot.start;
        let body = Body::Source(self.loose_body(stage.id, &loose), size);
        let e_tag = self.send_part(stage, number, body, crc32).await?;
        let checksum_crc32 = self.checksums.then(|| base64(crc32));
        Ok(xml::Part { part_number: number, e_tag, size, checksum_crc32 })
    }

    /// The parts that S3 has; `None` when there is no such upload any more.
    pub(super) async fn parts(&self, stage: &Stage, upload: &str) -> Result<Option<HashMap<u64, xml::Part>>> {
        let mut found = HashMap::new();
        let mut after = None;
        loop {
            let mut call =
                Call::new("list_parts", Method::GET, blob_key(stage.id.blob())).query("uploadId", upload);
            if let Some(after) = after {
                call = call.query("part-number-marker", after);
            }
            let page: std::result::Result<xml::Parts, Fault> = self.client.say(&call).await;
            let page = match page {
                Ok(page) => page,
                Err(fault) if fault.is_absent() => return Ok(None),
                Err(fault) => return Err(error("list_parts", fault)),
            };
            found.extend(page.parts.into_iter().map(|part| (part.part_number, part)));
            after = page.next_part_number_marker.filter(|_| page.is_truncated);
            if after.is_none() {
                return Ok(Some(found));
            }
        }
    }

    /// Looks whether S3 has the blob as it should be.
    async fn confirm(&self, id: UploadId, whole: &Whole) -> Result<()> {
        let (blob, size) = (id.blob(), whole.size);
        let Some(facts) = self.look(blob).await? else {
            return Err(lost(format!("neither stage nor blob {blob} is there")));
        };
        if facts.size != size {
            return Err(lost(format!("blob {blob} has {} bytes instead of {size}", facts.size)));
        }
        match (whole.crc32, &facts.crc32) {
            (Some(crc32), Some(said)) if *said != base64(crc32) => Err(lost(format!(
                "S3 says that blob {blob} has the CRC-32 {said} instead of {}",
                base64(crc32)
            ))),
            _ => Ok(()),
        }
    }

    /// Removes what a blob was made from. What stays behind after a failure is swept.
    pub(super) async fn tidy(&self, id: UploadId, whole: &Whole) {
        self.stages.remove(&id);
        if self.brief().remove(&id).is_some() && !whole.receipts.iter().any(has_loose) {
            return;
        }
        let removed = async {
            self.remove_loose(id).await?;
            self.remove("delete_stage", session_key(id)).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(stage = %id, error = error.chain(), "what a blob was made from is left to the sweep");
        }
    }
}

fn has_loose(receipt: &Bytes) -> bool {
    Runs::parse(receipt).is_ok_and(|runs| runs.has_loose())
}

/// The slots of the first `size` bytes.
fn slots(stage: &Stage, size: u64) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    let mut at = 0;
    while at < size {
        let slot = stage.plan.slot(at)?;
        slots.push(Slot { end: slot.end.min(size), ..slot });
        at = slot.end;
    }
    Ok(slots)
}

/// The whole has its CRC-32 when its parts have those that S3 tells.
fn check_parts(parts: &[xml::Part], whole: &Whole) -> Result<()> {
    let mut all = Some(0);
    for part in parts {
        let crc32 = part.checksum_crc32.as_deref().and_then(of_base64);
        all = all.zip(crc32).map(|(all, crc32)| join_crc32(all, crc32, part.size));
    }
    match all {
        Some(all) => check_crc32(all, whole),
        None => Ok(()),
    }
}

fn check_crc32(found: u32, whole: &Whole) -> Result<()> {
    match whole.crc32 {
        Some(crc32) if crc32 != found => {
            Err(lost(format!("S3 has bytes of the CRC-32 {} instead of {}", base64(found), base64(crc32))))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn of_base64(text: &str) -> Option<u32> {
    use ::base64::Engine;
    let bytes = ::base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
