//! The time that all nodes go by: this machine's clock, put right by that of the database they share. A node whose clock is
//! an hour off would else delete what is not over yet, or honour what is.

use crate::system::SystemClock;
use carrack_catalog::PostgresCatalog;
use carrack_domain::{Clock, Timestamp};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often the database is asked.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// An answer that took longer says too little.
const TRIP_MAX: Duration = Duration::from_secs(1);
/// Differences below this are of the measurement: time does not go back and forth for them.
const TOLERANCE_MS: i64 = 500;
/// A difference that the operator is told of.
const TOLD_MS: i64 = 2000;
/// Seconds that are added to this machine's clock.
const OFFSET: &str = "carrack_clock_offset_seconds";

/// Registers help texts with the installed recorder.
pub(crate) fn describe() {
    metrics::describe_gauge!(
        OFFSET,
        metrics::Unit::Seconds,
        "What is added to the clock of this machine to have that of the database."
    );
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct CommonClock {
    offset_ms: AtomicI64,
    /// Whether the log says that this machine's clock is wrong.
    is_told: AtomicBool,
}

impl Clock for CommonClock {
    fn now(&self) -> Timestamp {
        let own = SystemClock.now().as_millis();
        Timestamp::from_millis(own.saturating_add(self.offset_ms.load(Ordering::Relaxed)))
    }
}

impl CommonClock {
    /// Asks the database once.
    pub(crate) async fn set(&self, catalog: &PostgresCatalog) -> carrack_domain::Result<()> {
        let begun = Instant::now();
        let theirs = catalog.now().await?;
        let trip = begun.elapsed();
        if trip <= TRIP_MAX {
            let half = i64::try_from(trip.as_millis() / 2).unwrap_or(0);
            self.learn(theirs.as_millis() + half - SystemClock.now().as_millis());
        }
        Ok(())
    }

    /// Keeps asking.
    pub(crate) async fn follow(&self, catalog: &PostgresCatalog) {
        loop {
            tokio::time::sleep(ASKED_EVERY).await;
            if let Err(error) = self.set(catalog).await {
                tracing::debug!(error = error.chain(), "the database does not tell the time");
            }
        }
    }

    fn learn(&self, offset_ms: i64) {
        if (offset_ms - self.offset_ms.load(Ordering::Relaxed)).abs() > TOLERANCE_MS {
            self.offset_ms.store(offset_ms, Ordering::Relaxed);
            metrics::gauge!(OFFSET).set(offset_ms as f64 / 1000.0);
        }
        let is_wrong = offset_ms.abs() > TOLD_MS;
        if is_wrong && !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                seconds_behind = offset_ms / 1000,
                "the clock of this machine is not that of the database, which all nodes go by: set it, with NTP"
            );
        } else if !is_wrong && self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!("the clock of this machine is right again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_put_right_and_jitter_changes_nothing() {
        let clock = CommonClock::default();
        let off = || clock.now().as_millis() - SystemClock.now().as_millis();
        for (said, expected) in
            [(300, 0), (-400, 0), (-3_600_000, -3_600_000), (-3_600_300, -3_600_000), (10, 10)]
        {
            clock.learn(said);
            assert!((off() - expected).abs() < 100, "{said}: {}", off());
        }
    }
}
