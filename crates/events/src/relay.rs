//! From the outbox to the sinks.

use crate::metrics::{AGE, DEAD, DELIVERED, FAILURES, PENDING};
use crate::{Problem, Sink};
use carrack_catalog::{Event, EventCatalog, Turn};
use carrack_domain::{Clock, Code, Entropy, Result, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a turn lasts without being renewed, which happens with every batch.
const LEASE: Duration = Duration::from_secs(15);
/// How often a turn is asked for that somebody else has.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked for events when there were none.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a turn is renewed while nothing happens.
const RENEWED_EVERY: Duration = Duration::from_secs(4);
/// Events that are told together.
const BATCH: usize = 128;
/// The first pause after a failure, which doubles until the last of the sink.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause among the first tries, which take about a minute.
const PAUSE_SOON: Duration = Duration::from_secs(4);
const SOON_TRIES: u32 = 16;
/// How often what all have passed is deleted, and how many at a time.
const TIDIED_EVERY: Duration = Duration::from_secs(10);
const TIDIED: usize = 1000;

/// How to relay.
pub struct Options {
    /// What events say where they come from.
    pub source: String,
    /// How long a sink may fail before it is given up, and events are kept.
    pub give_up_after: Duration,
    /// Who is told.
    pub sinks: Vec<Arc<dyn Sink>>,
}

/// See the module's documentation.
pub struct Relay {
    catalog: Arc<dyn EventCatalog>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: Options,
    me: [u8; 16],
}

/// How a turn goes on.
enum Next {
    /// There may be more.
    Again,
    /// Nothing for so long.
    Pause(Duration),
    /// It is somebody else's turn, or nobody's.
    Over,
}

impl Relay {
    /// A relay from this catalog.
    pub fn new(
        catalog: Arc<dyn EventCatalog>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: Options,
    ) -> Relay {
        let mut me = [0; 16];
        entropy.fill(&mut me);
        Relay { catalog, clock, entropy, options, me }
    }

    /// Says who there is to be told. Called at the start.
    pub async fn begin(&self) -> Result<()> {
        let names: Vec<String> = self.options.sinks.iter().map(|sink| sink.name().to_owned()).collect();
        self.catalog.set_sinks(&names).await
    }

    /// Relays until `stop`.
    pub async fn run(self: Arc<Relay>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        for sink in &self.options.sinks {
            let (relay, sink, stop) = (self.clone(), sink.clone(), stop.clone());
            tasks.spawn(async move { relay.serve(&*sink, &stop).await });
        }
        let (relay, tidy) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            tidy.run_until_cancelled(relay.tidy()).await;
        });
        tasks.close();
        tasks.wait().await;
    }

    /// Tells one sink, whenever it is this node's turn.
    async fn serve(&self, sink: &dyn Sink, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.catalog.take_turn(sink.name(), self.me, LEASE).await {
                Ok(Some(turn)) => {
                    let told = stop.run_until_cancelled(self.tell(sink, turn)).await;
                    if told.is_none()
                        && let Err(error) = self.catalog.end_turn(sink.name(), turn.fence).await
                    {
                        tracing::debug!(error = error.chain(), "a turn ends by itself");
                    }
                }
                Ok(None) => {}
                Err(error) if error.code() == Code::ShuttingDown => return,
                Err(error) => tracing::warn!(error = error.chain(), "events cannot be told"),
            }
            stop.run_until_cancelled(tokio::time::sleep(ASKED_EVERY)).await;
        }
    }

    /// Tells a sink until the turn is over.
    async fn tell(&self, sink: &dyn Sink, mut turn: Turn) {
        let mut failures = 0;
        loop {
            let next = match self.tell_some(sink, &mut turn, &mut failures).await {
                Ok(next) => next,
                Err(error) => {
                    if error.code() != Code::Superseded {
                        tracing::warn!(sink = sink.name(), error = error.chain(), "events cannot be told");
                    }
                    Next::Over
                }
            };
            let mut left = match next {
                Next::Again => Duration::ZERO,
                Next::Pause(pause) => pause,
                Next::Over => return,
            };
            // The turn is kept, however long the pause.
            loop {
                let step = left.min(RENEWED_EVERY);
                tokio::time::sleep(step).await;
                left -= step;
                if left.is_zero() {
                    break;
                }
                match self.catalog.take_turn(sink.name(), self.me, LEASE).await {
                    Ok(Some(kept)) if kept.fence == turn.fence => {}
                    _ => return,
                }
            }
        }
    }

    async fn tell_some(&self, sink: &dyn Sink, turn: &mut Turn, failures: &mut u32) -> Result<Next> {
        let events = self.catalog.events(turn.passed, BATCH).await?;
        let Some(last) = events.last().map(|event| event.seq) else {
            return self.idle(sink, turn).await;
        };
        match self.catalog.take_turn(sink.name(), self.me, LEASE).await? {
            Some(kept) if kept.fence == turn.fence => {}
            _ => return Ok(Next::Over),
        }
        let wanted: Vec<&Event> = events.iter().filter(|event| sink.wants(&event.kind)).collect();
        let (taken, problem) =
            if wanted.is_empty() { (0, None) } else { sink.tell(&self.options.source, &wanted).await };
        ::metrics::counter!(DELIVERED, "sink" => sink.name().to_owned()).increment(taken as u64);
        // Everything before the first that it has not taken, also what it does not want to know.
        let passed = wanted.get(taken).map_or(last, |next| next.seq - 1);
        if passed > turn.passed {
            self.catalog.pass(sink.name(), turn.fence, passed).await?;
            turn.passed = passed;
            turn.failing_since = None;
            *failures = 0;
        }
        let Some(problem) = problem else { return Ok(Next::Again) };
        self.failed(sink, turn, failures, &problem).await
    }

    /// There was nothing to tell.
    async fn idle(&self, sink: &dyn Sink, turn: &Turn) -> Result<Next> {
        self.measure(sink.name(), None, false);
        let pauses = RENEWED_EVERY.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..pauses {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.catalog.events(turn.passed, 1).await?.is_empty() {
                return Ok(Next::Again);
            }
        }
        match self.catalog.take_turn(sink.name(), self.me, LEASE).await? {
            Some(kept) if kept.fence == turn.fence => Ok(Next::Again),
            _ => Ok(Next::Over),
        }
    }

    async fn failed(
        &self,
        sink: &dyn Sink,
        turn: &mut Turn,
        failures: &mut u32,
        problem: &Problem,
    ) -> Result<Next> {
        let (now, name) = (self.clock.now(), sink.name());
        let since = *turn.failing_since.get_or_insert(now);
        let give_up = problem.is_final || since.after(self.options.give_up_after) <= now;
        ::metrics::counter!(FAILURES, "sink" => name.to_owned()).increment(1);
        self.catalog.note_failure(name, turn.fence, now, &problem.reason, give_up).await?;
        if give_up {
            tracing::error!(sink = name, reason = problem.reason, %since, "given up: it is told nothing more until the next start");
            self.measure(name, Some(since), true);
            return Ok(Next::Over);
        }
        if *failures == 0 {
            tracing::warn!(
                sink = name,
                reason = problem.reason,
                "an event was not taken; it will be tried again"
            );
        }
        self.measure(name, Some(since), false);
        *failures += 1;
        let pause = problem.retry_after.unwrap_or_else(|| pause(*failures, sink.pause_max(), self.dice()));
        Ok(Next::Pause(pause))
    }

    fn measure(&self, sink: &str, failing_since: Option<Timestamp>, is_dead: bool) {
        let age = failing_since.map_or(0, |since| self.clock.now().as_millis() - since.as_millis());
        ::metrics::gauge!(AGE, "sink" => sink.to_owned()).set(age as f64 / 1000.0);
        ::metrics::gauge!(DEAD, "sink" => sink.to_owned()).set(f64::from(u8::from(is_dead)));
    }

    /// Deletes what nobody needs any more, for ever.
    async fn tidy(&self) {
        loop {
            tokio::time::sleep(TIDIED_EVERY).await;
            let before = self.clock.now().as_millis() - self.options.give_up_after.as_millis() as i64;
            // A day more: an event that was written just before a sink began to fail.
            let before = Timestamp::from_millis(before - 24 * 3600 * 1000);
            loop {
                match self.catalog.drop_events(before, TIDIED).await {
                    Ok(gone) if gone >= TIDIED as u64 => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(error = error.chain(), "old events cannot be deleted");
                        break;
                    }
                }
            }
            for sink in self.catalog.sinks().await.unwrap_or_default() {
                ::metrics::gauge!(PENDING, "sink" => sink.name).set(sink.pending as f64);
            }
        }
    }

    fn dice(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// How long to wait after so many failures in a row: twice as long each time, and up to a quarter more or less. For the first
/// minute no longer than what is away only for moments is to be missed.
fn pause(failures: u32, most: Duration, dice: u64) -> Duration {
    let double = |first: Duration, times: u32| first.saturating_mul(1 << times.min(16));
    let whole = match failures.checked_sub(SOON_TRIES) {
        None => double(PAUSE_FIRST, failures.saturating_sub(1)).min(PAUSE_SOON),
        Some(later) => double(PAUSE_SOON, later + 1),
    };
    let whole = whole.min(most);
    whole.mul_f64(0.75 + (dice % 1000) as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let most = Duration::from_secs(300);
        assert!(pause(1, most, 0) >= PAUSE_FIRST / 2 && pause(1, most, 999) <= PAUSE_FIRST * 2);
        assert!(pause(5, most, 0) > pause(2, most, 999));
        assert!((1..16).all(|failures| pause(failures, most, 999) <= Duration::from_secs(5)));
        assert!(pause(22, most, 999) > most / 2);
        assert!(pause(1000, most, 999) <= most.mul_f64(1.25));
        assert_ne!(pause(3, most, 1), pause(3, most, 900));
    }
}
