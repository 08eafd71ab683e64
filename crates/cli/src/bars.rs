//! How transfers are shown: one bar for all of them on a terminal, and a line for each when it is done.

use crate::text;
use carrack_client::{Progress, Wait};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const KNOWN: &str = "{bar:28} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}";
const UNKNOWN: &str = "{spinner} {binary_bytes}  {binary_bytes_per_sec}";

/// The bar of all transfers; hidden where standard error is no terminal.
pub(crate) struct Bars {
    bar: ProgressBar,
    quiet: bool,
    /// When a pause was told of last.
    told: Mutex<Option<Instant>>,
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Arc<Bars> {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Arc::new(Bars { bar: ProgressBar::with_draw_target(None, target), quiet, told: Mutex::new(None) })
    }

    /// A watcher for one transfer.
    pub(crate) fn transfer(self: &Arc<Bars>) -> Arc<Transfer> {
        Arc::new(Transfer {
            bars: Arc::clone(self),
            since: Instant::now(),
            moved: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })
    }

    /// A line above the bar, unless all should be quiet.
    pub(crate) fn line(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| text::note(line));
        }
    }

    /// An error above the bar.
    pub(crate) fn complain(&self, message: &str) {
        self.bar.suspend(|| text::complain(message));
    }

    /// Tells of a pause before another try; once a second, since parallel requests fail together.
    pub(crate) fn waiting(&self, wait: &Wait<'_>) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| now.duration_since(told) < Duration::from_secs(1)) {
            return;
        }
        *told = Some(now);
        drop(told);
        let Wait { reason, pause, attempt, attempts } = wait;
        let seconds = pause.as_secs_f64();
        self.line(&format!("carrack: {reason}; trying again in {seconds:.1} s ({attempt} of {attempts})"));
    }

    /// Takes the bar off the terminal.
    pub(crate) fn close(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }
}

/// Watches one transfer.
pub(crate) struct Transfer {
    bars: Arc<Bars>,
    since: Instant,
    moved: AtomicU64,
    kept: AtomicU64,
}

impl Transfer {
    /// The line that says what was done.
    pub(crate) fn summary(&self, what: &str) {
        let moved = self.moved.load(Ordering::Relaxed);
        let pace = text::pace(moved, self.since.elapsed());
        let kept = match self.kept.load(Ordering::Relaxed) {
            0 => String::new(),
            kept => format!(" ({} were there from an earlier run)", text::size(kept)),
        };
        self.bars.line(&format!("{what}  {pace}{kept}"));
    }
}

impl Progress for Transfer {
    fn started(&self, total: Option<u64>) {
        match total {
            Some(total) => {
                self.bars.style(KNOWN);
                self.bars.bar.inc_length(total);
            }
            None => self.bars.style(UNKNOWN),
        }
    }

    fn kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.bars.bar.inc(bytes);
        self.bars.bar.reset_eta();
    }

    fn advanced(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.bars.bar.inc(bytes);
    }

    fn went_back(&self, bytes: u64) {
        self.moved.fetch_sub(bytes, Ordering::Relaxed);
        self.bars.bar.dec(bytes);
    }

    fn finished(&self) {}
}
