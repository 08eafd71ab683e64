//! Writing one extent: bytes are gathered into parts in memory, and sent while the next are received.

use super::budget::Block;
use super::client::{Body, Call};
use super::fault::{Fault, error};
use super::plan::Slot;
use super::receipt::{Place, Run, Runs};
use super::stage::{Stage, agree, base64, blob_key, loose_key};
use super::{Inner, read};
use crate::{Before, ExtentWriter, Flush, Observer};
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use carrack_domain::digest::join_crc32;
use carrack_domain::upload::Receipt;
use carrack_domain::{Error, Result};
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::Method;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Parts of one writer that are sent at once, besides the one that is gathered.
const SENDING_MAX: usize = 3;
/// Loose objects of one slot; more are made one.
const LOOSE_MAX: usize = 32;

pub(super) struct S3Writer {
    inner: Arc<Inner>,
    stage: Arc<Stage>,
    lane: u32,
    before: Before,
    observer: Observer,
    /// The slot that the next byte is in.
    slot: Slot,
    /// Where the next byte goes.
    at: u64,
    gathered: Gathered,
    filling: Option<Block>,
    /// What has become of the bytes so far.
    runs: Runs,
    sending: JoinSet<Result<Run>>,
}

/// Bytes in memory, all in one slot.
#[derive(Default)]
struct Gathered {
    from: u64,
    blocks: Vec<Bytes>,
    crc32: crc32fast::Hasher,
}

impl Gathered {
    fn new(from: u64) -> Gathered {
        Gathered { from, ..Gathered::default() }
    }
}

impl S3Writer {
    pub(super) fn open(
        inner: Arc<Inner>,
        stage: Arc<Stage>,
        offset: u64,
        (lane, before): (u32, Before),
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>> {
        // Where nothing can follow, the slot is the last.
        let last = stage.plan.size.map_or(u64::MAX, |size| size.saturating_sub(1));
        let slot = stage.plan.slot(offset.min(last))?;
        Ok(Box::new(S3Writer {
            inner,
            lane,
            before,
            observer,
            slot,
            at: offset,
            gathered: Gathered::new(offset),
            filling: None,
            runs: Runs::default(),
            sending: JoinSet::new(),
            stage,
        }))
    }

    /// Keeps what a send came to.
    fn keep(&mut self, sent: std::result::Result<Result<Run>, tokio::task::JoinError>) -> Result<()> {
        self.runs.add(sent.map_err(|error| Error::internal("send task", error))??);
        Ok(())
    }

    async fn sent(&mut self) -> Result<()> {
        while let Some(sent) = self.sending.join_next().await {
            self.keep(sent)?;
        }
        Ok(())
    }

    /// A block to fill. Whoever waits for one sends what it has gathered first.
    async fn block(&mut self) -> Result<Block> {
        if let Some(block) = self.filling.take() {
            return Ok(block);
        }
        if let Some(block) = self.inner.budget.try_block() {
            return Ok(block);
        }
        self.spill().await?;
        let block = self.inner.budget.block().await;
        block.ok_or_else(|| Error::broken("the memory for writing is gone"))
    }

    /// Takes the block that is being filled to the others.
    fn gather(&mut self) {
        if let Some(block) = self.filling.take() {
            let bytes = block.freeze();
            self.gathered.crc32.update(&bytes);
            self.gathered.blocks.push(bytes);
        }
    }

    /// Sends what is in memory, whatever it is, and waits until nothing is.
    async fn spill(&mut self) -> Result<()> {
        self.gather();
        if let Some(gathered) = self.take() {
            self.send_loose(gathered, Vec::new());
        }
        self.sent().await
    }

    fn take(&mut self) -> Option<Gathered> {
        self.gather();
        let gathered = std::mem::replace(&mut self.gathered, Gathered::new(self.at));
        (gathered.from < self.at).then_some(gathered)
    }

    /// The loose runs in this slot before `until`; `None` when there is something else, or nothing is known of it.
    async fn heads(&mut self, until: u64) -> Result<Option<Vec<Run>>> {
        if until == self.slot.start {
            return Ok(Some(Vec::new()));
        }
        self.sent().await?;
        let mut all = Runs::parse(&self.before.get().await?)?;
        all.extend(self.runs.clone());
        Ok(all.loose(self.slot.start, until))
    }

    /// The slot ends, or the stage does: it becomes a part where that is possible.
    async fn close_slot(&mut self) -> Result<()> {
        while self.sending.len() >= SENDING_MAX {
            if let Some(sent) = self.sending.join_next().await {
                self.keep(sent)?;
            }
        }
        let Some(gathered) = self.take() else { return Ok(()) };
        let heads =
            if self.lane < self.stage.plan.writers() { self.heads(gathered.from).await? } else { None };
        match heads {
            Some(heads) => self.send_part(gathered, heads),
            None => self.send_loose(gathered, Vec::new()),
        }
        Ok(())
    }

    fn send_part(&mut self, gathered: Gathered, heads: Vec<Run>) {
        let (inner, stage, slot, lane) = (self.inner.clone(), self.stage.clone(), self.slot, self.lane);
        let until = self.at;
        self.sending.spawn(async move {
            let (body, crc32) = joined(&inner, &stage, heads, gathered);
            inner.send_part(&stage, stage.plan.number(slot, lane), body, crc32).await?;
            Ok(Run { from: slot.start, until, place: Place::Parts(lane) })
        });
    }

    /// Makes one loose object of these heads and what was gathered.
    fn send_loose(&mut self, gathered: Gathered, heads: Vec<Run>) {
        let (inner, stage) = (self.inner.clone(), self.stage.clone());
        let (from, until) = (heads.first().map_or(gathered.from, |head| head.from), self.at);
        let name = inner.random();
        self.sending.spawn(async move {
            let (body, crc32) = joined(&inner, &stage, heads, gathered);
            inner.put_body("write_loose", loose_key(stage.id, from, name), body, crc32).await?;
            Ok(Run { from, until, place: Place::Loose(name, crc32) })
        });
    }

    /// The last bytes of an extent, which do not fill their slot.
    async fn close_extent(&mut self) -> Result<()> {
        let Some(gathered) = self.take() else { return Ok(()) };
        if self.stage.brief {
            return self.close_request(gathered).await;
        }
        let heads = match self.slot.start == gathered.from {
            true => Vec::new(),
            false => self.heads(gathered.from).await?.unwrap_or_default(),
        };
        let heads = if heads.len() >= LOOSE_MAX { heads } else { Vec::new() };
        self.send_loose(gathered, heads);
        Ok(())
    }

    /// Of a request nothing follows: its last part may be short, and a small body is the object itself.
    async fn close_request(&mut self, gathered: Gathered) -> Result<()> {
        if gathered.from == 0 && self.slot.start == 0 {
            let (inner, stage, until) = (self.inner.clone(), self.stage.clone(), self.at);
            self.sending.spawn(async move {
                let crc32 = gathered.crc32.finalize();
                let body = Body::blocks(gathered.blocks);
                inner.put_body("write_blob", blob_key(stage.id.blob()), body, crc32).await?;
                Ok(Run { from: 0, until, place: Place::Whole })
            });
            return Ok(());
        }
        self.gathered = gathered;
        self.close_slot().await
    }
}

/// Loose objects and what is in memory, one after the other, as one body.
fn joined(inner: &Arc<Inner>, stage: &Stage, heads: Vec<Run>, gathered: Gathered) -> (Body, u32) {
    let own: u64 = gathered.blocks.iter().map(|block| block.len() as u64).sum();
    let (head, len) = (inner.loose_body(stage.id, &heads), heads.iter().map(Run::len).sum::<u64>() + own);
    let crc32 = join_crc32(read::crc32_of(&heads), gathered.crc32.finalize(), own);
    if heads.is_empty() {
        return (Body::blocks(gathered.blocks), crc32);
    }
    let blocks = gathered.blocks;
    let source = Arc::new(move || -> super::client::Bodied {
        Box::pin(head().chain(stream::iter(blocks.clone().into_iter().map(Ok))))
    });
    (Body::Source(source, len), crc32)
}

impl Inner {
    /// Sends a part; the same again takes the place of the one before.
    pub(super) async fn send_part(
        &self,
        stage: &Stage,
        number: u64,
        body: Body,
        crc32: u32,
    ) -> Result<String> {
        let op = "write_part";
        let upload = self.upload_of(stage).await?;
        let mut call = Call::new(op, Method::PUT, blob_key(stage.id.blob()))
            .query("partNumber", number)
            .query("uploadId", upload);
        if self.checksums {
            call = call.header("x-amz-checksum-crc32", base64(crc32));
        }
        let answer = self.client.call(&call.body(body)).await.map_err(|fault| error(op, fault))?;
        agree(answer.header("x-amz-checksum-crc32"), crc32).map_err(|fault| error(op, fault))?;
        let tag = answer.header("etag").map(str::to_owned);
        tag.ok_or_else(|| error(op, Fault::Broken("a part without an ETag".to_owned())))
    }
}

#[async_trait]
impl ExtentWriter for S3Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        (self.observer)(&bytes);
        while let Some(sent) = self.sending.try_join_next() {
            self.keep(sent)?;
        }
        while !bytes.is_empty() {
            if self.at == self.slot.end {
                self.slot = self.stage.plan.slot(self.at)?;
            }
            let mut block = self.block().await?;
            let taken = block.push(&bytes, self.slot.end - self.at);
            bytes.advance(taken);
            self.at += taken as u64;
            let is_full = block.is_full();
            self.filling = Some(block);
            // The only slot of a request is the object itself, once the request ends.
            let is_object = self.stage.brief && self.stage.plan.lanes == 0;
            if self.at == self.slot.end && !is_object {
                self.close_slot().await?;
            } else if is_full {
                self.gather();
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.sending.is_empty() && self.filling.is_none() && self.gathered.blocks.is_empty()
    }

    async fn settle(&mut self) -> Result<()> {
        self.sent().await?;
        if self.is_settled() {
            return Ok(());
        }
        // What is gathered waits for the rest of its part, unless others wait for its memory.
        self.inner.budget.pressed().await;
        self.spill().await
    }

    async fn finish(mut self: Box<Self>, _flush: Flush) -> Result<Receipt> {
        self.close_extent().await?;
        self.sent().await?;
        let mut all = Runs::parse(&self.before.get().await?)?;
        all.extend(std::mem::take(&mut self.runs));
        Ok(all.encode())
    }

    async fn abandon(mut self: Box<Self>) -> bool {
        let clean = self.sending.is_empty();
        self.sending.shutdown().await;
        clean
    }
}
