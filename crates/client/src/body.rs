//! Request bodies that are read from a file while they are sent, hashed as they pass, and can be made again.

use crate::blocking::blocking;
use crate::error::{ClientError, Result};
use crate::progress::Progress;
use crate::source::Source;
use bytes::{Bytes, BytesMut};
use carrack_domain::digest::{Piece, PieceHasher};
use futures_util::stream;
use reqwest::Body;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are read or written at once.
pub const BUFFER_BYTES: usize = 256 << 10;

/// What a body came to.
pub(crate) struct Sum {
    /// The digests that join with the neighbours'.
    pub(crate) piece: Piece,
    /// BLAKE3 of the body by itself.
    pub(crate) blake3: [u8; 32],
}

/// What is known of a body that another task sends.
pub(crate) struct Sent {
    bytes: AtomicU64,
    outcome: Mutex<Option<Result<Sum>>>,
    progress: Arc<dyn Progress>,
}

impl Sent {
    pub(crate) fn new(progress: Arc<dyn Progress>) -> Arc<Sent> {
        Arc::new(Sent { bytes: AtomicU64::new(0), outcome: Mutex::new(None), progress })
    }

    /// Bytes that were given away.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the body came to, or why it could not be read; `None` when it was not asked for to its end.
    pub(crate) fn outcome(&self) -> Option<Result<Sum>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.progress.advanced(bytes as u64);
    }

    fn settle(&self, outcome: Result<Sum>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

/// Both digests of a body while it passes.
struct Hashers {
    piece: PieceHasher,
    alone: blake3::Hasher,
}

impl Hashers {
    fn new(offset: u64) -> Hashers {
        Hashers { piece: PieceHasher::new(offset), alone: blake3::Hasher::new() }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.piece.update(bytes);
        self.alone.update(bytes);
    }

    fn finish(self) -> Sum {
        Sum { piece: self.piece.finish(), blake3: *self.alone.finalize().as_bytes() }
    }
}

/// The bytes `at..end` of a file.
struct Reading {
    source: Source,
    hashers: Hashers,
    at: u64,
    end: u64,
}

impl Reading {
    fn read(mut self) -> Result<(Bytes, Reading)> {
        let mut buffer = BytesMut::zeroed((self.end - self.at).min(BUFFER_BYTES as u64) as usize);
        self.source.read(&mut buffer, self.at)?;
        self.hashers.update(&buffer);
        self.at += buffer.len() as u64;
        Ok((buffer.freeze(), self))
    }
}

/// The `len` bytes of `source` from `offset` as a body. Its length has to be said in a header.
pub(crate) fn of_file(source: &Source, offset: u64, len: u64, sent: &Arc<Sent>) -> Body {
    let hashers = Hashers::new(offset);
    if len == 0 {
        sent.settle(Ok(hashers.finish()));
        return Body::from(Bytes::new());
    }
    let reading = Reading { source: source.clone(), hashers, at: offset, end: offset + len };
    let sent = Arc::clone(sent);
    Body::wrap_stream(stream::try_unfold(Some(reading), move |reading| {
        let sent = Arc::clone(&sent);
        async move {
            let Some(reading) = reading else { return Ok(None) };
            match blocking(|| reading.read()).await {
                Err(error) => {
                    sent.settle(Err(error));
                    Err(io::Error::other("the file could not be read"))
                }
                // Settled with the last bytes: nobody asks again once the announced length is reached.
                Ok((bytes, reading)) if reading.at == reading.end => {
                    sent.settle(Ok(reading.hashers.finish()));
                    sent.count(bytes.len());
                    Ok(Some((bytes, None)))
                }
                Ok((bytes, reading)) => {
                    sent.count(bytes.len());
                    Ok(Some((bytes, Some(reading))))
                }
            }
        }
    }))
}

/// Whatever `reader` gives until its end as a body. It can be sent once only.
pub(crate) fn of_reader(reader: impl AsyncRead + Send + Unpin + 'static, sent: &Arc<Sent>) -> Body {
    let sent = Arc::clone(sent);
    Body::wrap_stream(stream::try_unfold((reader, Hashers::new(0)), move |(mut reader, mut hashers)| {
        let sent = Arc::clone(&sent);
        async move {
            let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => {
                    sent.settle(Ok(hashers.finish()));
                    Ok(None)
                }
                Ok(read) => {
                    hashers.update(&buffer);
                    sent.count(read);
                    Ok(Some((buffer.freeze(), (reader, hashers))))
                }
                Err(error) => {
                    let kind = error.kind();
                    sent.settle(Err(ClientError::local("-".as_ref(), error)));
                    Err(io::Error::from(kind))
                }
            }
        }
    }))
}
