//! What several nodes keep of the same facts.
//!
//! A node keeps facts of files and rights, so that a hot request needs no catalog. Where the state is shared, others may
//! change them too. *At once*: whoever changes something says so by a topic, after the change and before anybody is told of
//! it, and the others forget what they kept. *At the latest*: a message may be lost, and Redis may be away. So what is kept
//! is of an [`Coherence::epoch`], which ends after [`EPOCH`] whatever was heard, and at once when messages may have been lost.
//! Comparing two numbers costs a hot request nothing; a fact that is in use is looked up anew once in an epoch. On a single
//! node there is one epoch, and nobody is told anything.

use crate::Service;
use carrack_domain::access::FileRef;
use carrack_domain::{ArchiveId, BucketName, Entropy, Key, TokenId};
use carrack_state::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How long facts of files and tokens are believed that others may have changed.
pub const EPOCH: Duration = Duration::from_millis(1500);
/// How often the policies are read, which have to hold within a second.
const POLICIES_EVERY: Duration = Duration::from_millis(700);
/// What was denied is read no more often than so many times as it takes.
const DENIED_REST: u32 = 20;
/// How often the catalog is told again who may keep how much.
const QUOTAS_EVERY: Duration = Duration::from_secs(30);
/// What it is said by.
const TOPIC: &str = "changed";
/// Tokens that are named in one message.
const TOKENS_MAX: usize = 64;

/// What a node has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// A file: its bucket and key.
    File(String, String),
    /// Tokens that are gone: hash of the secret and id of each, in hexadecimal.
    Tokens(Vec<(String, String)>),
    /// Policies.
    Policies,
    /// Which tokens of others are denied.
    Denied,
    /// The catalog was made to forget who may keep how much.
    Quotas,
    /// There is a job.
    Job,
    /// A job is wanted no more, or not now.
    Stop(String),
}

#[derive(Serialize, Deserialize)]
struct Message {
    /// Who says so.
    from: u64,
    news: News,
}

/// See the module's documentation.
pub struct Coherence {
    state: Arc<dyn State>,
    me: u64,
    epoch: AtomicU64,
}

impl Coherence {
    /// Of the node that this state belongs to.
    pub fn new(state: Arc<dyn State>, entropy: &dyn Entropy) -> Coherence {
        let mut me = [0; 8];
        entropy.fill(&mut me);
        Coherence { state, me: u64::from_le_bytes(me), epoch: AtomicU64::new(0) }
    }

    /// What was kept in another one is not believed any more.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the other nodes. Call it after the change, and before anybody is told of it.
    pub(crate) async fn tell(&self, news: News) {
        if !self.state.is_shared() {
            return;
        }
        let told = match serde_json::to_vec(&Message { from: self.me, news }) {
            Ok(message) => self.state.publish(TOPIC, message.into()).await.map_err(|error| error.chain()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told {
            tracing::warn!(error, "the other nodes were not told of a change: they will see it in a moment");
        }
    }

    /// Tells them of a file.
    pub(crate) async fn tell_file(&self, place: &FileRef) {
        self.tell(News::File(place.bucket.to_string(), place.key.to_string())).await;
    }
}

impl Service {
    /// Keeps up with the other nodes until `stop`; returns at once where there can be none.
    pub async fn keep_up(self: Arc<Self>, stop: CancellationToken) {
        let is_shared = self.core.state.is_shared();
        if self.core.is_alone && !is_shared {
            return;
        }
        if !is_shared {
            // Nobody can say anything: what others change is seen when the time is up.
            stop.run_until_cancelled(self.listen()).await;
            return;
        }
        tokio::join!(
            stop.run_until_cancelled(self.listen()),
            crate::reading::answer(self.core.clone(), self.maintenance.clone(), stop.clone()),
            stop.run_until_cancelled(self.transfers.share(&*self.core.state)),
        );
    }

    async fn listen(&self) {
        let mut hear = match self.core.state.hear(TOPIC).await {
            Ok(hear) => hear,
            Err(error) => {
                tracing::error!(error = error.chain(), "the other nodes cannot be heard");
                return;
            }
        };
        // What was changed since the start, before anything could be heard.
        self.forget_all().await;
        let mut ticks = tokio::time::interval(POLICIES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        let (mut epoch_at, mut denied_at, mut quotas_at) =
            (begun + EPOCH, begun + EPOCH, begun + QUOTAS_EVERY);
        loop {
            tokio::select! {
                told = hear.next() => match told {
                    Some(message) => self.learn(&message).await,
                    None => self.forget_all().await,
                },
                _ = ticks.tick() => {
                    self.read_policies_again().await;
                    let now = Instant::now();
                    // A tick early rather than late.
                    if now + POLICIES_EVERY / 2 >= epoch_at {
                        self.core.coherence.next_epoch();
                        epoch_at = now + EPOCH;
                    }
                    if now >= denied_at {
                        let took = self.read_denied_again().await;
                        denied_at = Instant::now() + EPOCH.max(took * DENIED_REST);
                    }
                    if now >= quotas_at {
                        self.limiter.tell_quotas_again();
                        quotas_at = now + QUOTAS_EVERY;
                    }
                }
            }
        }
    }

    async fn learn(&self, message: &[u8]) {
        let Ok(Message { from, news }) = serde_json::from_slice::<Message>(message) else {
            // Of a newer version, perhaps: it means something.
            return self.forget_all().await;
        };
        if from == self.core.coherence.me {
            return;
        }
        match news {
            News::File(bucket, key) => {
                if let (Ok(bucket), Ok(key)) = (BucketName::parse(&bucket), Key::parse(&key)) {
                    self.core.facts.forget(&FileRef { bucket, key });
                }
            }
            News::Tokens(tokens) => self.access.forget_tokens(&tokens),
            News::Policies => self.read_policies_again().await,
            News::Denied => drop(self.read_denied_again().await),
            News::Quotas => self.limiter.tell_quotas_again(),
            News::Job => self.desk.ring(),
            News::Stop(job) => {
                if let Some(job) = ArchiveId::parse(&job) {
                    self.desk.stop(job);
                }
            }
        }
    }

    /// Anything may have changed.
    async fn forget_all(&self) {
        self.core.coherence.next_epoch();
        self.read_policies_again().await;
        self.read_denied_again().await;
    }

    async fn read_policies_again(&self) {
        if let Err(error) = self.access.read_policies().await {
            tracing::warn!(error = error.chain(), "the policies cannot be read; those read before hold");
        }
    }

    async fn read_denied_again(&self) -> Duration {
        let begun = Instant::now();
        if let Err(error) = self.access.read_denied().await {
            tracing::warn!(error = error.chain(), "the denied tokens cannot be read; those read before hold");
        }
        begun.elapsed()
    }
}

/// The news of tokens that are gone.
pub(crate) fn of_tokens(gone: impl Iterator<Item = ([u8; 32], TokenId)>) -> Vec<News> {
    let named = |(hash, id): ([u8; 32], TokenId)| (carrack_domain::id::hex(&hash), id.to_string());
    let all: Vec<_> = gone.map(named).collect();
    all.chunks(TOKENS_MAX).map(|some| News::Tokens(some.to_vec())).collect()
}
