//! What SIGHUP reads again: the TLS certificate, the signing keys and the limits.

use crate::config::{self, Auth, Flags};
use crate::system::SystemEntropy;
use crate::{data, tls};
use carrack_service::Service;
use carrack_service::keys::{KeyRing, Secret};
use carrack_transport::Tls;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What there is to be read again.
pub(crate) struct Reload {
    pub(crate) flags: Flags,
    pub(crate) data: PathBuf,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) service: Arc<Service>,
}

/// What is signed with: the settings' keys, or those of the data folder.
pub(crate) fn secrets(auth: &Auth, data: &Path) -> Result<Vec<Secret>, String> {
    match config::signing_keys(auth) {
        Some(keys) => Ok(keys),
        None => data::signing_keys(data, &SystemEntropy),
    }
}

/// A ring of these keys.
pub(crate) fn ring(auth: &Auth, data: &Path) -> Result<KeyRing, String> {
    KeyRing::new(&secrets(auth, data)?).map_err(|problem| format!("the signing keys are no good: {problem}"))
}

impl Reload {
    /// Reads everything again whenever `notify` is notified. What is no good is logged, the old stays.
    pub(crate) async fn run(self, notify: Arc<Notify>, stop: CancellationToken) {
        while stop.run_until_cancelled(notify.notified()).await.is_some() {
            if let Some(tls) = &self.tls {
                tls::reload(tls.clone()).await;
            }
            match self.settings() {
                Ok(()) => tracing::info!("SIGHUP: the limits and the signing keys were read again"),
                Err(problem) => {
                    tracing::error!(
                        problem,
                        "SIGHUP: the new limits or signing keys are no good; the old ones stay"
                    )
                }
            }
        }
    }

    fn settings(&self) -> Result<(), String> {
        let config = config::load(&self.flags).map_err(|error| error.to_string())?;
        self.service.access.replace_keys(&secrets(&config.auth, &self.data)?)?;
        self.service.limiter.replace(config.limits.settings());
        Ok(())
    }
}
