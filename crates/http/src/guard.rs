//! Whether who watches may go on watching: a stream of news outlives the request that began it.

use crate::App;
use carrack_domain::access::{UseArchives, authorize};
use carrack_domain::{Code, Principal};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often credentials and policies are looked at again.
const EVERY: Duration = Duration::from_secs(1);

/// Somebody who watches.
pub(crate) struct Guard {
    app: Arc<App>,
    principal: Principal,
    epoch: u64,
    next_at: Instant,
}

impl Guard {
    /// Of somebody whose credentials were verified just now.
    pub(crate) fn new(app: Arc<App>, principal: Principal) -> Guard {
        let epoch = app.service.access.epoch();
        Guard { app, principal, epoch, next_at: Instant::now() + EVERY }
    }

    /// Who it is, under the policies of the last look.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Waits until the credentials have ended, or nothing is open to them any more. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            let renewed = self.app.service.access.renew(&self.principal, self.epoch).await;
            self.next_at = Instant::now() + EVERY;
            match renewed {
                Ok(principal) if authorize::<UseArchives>(&principal, ()).is_ok() => {
                    self.principal = principal
                }
                Ok(_) => return,
                Err(error) if error.code() == Code::InvalidToken => return,
                // A catalog that does not answer says nothing about anybody: asked again soon.
                Err(error) => tracing::warn!(error = error.chain(), "credentials could not be looked at"),
            }
        }
    }
}
