//! A bad network for uploads: a proxy that breaks connections after so many bytes of the client, in several ways.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that a connection carries before it breaks: at least so many, and up to as many again.
const CARRIED: usize = 1 << 20;
/// How long a line stands still before it breaks.
const STALL: Duration = Duration::from_millis(500);

/// How a connection ends.
#[derive(Clone, Copy)]
enum Break {
    /// Both sides learn of it.
    Cut,
    /// The client learns of it; the server believes that more will come.
    Dead,
    /// Nothing moves for a while, then both learn of it.
    Stalled,
}

struct State {
    /// Breaks that are still to come.
    left: AtomicUsize,
    /// Bytes that clients sent.
    sent: AtomicUsize,
    stopped: AtomicBool,
    /// Pseudo-random: the same breaks for the same seed, as far as threads allow.
    seed: AtomicUsize,
}

/// Passes on to a server until it is dropped.
pub(crate) struct BadNetwork {
    /// `http://127.0.0.1:PORT`.
    pub(crate) base: String,
    state: Arc<State>,
}

impl BadNetwork {
    /// Bytes that a connection that breaks has carried, at most.
    pub(crate) const CARRIED_MAX: usize = 2 * CARRIED;

    /// Breaks connections `breaks` times, then works.
    pub(crate) fn start(upstream: &str, breaks: usize, seed: usize) -> BadNetwork {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            left: AtomicUsize::new(breaks),
            sent: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            seed: AtomicUsize::new(seed),
        });
        let (upstream, shared) = (upstream.to_owned(), state.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (near, far) = (near.unwrap(), TcpStream::connect(&upstream).unwrap());
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let over = Arc::new(AtomicBool::new(false));
                let (state, ended) = (shared.clone(), over.clone());
                std::thread::spawn(move || copy(&back_from, &back_to, &ended));
                std::thread::spawn(move || forward(near, far, &state, &over));
            }
        });
        BadNetwork { base, state }
    }

    /// Breaks that did not come.
    pub(crate) fn breaks_left(&self) -> usize {
        self.state.left.load(Ordering::SeqCst)
    }

    /// Bytes that clients sent, heads included.
    pub(crate) fn sent(&self) -> usize {
        self.state.sent.load(Ordering::SeqCst)
    }
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections; if that fails there is none to wake.
        let _ = TcpStream::connect(self.base.strip_prefix("http://").unwrap());
    }
}

impl State {
    fn dice(&self, sides: usize) -> usize {
        let step = self.seed.fetch_add(0x9e37_79b9, Ordering::SeqCst);
        (step.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

fn forward(mut near: TcpStream, mut far: TcpStream, state: &State, over: &AtomicBool) {
    let mut budget = CARRIED + state.dice(CARRIED);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = near.read(&mut buffer) {
        if count == 0 {
            break;
        }
        state.sent.fetch_add(count, Ordering::SeqCst);
        if far.write_all(&buffer[..count]).is_err() {
            break;
        }
        budget = budget.saturating_sub(count);
        let take = |left: usize| left.checked_sub(1);
        if budget == 0 && state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            over.store(true, Ordering::SeqCst);
            break_off(near, &far, [Break::Cut, Break::Dead, Break::Stalled][state.dice(3)], state);
            return;
        }
    }
    close(&near);
    close(&far);
}

fn break_off(near: TcpStream, far: &TcpStream, how: Break, state: &State) {
    match how {
        Break::Cut => {}
        Break::Stalled => std::thread::sleep(STALL),
        Break::Dead => {
            // Given back to the system, so that a client that does not listen while it sends learns of it, too.
            close(&near);
            drop(near);
            // Longer than the server has patience with a body that stands still, or until the test is over.
            while !state.stopped.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
            close(far);
            return;
        }
    }
    close(&near);
    close(far);
}

/// Either may be closed already.
fn close(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Passes answers on until there are no more, or the connection is over.
fn copy(mut from: &TcpStream, mut to: &TcpStream, over: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while !over.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) | Err(_) => break,
        }
    }
    close(to);
}
