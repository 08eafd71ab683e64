//! The cells of one engine, side by side.

use super::proxy::{Mode, Proxy};
use crate::server::{Server, Setup};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;

/// Everything is well again within this time.
pub(super) const RECOVERY: Duration = Duration::from_secs(10);

/// When the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before anything is asked for; where a node starts without the engine, before the node.
    Before,
    /// With transfers under way.
    During,
}

/// One cell, with a proxy of its own before the engine.
pub(super) struct Cell {
    /// Such as `hang-during`: names a database, a prefix and so on of its own.
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) when: When,
    pub(super) proxy: Proxy,
}

impl Cell {
    /// Whether nothing at all comes through while it fails.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self.mode, Mode::Refuse | Mode::Hang)
    }

    pub(super) fn fail(&self) {
        self.proxy.set(self.mode);
    }

    pub(super) fn heal(&self) {
        self.proxy.set(Mode::Pass);
    }
}

/// Runs every cell of the engine on this port. Connections are reset after `reset` bytes.
pub(super) fn every<F: Future<Output = ()>>(port: u16, reset: usize, cell: impl Fn(Cell) -> F + Sync) {
    for when in [When::Before, When::During] {
        each(port, reset, when, &cell);
    }
}

/// The cells of one column, side by side, each on a thread of its name.
pub(super) fn each<F: Future<Output = ()>>(
    port: u16,
    reset: usize,
    when: When,
    cell: impl Fn(Cell) -> F + Sync,
) {
    let modes =
        [("refuse", Mode::Refuse), ("hang", Mode::Hang), ("late", Mode::Late), ("reset", Mode::Reset(reset))];
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let running = modes.map(|(name, mode)| {
            let (name, cell) = (format!("{name}-{when:?}").to_lowercase(), &cell);
            let thread = std::thread::Builder::new().name(name.clone());
            let called = name.clone();
            let work = move || {
                runtime().block_on(async {
                    cell(Cell { name: called, mode, when, proxy: Proxy::start(port).await }).await;
                });
            };
            (name, thread.spawn_scoped(scope, work).unwrap())
        });
        for (name, thread) in running {
            if thread.join().is_err() {
                failed.push(name);
            }
        }
    });
    assert!(failed.is_empty(), "these cells failed, as was said above: {failed:?}");
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Starts a node without standing in the way of others.
pub(super) fn start(setup: Setup) -> Arc<Server> {
    Arc::new(block_in_place(|| setup.start()))
}

/// Waits until something is so that has to be asked for.
pub(super) async fn within(
    limit: Duration,
    what: &str,
    server: &Server,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A gauge or counter as it is now.
pub(super) async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}
