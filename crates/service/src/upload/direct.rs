//! Parts that go from the client to the storage without passing this process: where to, and what came of it.
//!
//! Who may send a part is asked when its address is made, and again at the completion. What counts is what the storage says it
//! has then: only parts of the right length get a line in the ledger, with the storage's word for their CRC-32, and a digest
//! that was announced of the whole is computed from the bytes before there is a file.

use super::Uploads;
use super::finish::holes;
use super::parts::check_open;
use crate::{Core, metrics};
use carrack_domain::access::UseUploads;
use carrack_domain::digest::Piece;
use carrack_domain::upload::{PartPlan, StoredExtent, Upload, UploadState};
use carrack_domain::{Grant, Result, UploadId};
use carrack_storage::{Address, Arrived, Part};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::time::Duration;

/// Lines of the ledger that are written at once.
const RECORDING_MAX: usize = 16;

/// A part that its client would send to the storage itself.
#[derive(Debug, Clone, Copy)]
pub struct DirectPart {
    /// Its number.
    pub number: u64,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
}

/// The ledger with what has come past this process.
pub(super) struct Present {
    /// Parts that are there, by offset.
    pub(super) extents: Vec<StoredExtent>,
    /// Those of them that the ledger does not have like this yet.
    news: Vec<StoredExtent>,
    /// Numbers of parts that came with another length than they should have.
    wrong: Vec<u64>,
}

impl Uploads {
    /// Where the caller may send these parts past the server, for so long; `None` for those that have to pass it.
    pub async fn addresses(
        &self,
        grant: &Grant<UseUploads>,
        id: UploadId,
        parts: &[DirectPart],
        good_for: Duration,
    ) -> Result<Vec<Option<Address>>> {
        let upload = self.own(grant, id).await?;
        check_open(&upload)?;
        let (core, plan) = (&self.core, upload.parts()?);
        let mut addresses = Vec::with_capacity(parts.len());
        for DirectPart { number, crc32 } in parts {
            let (offset, len) = plan.extent(*number)?;
            let part = Part { offset, len, crc32: *crc32 };
            addresses.push(core.storage.part_address(id, part, good_for).await?);
        }
        if addresses.iter().any(Option::is_some) {
            // Before anybody has an address: from now on the storage is asked what has come.
            core.catalog.note_direct(&id, core.clock.now().after(core.limits.upload_ttl)).await?;
        }
        Ok(addresses)
    }
}

/// What there is of an upload in parts; the storage is asked where parts may have come past this process.
pub(super) async fn present(core: &Core, upload: &Upload) -> Result<Present> {
    let asks = upload.direct && upload.state == UploadState::Open;
    let arrived = if asks { core.storage.arrived(upload.id).await? } else { None };
    // In this order: what was acknowledged here meanwhile is seen.
    let ledger = core.catalog.extents(&upload.id).await?;
    Ok(match (upload.parts(), arrived) {
        (Ok(plan), Some(arrived)) => merge(&upload.id, plan, ledger, arrived),
        (Ok(_) | Err(_), _) => Present { extents: ledger, news: Vec::new(), wrong: Vec::new() },
    })
}

/// What passed here counts before what did not; of that only what is there now.
fn merge(id: &UploadId, plan: PartPlan, ledger: Vec<StoredExtent>, arrived: Vec<Arrived>) -> Present {
    let (seen, known): (Vec<_>, Vec<_>) = ledger.into_iter().partition(StoredExtent::is_seen);
    let by_start = |line: StoredExtent| (line.piece.fragment.start(), line);
    let mut extents: BTreeMap<u64, StoredExtent> = seen.into_iter().map(by_start).collect();
    let known: BTreeMap<u64, StoredExtent> = known.into_iter().map(by_start).collect();
    let (mut news, mut wrong) = (Vec::new(), Vec::new());
    for Arrived { offset, len, crc32, receipt } in arrived {
        let number = plan.number_at(offset);
        if extents.contains_key(&offset) {
            continue;
        }
        if plan.extent(number).ok() != Some((offset, len)) {
            wrong.push(number);
            continue;
        }
        let line = StoredExtent::unseen(id, Piece::unseen(offset, offset + len, crc32), receipt);
        if known.get(&offset) != Some(&line) {
            news.push(line.clone());
        }
        extents.insert(offset, line);
    }
    Present { extents: extents.into_values().collect(), news, wrong }
}

/// Writes what has come past this process into the ledger, if that makes the upload whole; `parts_missing` otherwise, and
/// `upload_finished` when somebody else was faster.
pub(super) async fn adopt(core: &Core, upload: &Upload) -> Result<()> {
    let plan = upload.parts()?;
    let Present { extents, news, wrong } = present(core, upload).await?;
    if extents.len() as u64 != plan.count() {
        return Err(holes(plan, &extents, &wrong));
    }
    let expires_at = core.clock.now().after(core.limits.upload_ttl);
    let count = news.len() as u64;
    let recording = news
        .into_iter()
        .map(|line| async move { core.catalog.record_extent(&upload.id, &line, expires_at).await });
    stream::iter(recording).buffer_unordered(RECORDING_MAX).try_collect::<()>().await?;
    ::metrics::counter!(metrics::UPLOAD_PARTS, "result" => "direct").increment(count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::upload::Receipt;
    use std::num::NonZeroU64;

    const ID: UploadId = UploadId::from_bytes([7; 16]);

    fn arrived(offset: u64, len: u64, receipt: &'static str) -> Arrived {
        Arrived { offset, len, crc32: 1, receipt: Receipt::from_static(receipt.as_bytes()) }
    }

    fn unseen(start: u64, end: u64, receipt: &'static str) -> StoredExtent {
        StoredExtent::unseen(&ID, Piece::unseen(start, end, 1), Receipt::from_static(receipt.as_bytes()))
    }

    #[test]
    fn what_passed_here_counts_first_and_only_what_is_there_now() {
        let plan = PartPlan::new(45, Some(10), NonZeroU64::MIN).unwrap();
        let mut hasher = carrack_domain::digest::PieceHasher::new(0);
        hasher.update(&[1; 10]);
        let seen = StoredExtent { piece: hasher.finish(), blake3: [1; 32], receipt: Receipt::new() };
        let ledger =
            vec![seen.clone(), unseen(10, 20, "old"), unseen(20, 30, "same"), unseen(30, 40, "gone")];
        let came = vec![
            arrived(0, 10, "late"),
            arrived(10, 10, "new"),
            arrived(20, 10, "same"),
            arrived(40, 6, "long"),
        ];
        let Present { extents, news, wrong } = merge(&ID, plan, ledger, came);
        assert_eq!(extents, [seen, unseen(10, 20, "new"), unseen(20, 30, "same")]);
        assert_eq!((news, wrong), (vec![unseen(10, 20, "new")], vec![5]));
    }
}
