//! Transfers at once. Takes memory for those that are under way alone.

use super::User;
use carrack_domain::{ClaimId, LinkId};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(super) struct Transfers(Mutex<HashMap<User, HashMap<Unit, usize>>>);

impl Transfers {
    fn table(&self) -> MutexGuard<'_, HashMap<User, HashMap<Unit, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of this user; `None` when there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, user: User, unit: Unit, most: usize) -> Option<Permit> {
        let mut table = self.table();
        let running = table.entry(user.clone()).or_default();
        let goes_on = unit != Unit::Own && running.contains_key(&unit);
        if !goes_on && count(running) >= most {
            return None;
        }
        *running.entry(unit).or_default() += 1;
        Some(Permit { transfers: self.clone(), user, unit })
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
        if let Some(count) = running.get_mut(&self.unit) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.unit);
            }
        }
        if running.is_empty() {
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
}
