//! Connections that only read. A point read takes one for some microseconds and runs where it is asked for; a long
//! read takes one of its own to a thread that may block, so that it never stands in the way of a point read.

use super::error::{Done, OpenError};
use super::open;
use carrack_domain::{Code, Error, Result};
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounded sets of connections.
pub(super) struct Readers {
    points: Arc<Pool>,
    long: Arc<Pool>,
}

impl Readers {
    pub(super) fn open(path: &Path, each: usize) -> Result<Readers, OpenError> {
        let each = each.max(1);
        Ok(Readers { points: Pool::open(path, each, each * 2)?, long: Pool::open(path, each, each * 2)? })
    }

    /// Runs a read of a few pages right here.
    pub(super) async fn point<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> Done<T>,
    ) -> Result<T> {
        let lease = self.points.lease().await?;
        lease.with(|connection| read(connection)).map_err(|failed| failed.into_error(operation))
    }

    /// Runs a read on a thread that may block.
    pub(super) async fn long<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&mut Connection) -> Done<T> + Send + 'static,
    ) -> Result<T> {
        let lease = self.long.lease().await?;
        tokio::task::spawn_blocking(move || lease.with(read).map_err(|failed| failed.into_error(operation)))
            .await
            .unwrap_or_else(|error| Err(Error::internal(operation, error)))
    }

    /// Waits until no connection is in use, then closes them all.
    pub(super) async fn close(&self) {
        self.points.close().await;
        self.long.close().await;
    }

    /// Closes the connections that are not in use.
    pub(super) fn clear(&self) {
        self.points.clear();
        self.long.clear();
    }
}

struct Pool {
    /// As many permits as connections.
    permits: Arc<Semaphore>,
    size: usize,
    /// The last one used is the next: its cache is warm.
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    fn open(path: &Path, size: usize, of: usize) -> Result<Arc<Pool>, OpenError> {
        let idle = (0..size).map(|_| open::reader(path, of)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Pool { permits: Arc::new(Semaphore::new(size)), size, idle: Mutex::new(idle) }))
    }

    async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| stopping())?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if connection.is_none() {
            return Err(stopping());
        }
        Ok(Lease { connection, pool: Arc::clone(self), _permit: permit })
    }

    async fn close(&self) {
        let all = self.permits.acquire_many(u32::try_from(self.size).unwrap_or(u32::MAX)).await;
        self.permits.close();
        self.clear();
        drop(all);
    }

    fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A connection in use; goes back to its pool, before its permit does, even when the read panics.
struct Lease {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn with<T>(mut self, read: impl FnOnce(&mut Connection) -> Done<T>) -> Done<T> {
        match &mut self.connection {
            Some(connection) => read(connection),
            None => Err(stopping().into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

pub(super) fn stopping() -> Error {
    Error::new(Code::ShuttingDown, "The server is stopping. Send the request again later.")
}
