//! Writing one extent: bytes are hashed where they arrive, then written on a thread that may block while the next are
//! received.

use super::direct::{DIRECT_BYTES_MIN, Run};
use super::{Inner, direct, failure, lost};
use crate::{Durability, ExtentWriter, Flush, Observer};
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use carrack_domain::upload::Receipt;
use carrack_domain::{Error, Result, UploadId};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;

pub(super) struct LocalWriter {
    inner: Arc<Inner>,
    observer: Observer,
    state: State,
    /// Where the next bytes go.
    offset: u64,
    /// The last bytes before that: those that are gathered while others are being written.
    filling: Option<Run>,
    /// Or those that do not fill a block yet.
    rest: Vec<u8>,
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
    cached: File,
    /// Opened with the first direct write.
    direct: Option<File>,
    /// Bytes that were left to the page cache.
    cached_bytes: u64,
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
        let cached = File::options().write(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => lost(format!("stage {stage} is gone")),
            _ => failure("open_stage", error),
        })?;
        let sink = Sink { inner: inner.clone(), stage, cached, direct: None, cached_bytes: 0 };
        let state = State::Idle(Box::new(sink));
        Ok(Box::new(LocalWriter { inner, observer, state, offset, filling: None, rest: Vec::new() }))
    }

    /// Waits for the write that is under way, if one is. Cancel-safe.
    async fn collect(&mut self) -> Result<()> {
        let written = match &mut self.state {
            State::Idle(_) => return Ok(()),
            State::Broken => return Err(Error::broken("a write was tried after one had failed")),
            State::Busy(task) => task.await,
        };
        self.state = State::Broken;
        let (sink, result) = written.map_err(|error| Error::internal("write task", error))?;
        result?;
        self.state = State::Idle(sink);
        Ok(())
    }

    /// Has a run written; only when idle.
    fn start(&mut self, mut run: Run) -> Result<()> {
        let State::Idle(mut sink) = std::mem::replace(&mut self.state, State::Broken) else {
            return Err(Error::broken("a write was started during another"));
        };
        let direct = run.len() >= DIRECT_BYTES_MIN && self.inner.writes_direct.load(Ordering::Relaxed);
        if direct {
            self.rest = run.cut_rest();
        }
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            let result = crate::metrics::timed("write", || sink.write(&run, direct));
            (sink, result)
        }));
        Ok(())
    }

    /// Room for the next bytes, behind those that wait for them.
    async fn run(&mut self) -> Result<Run> {
        if let Some(run) = self.filling.take() {
            return Ok(run);
        }
        let offset = self.offset - self.rest.len() as u64;
        let run = self.inner.buffers.run(offset).await;
        let mut run = run.ok_or_else(|| Error::broken("the buffers for writing are gone"))?;
        run.push(&std::mem::take(&mut self.rest));
        Ok(run)
    }

    async fn written(&mut self) -> Result<()> {
        loop {
            self.collect().await?;
            let Some(run) = self.filling.take() else { return Ok(()) };
            self.start(run)?;
        }
    }
}

#[async_trait]
impl ExtentWriter for LocalWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        (self.observer)(&bytes);
        while !bytes.is_empty() {
            let mut run = self.run().await?;
            let taken = run.push(&bytes);
            bytes.advance(taken);
            self.offset += taken as u64;
            let is_idle = match &self.state {
                State::Busy(task) => task.is_finished(),
                State::Idle(_) | State::Broken => true,
            };
            if is_idle || run.is_full() {
                self.collect().await?;
                self.start(run)?;
            } else {
                self.filling = Some(run);
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        matches!(self.state, State::Idle(_)) && self.filling.is_none()
    }

    async fn settle(&mut self) -> Result<()> {
        self.written().await
    }

    async fn finish(mut self: Box<Self>, flush: Flush) -> Result<Receipt> {
        self.written().await?;
        if !self.rest.is_empty() {
            let run = self.run().await?;
            self.start(run)?;
            self.collect().await?;
        }
        let State::Idle(sink) = self.state else { return Err(Error::broken("an extent was not written")) };
        if flush == Flush::AtPublish || sink.inner.durability == Durability::Process {
            return Ok(Receipt::new());
        }
        let synced = tokio::task::spawn_blocking(move || {
            let result = sink.inner.syncs.data("sync_extent", &sink.cached, sink.cached_bytes);
            if result.is_err() {
                sink.inner.poison(sink.stage);
            }
            result
        });
        synced.await.unwrap_or_else(|error| Err(Error::internal("sync task", error)))?;
        Ok(Receipt::new())
    }

    async fn abandon(mut self: Box<Self>) -> bool {
        // Only that it has ended matters: the extent is not acknowledged either way.
        if let Err(error) = self.collect().await {
            tracing::debug!(error = error.chain(), "an abandoned extent had failed before");
        }
        true
    }
}

impl Sink {
    fn write(&mut self, run: &Run, direct: bool) -> Result<()> {
        let length = run.len() as u64;
        // Reserved space is the file's own already; what grows past the end has to leave the reserve alone.
        let allocated = self.cached.metadata().map_err(|e| failure("stat_stage", e))?.len();
        let inner = self.inner.clone();
        let _pledge = if run.offset + length > allocated { Some(inner.pledge(length)?) } else { None };
        let written = if direct { self.write_direct(run) } else { run.write_cached(&self.cached) };
        self.cached_bytes += written.map_err(|e| failure("write_extent", e))?;
        Ok(())
    }

    /// Where the filesystem refuses direct writes, this is the last that tries.
    fn write_direct(&mut self, run: &Run) -> io::Result<u64> {
        match self.try_direct(run) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                if self.inner.writes_direct.swap(false, Ordering::Relaxed) {
                    tracing::info!(
                        "the filesystem takes no direct writes; uploads go through the page cache"
                    );
                }
                run.write_cached(&self.cached)
            }
            result => result,
        }
    }

    fn try_direct(&mut self, run: &Run) -> io::Result<u64> {
        let direct = match self.direct.take() {
            Some(file) => file,
            None => direct::open(&self.inner.stage_path(self.stage))?,
        };
        run.write(self.direct.insert(direct), &self.cached)
    }
}
