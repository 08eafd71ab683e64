//! The client against a small server that speaks the contract, and misbehaves on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod archives;
mod downloads;
mod faults;
mod server;
mod uploads;

use carrack_client::{Client, ClientOptions, FileName, Progress};
use server::Server;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a part in these tests.
const PART: u64 = 100_000;

/// Content in which no two kilobytes are alike.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8).collect()
}

fn client(server: &Server, state: &Path) -> Client {
    let mut options = ClientOptions::new(server.url());
    options.attempts = 3;
    options.idle_timeout = Duration::from_secs(10);
    options.state_dir = Some(state.to_owned());
    options.whole_put_max = PART;
    options.part_size = Some(PART);
    options.piece_size = NonZeroU64::new(PART).unwrap();
    Client::new(options).unwrap()
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

/// Adds up what it hears.
#[derive(Default)]
struct Counted {
    total: AtomicU64,
    kept: AtomicU64,
    moved: AtomicU64,
    back: AtomicU64,
    finished: AtomicU64,
}

impl Progress for Counted {
    fn started(&self, total: Option<u64>) {
        self.total.fetch_add(total.unwrap_or(0), Ordering::Relaxed);
    }

    fn kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advanced(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    fn went_back(&self, bytes: u64) {
        self.back.fetch_add(bytes, Ordering::Relaxed);
    }

    fn finished(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counted {
    /// Every byte is accounted for exactly once.
    fn assert_complete(&self) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(read(&self.kept) + read(&self.moved) - read(&self.back), read(&self.total));
        assert_eq!(read(&self.finished), 1);
    }
}
