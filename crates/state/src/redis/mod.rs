//! [`RedisState`]: what several nodes share, kept in Redis.
//!
//! *Bounds.* No call waits longer than [`CALL`], and none waits at all once Redis is known to be away: the link in `link` tries
//! every half second to get it back. *Without Redis* each node goes on by itself: limits are judged by its share of them,
//! 1.2 times an even one; messages reach those on this node, and all others are told to look at the facts, about every
//! second. *Nothing is kept here that is not known elsewhere*: `FLUSHALL` gives everybody a full bucket, and that is all.

mod blocked;
mod link;
mod pubsub;
mod scripts;

use crate::memory::{Cells, micros};
use crate::metrics::{FALLBACKS, UNTOLD};
use crate::topics::Topics;
use crate::{CellName, Hear, Node, Refill, State, Taken, Watch};
use async_trait::async_trait;
use blocked::Blocked;
use bytes::Bytes;
use carrack_domain::{Code, Error, Result, Timestamp};
use link::Link;
use pubsub::Wanted;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a request waits for Redis at most.
const CALL: Duration = Duration::from_millis(80);
/// What a node may have of a limit while it cannot ask the others: so many times an even share, since load is never even.
const SHARE: f64 = 1.2;

/// Where Redis is, and who asks.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` or `unix://`, with name, password and number of the database as far as they are needed.
    pub url: String,
    /// What every key and channel begins with: several clusters may share one Redis.
    pub prefix: String,
    /// This node's name.
    pub node: String,
    /// Random bytes that tell this process from every other.
    pub instance: [u8; 16],
}

/// See the module's documentation.
pub struct RedisState {
    link: Arc<Link>,
    topics: Arc<Topics<Wanted>>,
    prefix: String,
    instance: [u8; 16],
    blocked: Blocked,
    /// Cells that are judged here while Redis is away.
    fallback: Cells,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Whether a URL can be one of a Redis; the sentence says what is wrong and shows nothing of it, since there may be a password
/// in it.
pub fn check_url(url: &str) -> std::result::Result<(), String> {
    redis::Client::open(url).map(drop).map_err(|error| {
        let why = error.detail().unwrap_or("it is not a URL of a Redis").to_owned();
        format!("{why}; expected \"memory\" or \"redis://[[user]:password@]host[:port][/database]\"")
    })
}

impl RedisState {
    /// Connects. A Redis that is away is waited for in the background; the error is a sentence for the operator about one
    /// that refuses us, or about another node with our name.
    pub async fn open(options: RedisOptions) -> std::result::Result<RedisState, String> {
        check_url(&options.url)?;
        let client =
            redis::Client::open(options.url.as_str()).map_err(|error| error.category().to_owned())?;
        let link = Arc::new(Link::new(client, &options));
        link.begin().await?;
        let topics = Arc::new(Topics::new(Wanted::default()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(link.clone().run(stop.clone()));
        let hearing = pubsub::Hearing {
            link: link.clone(),
            topics: topics.clone(),
            prefix: channel(&options.prefix, ""),
            instance: options.instance,
        };
        tasks.spawn(hearing.run(stop.clone()));
        if link.connection().is_some() {
            topics.interest.opened().await;
        }
        Ok(RedisState {
            link,
            topics,
            prefix: options.prefix,
            instance: options.instance,
            blocked: Blocked::default(),
            fallback: Cells::default(),
            tasks,
            stop,
        })
    }

    fn key(&self, kind: &str, name: &CellName) -> Vec<u8> {
        [self.prefix.as_bytes(), b":", kind.as_bytes(), b":", name].concat()
    }

    /// The answer of Redis; `None` when there is none in time, and the link has been told to look.
    async fn ask<T: redis::FromRedisValue>(&self, script: &redis::ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.link.connection()?;
        match tokio::time::timeout(CALL, script.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.link.suspect(&error.to_string());
                None
            }
            Err(_) => {
                self.link.suspect("no answer in time");
                None
            }
        }
    }

    /// What goes for this node alone.
    fn share(&self, refill: Refill) -> Refill {
        let part = (SHARE / self.link.known_nodes() as f64).min(1.0);
        let burst = (f64::from(refill.burst) * part).ceil().max(1.0) as u32;
        Refill { every: refill.every.div_f64(part), burst }
    }
}

fn channel(prefix: &str, topic: &str) -> String {
    format!("{prefix}:topic:{topic}")
}

#[async_trait]
impl State for RedisState {
    async fn publish(&self, topic: &str, message: Bytes) -> Result<()> {
        let sent = [&self.instance[..], &message[..]].concat();
        // Those here hear it from us, whatever becomes of it outside.
        self.topics.tell(topic, message);
        let told = match self.link.connection() {
            None => Err("away".to_owned()),
            Some(mut connection) => {
                let mut command = redis::cmd("PUBLISH");
                command.arg(channel(&self.prefix, topic)).arg(sent);
                match tokio::time::timeout(CALL, command.query_async::<i64>(&mut connection)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                }
            }
        };
        if let Err(why) = told {
            self.link.suspect(&why);
            metrics::counter!(UNTOLD).increment(1);
        }
        Ok(())
    }

    async fn take(&self, cell: &CellName, refill: Refill, only_look: bool, now: Timestamp) -> Result<Taken> {
        if let Some(refused) = self.blocked.look(cell) {
            return Ok(refused);
        }
        let mut script = scripts::TAKE.key(self.key("cell", cell));
        script.arg(scripts::micros(refill.every)).arg(scripts::micros(refill.every * refill.burst.max(1)));
        script.arg(u8::from(only_look));
        let Some((whole, at)) = self.ask::<(u64, u64)>(&script).await else {
            metrics::counter!(FALLBACKS).increment(1);
            return Ok(self.fallback.take(cell, self.share(refill), only_look, micros(now)));
        };
        let (taken, _) = refill.take(whole, at, only_look);
        if !taken.is_admitted {
            self.blocked.keep(cell, taken);
        }
        Ok(taken)
    }

    async fn watch(&self, topic: &str) -> Result<Box<dyn Watch>> {
        let watching = self.topics.watch(topic);
        self.topics.interest.settled().await;
        Ok(Box::new(watching))
    }

    async fn hear(&self, topic: &str) -> Result<Box<dyn Hear>> {
        let hearing = self.topics.hear(topic);
        self.topics.interest.settled().await;
        Ok(Box::new(hearing))
    }

    async fn compare(&self, said: &[(CellName, u64)]) -> Result<Vec<Vec<u64>>> {
        if said.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = scripts::COMPARE.prepare_invoke();
        script.arg(&self.instance[..]);
        for (name, value) in said {
            script.key(self.key("said", name));
            script.arg((*value).min(scripts::EXACT_MAX));
        }
        let heard = self.ask::<Vec<Vec<u64>>>(&script).await;
        heard.filter(|heard| heard.len() == said.len()).ok_or_else(|| {
            Error::new(Code::Overloaded, "The other nodes cannot be asked: Redis does not answer.")
        })
    }

    fn introduce(&self, about: Bytes) {
        self.link.introduce(about);
    }

    fn nodes(&self) -> Vec<Node> {
        self.link.nodes()
    }

    fn members(&self) -> usize {
        self.link.known_nodes()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        self.link.connection().is_some()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.link.leave().await;
    }
}

impl Drop for RedisState {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
