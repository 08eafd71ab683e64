//! One server, and requests to it.

use crate::error::{ClientError, Refusal, Result};
use crate::retry::{Backoff, Jitter, WaitListener, retry_after};
use bytes::{Bytes, BytesMut};
use carrack_api::Problem;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The longest error body that is read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// The longest JSON answer that is read: a page of a listing is a few hundred KiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A bearer token. It never shows: not in `Debug`, not in an error, not in a trace of the HTTP library.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// A token without surrounding white space, as files have it.
    pub fn new(text: &str) -> Result<Token> {
        let text = text.trim();
        let value = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| !text.is_empty());
        let mut value =
            value.ok_or_else(|| ClientError::Invalid("the token is empty or not one line of text".into()))?;
        value.set_sensitive(true);
        Ok(Token(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How to reach a server and how hard to try.
#[derive(Clone)]
pub struct ClientOptions {
    /// The server's address: `http://127.0.0.1:8080`, or with a path where a proxy has it below one.
    pub base: String,
    /// Who calls; nobody when absent.
    pub token: Option<Token>,
    /// Certificates (PEM) that are trusted beside those of the system, for servers with a certificate of their own.
    pub ca_certs: Option<Vec<u8>>,
    /// Requests with content in flight at once, over all transfers of the client.
    pub parallel: usize,
    /// Tries of each request, the first included.
    pub attempts: u32,
    /// How long nothing may move before a request counts as cut.
    pub idle_timeout: Duration,
    /// Where open uploads are remembered for the next run; none are when absent.
    pub state_dir: Option<PathBuf>,
    /// Where the jitter of pauses begins. Anything that differs between processes will do.
    pub seed: u64,
    /// Files up to this size are sent whole.
    pub whole_put_max: u64,
    /// Bytes of a part of an upload; the server chooses when absent.
    pub part_size: Option<u64>,
    /// Bytes of a piece of a download.
    pub piece_size: NonZeroU64,
    /// Hears of every pause before something is tried again.
    pub on_wait: Option<Arc<WaitListener>>,
}

impl ClientOptions {
    /// The defaults for a server: 4 connections, 8 tries, pieces of 8 MiB.
    pub fn new(base: impl Into<String>) -> ClientOptions {
        ClientOptions {
            base: base.into(),
            token: None,
            ca_certs: None,
            parallel: 4,
            attempts: 8,
            idle_timeout: Duration::from_secs(60),
            state_dir: None,
            seed: 0,
            whole_put_max: 16 << 20,
            part_size: None,
            piece_size: NonZeroU64::MIN.saturating_add((8 << 20) - 1),
            on_wait: None,
        }
    }
}

/// A server to transfer files to and from. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: String,
    options: ClientOptions,
    jitter: Jitter,
    permits: Semaphore,
}

impl Client {
    /// A client; nothing is sent yet. `Invalid` says what is wrong with the options.
    pub fn new(options: ClientOptions) -> Result<Client> {
        let base = parse_base(&options.base)?;
        if options.parallel == 0 || options.attempts == 0 {
            return Err(ClientError::Invalid("at least one connection and one try are needed".into()));
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("carrack/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(options.parallel);
        if is_loopback(&options.base) {
            http = http.no_proxy();
        }
        if let Some(pem) = &options.ca_certs {
            let certs = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|certs| !certs.is_empty());
            let none = || ClientError::Invalid("there is no PEM certificate among those to trust".into());
            http = http.tls_certs_merge(certs.ok_or_else(none)?);
        }
        let http = http.build().map_err(|error| ClientError::Invalid(innermost(&error)))?;
        let base = base.as_str().trim_end_matches('/').to_owned();
        let permits = Semaphore::new(options.parallel);
        let jitter = Jitter::new(options.seed);
        Ok(Client { inner: Arc::new(Inner { http, base, options, jitter, permits }) })
    }

    /// The server's address, without a trailing `/`.
    pub fn base(&self) -> &str {
        &self.inner.base
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    pub(crate) fn backoff(&self) -> Backoff<'_> {
        let options = &self.inner.options;
        Backoff::new(options.attempts, &self.inner.jitter, options.on_wait.as_deref())
    }

    /// One of the connections for content. Held for one request, never while waiting for another.
    pub(crate) async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        let permit = self.inner.permits.acquire().await;
        permit.map_err(|closed| ClientError::Invalid(closed.to_string()))
    }

    /// A request with the caller's token; `path` begins with `/`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.inner.http.request(method, format!("{}{path}", self.inner.base));
        match &self.inner.options.token {
            Some(token) => request.header(AUTHORIZATION, token.0.clone()),
            None => request,
        }
    }

    /// Sends a request once. Any status but 2xx is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        self.unless_stalled(self.exchange(request), || 0).await
    }

    /// Sends a request once whose body counts what it gave away in `moved`.
    pub(crate) async fn send_body(
        &self,
        request: RequestBuilder,
        moved: impl Fn() -> u64,
    ) -> Result<Response> {
        self.unless_stalled(self.exchange(request), moved).await
    }

    /// Sends what `build` makes, again while that may help, and reads the JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, build: impl Fn() -> RequestBuilder) -> Result<T> {
        let mut backoff = self.backoff();
        loop {
            let answer = async { self.read_json(self.send(build()).await?).await };
            match answer.await {
                Ok(value) => return Ok(value),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let url = response.url().path().to_owned();
        let bytes = self.read_all(response, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            ClientError::Unexpected(format!("the answer to {url} is not Carrack's: {error}"))
        })
    }

    /// The next bytes of a body; an end that comes too early is an error.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>> {
        self.unless_stalled(async { response.chunk().await.map_err(|error| self.unreachable(&error)) }, || 0)
            .await
    }

    /// Gives `work` up when `moved` stands still for the idle time.
    async fn unless_stalled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
        moved: impl Fn() -> u64,
    ) -> Result<T> {
        let idle = self.inner.options.idle_timeout;
        let mut work = pin!(work);
        let mut seen = moved();
        loop {
            if let Ok(result) = tokio::time::timeout(idle, &mut work).await {
                return result;
            }
            let now = moved();
            if now == seen {
                let reason = format!("nothing moved for {} s", idle.as_secs());
                return Err(ClientError::Unreachable { server: self.inner.base.clone(), reason });
            }
            seen = now;
        }
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn read_all(&self, mut response: Response, most: usize) -> Result<BytesMut> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if bytes.len() + chunk.len() > most {
                return Err(ClientError::Unexpected(format!("an answer of more than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let retry_after = header(response.headers(), &RETRY_AFTER)
            .and_then(|value| retry_after(value, header(response.headers(), &DATE)));
        let place = response.url().path().to_owned();
        // Whatever stands in the body, or breaks it off: the status alone says enough.
        let body = self.read_all(response, PROBLEM_BYTES_MAX).await.unwrap_or_default();
        let refusal = Box::new(read_refusal(status, &place, &body));
        if is_worth_another_try(status) {
            ClientError::Unavailable { refusal, retry_after }
        } else {
            ClientError::Refused(refusal)
        }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        if error.is_builder() {
            return ClientError::Invalid(innermost(error));
        }
        ClientError::Unreachable { server: self.inner.base.clone(), reason: innermost(error) }
    }
}

/// A header's text, when it has one.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// 408, 429 and failures of the server that pass. 501, 505 and 507 (no space left) do not pass within seconds.
fn is_worth_another_try(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 429 => true,
        501 | 505 | 507 => false,
        other => other >= 500,
    }
}

fn read_refusal(status: StatusCode, place: &str, body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Refusal {
            status: status.as_u16(),
            code: problem.code,
            detail: problem.detail,
            trace_id: problem.trace_id,
            missing: problem.missing,
        },
        Err(_) => Refusal {
            status: status.as_u16(),
            code: String::new(),
            detail: format!("{} for {place}", status.canonical_reason().unwrap_or("refused")),
            trace_id: String::new(),
            missing: None,
        },
    }
}

fn parse_base(base: &str) -> Result<Url> {
    let wrong = |why: &str| ClientError::Invalid(format!("the server's address {base:?} {why}"));
    let url = Url::parse(base).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("does not begin with http:// or https:// and a host"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || url.password().is_some()
        || !url.username().is_empty()
    {
        return Err(wrong("has a query, a fragment or a user: leave them out"));
    }
    Ok(url)
}

/// Whether an address names this machine itself.
pub fn is_loopback(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// The cause at the bottom of an error: the layers above only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_show() {
        let token = Token::new(" s3cret\n").unwrap();
        assert_eq!(format!("{token:?} {:?}", token.0), "Token(..) Sensitive");
        assert!(Token::new(" \n").is_err() && Token::new("a\nb").is_err());
    }

    #[test]
    fn addresses() {
        for good in ["http://127.0.0.1:8080", "https://files.example/below/"] {
            assert!(Client::new(ClientOptions::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "files.example", "ftp://x", "http://", "http://u:p@x", "http://x?a=b"] {
            assert!(Client::new(ClientOptions::new(bad)).is_err(), "{bad}");
        }
        assert!(
            is_loopback("http://localhost:1")
                && is_loopback("http://[::1]:1")
                && is_loopback("http://127.9.9.9")
        );
        assert!(!is_loopback("http://localhost.evil.example") && !is_loopback("http://10.0.0.1"));
    }

    #[test]
    fn certificates_to_trust() {
        for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let mut options = ClientOptions::new("https://files.example");
            options.ca_certs = Some(bad.into());
            assert!(Client::new(options).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_tried_again() {
        let again: Vec<u16> = [400, 401, 404, 408, 409, 412, 416, 422, 429, 500, 501, 502, 503, 504, 507]
            .into_iter()
            .filter(|status| is_worth_another_try(StatusCode::from_u16(*status).unwrap()))
            .collect();
        assert_eq!(again, [408, 429, 500, 502, 503, 504]);
    }

    #[test]
    fn refusals_without_a_problem_still_say_something() {
        let refusal = read_refusal(StatusCode::BAD_GATEWAY, "/v1/me", b"<html>");
        assert_eq!(refusal.to_string(), "Bad Gateway for /v1/me (HTTP 502)");
    }
}
