//! Transfers at once. Takes memory for those that are under way alone.

use super::User;
use carrack_domain::{ClaimId, LinkId};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// After how many seconds to come again: nobody knows when a transfer ends.
pub(super) const RETRY_SECONDS: u64 = 2;

/// What is one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Each by itself.
    Own,
    /// All answers of one use of a link: a download manager's many connections are one download.
    Claim(ClaimId),
    /// All answers to one address of a link that is not counted, for the same reason.
    Link(LinkId, Option<IpAddr>),
}

#[derive(Default)]
pub(super) struct Transfers {
    table: Mutex<HashMap<User, Running>>,
    /// Somebody began one who had none, or ended their last: other nodes may have to know.
    pub(super) changed: Notify,
}

/// Those of one user.
#[derive(Default)]
struct Running {
    here: HashMap<Unit, usize>,
    /// How many the other nodes said there are with them.
    elsewhere: usize,
}

impl Transfers {
    fn table(&self) -> MutexGuard<'_, HashMap<User, Running>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of this user; `None` when there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, user: User, unit: Unit, most: usize) -> Option<Permit> {
        let mut table = self.table();
        let is_new = !table.contains_key(&user);
        let running = table.entry(user.clone()).or_default();
        let goes_on = unit != Unit::Own && running.here.contains_key(&unit);
        if !goes_on && count(&running.here) + running.elsewhere >= most {
            return None;
        }
        *running.here.entry(unit).or_default() += 1;
        if is_new {
            self.changed.notify_one();
        }
        Some(Permit { transfers: self.clone(), user, unit })
    }

    /// How many each user has here.
    pub(super) fn counts(&self) -> Vec<(User, u64)> {
        self.table().iter().map(|(user, running)| (user.clone(), count(&running.here) as u64)).collect()
    }

    /// The others have so many of this user.
    pub(super) fn hear(&self, user: &User, elsewhere: u64) {
        if let Some(running) = self.table().get_mut(user) {
            running.elsewhere = usize::try_from(elsewhere).unwrap_or(usize::MAX / 2);
        }
    }
}

fn count(running: &HashMap<Unit, usize>) -> usize {
    running.iter().map(|(unit, count)| if *unit == Unit::Own { *count } else { 1 }).sum()
}

/// The right to a transfer, until dropped.
pub struct Permit {
    transfers: Arc<Transfers>,
    user: User,
    unit: Unit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.transfers.table();
        let Some(running) = table.get_mut(&self.user) else { return };
        if let Some(count) = running.here.get_mut(&self.unit) {
            *count -= 1;
            if *count == 0 {
                running.here.remove(&self.unit);
            }
        }
        if running.here.is_empty() {
            table.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_the_connections_of_one_claim_are_one() {
        let transfers = Arc::new(Transfers::default());
        let alice = || User::Subject("alice".to_owned());
        let claim = Unit::Claim(ClaimId::from_bytes([1; 16]));
        let mut held: Vec<Permit> = (0..16).map(|_| transfers.begin(alice(), claim, 2).unwrap()).collect();
        held.push(transfers.begin(alice(), Unit::Own, 2).unwrap());
        assert!(transfers.begin(alice(), Unit::Own, 2).is_none());
        assert!(transfers.begin(alice(), Unit::Claim(ClaimId::from_bytes([2; 16])), 2).is_none());
        assert!(transfers.begin(alice(), claim, 2).is_some(), "what is under way may go on");
        assert!(transfers.begin(User::Subject("bob".to_owned()), Unit::Own, 2).is_some());
        held.pop();
        let again = transfers.begin(alice(), Unit::Own, 2);
        assert!(again.is_some());
        drop((held, again));
        assert!(transfers.table().is_empty());
    }

    #[test]
    fn those_of_other_nodes_count() {
        let transfers = Arc::new(Transfers::default());
        let alice = User::Subject("alice".to_owned());
        let _held = transfers.begin(alice.clone(), Unit::Own, 3).unwrap();
        assert_eq!(transfers.counts(), [(alice.clone(), 1)]);
        transfers.hear(&alice, 2);
        assert!(transfers.begin(alice.clone(), Unit::Own, 3).is_none());
        transfers.hear(&alice, 1);
        assert!(transfers.begin(alice, Unit::Own, 3).is_some());
    }
}
