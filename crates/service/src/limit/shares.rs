//! Rates and numbers of transfers that several nodes share.
//!
//! About every second each node says how much of every rate it used, or all of it when somebody had to wait, and hears what
//! the others said. From the same numbers each computes what it has: who asks for less than an even share gets that, the
//! others share the rest evenly, and what is left over is spread again, so that who begins to ask for more has something to
//! begin with. Who comes to a node where they were not has the nodes compare at once. While nobody can be asked, a node has
//! 1.2 times an even share.

use super::tree::{Demand, Key};
use super::{Limiter, User};
use bytes::Bytes;
use carrack_state::CellName;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often nodes compare.
const COMPARED_EVERY: Duration = Duration::from_secs(1);
/// How soon again when somebody came.
const SOON: Duration = Duration::from_millis(50);
/// By which they are told that somebody came.
const TOPIC: &str = "shares";
/// What a node may have while it cannot ask: so many times an even share.
const ALONE: f64 = 1.2;
/// Names that are compared in one call of the state.
const AT_ONCE: usize = 256;

/// The part of `rate` of one who wants `mine`, where the others want these.
fn share(rate: u64, mine: u64, others: &[u64]) -> u64 {
    let mut wants: Vec<u64> = others.iter().copied().chain([mine]).map(|wants| wants.min(rate)).collect();
    wants.sort_unstable();
    let (mut left, mut own) = (rate, None);
    for (index, want) in wants.iter().enumerate() {
        let even = left / (wants.len() - index) as u64;
        let given = (*want).min(even);
        // Of several who want the same the first has the least, by what division leaves: so much is everybody's.
        if *want == mine.min(rate) {
            own.get_or_insert(given);
        }
        left -= given;
    }
    own.unwrap_or(0) + left / wants.len() as u64
}

fn name(kind: &str, of: &[u8]) -> CellName {
    let mut name = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(&[0]).update(of).finalize_xof().fill(&mut name);
    name
}

fn of_user(user: &User) -> Vec<u8> {
    match user {
        User::Subject(subject) => [b"s", subject.as_bytes()].concat(),
        User::Address(address) => format!("a{address:?}").into_bytes(),
    }
}

fn of_rate(demand: &Demand) -> CellName {
    let role = demand.role.as_str();
    match &demand.key {
        Key::Server => name("server", b""),
        Key::Role(role) => name("role", role.as_str().as_bytes()),
        Key::User(user) => name("user", &[role.as_bytes(), &[0], &of_user(user)].concat()),
        Key::Link(link) => name("link", &link.name),
        Key::Connection(_) => name("connection", b""),
    }
}

impl Limiter {
    /// Shares with the other nodes, for ever.
    pub(super) async fn share(&self) {
        let mut news = match self.core.state.hear(TOPIC).await {
            Ok(news) => news,
            Err(error) => {
                tracing::error!(error = error.chain(), "limits cannot be shared with the other nodes");
                return;
            }
        };
        let mut ticks = tokio::time::interval(COMPARED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compared_at = Instant::now();
        let mut before = HashSet::new();
        loop {
            let mut tells = false;
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.bandwidth.entered.notified() => tells = true,
                () = self.transfers.changed.notified() => tells = true,
                // That some may have been missed is no reason to hurry.
                told = news.next() => if told.is_none_or(|who| who == self.name()) { continue },
            }
            tokio::time::sleep_until(compared_at + SOON).await;
            let elapsed = compared_at.elapsed().as_secs_f64();
            compared_at = Instant::now();
            let others = self.compare(elapsed, &mut before).await;
            if tells
                && others > 0
                && let Err(error) = self.core.state.publish(TOPIC, self.name()).await
            {
                tracing::debug!(error = error.chain(), "the other nodes compare in a second");
            }
        }
    }

    /// What its messages are known by.
    fn name(&self) -> Bytes {
        let own = self.core.state.nodes().into_iter().find(|node| node.is_self);
        own.map(|node| node.id.into_bytes().into()).unwrap_or_default()
    }

    /// Compares with the others; how many there are. What was said `before` and does not hold any more is taken back.
    async fn compare(&self, elapsed: f64, before: &mut HashSet<CellName>) -> usize {
        let members = self.core.state.members();
        let demands = self.bandwidth.demands(elapsed);
        let counts = self.transfers.counts();
        let rates = demands.iter().map(|demand| (of_rate(demand), demand.wants));
        let transfers = counts.iter().map(|(user, count)| (name("transfers", &of_user(user)), *count));
        let mut said: Vec<(CellName, u64)> = rates.chain(transfers).collect();
        let present = said.iter().map(|(name, _)| *name).collect();
        let gone = std::mem::replace(before, present);
        said.extend(gone.difference(before).map(|name| (*name, 0)));
        let mut heard = Vec::with_capacity(said.len());
        for some in said.chunks(AT_ONCE) {
            match self.core.state.compare(some).await {
                Ok(some) => heard.extend(some.into_iter().map(Some)),
                Err(_) => heard.extend(some.iter().map(|_| None)),
            }
        }
        let mut heard = heard.into_iter();
        let shares: Vec<(Demand, Option<u64>)> = demands
            .into_iter()
            .zip(heard.by_ref())
            .map(|(demand, others)| {
                let share = match others {
                    Some(others) => share(demand.rate, demand.wants, &others),
                    None => (demand.rate as f64 * (ALONE / members as f64).min(1.0)) as u64,
                };
                (demand, Some(share))
            })
            .collect();
        self.bandwidth.allot(members as u64, &shares);
        for ((user, _), others) in counts.iter().zip(heard) {
            self.transfers.hear(user, others.unwrap_or_default().iter().sum());
        }
        members - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_one_leaves_the_others_have() {
        assert_eq!(share(100, 100, &[]), 100);
        assert_eq!(share(100, 7, &[]), 100, "alone one has all of it");
        assert_eq!(share(100, 100, &[100]), 50);
        assert_eq!(share(100, 100, &[10]), 90);
        assert_eq!(share(100, 10, &[100]), 10);
        assert_eq!(share(100, 10, &[30]), 40, "what is left over is spread");
        assert_eq!(share(100, 500, &[500, 500]), 33, "nobody wants more than all");
    }

    proptest! {
        #[test]
        fn together_they_have_no_more_than_there_is(rate in 1_u64..1_000_000, wants in prop::collection::vec(0_u64..2_000_000, 1..9)) {
            let mut sum = 0;
            for (index, mine) in wants.iter().enumerate() {
                let others: Vec<u64> = wants.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, wants)| *wants).collect();
                sum += share(rate, *mine, &others);
            }
            prop_assert!(sum <= rate);
            prop_assert!(sum + 2 * wants.len() as u64 >= rate, "and hardly less");
        }
    }
}
