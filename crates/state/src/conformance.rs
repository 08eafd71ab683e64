//! What every [`State`] must do, as a function to run on each of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test of the caller"
)]

use crate::{State, Watch};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long a message may take.
const SOON: Duration = Duration::from_secs(10);
/// How long nothing has to come before it counts as nothing.
const QUIET: Duration = Duration::from_millis(100);

/// Runs the whole suite.
pub async fn run(state: Arc<dyn State>) {
    watchers_hear_of_their_topic_alone(&*state).await;
    the_newest_replaces_the_rest(&*state).await;
    many_hear_the_last_word(state).await;
}

async fn next(watch: &mut Box<dyn Watch>) -> Bytes {
    tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap()
}

async fn is_quiet(watch: &mut Box<dyn Watch>) -> bool {
    tokio::time::timeout(QUIET, watch.next()).await.is_err()
}

async fn watchers_hear_of_their_topic_alone(state: &dyn State) {
    let (mut one, mut two) = (state.watch("t:1").await.unwrap(), state.watch("t:2").await.unwrap());
    state.publish("t:1", Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(next(&mut one).await, "a");
    assert!(is_quiet(&mut one).await && is_quiet(&mut two).await, "each message once, to whom it is for");
    state.publish("t:1", Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(next(&mut one).await, "a", "the same words again are news");
}

async fn the_newest_replaces_the_rest(state: &dyn State) {
    let mut slow = state.watch("t:3").await.unwrap();
    for number in 0..10_000_u32 {
        state.publish("t:3", number.to_string().into()).await.unwrap();
    }
    let mut seen = 0;
    while next(&mut slow).await != "9999" {
        seen += 1;
        assert!(seen < 9_999, "a slow reader gets no backlog");
    }
    assert!(is_quiet(&mut slow).await);
}

async fn many_hear_the_last_word(state: Arc<dyn State>) {
    let mut watchers = Vec::new();
    for _ in 0..200 {
        watchers.push(state.watch("t:4").await.unwrap());
    }
    let mut listening = tokio::task::JoinSet::new();
    for mut watch in watchers {
        listening.spawn(async move { while next(&mut watch).await != "end" {} });
    }
    for number in 0..100_u32 {
        state.publish("t:4", number.to_string().into()).await.unwrap();
    }
    state.publish("t:4", Bytes::from_static(b"end")).await.unwrap();
    listening.join_all().await;
}
