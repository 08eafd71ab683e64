//! What every [`State`] must do, as a function to run on each of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test of the caller"
)]

use crate::{Refill, State, Watch};
use bytes::Bytes;
use carrack_domain::Timestamp;
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
    cells_are_apart_and_refill(&*state).await;
    many_take_what_there_is(state.clone()).await;
    many_hear_the_last_word(state).await;
}

async fn cells_are_apart_and_refill(state: &dyn State) {
    let refill = Refill::per_second(100, 3).unwrap();
    let at = |millis| Timestamp::from_millis(1_800_000_000_000 + millis);
    let left = async |cell: u8, only_look: bool, millis: i64| {
        let taken = state.take(&[cell; 16], refill, only_look, at(millis)).await.unwrap();
        assert_eq!(taken.is_admitted, taken.retry_after.is_zero(), "{taken:?}");
        taken.is_admitted.then_some(taken.left)
    };
    assert_eq!(left(1, true, 0).await, Some(3), "a cell that nobody touched is whole");
    for expected in [Some(2), Some(1), Some(0), None, None] {
        assert_eq!(left(1, false, 0).await, expected);
    }
    assert_eq!(left(2, false, 0).await, Some(2), "another cell");
    assert_eq!(left(1, false, 10).await, Some(0), "one came back");
    assert_eq!(left(1, true, 10).await, None);
    assert_eq!(left(1, false, 60_000).await, Some(2), "no more than it holds");
}

async fn many_take_what_there_is(state: Arc<dyn State>) {
    let refill = Refill::per_minute(50).unwrap();
    let mut taking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let state = state.clone();
        let now = Timestamp::from_millis(1_800_000_000_000);
        taking.spawn(async move { state.take(&[7; 16], refill, false, now).await.unwrap().is_admitted });
    }
    let admitted = taking.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 50, "nothing is given twice");
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
