//! TLS 1.2 and 1.3 by rustls: the certificate that is shown, handshakes, and records on a socket of ours.
//!
//! *Memory.* A connection holds at most 64 KiB of encrypted bytes that the kernel has not taken yet, or 144 KiB over
//! HTTP/2, and one record that has not come completely. What is read of a file passes through a buffer of the thread.

mod certificate;
mod handshake;
mod kernel;
mod plain;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use handshake::accept;
pub use kernel::offers_tls as kernel_offers_tls;
pub(crate) use stream::TlsStream;

use certificate::Shown;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ServerSessionMemoryCache;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Sessions of TLS 1.2 clients without tickets that are remembered; a session is a few hundred bytes.
const SESSIONS_MAX: usize = 4096;

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldestVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Where the certificate is, and what is spoken.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// A PEM file: the server's certificate, then those that lead from it to a root.
    pub cert: PathBuf,
    /// A PEM file: the private key of the first certificate, not encrypted (PKCS #8, SEC 1 or PKCS #1).
    pub key: PathBuf,
    /// The oldest version that is spoken.
    pub oldest: OldestVersion,
}

/// Why a certificate cannot be shown.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The file of certificates; what was found there.
    Cert(String),
    /// The file of the key; what was found there.
    Key(String),
    /// Each is fine, but they do not belong together.
    Pair,
    /// The library refused to be set up, which no setting can mend.
    Setup(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Cert(what) | TlsError::Key(what) | TlsError::Setup(what) => f.write_str(what),
            TlsError::Pair => f.write_str("the key is not that of the first certificate"),
        }
    }
}

impl std::error::Error for TlsError {}

/// What TLS connections are made with. Sessions can be resumed as long as this lives, through reloads too.
pub struct Tls {
    options: TlsOptions,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate and key. `now`, in seconds since 1970, tells whether the certificate has expired, which is
    /// logged and no error: clients decide what they accept.
    pub fn load(options: TlsOptions, now: i64) -> Result<Tls, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown::new(certificate::read(&options, &provider, now)?));
        let versions: &[_] = match options.oldest {
            OldestVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            OldestVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(setup)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets under keys that change every few hours, and the older way for clients without tickets (RFC 5246).
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Tls { options, shown, config: Arc::new(config) })
    }

    /// Reads certificate and key again, for the handshakes to come. After an error the old ones stay.
    pub fn reload(&self, now: i64) -> Result<(), TlsError> {
        let provider = self.config.crypto_provider();
        self.shown.replace(certificate::read(&self.options, provider, now)?);
        Ok(())
    }
}
