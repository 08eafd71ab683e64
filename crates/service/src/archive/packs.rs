//! Packs as they are made: streams go in, and runs of bytes with their records come out.

use super::encode::Form;
use super::sources::Deflated;
use crate::Core;
use bytes::Bytes;
use carrack_catalog::{Claim, Encoding, NewPack};
use carrack_domain::{BlobId, Code, EncodingId, Result, UploadId};
use carrack_storage::{ExtentWriter, Flush, Hand, StageKind, Whole};
use carrack_zip::is_smaller;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A pack in memory is written down when it has so many bytes,
const PACK_BYTES: usize = 8 << 20;
/// or so many encodings.
const PACK_ENCODINGS: usize = 4096;
/// The stream of a longer content gets a pack of its own and goes to the disk as it is made.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// The packs of a job. Takes the memory of one small pack and one stream.
pub(super) struct Packs {
    core: Arc<Core>,
    claim: Claim,
    /// The packs that the archive uses, with their sizes.
    pub(super) sizes: HashMap<BlobId, u64>,
    bytes: Vec<u8>,
    encodings: Vec<(EncodingId, Option<(u64, u64)>)>,
    /// The entries of those encodings that are of entries.
    entries: Vec<(usize, Option<(u64, u64)>)>,
    /// Where the stream that comes in begins in `bytes`.
    begin: usize,
    large: Option<Large>,
}

/// The stream of a long content on its way to the disk.
struct Large {
    stage: UploadId,
    writer: Box<dyn ExtentWriter>,
    len: u64,
}

type Made = Vec<(usize, Form)>;

impl Packs {
    pub(super) fn new(core: Arc<Core>, claim: Claim) -> Packs {
        Packs {
            core,
            claim,
            sizes: HashMap::new(),
            bytes: Vec::new(),
            encodings: Vec::new(),
            entries: Vec::new(),
            begin: 0,
            large: None,
        }
    }

    /// Uses packs that are there; those that went meanwhile are returned.
    pub(super) async fn adopt(
        &mut self,
        known: impl Iterator<Item = &Encoding> + Send,
    ) -> Result<HashSet<BlobId>> {
        let mut new = HashMap::new();
        for encoding in known.filter(|encoding| !self.sizes.contains_key(&encoding.pack())) {
            let size = new.entry(encoding.pack()).or_insert(0);
            if let Encoding::Deflated { pack_size, .. } = encoding {
                *size = *pack_size;
            }
        }
        if new.is_empty() {
            return Ok(HashSet::new());
        }
        let packs: Vec<BlobId> = new.keys().copied().collect();
        let gone = self.core.catalog.use_packs(&self.claim, &packs, self.core.clock.now()).await?;
        let gone: HashSet<BlobId> = gone.into_iter().collect();
        self.sizes.extend(new.into_iter().filter(|(pack, _)| !gone.contains(pack)));
        Ok(gone)
    }

    /// Keeps a verdict with the next pack.
    pub(super) fn verdict(&mut self, id: EncodingId) {
        self.encodings.push((id, None));
    }

    /// Takes the next part of the stream of a content of `size` bytes. Returns the entries that are settled by it.
    pub(super) async fn push(&mut self, id: EncodingId, size: u64, part: Deflated) -> Result<Made> {
        if size > SMALL_BYTES_MAX {
            return self.push_large(id, size, part).await;
        }
        self.bytes.extend_from_slice(&part.bytes);
        if !part.last {
            return Ok(Vec::new());
        }
        let len = self.bytes.len() - self.begin;
        let place = is_smaller(len as u64, size).then_some((self.begin as u64, len as u64));
        if place.is_none() {
            self.bytes.truncate(self.begin);
        }
        self.begin = self.bytes.len();
        self.encodings.push((id, place));
        self.entries.push((part.entry, place));
        if self.bytes.len() >= PACK_BYTES || self.encodings.len() >= PACK_ENCODINGS {
            return self.flush().await;
        }
        Ok(Vec::new())
    }

    /// Writes down what has come. A stream that is not whole stays.
    pub(super) async fn flush(&mut self) -> Result<Made> {
        if self.encodings.is_empty() {
            return Ok(Vec::new());
        }
        let rest = self.bytes.split_off(self.begin);
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, rest));
        self.begin = 0;
        let size = bytes.len() as u64;
        let id = BlobId::generate(&*self.core.entropy);
        if size > 0 {
            self.core.storage.store(id.stage(), bytes).await?;
        }
        let encodings = std::mem::take(&mut self.encodings);
        self.record(NewPack { id, size, encodings }).await?;
        let form = |place: Option<(u64, u64)>| match place {
            None => Form::Stored,
            Some((offset, len)) => Form::Deflated(id, offset, len),
        };
        Ok(self.entries.drain(..).map(|(entry, place)| (entry, form(place))).collect())
    }

    /// Records a pack whose bytes are published; when that is refused, they go.
    async fn record(&mut self, pack: NewPack) -> Result<()> {
        let recorded = self.core.catalog.put_pack(&self.claim, &pack, self.core.clock.now()).await;
        match recorded {
            Ok(()) => {
                self.sizes.insert(pack.id, pack.size);
                Ok(())
            }
            Err(error) => {
                if error.code() == Code::Superseded && pack.size > 0 {
                    self.core.storage.delete(pack.id).await?;
                }
                Err(error)
            }
        }
    }

    async fn push_large(&mut self, id: EncodingId, size: u64, part: Deflated) -> Result<Made> {
        let mut large = match self.large.take() {
            Some(large) => large,
            None => begin_large(&self.core).await?,
        };
        large.len += part.bytes.len() as u64;
        if let Err(error) = large.writer.write(Bytes::from(part.bytes)).await {
            large.writer.abandon().await;
            self.core.storage.discard_stage(large.stage).await?;
            return Err(error);
        }
        if !part.last {
            self.large = Some(large);
            return Ok(Vec::new());
        }
        let Large { stage, writer, len } = large;
        let receipts = vec![writer.finish(Flush::AtPublish).await?];
        if !is_smaller(len, size) {
            self.core.storage.discard_stage(stage).await?;
            self.encodings.push((id, None));
            return Ok(vec![(part.entry, Form::Stored)]);
        }
        let pack = stage.blob();
        self.core.storage.publish(stage, &Whole { size: len, crc32: None, receipts }).await?;
        self.record(NewPack { id: pack, size: len, encodings: vec![(id, Some((0, len)))] }).await?;
        Ok(vec![(part.entry, Form::Deflated(pack, 0, len))])
    }

    /// Gives up a stream that is not whole.
    pub(super) async fn abandon(&mut self) {
        if let Some(large) = self.large.take() {
            large.writer.abandon().await;
            if let Err(error) = self.core.storage.discard_stage(large.stage).await {
                tracing::warn!(error = error.chain(), "a stage is left over until the next start");
            }
        }
    }
}

async fn begin_large(core: &Core) -> Result<Large> {
    let stage = UploadId::generate(&*core.entropy);
    core.storage.create_stage(stage, None, StageKind::Request).await?;
    let writer = core.storage.extent_writer(stage, 0, Hand::default(), Box::new(|_| {})).await?;
    Ok(Large { stage, writer, len: 0 })
}
