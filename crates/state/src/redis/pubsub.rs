//! What other nodes publish: a second connection, subscribed to what somebody here wants.

use super::link::Link;
use crate::topics::{Interest, Topics};
use bytes::Bytes;
use futures_util::StreamExt;
use redis::RedisResult;
use redis::aio::{PubSubSink, PubSubStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long Redis may take to do what it is asked here.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long whoever begins to watch waits until Redis knows.
const SETTLING: Duration = Duration::from_millis(250);
/// How often the connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often those who watch are told to look at the facts while nothing can be heard, and how often it is tried to change
/// that.
const DEAF: Duration = Duration::from_secs(1);
/// Channels that are subscribed to by one command.
const AT_ONCE: usize = 256;

enum Wish {
    Begin(String),
    End(String),
}

#[derive(Default)]
struct Wishes {
    /// Whether there is a connection to tell them to. Without one nothing is noted: the next one begins with all there is.
    is_open: bool,
    /// No more than topics came and went since the last look, which takes about a millisecond.
    due: Vec<Wish>,
    /// How many there were ever.
    count: u64,
}

/// What Redis has yet to be told about whom we want to hear.
pub(crate) struct Wanted {
    wishes: Mutex<Wishes>,
    changed: Notify,
    /// How many wishes are fulfilled.
    done: watch::Sender<u64>,
    opened: watch::Sender<bool>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            wishes: Mutex::default(),
            changed: Notify::new(),
            done: watch::channel(0).0,
            opened: watch::channel(false).0,
        }
    }
}

impl Wanted {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        let mut wishes = self.wishes();
        if wishes.is_open {
            wishes.due.push(wish);
            wishes.count += 1;
            self.changed.notify_one();
        }
    }

    /// Waits, not for long, until Redis knows of every wish there is by now.
    pub(super) async fn settled(&self) {
        let count = self.wishes().count;
        let mut done = self.done.subscribe();
        // Without an answer in time, whoever watches is told to look at the facts.
        let _in_time = tokio::time::timeout(SETTLING, done.wait_for(|done| *done >= count)).await;
    }

    /// Waits, not for long, until somebody can be heard.
    pub(super) async fn opened(&self) {
        let mut opened = self.opened.subscribe();
        // The others are heard as soon as they can be.
        let _in_time = tokio::time::timeout(PATIENCE, opened.wait_for(|is_open| *is_open)).await;
    }

    /// From now on wishes are noted, or are not: then nobody waits for them either.
    fn open(&self, is_open: bool) {
        let mut wishes = self.wishes();
        wishes.is_open = is_open;
        wishes.due.clear();
        self.opened.send_replace(is_open);
        if !is_open {
            self.done.send_replace(wishes.count);
        }
    }
}

impl Interest for Wanted {
    fn begins(&self, topic: &str) {
        self.wish(Wish::Begin(topic.to_owned()));
    }

    fn ends(&self, topic: &str) {
        self.wish(Wish::End(topic.to_owned()));
    }
}

/// The task that hears.
pub(super) struct Hearing {
    pub(super) link: Arc<Link>,
    pub(super) topics: Arc<Topics<Wanted>>,
    /// What channels begin with.
    pub(super) prefix: String,
    /// Whose messages those here have heard already.
    pub(super) instance: [u8; 16],
}

/// Within [`PATIENCE`], or not at all.
async fn soon<T>(work: impl Future<Output = RedisResult<T>>) -> Option<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "messages of other nodes cannot be heard");
            None
        }
        Err(_) => None,
    }
}

impl Hearing {
    /// Hears until `stop`, with a new connection whenever one is lost.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.converse() => {}
                () = stop.cancelled() => {}
            }
            self.topics.interest.open(false);
            self.topics.tell_lost();
            tokio::select! {
                () = tokio::time::sleep(DEAF) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection, to its end.
    async fn converse(&self) {
        let Some(connection) = soon(self.link.client().get_async_pubsub()).await else { return };
        let (mut sink, mut stream) = connection.split();
        let names = self.topics.with_names(|names| {
            self.topics.interest.open(true);
            names
        });
        for some in names.chunks(AT_ONCE) {
            if self.subscribe(&mut sink, some).await.is_none() {
                return;
            }
        }
        // What was said before this was not heard.
        self.topics.tell_lost();
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.deliver(&message),
                    None => return,
                },
                () = self.topics.interest.changed.notified() => {
                    if self.fulfil(&mut sink, &mut stream).await.is_none() {
                        return;
                    }
                }
                _ = ping.tick() => {
                    if soon(sink.ping::<redis::Value>()).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    async fn subscribe(&self, sink: &mut PubSubSink, topics: &[String]) -> Option<()> {
        let channels: Vec<String> = topics.iter().map(|topic| format!("{}{topic}", self.prefix)).collect();
        soon(sink.subscribe(&channels)).await
    }

    /// Tells Redis every wish there is, those of one kind that follow each other together.
    async fn fulfil(&self, sink: &mut PubSubSink, stream: &mut PubSubStream) -> Option<()> {
        let (wishes, count) = {
            let mut wishes = self.topics.interest.wishes();
            (std::mem::take(&mut wishes.due), wishes.count)
        };
        let mut rest = &wishes[..];
        while let Some(first) = rest.first() {
            let begins = matches!(first, Wish::Begin(_));
            let same = rest.iter().take_while(|wish| matches!(wish, Wish::Begin(_)) == begins);
            let some: Vec<String> = same
                .take(AT_ONCE)
                .map(|wish| match wish {
                    Wish::Begin(topic) | Wish::End(topic) => format!("{}{topic}", self.prefix),
                })
                .collect();
            rest = &rest[some.len()..];
            let asked = async {
                if begins { soon(sink.subscribe(&some)).await } else { soon(sink.unsubscribe(&some)).await }
            };
            tokio::pin!(asked);
            // What comes meanwhile is delivered: nobody has to wait, and nothing piles up.
            loop {
                tokio::select! {
                    done = &mut asked => {
                        done?;
                        break;
                    }
                    message = stream.next() => self.deliver(&message?),
                }
            }
        }
        self.topics.interest.done.send_replace(count);
        Some(())
    }

    fn deliver(&self, message: &redis::Msg) {
        let (Some(topic), payload) =
            (message.get_channel_name().strip_prefix(&self.prefix), message.get_payload_bytes())
        else {
            return;
        };
        match payload.split_at_checked(self.instance.len()) {
            Some((instance, message)) if instance != self.instance => {
                self.topics.tell(topic, Bytes::copy_from_slice(message));
            }
            Some(_) | None => {}
        }
    }
}
