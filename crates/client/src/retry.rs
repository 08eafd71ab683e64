//! Trying again: exponential back-off with jitter, bounded tries, and what the server asks for in `Retry-After`.

use crate::error::{ClientError, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A server that asks for more than this is told to the user instead of waited for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// A pause before something is tried again.
#[derive(Debug)]
pub struct Wait<'a> {
    /// Why.
    pub reason: &'a ClientError,
    /// How long.
    pub pause: Duration,
    /// Which try follows, counted from 2.
    pub attempt: u32,
    /// How many tries there are.
    pub attempts: u32,
}

/// Hears of pauses.
pub(crate) type WaitListener = dyn Fn(&Wait<'_>) + Send + Sync;

/// Spreads the tries of many clients. A small generator (SplitMix64) is enough: nothing here is a secret.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(AtomicU64::new(seed))
    }

    /// A fraction in `0.5..1.0`.
    fn fraction(&self) -> f64 {
        let state =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        0.5 + ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 54) as f64
    }
}

/// The tries of one request.
pub(crate) struct Backoff<'a> {
    attempts: u32,
    failed: u32,
    jitter: &'a Jitter,
    listener: Option<&'a WaitListener>,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(attempts: u32, jitter: &'a Jitter, listener: Option<&'a WaitListener>) -> Backoff<'a> {
        Backoff { attempts, failed: 0, jitter, listener }
    }

    /// Bytes arrived: a transfer that advances is never given up for having been cut often.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try, or hands `reason` back when there is none.
    pub(crate) async fn pause(&mut self, reason: ClientError) -> Result<()> {
        self.failed += 1;
        let Some(pause) = self.pause_after(&reason) else { return Err(reason) };
        if let Some(listener) = self.listener {
            listener(&Wait { reason: &reason, pause, attempt: self.failed + 1, attempts: self.attempts });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause_after(&self, reason: &ClientError) -> Option<Duration> {
        if !reason.is_transient() || self.failed >= self.attempts {
            return None;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST_PAUSE);
        let own = doubled.mul_f64(self.jitter.fraction());
        match reason.retry_after() {
            Some(asked) if asked > LONGEST_ASKED => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }
}

/// `Retry-After` as a pause (RFC 9110 §10.2.3). A date is measured against the answer's own `Date`, so that the
/// local clock does not matter.
pub(crate) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(date?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;

    fn unreachable() -> ClientError {
        ClientError::Unreachable { server: "http://x".into(), reason: "cut".into() }
    }

    fn busy(seconds: u64) -> ClientError {
        let refusal = Refusal {
            status: 503,
            code: "busy".into(),
            detail: "Busy.".into(),
            trace_id: String::new(),
            missing: None,
        };
        ClientError::Unavailable {
            refusal: Box::new(refusal),
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn pauses_double_within_their_jitter_and_end() {
        let jitter = Jitter::new(1);
        let mut backoff = Backoff::new(9, &jitter, None);
        for (failed, most) in [(1, 250), (2, 500), (3, 1000), (6, 8000), (8, 8000)] {
            backoff.failed = failed;
            let pause = backoff.pause_after(&unreachable()).unwrap().as_millis();
            assert!(pause >= most / 2 && pause <= most, "{failed}: {pause}");
        }
        backoff.failed = 9;
        assert_eq!(backoff.pause_after(&unreachable()), None);
        backoff.progressed();
        backoff.failed += 1;
        assert!(backoff.pause_after(&unreachable()).is_some());
        assert_eq!(backoff.pause_after(&ClientError::Unexpected("x".into())), None);
    }

    #[test]
    fn the_server_decides_up_to_a_bound() {
        let jitter = Jitter::new(1);
        let backoff = Backoff { attempts: 3, failed: 1, jitter: &jitter, listener: None };
        assert_eq!(backoff.pause_after(&busy(7)), Some(Duration::from_secs(7)));
        assert_eq!(backoff.pause_after(&busy(3600)), None);
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(retry_after(" 3 ", None), Some(Duration::from_secs(3)));
        let (now, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(retry_after(later, Some(now)), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(now, Some(later)), Some(Duration::ZERO));
        assert_eq!(retry_after(later, None), None);
        assert_eq!(retry_after("soon", Some(now)), None);
    }
}
