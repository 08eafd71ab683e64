//! The tree of rates, with those who wait.

use super::tree::{Demand, Key, Tree, Waiter};
use super::{LinkRate, Settings, Who};
use crate::metrics::THROTTLED;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The least rate of a link, in bytes per second: below it a connection would look dead.
pub const RATE_MIN: u64 = 1024;

impl Waiter for oneshot::Sender<u64> {
    fn is_gone(&self) -> bool {
        self.is_closed()
    }

    fn grant(self, bytes: u64) {
        // Who is no longer there has paid for a piece that is not sent.
        let _gone = self.send(bytes);
    }
}

/// The tree, and when its driver gets up.
struct Shared {
    tree: Tree<oneshot::Sender<u64>>,
    driver_sleeps_until: Option<std::time::Instant>,
}

/// Who may send how much now.
pub struct Bandwidth {
    shared: Mutex<Shared>,
    /// Whether there is a rate besides those of links. Without one nobody touches the tree.
    is_on: AtomicBool,
    /// Somebody waits, and the driver may have to be up earlier.
    changed: Notify,
    /// Somebody came who was not there: other nodes may have to know.
    pub(super) entered: Notify,
}

impl Default for Bandwidth {
    fn default() -> Bandwidth {
        let tree = Tree::new(Instant::now().into_std());
        let shared = Mutex::new(Shared { tree, driver_sleeps_until: None });
        Bandwidth {
            shared,
            is_on: AtomicBool::default(),
            changed: Notify::default(),
            entered: Notify::default(),
        }
    }
}

impl Bandwidth {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replace(&self, settings: Settings) {
        self.shared().tree.replace(settings, Instant::now().into_std());
        self.is_on.store(settings.meters(), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// What was asked for in the last `elapsed` seconds of rates that other nodes share.
    pub(super) fn demands(&self, elapsed: f64) -> Vec<Demand> {
        self.shared().tree.demands(elapsed)
    }

    /// How many nodes there are, and what this one has of each of these rates from now on.
    pub(super) fn allot(&self, members: u64, shares: &[(Demand, Option<u64>)]) {
        let now = Instant::now().into_std();
        let mut shared = self.shared();
        shared.tree.set_members(members);
        for (demand, share) in shares {
            shared.tree.allot(demand, *share, now);
        }
        drop(shared);
        self.changed.notify_one();
    }

    /// Grants what becomes free, for ever.
    pub(super) async fn run(&self) {
        loop {
            let due = {
                let mut shared = self.shared();
                let due = shared.tree.dispatch(Instant::now().into_std());
                shared.driver_sleeps_until = due;
                due
            };
            match due {
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(Instant::from_std(due)) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

/// How fast one transfer may be: with all others of its connection, link, user, role and server.
pub struct Meter {
    bandwidth: Arc<Bandwidth>,
    who: Who,
    link: Option<LinkRate>,
    peer: Option<SocketAddr>,
    place: Option<Place>,
}

/// A place in the tree, until dropped.
struct Place {
    bandwidth: Arc<Bandwidth>,
    node: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bandwidth.shared().tree.leave(self.node);
    }
}

/// One that waits, until dropped.
struct Turn<'a> {
    place: &'a Place,
    ticket: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.place.bandwidth.shared().tree.give_up(self.place.node, self.ticket);
    }
}

impl Meter {
    pub(super) fn new(
        bandwidth: Arc<Bandwidth>,
        who: Who,
        link: Option<LinkRate>,
        peer: Option<SocketAddr>,
    ) -> Meter {
        Meter { bandwidth, who, link, peer, place: None }
    }

    /// Whether there is no rate now.
    fn is_free(&self) -> bool {
        self.link.is_none() && !self.bandwidth.is_on.load(Ordering::Relaxed)
    }

    /// Waits until some of `wants` bytes may pass, and says how many: all of them where there is no rate.
    pub(crate) async fn admit(&mut self, wants: u64) -> u64 {
        if self.is_free() {
            self.place = None;
            return wants;
        }
        let (sender, mut receiver) = oneshot::channel();
        let place = self.place();
        let ticket = place.wait(wants, sender);
        if let Ok(bytes) = receiver.try_recv() {
            return bytes;
        }
        let _turn = Turn { place, ticket };
        let began = Instant::now();
        let bytes = receiver.await;
        ::metrics::histogram!(THROTTLED).record(began.elapsed().as_secs_f64());
        // Nobody drops a waiter but by granting.
        bytes.unwrap_or(wants)
    }

    /// Waits until all of `len` bytes may pass.
    pub(crate) async fn admit_all(&mut self, len: u64) {
        let mut left = len;
        while left > 0 {
            left -= self.admit(left).await;
        }
    }

    /// Gives back what was admitted and did not pass.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        if let Some(place) = self.place.as_ref().filter(|_| bytes > 0) {
            place.bandwidth.shared().tree.give_back(place.node, bytes);
        }
    }

    fn place(&mut self) -> &Place {
        let Meter { bandwidth, who, link, peer, place } = self;
        place.get_or_insert_with(|| {
            let mut way = vec![Key::Role(who.role()), Key::User(who.user())];
            way.extend(link.map(Key::Link));
            way.push(Key::Connection(*peer));
            let node = bandwidth.shared().tree.enter(way, Instant::now().into_std());
            bandwidth.entered.notify_one();
            Place { bandwidth: bandwidth.clone(), node }
        })
    }
}

impl Place {
    /// Waits in the tree; a ticket to give up with.
    fn wait(&self, wants: u64, waiter: oneshot::Sender<u64>) -> u64 {
        let now = Instant::now().into_std();
        let mut shared = self.bandwidth.shared();
        let ticket = shared.tree.wait(self.node, wants, waiter, now);
        let due = shared.tree.dispatch(now);
        if due.is_some_and(|due| shared.driver_sleeps_until.is_none_or(|until| due < until)) {
            self.bandwidth.changed.notify_one();
        }
        ticket
    }
}
