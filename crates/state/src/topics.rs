//! Those who watch and those who hear on this node.

use crate::{Hear, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// How many messages whoever hears a topic may be behind.
const BEHIND_MAX: usize = 1024;

/// What is told: a message, or that some may have been lost.
type Told = Option<Bytes>;

/// Those of one topic. It is forgotten with the last of them.
struct Topic {
    newest: watch::Sender<Told>,
    all: Option<broadcast::Sender<Told>>,
}

impl Topic {
    fn new() -> Topic {
        Topic { newest: watch::channel(None).0, all: None }
    }

    fn tell(&self, told: &Told) {
        self.newest.send_replace(told.clone());
        if let Some(all) = &self.all {
            // Nobody may be hearing just now.
            let _heard = all.send(told.clone());
        }
    }

    fn is_alone(&self) -> bool {
        self.newest.receiver_count() == 0 && self.all.as_ref().is_none_or(|all| all.receiver_count() == 0)
    }
}

/// What is done when a topic gets its first, or loses its last.
pub(crate) trait Interest: Send + Sync + 'static {
    /// Somebody wants a topic that nobody wanted before.
    fn begins(&self, _topic: &str) {}
    /// Nobody wants it any more.
    fn ends(&self, _topic: &str) {}
}

/// Nobody else has to know.
impl Interest for () {}

/// All topics. Takes memory for those that somebody wants alone.
pub(crate) struct Topics<I> {
    topics: Mutex<HashMap<String, Topic>>,
    /// Told under the lock, so that beginnings and ends come in order.
    pub(crate) interest: I,
}

impl<I: Interest> Topics<I> {
    pub(crate) fn new(interest: I) -> Topics<I> {
        Topics { topics: Mutex::default(), interest }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those of a topic.
    pub(crate) fn tell(&self, topic: &str, message: Bytes) {
        if let Some(topic) = self.all().get(topic) {
            topic.tell(&Some(message));
        }
    }

    /// Tells all of them that messages may have been lost.
    pub(crate) fn tell_lost(&self) {
        for topic in self.all().values() {
            topic.tell(&None);
        }
    }

    /// The topics that somebody wants, and while nobody can begin or end, what `work` makes of them.
    pub(crate) fn with_names<T>(&self, work: impl FnOnce(Vec<String>) -> T) -> T {
        let topics = self.all();
        work(topics.keys().cloned().collect())
    }

    fn enter<T>(&self, name: &str, enter: impl FnOnce(&mut Topic) -> T) -> T {
        let mut topics = self.all();
        if !topics.contains_key(name) {
            self.interest.begins(name);
        }
        enter(topics.entry(name.to_owned()).or_insert_with(Topic::new))
    }

    fn leave(&self, name: &str, leave: impl FnOnce()) {
        // Under the lock, so that nobody begins with a topic that is just going.
        let mut topics = self.all();
        leave();
        if topics.get(name).is_some_and(Topic::is_alone) {
            topics.remove(name);
            self.interest.ends(name);
        }
    }

    pub(crate) fn watch(self: &Arc<Self>, topic: &str) -> Watching<I> {
        let receiver = self.enter(topic, |topic| topic.newest.subscribe());
        Watching { topics: self.clone(), topic: topic.to_owned(), receiver: Some(receiver) }
    }

    pub(crate) fn hear(self: &Arc<Self>, topic: &str) -> Hearing<I> {
        let channel = || broadcast::channel(BEHIND_MAX).0;
        let receiver = self.enter(topic, |topic| topic.all.get_or_insert_with(channel).subscribe());
        Hearing { topics: self.clone(), topic: topic.to_owned(), receiver: Some(receiver) }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }
}

pub(crate) struct Watching<I: Interest> {
    topics: Arc<Topics<I>>,
    topic: String,
    /// `None` only while it is being dropped.
    receiver: Option<watch::Receiver<Told>>,
}

#[async_trait]
impl<I: Interest> Watch for Watching<I> {
    async fn next(&mut self) -> Option<Bytes> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        receiver.borrow_and_update().clone()
    }
}

impl<I: Interest> Drop for Watching<I> {
    fn drop(&mut self) {
        let Watching { topics, topic, receiver } = self;
        topics.leave(topic, || drop(receiver.take()));
    }
}

pub(crate) struct Hearing<I: Interest> {
    topics: Arc<Topics<I>>,
    topic: String,
    /// `None` only while it is being dropped.
    receiver: Option<broadcast::Receiver<Told>>,
}

#[async_trait]
impl<I: Interest> Hear for Hearing<I> {
    async fn next(&mut self) -> Option<Bytes> {
        // Who is too far behind is told nothing of what it missed but that it did.
        self.receiver.as_mut()?.recv().await.unwrap_or_default()
    }
}

impl<I: Interest> Drop for Hearing<I> {
    fn drop(&mut self) {
        let Hearing { topics, topic, receiver } = self;
        topics.leave(topic, || drop(receiver.take()));
    }
}
