//! Refusals of those who are nobody in particular: anybody can cause as many as they like, so they are counted.

use carrack_domain::audit::{Kind, Record};
use carrack_domain::{Code, Timestamp};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long refusals of one kind are counted together.
const PERIOD: Duration = Duration::from_secs(60);
/// Kinds that are told apart in that time. All further ones are one kind.
const KINDS_MAX: usize = 1024;

/// What is the same of refusals that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sort {
    address: Option<IpAddr>,
    action: &'static str,
    status: Option<u16>,
    code: Option<Code>,
}

/// Those too many to be told apart.
const OTHERS: Sort = Sort { address: None, action: "refused", status: None, code: None };

/// Refusals of one kind that came after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeated {
    sort: Sort,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Repeated {
    /// Its record.
    pub(super) fn record(&self) -> Record<'static> {
        let mut record = Record::new(Kind::Repeated, self.last, self.sort.action);
        record.auth = "none";
        record.address = self.sort.address;
        record.status = self.sort.status;
        record.code = self.sort.code;
        record.count = Some(self.count);
        record.took_ms = u64::try_from(self.last.as_millis() - self.first.as_millis()).ok();
        if self.sort == OTHERS {
            record.detail = Some("refusals of more kinds or addresses than are told apart");
        }
        record
    }
}

/// Refusals of this period.
#[derive(Default)]
pub(super) struct Refusals {
    begun: Option<Timestamp>,
    kinds: HashMap<Sort, Repeated>,
}

impl Refusals {
    /// Whether a refusal is the first of its kind, and is to be recorded as it is. Others are counted.
    pub(super) fn is_first(&mut self, record: &Record<'_>) -> bool {
        let at = record.at;
        self.begun.get_or_insert(at);
        let sort = Sort {
            address: record.address.map(neighbourhood),
            action: record.action,
            status: record.status,
            code: record.code,
        };
        let known = self.kinds.contains_key(&sort);
        let first = !known && self.kinds.len() < KINDS_MAX;
        let sort = if known || first { sort } else { OTHERS };
        let kind = self.kinds.entry(sort).or_insert(Repeated { sort, count: 0, first: at, last: at });
        kind.last = kind.last.max(at);
        kind.count += u64::from(!first);
        first
    }

    /// What is to be recorded of the period, once it is over or `now` counts as its end.
    pub(super) fn due(&mut self, now: Timestamp, all: bool) -> Vec<Repeated> {
        if !all && self.begun.is_none_or(|begun| now < begun.after(PERIOD) && now >= begun) {
            return Vec::new();
        }
        self.begun = None;
        std::mem::take(&mut self.kinds).into_values().filter(|kind| kind.count > 0).collect()
    }
}

/// Whoever has one address of IPv6 has as many as they like, of the same /64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str, at: i64) -> Record<'static> {
        let mut record = Record::new(Kind::End, Timestamp::from_millis(at), "file.read");
        record.address = address.parse().ok();
        record.status = Some(401);
        record
    }

    #[test]
    fn the_first_is_told_and_the_others_are_counted() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_first(&refusal("1.1.1.1", 0)));
        for at in 1..10 {
            assert!(!refusals.is_first(&refusal("1.1.1.1", at)));
        }
        assert!(refusals.is_first(&refusal("1.1.1.2", 5)), "somebody else");
        assert!(refusals.is_first(&refusal("2001:db8::1", 5)));
        assert!(!refusals.is_first(&refusal("2001:db8::2", 6)), "of the same network");
        assert_eq!(refusals.due(Timestamp::from_millis(59_999), false), []);
        let mut due = refusals.due(Timestamp::from_millis(60_000), false);
        due.sort_by_key(|kind| kind.count);
        let counts: Vec<_> =
            due.iter().map(|kind| (kind.count, kind.first.as_millis(), kind.last.as_millis())).collect();
        assert_eq!(counts, [(1, 5, 6), (9, 0, 9)]);
        assert!(refusals.is_first(&refusal("1.1.1.1", 60_001)), "another period");
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded() {
        let mut refusals = Refusals::default();
        let told = (0..100_000_u32)
            .filter(|n| refusals.is_first(&refusal(&std::net::Ipv4Addr::from(*n).to_string(), 0)));
        assert_eq!(told.count(), KINDS_MAX);
        let due = refusals.due(Timestamp::from_millis(0), true);
        assert_eq!(due.iter().map(|kind| kind.count).sum::<u64>(), 100_000 - KINDS_MAX as u64);
        assert!(due.len() <= KINDS_MAX + 1);
    }
}
