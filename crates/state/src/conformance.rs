//! What every [`State`] must do, as a function to run on each of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test of the caller"
)]

use crate::{Hear, Refill, State, Watch};
use bytes::Bytes;
use carrack_domain::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// How long a message may take.
const SOON: Duration = Duration::from_secs(10);
/// How long nothing has to come before it counts as nothing.
const QUIET: Duration = Duration::from_millis(100);

/// Runs the whole suite. `passing` lets so much time pass, and says which time it is then by this node's clock.
pub async fn run<F: Future<Output = Timestamp>>(state: Arc<dyn State>, passing: impl Fn(Duration) -> F) {
    watchers_hear_of_their_topic_alone(&*state).await;
    the_newest_replaces_the_rest(&*state).await;
    cells_are_apart_and_refill(&*state, passing).await;
    many_take_what_there_is(state.clone()).await;
    who_hears_hears_everything_in_order(&*state).await;
    who_hears_and_is_slow_is_told_so(&*state).await;
    nobody_else_says_anything(&*state).await;
    many_hear_the_last_word(state).await;
}

async fn cells_are_apart_and_refill<F: Future<Output = Timestamp>>(
    state: &dyn State,
    passing: impl Fn(Duration) -> F,
) {
    let refill = Refill { every: Duration::from_secs(1), burst: 3 };
    let left = async |cell: u8, only_look: bool, after: Duration| {
        let now = passing(after).await;
        let taken = state.take(&[cell; 16], refill, only_look, now).await.unwrap();
        assert_eq!(taken.is_admitted, taken.retry_after.is_zero(), "{taken:?}");
        assert!(taken.retry_after <= refill.every && taken.whole_after <= refill.every * 3, "{taken:?}");
        taken.is_admitted.then_some(taken.left)
    };
    let at_once = Duration::ZERO;
    assert_eq!(left(1, true, at_once).await, Some(3), "a cell that nobody touched is whole");
    for expected in [Some(2), Some(1), Some(0), None, None] {
        assert_eq!(left(1, false, at_once).await, expected);
    }
    assert_eq!(left(2, false, at_once).await, Some(2), "another cell");
    assert_eq!(left(1, false, Duration::from_millis(1100)).await, Some(0), "one came back");
    assert_eq!(left(1, true, at_once).await, None);
    assert_eq!(left(1, false, Duration::from_secs(5)).await, Some(2), "no more than it holds");
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

async fn heard(hear: &mut Box<dyn Hear>) -> Option<Bytes> {
    tokio::time::timeout(SOON, hear.next()).await.unwrap()
}

async fn who_hears_hears_everything_in_order(state: &dyn State) {
    let (mut one, mut two) = (state.hear("t:5").await.unwrap(), state.hear("t:5").await.unwrap());
    let _newest = state.watch("t:5").await.unwrap();
    for number in 0..500_u32 {
        state.publish("t:5", number.to_string().into()).await.unwrap();
    }
    for hearing in [&mut one, &mut two] {
        for number in 0..500_u32 {
            assert_eq!(heard(hearing).await.unwrap(), number.to_string());
        }
    }
}

async fn who_hears_and_is_slow_is_told_so(state: &dyn State) {
    let mut slow = state.hear("t:6").await.unwrap();
    for number in 0..5_000_u32 {
        state.publish("t:6", number.to_string().into()).await.unwrap();
    }
    let mut losses = 0;
    loop {
        match heard(&mut slow).await {
            None => losses += 1,
            Some(message) if message == "4999" => break,
            Some(_) => {}
        }
    }
    assert!(losses > 0, "what is lost is told");
}

async fn nobody_else_says_anything(state: &dyn State) {
    let said = [([8; 16], 5), ([9; 16], 0)];
    assert_eq!(state.compare(&said).await.unwrap(), vec![Vec::<u64>::new(); 2], "one's own is left out");
    assert!(state.compare(&[]).await.unwrap().is_empty());
    let nodes = state.nodes();
    assert!(nodes.len() == 1 && nodes[0].is_self, "{nodes:?}");
}
