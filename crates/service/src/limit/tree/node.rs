//! One node of the tree, and its bucket.

use super::super::{LinkRate, User};
use carrack_domain::Role;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is kept of what nobody used.
const KEPT: f64 = 0.02;
/// What is kept of it while somebody waited.
const KEPT_WHILE_LATE: f64 = 0.2;

/// Names a node among its siblings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Server,
    Role(Role),
    User(User),
    /// By name, with its rate.
    Link(LinkRate),
    Connection(Option<SocketAddr>),
}

pub(super) struct Waiting<W> {
    pub(super) ticket: u64,
    pub(super) wants: u64,
    pub(super) waiter: W,
}

pub(super) struct Bucket {
    /// Bytes per second, at least 1.
    pub(super) rate: f64,
    pub(super) bytes: f64,
    pub(super) filled_at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u64, now: Instant) -> Option<Bucket> {
        // One byte, so that the first piece goes at once, and the next when it is paid for.
        (rate > 0).then_some(Bucket { rate: rate as f64, bytes: 1.0, filled_at: now })
    }

    pub(super) fn refill(&mut self, now: Instant, somebody_waited: bool) {
        let kept = self.rate * if somebody_waited { KEPT_WHILE_LATE } else { KEPT };
        let came = now.saturating_duration_since(self.filled_at).as_secs_f64() * self.rate;
        self.bytes = (self.bytes + came).min(kept.max(1.0));
        self.filled_at = now;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes < 1.0
    }

    /// When it is not empty any more.
    pub(super) fn due(&self) -> Instant {
        self.filled_at + Duration::from_secs_f64(((1.0 - self.bytes) / self.rate).clamp(1e-6, 3600.0))
    }
}

pub(super) struct Node<W> {
    pub(super) key: Key,
    pub(super) parent: usize,
    /// Children, and those who send here.
    pub(super) holders: usize,
    pub(super) children: u64,
    pub(super) bucket: Option<Bucket>,
    /// What this node of a cluster has of the rate, in bytes per second; `None`: all of it.
    pub(super) allotted: Option<u64>,
    /// Bytes that were granted since the other nodes were told.
    pub(super) granted: u64,
    /// Whether somebody had to wait since then.
    pub(super) was_short: bool,
    /// The bucket is empty, and this is when the timer is set to.
    pub(super) blocked: Option<Instant>,
    /// How much it had, in the virtual time of its parent.
    pub(super) had: u64,
    /// The virtual time of its children.
    pub(super) clock: u64,
    /// Children that can go on, by what they had.
    pub(super) ready: BTreeSet<(u64, usize)>,
    pub(super) is_ready: bool,
    pub(super) queue: VecDeque<Waiting<W>>,
    /// How many wait here and below.
    pub(super) waiting: u64,
}

impl<W> Node<W> {
    pub(super) fn can_go_on(&self) -> bool {
        self.blocked.is_none() && !(self.queue.is_empty() && self.ready.is_empty())
    }
}
