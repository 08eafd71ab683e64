//! `/v1/ws`: progress of many things over one WebSocket (RFC 6455).
//!
//! *Bounds.* A connection takes the memory of its subscriptions, at most [`TOPICS_MAX`], and of one message on its way out: what
//! happens while the client is slow replaces what it has not been told yet.

use crate::call::Call;
use crate::guard::Guard;
use crate::live::{Follow, News};
use crate::render::{self, Response};
use crate::watching::{Events, Transfers, to_value};
use carrack_domain::access::{UseArchives, UseUploads, authorize};
use carrack_domain::{ArchiveId, Code, Error, Result, UploadId};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// Subscriptions of one connection.
const TOPICS_MAX: usize = 64;
/// The largest message of a client.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// How often a quiet connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that takes nothing, or says nothing although it was asked, for so long has gone.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens a WebSocket. Send `{"subscribe": ["archive:ID", "upload:ID", "transfers"]}` or `{"unsubscribe": [...]}`; receive
/// `{"topic", "event", "data"}`: the newest state of each, first as it is, then whenever it changes, at most four times a second.
/// `transfers` are the caller's open uploads and downloads, of all there are for administrators.
#[utoipa::path(
    get, path = "/v1/ws", tag = "progress",
    params(("Upgrade" = String, Header, description = "`websocket`"), ("Sec-WebSocket-Key" = String, Header), ("Sec-WebSocket-Version" = String, Header, description = "`13`")),
    responses((status = 101, description = "The WebSocket is open."), (status = 400, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn open(mut call: Call) -> Result<Response> {
    let key = wanted(&call.headers)?;
    let upgrade = call.upgrade.take().ok_or_else(|| {
        Error::new(
            Code::InvalidRequest,
            "A WebSocket is opened over HTTP/1.1: this connection cannot change.",
        )
    })?;
    let accept = derive_accept_key(key.as_bytes());
    let mut response = render::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let (base_url, tasks) = (call.base_url(), call.app.tasks.clone());
    let (app, guard) = (call.app.clone(), Guard::new(call.app.clone(), call.principal.clone()));
    tasks.spawn(async move {
        // The client may have gone before it had its answer.
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Session { app, guard, base_url, topics: BTreeMap::new() }.serve(socket).await;
    });
    Ok(response)
}

/// The key of a request for a WebSocket (RFC 6455 §4.2.1).
fn wanted(headers: &HeaderMap) -> Result<String> {
    let has = |name: &HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    match key {
        Some(key)
            if has(&UPGRADE, "websocket")
                && has(&CONNECTION, "upgrade")
                && has(&SEC_WEBSOCKET_VERSION, "13") =>
        {
            Ok(key.to_owned())
        }
        _ => Err(Error::new(
            Code::InvalidRequest,
            "This is a WebSocket: ask for it with 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13' and a key.",
        )),
    }
}

/// What a client says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    unsubscribe: Vec<String>,
}

/// What it is told.
#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    event: &'a str,
    data: Value,
}

/// A connection's subscriptions.
struct Session {
    app: Arc<crate::App>,
    guard: Guard,
    base_url: String,
    topics: BTreeMap<String, Topic>,
}

/// What is followed, each as its own kind of thing. Boxed, as they differ in size.
enum Topic {
    Archive(Box<Follow>),
    Transfers(Box<Transfers>),
}

fn told_of(news: Vec<News>) -> Events {
    let one = |news| match news {
        News::State(archive) => ("state", to_value(&archive)),
        News::Progress(progress) => ("progress", to_value(&progress)),
    };
    news.into_iter().map(one).collect()
}

impl Topic {
    /// News, and whether more may come.
    async fn advance(&mut self) -> (Events, bool) {
        match self {
            Topic::Archive(follow) => match follow.advance().await {
                Some(news) => (told_of(news), !follow.is_over()),
                None => (vec![("gone", Value::Null)], false),
            },
            Topic::Transfers(transfers) => {
                let events = transfers.advance().await;
                let over = events.first().is_none_or(|(event, _)| *event == "gone");
                (events, !over)
            }
        }
    }
}

impl Session {
    /// Talks to the client until it goes, or the server stops.
    async fn serve(mut self, mut socket: Socket) {
        let mut heard = Instant::now();
        let mut ping_at = heard + PING_EVERY;
        let app = self.app.clone();
        loop {
            let told = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.hear(&text).await,
                        Some(Ok(Message::Binary(_))) => vec![refusal("", "Send text: a JSON object.")],
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                        Some(Ok(_)) => continue,
                    }
                }
                told = next(&mut self.topics) => told,
                () = self.guard.ended() => {
                    let reason = "the credentials are not good any more".into();
                    let frame = CloseFrame { code: CloseCode::Policy, reason };
                    send(&mut socket, Message::Close(Some(frame))).await;
                    return;
                }
                () = tokio::time::sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING_EVERY;
                    if heard.elapsed() > PATIENCE || !send(&mut socket, Message::Ping(Vec::new().into())).await {
                        return;
                    }
                    continue;
                }
                () = app.service.health.drained() => {
                    let frame = CloseFrame { code: CloseCode::Restart, reason: "the server is stopping".into() };
                    send(&mut socket, Message::Close(Some(frame))).await;
                    return;
                }
            };
            for text in told {
                if !send(&mut socket, Message::text(text)).await {
                    return;
                }
            }
        }
    }

    /// Does what the client says; what it is to be told.
    async fn hear(&mut self, text: &str) -> Vec<String> {
        let wish: Wish = match serde_json::from_str(text) {
            Ok(wish) => wish,
            Err(error) => {
                return vec![refusal("", &format!("Send {{\"subscribe\": [...]}}: {error}."))];
            }
        };
        for topic in &wish.unsubscribe {
            self.topics.remove(topic);
        }
        let mut told = Vec::new();
        for topic in wish.subscribe {
            if self.topics.len() >= TOPICS_MAX {
                told.push(refusal(
                    &topic,
                    &format!("One connection has at most {TOPICS_MAX} subscriptions."),
                ));
                continue;
            }
            match self.subscribe(&topic).await {
                Ok((followed, events)) => {
                    told.extend(events.into_iter().map(|(event, data)| tell(&topic, event, data)));
                    match followed {
                        Some(followed) => self.topics.insert(topic, followed),
                        None => self.topics.remove(&topic),
                    };
                }
                Err(error) => told.push(refusal(&topic, error.detail())),
            }
        }
        told
    }

    /// What to follow, if more may come, and how it is now.
    async fn subscribe(&self, topic: &str) -> Result<(Option<Topic>, Events)> {
        let app = &self.app;
        if let Some(id) = topic.strip_prefix("archive:").and_then(ArchiveId::parse) {
            let grant = authorize::<UseArchives>(self.guard.principal(), ())?;
            let watching = app.service.archives.watch(&grant, id).await?;
            let mut follow = Follow::new(app.clone(), grant, self.base_url.clone(), watching, None);
            let events = told_of(follow.first());
            let over = follow.is_over();
            return Ok(((!over).then(|| Topic::Archive(Box::new(follow))), events));
        }
        let grant = authorize::<UseUploads>(self.guard.principal(), ())?;
        let (transfers, event) = match topic.strip_prefix("upload:").and_then(UploadId::parse) {
            Some(id) => Transfers::one(app.clone(), grant, id).await?,
            None if topic == "transfers" => Transfers::all(app.clone(), grant).await?,
            None => {
                return Err(Error::new(
                    Code::InvalidRequest,
                    "Topics are archive:ID, upload:ID and transfers.",
                ));
            }
        };
        Ok((Some(Topic::Transfers(Box::new(transfers))), vec![event]))
    }
}

/// Waits until one of the topics has news, and removes it when it was the last. Cancel-safe.
async fn next(topics: &mut BTreeMap<String, Topic>) -> Vec<String> {
    let waiting: FuturesUnordered<_> =
        topics.iter_mut().map(|(name, topic)| async move { (name.clone(), topic.advance().await) }).collect();
    let mut waiting = waiting;
    let Some((name, (events, more))) = waiting.next().await else { return std::future::pending().await };
    drop(waiting);
    if !more {
        topics.remove(&name);
    }
    events.into_iter().map(|(event, data)| tell(&name, event, data)).collect()
}

fn tell(topic: &str, event: &str, data: Value) -> String {
    serde_json::to_string(&Told { topic, event, data }).unwrap_or_default()
}

fn refusal(topic: &str, detail: &str) -> String {
    tell(topic, "error", json!({ "detail": detail }))
}

/// Whether the client took it.
async fn send(socket: &mut Socket, message: Message) -> bool {
    matches!(tokio::time::timeout(PATIENCE, socket.send(message)).await, Ok(Ok(())))
}
