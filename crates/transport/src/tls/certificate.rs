//! The certificate that is shown, and its key.

use super::{TlsError, TlsOptions};
use crate::metrics::TLS_CERTIFICATE_EXPIRY;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fs;
use std::sync::{Arc, PoisonError, RwLock};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The pair in use. Handshakes under way keep the one they began with.
pub(super) struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    pub(super) fn new(pair: CertifiedKey) -> Shown {
        Shown(RwLock::new(Arc::new(pair)))
    }

    pub(super) fn replace(&self, pair: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown(..)")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Reads both files and makes sure that they belong together.
pub(super) fn read(
    options: &TlsOptions,
    provider: &CryptoProvider,
    now: i64,
) -> Result<CertifiedKey, TlsError> {
    let chain = read_chain(options)?;
    let key = read_key(options)?;
    let expiries = chain.iter().map(expiry).collect::<Result<Vec<_>, _>>().map_err(TlsError::Cert)?;
    let pair = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Pair,
        Error::InvalidCertificate(what) => {
            TlsError::Cert(format!("the first certificate is no good: {what}"))
        }
        other => TlsError::Key(format!("the key cannot be used: {other}")),
    })?;
    tell_expiry(&expiries, now);
    Ok(pair)
}

fn read_chain(options: &TlsOptions) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = fs::read(&options.cert).map_err(|error| TlsError::Cert(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError::Cert("there is no CERTIFICATE in it".to_owned())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(TlsError::Cert(format!("it is not PEM: {error}"))),
    }
}

fn read_key(options: &TlsOptions) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = fs::read(&options.key).map_err(|error| TlsError::Key(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        TlsError::Key(match error {
            pem::Error::NoItemsFound => "there is no unencrypted PRIVATE KEY in it".to_owned(),
            other => format!("it is not PEM: {other}"),
        })
    })
}

/// When a certificate expires, in seconds since 1970.
fn expiry(der: &CertificateDer<'_>) -> Result<i64, String> {
    let parsed = Certificate::from_der(der).map_err(|error| format!("a certificate is no X.509: {error}"))?;
    let end = parsed.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(end.as_secs()).map_err(|error| error.to_string())
}

/// Warns of what has expired, and tells monitoring when the first certificate of the chain does.
fn tell_expiry(expiries: &[i64], now: i64) {
    const DAY_SECONDS: i64 = 24 * 3600;
    let Some(first) = expiries.iter().min() else { return };
    metrics::gauge!(TLS_CERTIFICATE_EXPIRY).set(*first as f64);
    let days = (first - now) / DAY_SECONDS;
    if *first <= now {
        tracing::warn!("the TLS certificate has expired {} days ago: clients will refuse it", -days);
    } else {
        tracing::info!(days, "the TLS certificate is read; it is valid for so many days");
    }
}
