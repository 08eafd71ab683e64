//! A bad network: a proxy that cuts connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes after which the n-th connection is cut, from 0; `None`: never.
type Budget = dyn Fn(usize) -> Option<usize> + Send + Sync;

/// Passes on to a server until it is dropped.
pub(super) struct Proxy {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    cuts: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub(super) fn start(
        upstream: &str,
        budget: impl Fn(usize) -> Option<usize> + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cuts, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let proxy = Proxy { address, cuts: cuts.clone(), stopped: stopped.clone() };
        let (budget, upstream): (Arc<Budget>, _) = (Arc::new(budget), upstream.to_owned());
        std::thread::spawn(move || {
            for (number, near) in listener.incoming().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let far = TcpStream::connect(&upstream).unwrap();
                relay(near.unwrap(), far, budget(number), cuts.clone());
            }
        });
        proxy
    }

    /// The absolute URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections were cut so far.
    pub(super) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections; if that fails there is none to wake.
        let _ = TcpStream::connect(&self.address);
    }
}

fn relay(near: TcpStream, far: TcpStream, budget: Option<usize>, cuts: Arc<AtomicUsize>) {
    let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || pass(&from, &to, None));
    std::thread::spawn(move || {
        if pass(&far, &near, budget) {
            cuts.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// Copies until either side ends or the budget is used up, and says whether it was; then both sides are closed.
fn pass(mut from: &TcpStream, mut to: &TcpStream, budget: Option<usize>) -> bool {
    let (mut left, mut buffer) = (budget.unwrap_or(usize::MAX), vec![0; 16 << 10]);
    let mut passed = true;
    while left > 0 && passed {
        let most = left.min(buffer.len());
        passed = match from.read(&mut buffer[..most]) {
            Ok(read) if read > 0 => {
                left -= read;
                to.write_all(&buffer[..read]).is_ok()
            }
            _ => false,
        };
    }
    // Either may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    left == 0
}
