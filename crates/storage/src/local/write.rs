//! Writing one extent: hash and write on a thread that may block, while the next bytes are received.

use super::{Inner, failure, lost};
use crate::{Durability, ExtentWriter, Flush, Observer};
use async_trait::async_trait;
use bytes::Bytes;
use carrack_domain::{Error, Result, UploadId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::JoinHandle;

pub(super) struct LocalWriter {
    state: State,
}

enum State {
    Idle(Box<Sink>),
    Busy(JoinHandle<(Box<Sink>, Result<()>)>),
    /// A write failed or its thread died: nothing more can be said of the extent.
    Broken,
}

/// What moves to the writing thread and back.
struct Sink {
    inner: Arc<Inner>,
    stage: UploadId,
    file: File,
    offset: u64,
    /// Bytes written.
    bytes: u64,
    observer: Observer,
}

impl LocalWriter {
    pub(super) fn open(
        inner: Arc<Inner>,
        stage: UploadId,
        offset: u64,
        observer: Observer,
    ) -> Result<Box<dyn ExtentWriter>> {
        inner.check_poison(stage)?;
        let path = inner.stage_path(stage);
        let file = File::options().write(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => lost(format!("stage {stage} is gone")),
            _ => failure("open_stage", error),
        })?;
        let sink = Sink { inner, stage, file, offset, bytes: 0, observer };
        Ok(Box::new(LocalWriter { state: State::Idle(Box::new(sink)) }))
    }

    /// Waits for the write that is under way, if one is.
    async fn settle(&mut self) -> Result<Box<Sink>> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Idle(sink) => Ok(sink),
            State::Busy(task) => match task.await {
                Ok((sink, result)) => result.map(|()| sink),
                Err(error) => Err(Error::internal("write task", error)),
            },
            State::Broken => Err(Error::broken("a write was tried after one had failed")),
        }
    }
}

#[async_trait]
impl ExtentWriter for LocalWriter {
    async fn write(&mut self, bytes: Vec<Bytes>) -> Result<()> {
        let mut sink = self.settle().await?;
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            let result = crate::metrics::timed("write", || sink.write(&bytes));
            (sink, result)
        }));
        Ok(())
    }

    async fn finish(mut self: Box<Self>, flush: Flush) -> Result<()> {
        let sink = self.settle().await?;
        if flush == Flush::AtPublish || sink.inner.durability == Durability::Process {
            return Ok(());
        }
        let synced = tokio::task::spawn_blocking(move || {
            let result = sink.inner.syncs.data("sync_extent", &sink.file, sink.bytes);
            if result.is_err() {
                sink.inner.poison(sink.stage);
            }
            result
        });
        synced.await.unwrap_or_else(|error| Err(Error::internal("sync task", error)))
    }

    async fn abandon(mut self: Box<Self>) {
        // Only that it has ended matters: the extent is not acknowledged either way.
        if let Err(error) = self.settle().await {
            tracing::debug!(error = error.chain(), "an abandoned extent had failed before");
        }
    }
}

impl Sink {
    fn write(&mut self, batch: &[Bytes]) -> Result<()> {
        let total: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        // Reserved space is the file's own already; what grows past the end has to leave the reserve alone.
        let allocated = self.file.metadata().map_err(|e| failure("stat_stage", e))?.len();
        let grows = self.offset + total > allocated;
        let _pledge = if grows { Some(self.inner.pledge(total)?) } else { None };
        for bytes in batch {
            (self.observer)(bytes);
            self.file.write_all_at(bytes, self.offset).map_err(|e| failure("write_extent", e))?;
            self.offset += bytes.len() as u64;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}
