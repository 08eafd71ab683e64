//! How a copy goes, on standard error: a line that moves on a terminal, one every ten seconds elsewhere.

use crate::telemetry;
use carrack_catalog::copies::Totals;
use carrack_service::copy::Progress;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is told, on a terminal and elsewhere.
const MOVING: Duration = Duration::from_millis(500);
const STANDING: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub(super) struct Shown {
    progress: Arc<Progress>,
    total: u64,
    begun: Instant,
    terminal: bool,
}

impl Shown {
    pub(super) fn new(progress: Arc<Progress>, total: u64) -> Shown {
        Shown { progress, total, begun: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// A line by itself.
    pub(super) fn line(&self, line: &str) {
        self.clear();
        telemetry::complain(line);
    }

    /// Tells how far it is, until it is done.
    pub(super) async fn while_running<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(if self.terminal { MOVING } else { STANDING });
        ticks.tick().await;
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.clear();
                    return done;
                }
                _ = ticks.tick() => self.tell(),
            }
        }
    }

    fn clear(&self) {
        if self.terminal {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }

    fn tell(&self) {
        let Progress { sent_bytes, kept_bytes, rows, compared, .. } = &*self.progress;
        let (sent, kept) = (Progress::get(sent_bytes), Progress::get(kept_bytes));
        let rate = sent as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let rest = self.total.saturating_sub(sent + kept);
        let left = match rest {
            0 => String::new(),
            _ if rate < 1.0 => ", some time left".to_owned(),
            rest => format!(", {:.0} s left", (rest as f64 / rate).ceil()),
        };
        let line = format!(
            "{} of {}, {}/s{left}; {} rows, {} compared",
            size(sent + kept),
            size(self.total),
            size(rate as u64),
            Progress::get(rows),
            Progress::get(compared)
        );
        if self.terminal {
            write!(std::io::stderr(), "\r\x1b[K{line}").ok();
        } else {
            telemetry::note(&line);
        }
    }

    /// What was done.
    pub(super) fn summary(&self, verdict: &str) {
        let Progress { sent_bytes, sent, kept_bytes, kept, rows, compared, damaged } = &*self.progress;
        let get = Progress::get;
        telemetry::note(&format!(
            "{verdict}: {} contents sent ({}), {} were there ({}), {} rows put, {} compared, {} damaged, in {:.1} s",
            get(sent),
            size(get(sent_bytes)),
            get(kept),
            size(get(kept_bytes)),
            get(rows),
            get(compared),
            get(damaged),
            self.begun.elapsed().as_secs_f64()
        ));
    }
}

/// What there is.
pub(super) fn totals(totals: &Totals) -> String {
    format!(
        "{} buckets, {} files, {} contents ({}), {} tokens, {} links, {} archives, {} blocks of the audit log",
        totals.buckets,
        totals.files,
        totals.blobs,
        size(totals.bytes),
        totals.tokens,
        totals.links,
        totals.archives,
        totals.audit_blocks
    )
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}
