//! From a body to a writer: gather what has arrived, hand it over, count it.

use super::claims::superseded;
use crate::{Body, metrics};
use bytes::{Bytes, BytesMut};
use carrack_domain::{Code, Error, Result};
use carrack_storage::ExtentWriter;
use futures_util::{FutureExt, StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// What has arrived is handed to the writer in batches of about this many bytes: at most two batches per upload are
/// in memory, one being written and one being gathered.
const BATCH_BYTES: usize = 1 << 20;

/// A body of up to so many bytes is gathered in memory before anything is done with it.
pub(super) const SMALL_BYTES_MAX: u64 = 32 << 10;

/// What [`gather`] found.
pub(super) enum Gathered {
    /// All of the body.
    Whole(Bytes),
    /// A body that is longer, or broke off: what came of it, and what comes next.
    Begun(Body),
}

impl Gathered {
    /// The body as it came.
    pub(super) fn into_body(self) -> Body {
        match self {
            Gathered::Whole(bytes) => Box::pin(stream::iter([Ok(bytes)])),
            Gathered::Begun(body) => body,
        }
    }
}

/// Takes a body of at most `most` bytes, [`SMALL_BYTES_MAX`] at most. They are copied: of bytes that trickle in, each
/// handful would keep a whole buffer of the connection.
pub(super) async fn gather(mut body: Body, most: u64) -> Gathered {
    let _counted = InProgress::begin();
    let mut bytes = BytesMut::new();
    let next = loop {
        match body.next().await {
            None => {
                ::metrics::counter!(metrics::UPLOAD_BYTES).increment(bytes.len() as u64);
                return Gathered::Whole(bytes.freeze());
            }
            Some(Ok(arrived)) if (bytes.len() + arrived.len()) as u64 <= most.min(SMALL_BYTES_MAX) => {
                bytes.extend_from_slice(&arrived);
            }
            Some(next) => break next,
        }
    };
    Gathered::Begun(Box::pin(stream::iter([Ok(bytes.freeze()), next]).chain(body)))
}

/// How many bytes a body must or may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// Exactly so many.
    Exactly(u64),
    /// Any number up to this; more is `too_large`.
    AtMost(u64),
}

impl Expected {
    /// `length_mismatch` or `too_large` when `received` bytes are already too many.
    fn check(self, received: u64) -> Result<()> {
        match self {
            Expected::Exactly(length) if received > length => Err(mismatch(length, "more")),
            Expected::AtMost(limit) if received > limit => Err(too_large(limit)),
            Expected::Exactly(_) | Expected::AtMost(_) => Ok(()),
        }
    }

    /// Also when a body of `received` bytes has ended too early.
    pub(super) fn check_end(self, received: u64) -> Result<()> {
        match self {
            Expected::Exactly(length) if received < length => Err(mismatch(length, "fewer")),
            Expected::Exactly(_) | Expected::AtMost(_) => self.check(received),
        }
    }
}

/// The answer to a file that is larger than the server takes.
pub(super) fn too_large(limit: u64) -> Error {
    Error::new(Code::TooLarge, format!("The file is larger than {limit} bytes, the most this server takes."))
}

fn mismatch(length: u64, how: &str) -> Error {
    Error::new(
        Code::LengthMismatch,
        format!(
            "{length} bytes were announced, but {how} came. Nothing of it was stored; send it again with its right length."
        ),
    )
}

/// Counts a body while it is being received.
pub(super) struct InProgress;

impl InProgress {
    pub(super) fn begin() -> InProgress {
        ::metrics::gauge!(metrics::UPLOADS_IN_PROGRESS).increment(1);
        InProgress
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::UPLOADS_IN_PROGRESS).decrement(1);
    }
}

/// Moves a body to a writer; returns the number of bytes. On an error the writer still has to be abandoned.
pub(super) async fn receive(
    body: &mut Body,
    writer: &mut dyn ExtentWriter,
    expected: Expected,
    cancelled: &CancellationToken,
) -> Result<u64> {
    let _counted = InProgress::begin();
    let mut received = 0;
    let mut batch = Batch::default();
    loop {
        let arrived = if batch.is_empty() {
            next(body, cancelled).await?
        } else {
            match batch.more(body, writer).await? {
                Some(arrived) => arrived,
                None => continue,
            }
        };
        let Some(arrived) = arrived else { break };
        let bytes = arrived?;
        received += bytes.len() as u64;
        expected.check(received)?;
        ::metrics::counter!(metrics::UPLOAD_BYTES).increment(bytes.len() as u64);
        batch.push(bytes);
    }
    batch.hand_over(writer).await?;
    expected.check_end(received)?;
    Ok(received)
}

/// What comes next of a body, unless a newer request wants the place.
pub(super) async fn next(body: &mut Body, cancelled: &CancellationToken) -> Result<Option<Result<Bytes>>> {
    tokio::select! {
        arrived = body.next() => Ok(arrived),
        () = cancelled.cancelled() => Err(superseded()),
    }
}

/// Bytes gathered for the writer.
#[derive(Default)]
pub(super) struct Batch {
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.parts.push(bytes);
        }
    }

    /// With bytes in hand: what else is there already, without waiting for it. When that is nothing, or the batch is
    /// full, it is handed over instead: `None`.
    pub(super) async fn more(
        &mut self,
        body: &mut Body,
        writer: &mut dyn ExtentWriter,
    ) -> Result<Option<Option<Result<Bytes>>>> {
        if self.bytes < BATCH_BYTES
            && let Some(arrived) = body.next().now_or_never()
        {
            return Ok(Some(arrived));
        }
        self.hand_over(writer).await?;
        Ok(None)
    }

    /// Gives the writer what there is.
    pub(super) async fn hand_over(&mut self, writer: &mut dyn ExtentWriter) -> Result<()> {
        self.bytes = 0;
        match std::mem::take(&mut self.parts) {
            none if none.is_empty() => Ok(()),
            parts => writer.write(parts).await,
        }
    }
}
