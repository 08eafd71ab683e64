//! Where the keys of issuers come from: a file, or a URL.

use crate::config::Jwks;
use async_trait::async_trait;
use carrack_service::jwt::{Issuer, KEY_SET_BYTES_MAX, KeySource, Signing};
use reqwest::Url;
use std::path::PathBuf;
use std::time::Duration;

/// How long an issuer may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody whose tokens are believed; the sentence names the setting and what is wrong with it.
pub(crate) fn issuer(settings: &Jwks) -> Result<Issuer, String> {
    let wrong = |expected: &str| format!("setting auth.jwks of issuer {:?}: {expected}", settings.issuer);
    if settings.issuer.is_empty() || settings.audience.is_empty() {
        return Err(wrong("expected an issuer and an audience, both not empty"));
    }
    let algorithms = settings.algorithms.iter().map(|name| Signing::parse(name)).collect::<Option<Vec<_>>>();
    let algorithms = algorithms
        .filter(|algorithms| !algorithms.is_empty())
        .ok_or_else(|| wrong("expected algorithms out of RS256, ES256 and EdDSA"))?;
    let source: Box<dyn KeySource> = match (settings.url.is_empty(), settings.file.as_os_str().is_empty()) {
        (true, false) => Box::new(File(settings.file.clone())),
        (false, true) => Box::new(Remote::new(&settings.url).map_err(|expected| wrong(&expected))?),
        (true, true) | (false, false) => return Err(wrong("expected either url or file")),
    };
    Ok(Issuer { issuer: settings.issuer.clone(), audience: settings.audience.clone(), algorithms, source })
}

struct File(PathBuf);

#[async_trait]
impl KeySource for File {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let shown = self.0.display();
        let length = tokio::fs::metadata(&self.0).await.map_err(|error| format!("{shown}: {error}"))?.len();
        if length > KEY_SET_BYTES_MAX as u64 {
            return Err(format!("{shown} has {length} bytes, at most {KEY_SET_BYTES_MAX} are read"));
        }
        tokio::fs::read(&self.0).await.map_err(|error| format!("{shown}: {error}"))
    }
}

struct Remote {
    url: Url,
    client: reqwest::Client,
}

impl Remote {
    fn new(text: &str) -> Result<Remote, String> {
        let url = Url::parse(text).map_err(|error| format!("found url {text:?}, which is none: {error}"))?;
        // Whoever is between could put in keys of their own; on this machine nobody is.
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(format!("found url {text:?}, expected https://..."));
        }
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("no client for {text:?}: {error}"))?;
        Ok(Remote { url, client })
    }
}

#[async_trait]
impl KeySource for Remote {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| error.to_string();
        let mut answer = self.client.get(self.url.clone()).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("{} answers {}", self.url, answer.status()));
        }
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&bytes);
            if text.len() > KEY_SET_BYTES_MAX {
                return Err(format!("{} sends more than {KEY_SET_BYTES_MAX} bytes", self.url));
            }
        }
        Ok(text)
    }
}
