//! File system calls on the threads that may block. Awaited by the caller, so nothing outlives it but one call.

use crate::error::{ClientError, Result};

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(ClientError::Invalid(format!("the work was stopped: {stopped}"))),
    }
}
