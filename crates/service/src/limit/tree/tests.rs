use super::*;
use crate::limit::{LinkRate, RoleSettings, User};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

/// A connection that asks for more whenever it has sent what it was granted, which takes it a while.
struct Sender {
    node: usize,
    got: u64,
    ticket: u64,
    /// Asks again then.
    returns: Option<Instant>,
    from: Instant,
    pause: Duration,
}

struct Turn(usize, Rc<RefCell<Vec<(usize, u64)>>>);

impl Waiter for Turn {
    fn is_gone(&self) -> bool {
        false
    }

    fn grant(self, bytes: u64) {
        self.1.borrow_mut().push((self.0, bytes));
    }
}

struct World {
    tree: Tree<Turn>,
    now: Instant,
    senders: Vec<Sender>,
    granted: Rc<RefCell<Vec<(usize, u64)>>>,
}

const MB: u64 = 1_000_000;

impl World {
    fn new(settings: Settings) -> World {
        let now = Instant::now();
        let mut tree = Tree::new(now);
        tree.replace(settings, now);
        World { tree, now, senders: Vec::new(), granted: Rc::default() }
    }

    /// Another connection of a user, that begins after so many milliseconds.
    fn connect(&mut self, user: &str, link: Option<(u8, u64)>, after: u64) -> usize {
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.senders.len() as u16);
        let mut way = vec![Key::Role(Role::User), Key::User(User::Subject(user.to_owned()))];
        let rate = |rate| NonZeroU64::new(rate).unwrap();
        way.extend(link.map(|(name, of)| Key::Link(LinkRate { name: [name; 16], rate: rate(of) })));
        way.push(Key::Connection(Some(peer.into())));
        let node = self.tree.enter(way, self.now);
        let from = self.now + Duration::from_millis(after);
        self.senders.push(Sender {
            node,
            got: 0,
            ticket: 0,
            returns: Some(from),
            from,
            pause: Duration::from_micros(300),
        });
        self.senders.len() - 1
    }

    /// Lets time pass; the driver is late by up to 3 ms.
    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut late = 0;
        while self.now < end {
            let due = self.tree.dispatch(self.now);
            for (sender, bytes) in self.granted.borrow_mut().drain(..) {
                let sender = &mut self.senders[sender];
                sender.got += bytes;
                sender.returns = Some(self.now + sender.pause);
            }
            late = (late * 7 + 3) % 3000;
            let returns = self.senders.iter().filter_map(|sender| sender.returns).min();
            let due = due.map(|due| due.max(self.now) + Duration::from_micros(late));
            let next = [returns, due].into_iter().flatten().min();
            self.now = next.unwrap_or(end).max(self.now + Duration::from_nanos(1)).min(end);
            for (index, sender) in self.senders.iter_mut().enumerate() {
                if sender.returns.is_some_and(|at| at <= self.now) {
                    sender.returns = None;
                    sender.ticket =
                        self.tree.wait(sender.node, 4 << 20, Turn(index, self.granted.clone()), self.now);
                }
            }
        }
    }

    /// Bytes per second of these senders together since the first of them began.
    fn rate(&self, senders: &[usize]) -> f64 {
        let from = senders.iter().map(|index| self.senders[*index].from).min().unwrap();
        let got: u64 = senders.iter().map(|index| self.senders[*index].got).sum();
        got as f64 / (self.now - from).as_secs_f64()
    }
}

fn near(rate: f64, expected: u64, percent: f64) {
    let off = (rate / expected as f64 - 1.0).abs() * 100.0;
    assert!(off <= percent, "{rate:.0} instead of {expected} bytes per second: {off:.1} % off");
}

fn per_user(rate: u64) -> Settings {
    let role = RoleSettings { bandwidth_per_user: rate, ..RoleSettings::default() };
    Settings { roles: [role; 3], ..Settings::default() }
}

fn of_server(rate: u64) -> Settings {
    Settings { bandwidth: rate, ..Settings::default() }
}

#[test]
fn a_users_rate_is_the_same_over_any_number_of_connections() {
    for rate in [20_000, MB, 10 * MB, 200 * MB] {
        for connections in [1, 4, 16, 300] {
            let mut world = World::new(per_user(rate));
            let all: Vec<usize> = (0..connections).map(|_| world.connect("alice", None, 0)).collect();
            world.run(10.0);
            near(world.rate(&all), rate, 2.0);
        }
    }
}

#[test]
fn users_share_the_server_whatever_number_of_connections_they_open() {
    for rate in [MB, 50 * MB, 500 * MB] {
        let mut world = World::new(of_server(rate));
        let one = [world.connect("alice", None, 0)];
        let many: Vec<usize> = (0..16).map(|_| world.connect("bob", None, 0)).collect();
        world.run(10.0);
        near(world.rate(&one), rate / 2, 5.0);
        near(world.rate(&many), rate / 2, 5.0);
        for connection in many {
            near(world.rate(&[connection]), rate / 32, 10.0);
        }
    }
}

#[test]
fn what_one_leaves_the_others_have() {
    let mut settings = of_server(10 * MB);
    settings.roles[Role::User as usize].bandwidth_per_connection = 2 * MB;
    let mut world = World::new(settings);
    let alice = [world.connect("alice", None, 0)];
    let bob: Vec<usize> = (0..16).map(|_| world.connect("bob", None, 0)).collect();
    world.run(10.0);
    near(world.rate(&alice), 2 * MB, 3.0);
    near(world.rate(&bob), 8 * MB, 3.0);
}

#[test]
fn links_of_a_user_are_bound_by_their_rates_and_by_the_users() {
    let mut world = World::new(per_user(3 * MB));
    let slow: Vec<usize> = (0..5).map(|_| world.connect("alice", Some((1, MB)), 0)).collect();
    let fast: Vec<usize> = (0..2).map(|_| world.connect("alice", Some((2, 9 * MB)), 0)).collect();
    world.run(10.0);
    near(world.rate(&slow), MB, 3.0);
    near(world.rate(&fast), 2 * MB, 3.0);
}

#[test]
fn who_comes_late_gets_a_share_and_no_more() {
    let mut world = World::new(of_server(10 * MB));
    let first = [world.connect("alice", None, 0)];
    let second = [world.connect("bob", None, 5000)];
    world.run(10.0);
    near(world.rate(&second), 5 * MB, 5.0);
    near(world.rate(&first), 7_500_000, 5.0);
}

#[test]
fn roles_have_no_shares_of_their_own() {
    let mut world = World::new(of_server(9 * MB));
    let admin = world.tree.enter(
        [Key::Role(Role::Admin), Key::User(User::Subject("root".to_owned())), Key::Connection(None)],
        world.now,
    );
    let users: Vec<usize> = ["a", "b"].map(|user| world.connect(user, None, 0)).to_vec();
    let root = world.connect("unused", None, 0);
    world.tree.leave(world.senders[root].node);
    world.senders[root].node = admin;
    world.run(10.0);
    near(world.rate(&[root]), 3 * MB, 5.0);
    near(world.rate(&users), 6 * MB, 5.0);
}

#[test]
fn coming_again_pays_no_debt_and_nothing_is_left_behind() {
    let mut world = World::new(per_user(MB));
    let mut got = 0;
    for _ in 0..1000 {
        let sender = world.connect("alice", None, 0);
        world.run(0.01);
        world.senders[sender].returns = None;
        let (node, ticket) = (world.senders[sender].node, world.senders[sender].ticket);
        world.tree.give_up(node, ticket);
        world.tree.leave(node);
        got += world.senders[sender].got;
    }
    near(got as f64 / 10.0, MB, 10.0);
    world.run(10.0);
    assert_eq!(world.tree.names.len(), 1, "the server alone");
    assert!(world.tree.timers.is_empty());
}

#[test]
fn new_settings_go_at_once() {
    let mut world = World::new(per_user(1000));
    let alice = [world.connect("alice", None, 0)];
    world.run(2.0);
    world.tree.replace(per_user(10 * MB), world.now);
    let before = world.senders[0].got;
    world.run(5.0);
    near((world.senders[0].got - before) as f64 / 5.0, 10 * MB, 5.0);
    world.tree.replace(Settings::default(), world.now);
    let before = world.senders[0].got;
    world.run(1.0);
    assert!(world.senders[alice[0]].got - before > 100 * MB, "no rate, no wait");
}
