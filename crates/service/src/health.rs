//! Whether the server can do its work.

use crate::Core;
use carrack_domain::{Code, Error, Result, Timestamp};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long one answer is good for: probes come often and must not cost.
const FRESH: Duration = Duration::from_secs(1);
/// How long a dependency may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Readiness.
pub struct Health {
    core: Arc<Core>,
    draining: CancellationToken,
    last: Mutex<Option<(Timestamp, Option<&'static str>)>>,
}

impl Health {
    pub(crate) fn new(core: Arc<Core>) -> Health {
        Health { core, draining: CancellationToken::new(), last: Mutex::new(None) }
    }

    /// From now on the server is not ready: it is stopping.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the server is stopping.
    pub fn draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the server is stopping: what has no end of its own ends then.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// `shutting_down` when the server is stopping: it takes no new work.
    pub fn refuse_while_draining(&self) -> Result<()> {
        if self.draining() { Err(Error::new(Code::ShuttingDown, "The server is stopping.")) } else { Ok(()) }
    }

    /// Answers when requests can be served; otherwise `shutting_down` or `overloaded` with the room that does not answer.
    pub async fn ready(&self) -> Result<()> {
        self.refuse_while_draining()?;
        let now = self.core.clock.now();
        let cached =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).filter(|(at, _)| now < at.after(FRESH));
        let broken = match cached {
            Some((_, broken)) => broken,
            None => {
                let broken = self.probe().await;
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, broken));
                broken
            }
        };
        match broken {
            None => Ok(()),
            Some(room) => Err(Error::new(Code::Overloaded, format!("The {room} does not answer."))),
        }
    }

    async fn probe(&self) -> Option<&'static str> {
        for (room, check) in [("catalog", self.core.catalog.check()), ("storage", self.core.storage.check())]
        {
            match tokio::time::timeout(PATIENCE, check).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(room, error = error.chain(), "not ready");
                    return Some(room);
                }
                Err(_) => {
                    tracing::warn!(room, "not ready: no answer in time");
                    return Some(room);
                }
            }
        }
        None
    }
}
