//! Who may send how much now: a tree of rates, and fair turns on every level of it.
//!
//! The levels are the server, a role, a user, a link or signed URL with a rate of its own, and a connection. A node with a
//! rate is a bucket of bytes that refills; a node whose bucket is empty takes no part until it has refilled. Bytes are
//! given out in small pieces, each to the waiting connection that is found by going down from the server, on every level
//! to the child that has had the least (start-time fair queueing: Goyal, Vin and Cheng, 1996). So the smallest rate on the
//! way wins, what one leaves the others have, and a user with sixteen connections gets what a user with one gets. A role
//! has a weight of as many as it has users: roles have rates, but no shares of their own.
//!
//! *Debts, not savings.* A bucket may be overdrawn by one piece, and who overdrew it waits until that is paid back, also
//! by closing the connection and coming again: a node is not forgotten before its debt is. What nobody used is lost after
//! 20 ms, or after 200 ms if somebody waited and only the machine was late.

mod node;

pub(super) use node::Key;

use super::Settings;
use carrack_domain::Role;
use node::{Bucket, Node, Waiting};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// How long a piece lasts at the smallest rate on its way, shared by those who wait.
const PIECE: f64 = 0.025;
const PIECE_BYTES_MAX: u64 = 1 << 20;
/// Smaller ones make more work than they are worth, unless the rate is that small.
const PIECE_BYTES_MIN: u64 = 4 << 10;
/// An eighth of a second's bytes go out together at least.
const PIECES_PER_SECOND_MAX: u64 = 8;
const PIECE_BYTES_LEAST: u64 = 256;
/// How far behind its siblings one may be who takes a moment to come back for more, in seconds of the rate above it.
const LAG: f64 = 0.05;
/// Virtual time of one byte at a weight of 1.
const SCALE: u64 = 256;

/// The node at the top.
const SERVER: usize = 0;

/// Who waits; told how many bytes it may send.
pub(super) trait Waiter {
    /// Whether nobody is interested any more.
    fn is_gone(&self) -> bool;
    fn grant(self, bytes: u64);
}

/// What was asked for of a rate that other nodes of the cluster share.
pub(super) struct Demand {
    index: usize,
    /// Whose rate it is.
    pub(super) key: Key,
    /// Of which role they are.
    pub(super) role: Role,
    /// All of it, in bytes per second.
    pub(super) rate: u64,
    /// What went, or all of it when somebody had to wait.
    pub(super) wants: u64,
}

/// See the module's documentation.
pub(super) struct Tree<W> {
    settings: Settings,
    nodes: Vec<Node<W>>,
    free: Vec<usize>,
    names: HashMap<(usize, Key), usize>,
    /// When blocked nodes go on.
    timers: BTreeSet<(Instant, usize)>,
    tickets: u64,
    /// Nodes of the cluster: what is new begins with an even share.
    members: u64,
}

impl<W: Waiter> Tree<W> {
    pub(super) fn new(now: Instant) -> Tree<W> {
        let mut tree = Tree {
            settings: Settings::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            timers: BTreeSet::new(),
            tickets: 0,
            members: 1,
        };
        tree.insert(SERVER, Key::Server, 0, now);
        tree
    }

    /// These rates go from now on.
    pub(super) fn replace(&mut self, settings: Settings, now: Instant) {
        self.settings = settings;
        for index in 0..self.nodes.len() {
            self.set_rate(index, now);
        }
    }

    /// Makes the rate of a node what it is to be by now.
    fn set_rate(&mut self, index: usize, now: Instant) {
        let rate = self.own_rate(index);
        let node = &mut self.nodes[index];
        match (&mut node.bucket, rate) {
            (Some(bucket), 1..) => {
                // What came until now came at the old rate.
                bucket.refill(now, node.waiting > 0);
                bucket.rate = rate as f64;
            }
            (bucket, _) => *bucket = Bucket::new(rate, now),
        }
        // Looked at anew: a debt is paid back at the new rate.
        if node.blocked.is_some() {
            self.set_timer(index, now);
        }
    }

    /// What this node of the cluster may have of the rate of a node of the tree; 0 for no bound.
    fn own_rate(&self, index: usize) -> u64 {
        let rate = self.rate(index);
        self.nodes[index].allotted.map_or(rate, |allotted| allotted.clamp(rate.min(1), rate))
    }

    /// The rate of a node; 0 for none.
    fn rate(&self, index: usize) -> u64 {
        let of = |role: Role| self.settings.role(role);
        match &self.nodes[index].key {
            Key::Server => self.settings.bandwidth,
            Key::Role(role) => of(*role).bandwidth,
            Key::User(_) => of(self.role(index)).bandwidth_per_user,
            Key::Link(link) => link.rate.get(),
            Key::Connection(_) => of(self.role(index)).bandwidth_per_connection,
        }
    }

    /// The role that a node is below.
    fn role(&self, mut index: usize) -> Role {
        while index != SERVER {
            if let Key::Role(role) = self.nodes[index].key {
                return role;
            }
            index = self.nodes[index].parent;
        }
        Role::Guest
    }

    fn insert(&mut self, parent: usize, key: Key, had: u64, now: Instant) -> usize {
        let node = Node {
            key: key.clone(),
            parent,
            holders: 0,
            children: 0,
            bucket: None,
            allotted: None,
            granted: 0,
            was_short: false,
            blocked: None,
            had,
            clock: 0,
            ready: BTreeSet::new(),
            is_ready: false,
            queue: VecDeque::new(),
            waiting: 0,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.names.insert((parent, key), index);
        if self.members > 1 && self.is_shared(index) {
            self.nodes[index].allotted = Some(self.rate(index) / self.members);
        }
        self.nodes[index].bucket = Bucket::new(self.own_rate(index), now);
        index
    }

    /// The node at the end of this way below the server, held until [`Tree::leave`].
    pub(super) fn enter(&mut self, way: impl IntoIterator<Item = Key>, now: Instant) -> usize {
        let mut at = SERVER;
        for key in way {
            at = match self.names.get(&(at, key.clone())) {
                Some(known) => *known,
                None => {
                    let child = self.insert(at, key, self.nodes[at].clock, now);
                    self.nodes[at].holders += 1;
                    self.nodes[at].children += 1;
                    child
                }
            };
        }
        self.nodes[at].holders += 1;
        at
    }

    /// Holds it no longer.
    pub(super) fn leave(&mut self, index: usize) {
        self.nodes[index].holders -= 1;
        self.forget(index);
    }

    /// Forgets a node that nobody holds and that owes nothing, and those above it that this leaves so.
    fn forget(&mut self, mut index: usize) {
        while index != SERVER {
            let node = &self.nodes[index];
            if node.holders > 0 || node.blocked.is_some() {
                return;
            }
            self.unready(index);
            let (parent, key) = (self.nodes[index].parent, self.nodes[index].key.clone());
            self.names.remove(&(parent, key));
            self.free.push(index);
            self.nodes[parent].holders -= 1;
            self.nodes[parent].children -= 1;
            index = parent;
        }
    }

    /// Waits for some of `wants` bytes; a ticket to give up with.
    pub(super) fn wait(&mut self, index: usize, wants: u64, waiter: W, now: Instant) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        for at in self.way_up(index) {
            let node = &mut self.nodes[at];
            let somebody_waits = node.waiting > 0;
            node.waiting += 1;
            node.was_short |= node.blocked.is_some();
            if let Some(bucket) = &mut node.bucket {
                bucket.refill(now, somebody_waits);
            }
        }
        self.nodes[index].queue.push_back(Waiting { ticket, wants, waiter });
        self.wake(index);
        ticket
    }

    /// Waits no longer. Nothing when it was granted meanwhile.
    pub(super) fn give_up(&mut self, index: usize, ticket: u64) {
        let queue = &mut self.nodes[index].queue;
        let before = queue.len();
        queue.retain(|waiting| waiting.ticket != ticket);
        if queue.len() == before {
            return;
        }
        for at in self.way_up(index) {
            self.nodes[at].waiting -= 1;
        }
        if self.nodes[index].queue.is_empty() {
            self.unready(index);
        }
    }

    /// Gives back what was granted and not used.
    pub(super) fn give_back(&mut self, index: usize, bytes: u64) {
        for at in self.way_up(index) {
            let (parent, weight) = (self.nodes[at].parent, self.weight(at));
            let node = &mut self.nodes[at];
            let before = node.had;
            node.had = before.saturating_sub(bytes * SCALE / weight);
            let (had, is_ready) = (node.had, node.is_ready);
            if let Some(bucket) = &mut node.bucket {
                bucket.bytes += bytes as f64;
            }
            if is_ready {
                self.nodes[parent].ready.remove(&(before, at));
                self.nodes[parent].ready.insert((had, at));
            }
        }
    }

    /// A role has a weight of as many as it has users.
    fn weight(&self, index: usize) -> u64 {
        let node = &self.nodes[index];
        if matches!(node.key, Key::Role(_)) { node.children.max(1) } else { 1 }
    }

    /// Grants all that can be granted now; when more can be.
    pub(super) fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, index)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, index));
            self.unblock(index, now);
        }
        while self.nodes[SERVER].can_go_on() {
            self.grant(now);
        }
        self.timers.first().map(|(due, _)| *due)
    }

    fn unblock(&mut self, index: usize, now: Instant) {
        let node = &mut self.nodes[index];
        node.blocked = None;
        let somebody_waits = node.waiting > 0;
        if let Some(bucket) = &mut node.bucket {
            bucket.refill(now, somebody_waits);
            if bucket.is_empty() {
                self.set_timer(index, now);
                return;
            }
        }
        self.wake(index);
        self.forget(index);
    }

    /// Blocks a node until its bucket is not empty any more.
    fn set_timer(&mut self, index: usize, now: Instant) {
        let node = &mut self.nodes[index];
        let due = node.bucket.as_ref().map_or(now, Bucket::due);
        if let Some(before) = node.blocked.replace(due) {
            self.timers.remove(&(before, index));
        }
        self.timers.insert((due, index));
    }

    /// One piece to the next in turn.
    fn grant(&mut self, now: Instant) {
        let mut index = SERVER;
        while let Some((had, child)) = self.nodes[index].ready.pop_first() {
            self.nodes[index].clock = self.nodes[index].clock.max(had);
            self.nodes[child].is_ready = false;
            index = child;
        }
        if let Some(waiting) = self.nodes[index].queue.pop_front() {
            let bytes = if waiting.waiter.is_gone() { 0 } else { waiting.wants.min(self.piece(index)) };
            self.charge(index, bytes, now);
            if bytes > 0 {
                waiting.waiter.grant(bytes);
            }
        }
        for at in self.way_up(index) {
            self.enqueue(at);
        }
    }

    fn charge(&mut self, index: usize, bytes: u64, now: Instant) {
        for at in self.way_up(index) {
            let weight = self.weight(at);
            let node = &mut self.nodes[at];
            node.had = node.had.saturating_add(bytes * SCALE / weight);
            let somebody_waited = node.waiting > 0;
            node.waiting -= 1;
            let Some(bucket) = &mut node.bucket else { continue };
            bucket.refill(now, somebody_waited);
            bucket.bytes -= bytes as f64;
            node.granted += bytes;
            if bucket.is_empty() {
                node.was_short |= node.waiting > 0;
                self.set_timer(at, now);
            }
        }
    }

    /// How many bytes a piece has on this way.
    fn piece(&self, index: usize) -> u64 {
        let mut most = PIECE_BYTES_MAX;
        for at in self.way_up(index) {
            let node = &self.nodes[at];
            let Some(bucket) = &node.bucket else { continue };
            let fair = (bucket.rate * PIECE) as u64 / node.waiting.max(1);
            let least =
                (bucket.rate as u64 / PIECES_PER_SECOND_MAX).clamp(PIECE_BYTES_LEAST, PIECE_BYTES_MIN);
            most = most.min(fair.max(least));
        }
        most
    }

    /// Something can go on below a node or in it: it takes part again, and so do those above it.
    fn wake(&mut self, index: usize) {
        for at in self.way_up(index) {
            if self.nodes[at].is_ready || !self.enqueue(at) {
                return;
            }
        }
    }

    /// Whether the node takes part, or could.
    fn enqueue(&mut self, index: usize) -> bool {
        if !self.nodes[index].can_go_on() {
            return false;
        }
        if index != SERVER && !self.nodes[index].is_ready {
            let parent = self.nodes[index].parent;
            let behind = self.nodes[parent].clock.saturating_sub(self.lag(parent));
            let node = &mut self.nodes[index];
            node.is_ready = true;
            node.had = node.had.max(behind);
            let had = node.had;
            self.nodes[parent].ready.insert((had, index));
        }
        true
    }

    /// How far behind may be caught up, in the virtual time of the children of a node.
    fn lag(&self, index: usize) -> u64 {
        let rates = self.way_up(index).filter_map(|at| Some(self.nodes[at].bucket.as_ref()?.rate));
        (rates.fold(0.0_f64, |least, rate| if least > 0.0 { least.min(rate) } else { rate }) * LAG) as u64
            * SCALE
    }

    /// A node takes part no longer.
    fn unready(&mut self, index: usize) {
        let mut at = index;
        while at != SERVER && std::mem::take(&mut self.nodes[at].is_ready) {
            let (parent, had) = (self.nodes[at].parent, self.nodes[at].had);
            self.nodes[parent].ready.remove(&(had, at));
            if self.nodes[parent].can_go_on() {
                return;
            }
            at = parent;
        }
    }

    /// Whether the rate of a node is that of all nodes of a cluster together. A connection is to one of them.
    fn is_shared(&self, index: usize) -> bool {
        !matches!(self.nodes[index].key, Key::Connection(_))
    }

    /// How many nodes the cluster has: what is new begins with an even share of its rate.
    pub(super) fn set_members(&mut self, members: u64) {
        self.members = members.max(1);
    }

    /// What was asked for since the last time below each node that has a rate which others share, in `elapsed` seconds.
    pub(super) fn demands(&mut self, elapsed: f64) -> Vec<Demand> {
        let free: std::collections::HashSet<usize> = self.free.iter().copied().collect();
        let mut demands = Vec::new();
        for index in 0..self.nodes.len() {
            if free.contains(&index) || self.nodes[index].bucket.is_none() || !self.is_shared(index) {
                continue;
            }
            let rate = self.rate(index);
            let node = &mut self.nodes[index];
            let granted = std::mem::take(&mut node.granted) as f64 / elapsed.max(0.001);
            let is_short =
                std::mem::take(&mut node.was_short) || (node.waiting > 0 && node.blocked.is_some());
            let wants = if is_short { rate } else { (granted as u64).min(rate) };
            demands.push(Demand {
                index,
                key: self.nodes[index].key.clone(),
                role: self.role(index),
                rate,
                wants,
            });
        }
        demands
    }

    /// What this node of the cluster has of a rate from now on; `None` for all of it. Nothing when the node was forgotten since.
    pub(super) fn allot(&mut self, demand: &Demand, allotted: Option<u64>, now: Instant) {
        let present = self.nodes.get(demand.index).is_some_and(|node| node.key == demand.key);
        if present && self.nodes[demand.index].allotted != allotted {
            self.nodes[demand.index].allotted = allotted;
            self.set_rate(demand.index, now);
        }
    }

    /// A node and those above it.
    fn way_up(&self, index: usize) -> WayUp {
        let mut way = WayUp { nodes: [SERVER; LEVELS], len: 1, next: 0 };
        let mut at = index;
        way.nodes[0] = at;
        while at != SERVER && way.len < LEVELS {
            at = self.nodes[at].parent;
            way.nodes[way.len] = at;
            way.len += 1;
        }
        way
    }
}

/// Server, role, user, link, connection.
const LEVELS: usize = 5;

struct WayUp {
    nodes: [usize; LEVELS],
    len: usize,
    next: usize,
}

impl Iterator for WayUp {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = self.nodes[..self.len].get(self.next).copied();
        self.next += 1;
        at
    }
}

#[cfg(test)]
mod tests;
