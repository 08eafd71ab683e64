//! The certificate, read at the start and again at SIGHUP.

use crate::config;
use crate::system::SystemClock;
use carrack_domain::Clock;
use carrack_transport::{Tls, TlsError, TlsOptions};
use std::path::Path;
use std::sync::Arc;

/// What HTTPS is spoken with, if it is; the error is a sentence for the operator.
pub(crate) fn load(settings: &config::Tls) -> Result<Option<Arc<Tls>>, String> {
    if !settings.is_on() {
        return Ok(None);
    }
    let options =
        TlsOptions { cert: settings.cert.clone(), key: settings.key.clone(), oldest: settings.min_version };
    let tls = Tls::load(options, now()).map_err(|error| explain(&error, settings))?;
    tracing::info!(
        kernel_tls = carrack_transport::kernel_offers_tls(),
        "HTTPS is spoken; encryption is this process's, whatever the kernel offers"
    );
    Ok(Some(Arc::new(tls)))
}

/// Reads the certificate again. A pair that is no good is logged, the old one stays.
pub(crate) async fn reload(tls: Arc<Tls>) {
    match tokio::task::spawn_blocking(move || tls.reload(now())).await {
        Ok(Ok(())) => tracing::info!("SIGHUP: the TLS certificate was read again"),
        Ok(Err(error)) => {
            tracing::error!(%error, "SIGHUP: the new TLS certificate is no good; the old one stays")
        }
        Err(error) => tracing::error!(%error, "SIGHUP: the TLS certificate could not be read again"),
    }
}

fn now() -> i64 {
    const MILLIS: i64 = 1000;
    SystemClock.now().as_millis() / MILLIS
}

fn explain(error: &TlsError, settings: &config::Tls) -> String {
    let setting = |key: &str, path: &Path, expected: &str| {
        format!("setting tls.{key}: found {:?}, expected {expected}: {error}", path.display().to_string())
    };
    match error {
        TlsError::Cert(_) => {
            setting("cert", &settings.cert, "a PEM file of certificates, the server's first")
        }
        TlsError::Key(_) => setting("key", &settings.key, "a PEM file with an unencrypted private key"),
        TlsError::Pair => {
            setting("key", &settings.key, &format!("the key of the first certificate in {:?}", settings.cert))
        }
        TlsError::Setup(_) => format!("TLS cannot be set up: {error}"),
    }
}
