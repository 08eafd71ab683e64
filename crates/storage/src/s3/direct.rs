//! Bytes that go between S3 and others without passing this process: presigned URLs, and what has come by them.
//!
//! A part is bound to its number, length and CRC-32 by the signature. It has a lane of its own, so that whoever sends it, as
//! often and as late as they like, cannot get into what was acknowledged here. What S3 lists is looked at when the upload is
//! completed; the receipt remembers which of several parts under one number was meant.

use super::Inner;
use super::client::Call;
use super::publish::of_base64;
use super::receipt::{Place, Run, Runs, mark};
use super::stage::{base64, blob_key};
use crate::{Address, Arrived, Part, Shown};
use carrack_domain::{BlobId, Result, UploadId};
use reqwest::Method;
use std::time::Duration;

impl Inner {
    pub(super) async fn part_address(
        &self,
        stage: UploadId,
        part: Part,
        good_for: Duration,
    ) -> Result<Option<Address>> {
        if !self.direct_parts {
            return Ok(None);
        }
        let stage = self.stage(stage).await?;
        let slot = stage.plan.slot(part.offset)?;
        let Some(lane) = stage.plan.direct_lane() else { return Ok(None) };
        if (slot.start, slot.end - slot.start) != (part.offset, part.len) {
            return Ok(None);
        }
        let upload = self.upload_of(&stage).await?;
        let checksum = ("x-amz-checksum-crc32", base64(part.crc32));
        let call = Call::new("presign", Method::PUT, blob_key(stage.id.blob()))
            .query("partNumber", stage.plan.number(slot, lane))
            .query("uploadId", upload)
            .header("content-length", part.len.to_string())
            .header(checksum.0, checksum.1.as_str());
        let url = self.client.presigned(&call, good_for.as_secs());
        Ok(Some(Address { url, headers: vec![checksum] }))
    }

    pub(super) async fn arrived(&self, stage: UploadId) -> Result<Option<Vec<Arrived>>> {
        let Some(stage) = self.find(stage).await? else { return Ok(None) };
        let (Some(lane), Some(upload)) = (stage.plan.direct_lane(), stage.upload.get()) else {
            return Ok(Some(Vec::new()));
        };
        let Some(parts) = self.parts(&stage, upload).await? else { return Ok(None) };
        let mut arrived: Vec<Arrived> = parts
            .into_values()
            .filter_map(|part| {
                let offset = stage.plan.direct_offset(part.part_number)?;
                // Of a part without bytes there is nothing to say.
                let until = offset.checked_add(part.size).filter(|until| *until > offset)?;
                let mut run = Runs::default();
                run.add(Run { from: offset, until, place: Place::Direct(lane, mark(&part.e_tag)) });
                let crc32 = of_base64(part.checksum_crc32.as_deref()?)?;
                Some(Arrived { offset, len: part.size, crc32, receipt: run.encode() })
            })
            .collect();
        arrived.sort_unstable_by_key(|part| part.offset);
        Ok(Some(arrived))
    }

    pub(super) fn blob_address(&self, blob: BlobId, shown: &Shown, good_for: Duration) -> Option<Address> {
        let call = Call::new("presign", Method::GET, blob_key(blob))
            .query("response-content-type", &shown.content_type)
            .query("response-content-disposition", &shown.disposition);
        let url = || self.client.presigned(&call, good_for.as_secs());
        self.direct_downloads.then(|| Address { url: url(), headers: Vec::new() })
    }
}
