//! The arithmetic of counters that refill: the generic cell rate algorithm (ITU-T I.371), in microseconds.
//!
//! A cell is one number: the moment at which it will be whole again. Taking one moves that moment by one interval; it may
//! lie so far ahead as the burst is long. A cell whose moment has passed is the same as one that nobody ever touched.

use std::time::Duration;

/// How fast a cell refills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// Time in which one comes back, at least a microsecond.
    pub every: Duration,
    /// How many there are at most, at least 1.
    pub burst: u32,
}

impl Refill {
    /// So many per second, and so many at once; `None` for none per second. What is less than 1 at once is 1.
    pub fn per_second(count: u32, burst: u32) -> Option<Refill> {
        (count > 0).then(|| Refill { every: Duration::from_secs(1) / count, burst: burst.max(1) })
    }

    /// So many per minute, all of them at once too; `None` for none.
    pub fn per_minute(count: u32) -> Option<Refill> {
        (count > 0).then(|| Refill { every: Duration::from_secs(60) / count, burst: count })
    }

    fn every_micros(self) -> u64 {
        u64::try_from(self.every.as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn burst_micros(self) -> u64 {
        self.every_micros().saturating_mul(u64::from(self.burst.max(1)))
    }

    /// Takes one, or only looks, at a cell that is whole at `whole`, both in microseconds since any moment; the verdict,
    /// and when the cell is whole afterwards.
    pub(crate) fn take(self, whole: u64, now: u64, only_look: bool) -> (Taken, u64) {
        let (every, burst) = (self.every_micros(), self.burst_micros());
        // Farther ahead than any taking leads: the clock was set back, or the settings were changed.
        let whole = whole.max(now).min(now.saturating_add(burst));
        let after = whole.saturating_add(every);
        let is_admitted = after - now <= burst;
        let whole = if is_admitted && !only_look { after } else { whole };
        let left = (burst - (whole - now)) / every;
        let retry_after = if is_admitted { 0 } else { after - now - burst };
        let taken = Taken {
            is_admitted,
            left: u32::try_from(left).unwrap_or(u32::MAX),
            retry_after: Duration::from_micros(retry_after),
            whole_after: Duration::from_micros(whole - now),
        };
        (taken, whole)
    }
}

/// What became of taking one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was one.
    pub is_admitted: bool,
    /// How many are left.
    pub left: u32,
    /// When there will be one again; 0 when there was.
    pub retry_after: Duration,
    /// When all will be there again.
    pub whole_after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let refill = Refill::per_second(10, 5).unwrap();
        let mut whole = 0;
        let mut take = |now: u64| {
            let (taken, after) = refill.take(whole, now, false);
            whole = after;
            taken
        };
        let begin = 1_000_000_000;
        for left in [4, 3, 2, 1, 0] {
            let taken = take(begin);
            assert!(taken.is_admitted && taken.left == left, "{taken:?}");
        }
        let refused = take(begin);
        assert!(!refused.is_admitted && refused.retry_after == Duration::from_millis(100), "{refused:?}");
        assert!(!take(begin + 99_999).is_admitted, "being refused costs nothing, and earns nothing");
        assert!(take(begin + 100_000).is_admitted);
        let admitted = (1..=1000).filter(|i| take(begin + 100_000 + i * 10_000).is_admitted).count();
        assert_eq!(admitted, 100, "ten seconds at ten per second");
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let refill = Refill::per_second(1, 2).unwrap();
        let (_, whole) = refill.take(0, 9_000_000_000, false);
        let (taken, _) = refill.take(whole, 1_000_000, false);
        assert!(taken.retry_after <= Duration::from_secs(1), "{taken:?}");
    }

    #[test]
    fn looking_takes_nothing() {
        let refill = Refill::per_minute(1).unwrap();
        let (looked, whole) = refill.take(0, 5, true);
        assert!(looked.is_admitted && looked.left == 1);
        let (taken, whole) = refill.take(whole, 5, false);
        assert!(taken.is_admitted && taken.left == 0);
        assert!(!refill.take(whole, 5, true).0.is_admitted);
        assert_eq!((Refill::per_second(0, 9), Refill::per_minute(0)), (None, None));
    }
}
