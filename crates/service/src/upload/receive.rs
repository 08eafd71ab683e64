//! From a body to a writer: take what has arrived, hand it over, count it.

use super::claims::superseded;
use crate::contents::CONTENT_BYTES_MAX;
use crate::{Body, metrics};
use bytes::{Bytes, BytesMut};
use carrack_domain::{Code, Error, Result};
use carrack_storage::ExtentWriter;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// A body of up to so many bytes is gathered in memory before anything is done with it: it is kept with its record.
pub(super) const SMALL_BYTES_MAX: u64 = CONTENT_BYTES_MAX;

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
    while let Some(arrived) = while_settling(writer, next(body, cancelled)).await?? {
        let bytes = arrived?;
        received += bytes.len() as u64;
        expected.check(received)?;
        ::metrics::counter!(metrics::UPLOAD_BYTES).increment(bytes.len() as u64);
        writer.write(bytes).await?;
    }
    expected.check_end(received)?;
    Ok(received)
}

/// Waits for what comes next while the writer writes what came before.
pub(super) async fn while_settling<T>(
    writer: &mut dyn ExtentWriter,
    coming: impl Future<Output = T>,
) -> Result<T> {
    let mut coming = std::pin::pin!(coming);
    if !writer.is_settled() {
        tokio::select! {
            biased;
            came = &mut coming => return Ok(came),
            settled = writer.settle() => settled?,
        }
    }
    Ok(coming.await)
}

/// What comes next of a body, unless a newer request wants the place.
pub(super) async fn next(body: &mut Body, cancelled: &CancellationToken) -> Result<Option<Result<Bytes>>> {
    tokio::select! {
        arrived = body.next() => Ok(arrived),
        () = cancelled.cancelled() => Err(superseded()),
    }
}
