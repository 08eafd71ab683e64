//! Where the bytes of an answer go.

use crate::blocking::blocking;
use crate::body::BUFFER_BYTES;
use crate::error::{ClientError, Result};
use bytes::Bytes;
use carrack_domain::digest::{Piece, PieceHasher};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Takes bytes in order. What was taken stays taken, however the request that brought it ends.
pub(crate) trait Sink: Send {
    /// Takes the bytes that follow.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// A piece of a part file: written where it belongs and hashed, a buffer at a time.
pub(crate) struct PieceSink {
    file: Arc<File>,
    path: PathBuf,
    state: Buffered,
}

#[derive(Default)]
struct Buffered {
    buffer: Vec<u8>,
    at: u64,
    hasher: Option<PieceHasher>,
}

impl PieceSink {
    pub(crate) fn new(file: Arc<File>, path: PathBuf, offset: u64) -> PieceSink {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        PieceSink {
            file,
            path,
            state: Buffered { buffer, at: offset, hasher: Some(PieceHasher::new(offset)) },
        }
    }

    /// Writes what is buffered and tells what the piece came to.
    pub(crate) async fn finish(mut self) -> Result<Piece> {
        self.flush().await?;
        let stopped = || ClientError::Invalid("the piece was stopped".into());
        Ok(self.state.hasher.ok_or_else(stopped)?.finish())
    }

    async fn flush(&mut self) -> Result<()> {
        let mut state = std::mem::take(&mut self.state);
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        self.state = blocking(move || {
            file.write_all_at(&state.buffer, state.at).map_err(|error| ClientError::local(&path, error))?;
            if let Some(hasher) = &mut state.hasher {
                hasher.update(&state.buffer);
            }
            state.at += state.buffer.len() as u64;
            state.buffer.clear();
            Ok(state)
        })
        .await?;
        Ok(())
    }
}

impl Sink for PieceSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.state.buffer.extend_from_slice(&bytes);
        if self.state.buffer.len() >= BUFFER_BYTES { self.flush().await } else { Ok(()) }
    }
}

/// A stream that takes bytes in order, such as standard output, hashing what passes.
pub(crate) struct StreamSink<'a, W> {
    writer: &'a mut W,
    path: PathBuf,
    hasher: Option<PieceHasher>,
}

impl<'a, W: AsyncWrite + Unpin + Send> StreamSink<'a, W> {
    /// A stream called `path` in errors.
    pub(crate) fn new(writer: &'a mut W, path: PathBuf, hasher: Option<PieceHasher>) -> StreamSink<'a, W> {
        StreamSink { writer, path, hasher }
    }

    /// Flushes, and tells what the bytes came to where that was wanted.
    pub(crate) async fn finish(self) -> Result<Option<Piece>> {
        self.writer.flush().await.map_err(|error| ClientError::local(&self.path, error))?;
        Ok(self.hasher.map(PieceHasher::finish))
    }
}

impl<W: AsyncWrite + Unpin + Send> Sink for StreamSink<'_, W> {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.writer.write_all(&bytes).await.map_err(|error| ClientError::local(&self.path, error))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        Ok(())
    }
}
