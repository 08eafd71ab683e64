//! Requests to S3: signed, bounded in time, tried again where that can help.

use super::fault::Fault;
use super::sign::{self, Credentials, UNSIGNED};
use super::xml;
use bytes::Bytes;
use carrack_domain::Clock;
use futures_util::{Stream, stream};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take to begin, besides the time for what is sent.
const ANSWER: Duration = Duration::from_secs(10);
/// A body is sent at this many bytes per second at least.
const SEND_RATE: u64 = 1 << 20;
/// How long the completion of a multipart upload may take until its answer begins. S3 works on it for up to minutes, but says
/// so meanwhile; one that is still working when it is asked again has completed by then.
pub(super) const COMPLETION: Duration = Duration::from_secs(30);
/// How long the whole of an answer may take that is read at once.
const TEXT: Duration = Duration::from_secs(300);
/// What is passing is tried again after these.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
/// The most bytes of an answer that is read as a whole.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// A stream of bytes of a request.
pub(super) type Bodied = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// Makes the body of a request, for each time that it is tried.
type Source = Arc<dyn Fn() -> Bodied + Send + Sync>;

/// What a request carries.
#[derive(Clone)]
pub(super) enum Body {
    /// Little, which is signed as well.
    Text(Bytes),
    /// Much, of a known length, with its CRC-32 among the headers.
    Source(Source, u64),
}

impl Body {
    pub(super) fn empty() -> Body {
        Body::Text(Bytes::new())
    }

    pub(super) fn blocks(blocks: Vec<Bytes>) -> Body {
        let len = blocks.iter().map(|block| block.len() as u64).sum();
        Body::Source(Arc::new(move || Box::pin(stream::iter(blocks.clone().into_iter().map(Ok)))), len)
    }
}

/// A request.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) op: &'static str,
    pub(super) method: Method,
    /// Below the prefix; empty for the bucket itself.
    pub(super) key: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
    pub(super) patience: Duration,
}

impl Call {
    pub(super) fn new(op: &'static str, method: Method, key: impl Into<String>) -> Call {
        Call {
            op,
            method,
            key: key.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::empty(),
            patience: ANSWER,
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Call {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Body) -> Call {
        if let Body::Source(_, len) = &body {
            self.patience = ANSWER + Duration::from_secs(len / SEND_RATE);
        }
        self.body = body;
        self
    }
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Where the bucket is.
pub(super) struct Target {
    /// `http://host:port`
    pub(super) endpoint: String,
    /// The same as others reach it; empty where they do so as we do.
    pub(super) public_endpoint: String,
    pub(super) bucket: String,
    pub(super) path_style: bool,
    /// Before every key.
    pub(super) prefix: String,
}

/// See the module's documentation.
pub(super) struct Client {
    /// With its connections, and when it was made.
    http: RwLock<(Instant, reqwest::Client)>,
    base: String,
    host: String,
    /// The same as others reach it.
    public_base: String,
    public_host: String,
    /// The path of the bucket, and what comes before every key.
    bucket: String,
    keys: String,
    prefix: String,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

impl Client {
    pub(super) fn new(
        target: Target,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Client, String> {
        let http = http().map_err(|error| format!("cannot make a client for S3: {error}"))?;
        let Target { endpoint, public_endpoint, bucket, path_style, prefix } = target;
        let (scheme, host) = parse_endpoint("endpoint", &endpoint)?;
        let (public_scheme, public_host) = match public_endpoint.as_str() {
            "" => (scheme, host),
            public => parse_endpoint("public_endpoint", public)?,
        };
        let of_bucket = |host: &str| if path_style { host.to_owned() } else { format!("{bucket}.{host}") };
        let (host, public_host) = (of_bucket(host), of_bucket(public_host));
        let bucket = if path_style { format!("/{bucket}") } else { String::new() };
        let keys = format!("{bucket}/{prefix}");
        let bucket = if bucket.is_empty() { "/".to_owned() } else { bucket };
        Ok(Client {
            http: RwLock::new((Instant::now(), http)),
            base: format!("{scheme}://{host}"),
            host,
            public_base: format!("{public_scheme}://{public_host}"),
            public_host,
            bucket,
            keys,
            prefix,
            credentials,
            clock,
        })
    }

    /// What comes before every key, for listings.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Leaves all connections to whoever uses them now: something that was asked at `since` got no answer, and those that are
    /// idle may be as dead, each of which would cost somebody as long a wait.
    pub(super) fn renew(&self, since: Instant) {
        let mut present = self.http.write().unwrap_or_else(PoisonError::into_inner);
        if present.0 > since {
            return;
        }
        match http() {
            Ok(new) => *present = (Instant::now(), new),
            Err(error) => tracing::warn!(%error, "no new client for S3 can be made: the present one stays"),
        }
    }

    /// A URL with which somebody else may make the request, with its headers, for so many seconds.
    pub(super) fn presigned(&self, call: &Call, seconds: u64) -> String {
        let path = format!("{}{}", self.keys, call.key);
        let request = sign::Request {
            method: call.method.as_str(),
            host: &self.public_host,
            path: &path,
            query: &call.query,
            headers: &call.headers,
            payload: UNSIGNED,
        };
        let query = self.credentials.presigned(request, &sign::stamp(self.clock.now()), seconds);
        format!("{}{path}?{query}", self.public_base)
    }

    /// Makes the request and waits until its answer begins, trying again what may pass.
    pub(super) async fn begin(&self, call: &Call) -> Result<Response, Fault> {
        let mut pauses = PAUSES.iter();
        loop {
            let began = Instant::now();
            let tried = match tokio::time::timeout(call.patience, self.once(call)).await {
                Ok(tried) => tried,
                Err(_) => Err(Fault::Silent),
            };
            if let Err(Fault::Silent) = tried {
                self.renew(began);
            }
            ::metrics::histogram!(crate::metrics::OPERATION_DURATION, "op" => call.op)
                .record(began.elapsed().as_secs_f64());
            let fault = match tried {
                Ok(response) => return Ok(response),
                Err(fault) => fault,
            };
            let Some(pause) = pauses.next().filter(|_| fault.is_passing()) else { return Err(fault) };
            tracing::debug!(op = call.op, %fault, "S3 is tried again");
            ::metrics::counter!(crate::metrics::RETRIES, "op" => call.op, "kind" => fault.kind())
                .increment(1);
            tokio::time::sleep(*pause).await;
        }
    }

    /// Makes the request and reads its answer.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, Fault> {
        let began = Instant::now();
        let response = self.begin(call).await?;
        let answer = tokio::time::timeout(TEXT, answer(response, call.patience)).await;
        let answer = answer.unwrap_or(Err(Fault::Silent));
        if let Err(Fault::Silent) = answer {
            self.renew(began);
        }
        answer
    }

    /// Makes the request, and reads what S3 says in its answer; an error inside a 200 is tried again like any other.
    pub(super) async fn say<T: serde::de::DeserializeOwned>(&self, call: &Call) -> Result<T, Fault> {
        let mut pauses = PAUSES.iter();
        loop {
            let answer = self.call(call).await?;
            let fault = match xml::read(answer.status, &answer.text) {
                Ok(said) => return Ok(said),
                Err(fault) => fault,
            };
            let Some(pause) = pauses.next().filter(|_| fault.is_passing()) else { return Err(fault) };
            tokio::time::sleep(*pause).await;
        }
    }

    async fn once(&self, call: &Call) -> Result<Response, Fault> {
        let stamp = sign::stamp(self.clock.now());
        let path =
            if call.key.is_empty() { self.bucket.clone() } else { format!("{}{}", self.keys, call.key) };
        let payload = match &call.body {
            Body::Text(text) => sign::sha256(text),
            Body::Source(..) => UNSIGNED.to_owned(),
        };
        let mut headers = call.headers.clone();
        headers.push(("x-amz-content-sha256", payload.clone()));
        headers.push(("x-amz-date", stamp.clone()));
        let request = sign::Request {
            method: call.method.as_str(),
            host: &self.host,
            path: &path,
            query: &call.query,
            headers: &headers,
            payload: &payload,
        };
        let authorization = self.credentials.authorization(&request, &stamp);
        let query = sign::query(&call.query);
        let url = format!("{}{path}{}{query}", self.base, if query.is_empty() { "" } else { "?" });
        let http = self.http.read().unwrap_or_else(PoisonError::into_inner).1.clone();
        let mut sent = http.request(call.method.clone(), url).header("authorization", authorization);
        for (name, value) in &headers {
            sent = sent.header(*name, value);
        }
        sent = match &call.body {
            Body::Text(text) => sent.body(text.clone()),
            Body::Source(source, len) => {
                sent.header("content-length", len.to_string()).body(reqwest::Body::wrap_stream(source()))
            }
        };
        let response = sent.send().await.map_err(|error| unsent(&error))?;
        let status = response.status().as_u16();
        if status < 300 {
            return Ok(response);
        }
        let text = answer(response, call.patience).await?.text;
        Err(xml::refused(status, &text))
    }
}

/// A client without any connection yet.
fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Scheme and host of an endpoint.
fn parse_endpoint<'a>(name: &str, endpoint: &'a str) -> Result<(&'a str, &'a str), String> {
    endpoint
        .trim_end_matches('/')
        .split_once("://")
        .filter(|(scheme, host)| {
            matches!(*scheme, "http" | "https") && !host.is_empty() && !host.contains('/')
        })
        .ok_or_else(|| {
            format!(
                "setting storage.s3.{name}: found {endpoint:?}, expected such as \"https://s3.example.org\""
            )
        })
}

/// Nothing may come of the answer for as long as `idle`.
async fn answer(mut response: Response, idle: Duration) -> Result<Answer, Fault> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut bytes = Vec::new();
    loop {
        let chunk = tokio::time::timeout(idle, response.chunk()).await.map_err(|_| Fault::Silent)?;
        let Some(chunk) = chunk.map_err(|error| unsent(&error))? else { break };
        if bytes.len() + chunk.len() > TEXT_BYTES_MAX {
            return Err(Fault::Broken("an answer without an end".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(bytes).map_err(|error| Fault::Broken(error.to_string()))?;
    Ok(Answer { status, headers, text })
}

/// What became of a request that has no answer. The URL is left out: it is long, and says nothing.
pub(super) fn unsent(error: &reqwest::Error) -> Fault {
    let mut text = String::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return fault.clone();
        }
        text = error.to_string();
        cause = error.source();
    }
    if error.is_connect() { Fault::Unreachable(text) } else { Fault::Broken(text) }
}
