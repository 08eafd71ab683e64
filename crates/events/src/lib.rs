//! What happened, told to others: from the catalog's outbox to a broker and to webhooks.
//!
//! Each [`Sink`] has a place of its own in the outbox and a task of its own, so that one that stands still holds up nobody else. On
//! a cluster one node at a time tells a sink, by a lease of the catalog's. A sink is told everything in order, at least once,
//! and passes what it has taken; an event that it does not take is tried again, with growing pauses, until it is given up.

mod address;
mod amqp;
mod cloudevent;
pub mod metrics;
mod relay;
mod webhook;

use async_trait::async_trait;
use carrack_catalog::Event;
use std::time::Duration;

pub use address::{AddressRules, IpNet};
pub use amqp::Amqp;
pub use relay::{Options, Relay};
pub use webhook::{Secret, Webhook};

/// Why a sink did not take an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// For the log and the operator; no secret is in it.
    pub reason: String,
    /// When it wants to be asked again.
    pub retry_after: Option<Duration>,
    /// It says that it never will.
    pub is_final: bool,
}

impl Problem {
    pub(crate) fn new(reason: impl Into<String>) -> Problem {
        Problem { reason: reason.into(), retry_after: None, is_final: false }
    }
}

/// Somebody who is told of events.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Its name in the catalog, in metrics and in the log: the same after a restart, and without a secret.
    fn name(&self) -> &str;

    /// Whether it wants to know of this kind of event.
    fn wants(&self, kind: &str) -> bool;

    /// The longest pause before it is tried again; the first is a second, and each is twice the one before.
    fn pause_max(&self) -> Duration;

    /// Tells it these, in order: how many of them it has taken, and why it did not take the next. Takes less than
    /// 15 seconds: so long is the lease.
    async fn tell(&self, source: &str, events: &[&Event]) -> (usize, Option<Problem>);
}

/// Whether one of these patterns is that of a type: all of it, or what comes before a `*` at the end. None at all is all types.
pub(crate) fn wanted(patterns: &[String], kind: &str) -> bool {
    let name = cloudevent::type_of(kind);
    patterns.is_empty()
        || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *pattern,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted() {
        let is = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|one| (*one).to_owned()).collect();
            wanted(&patterns, "file.created")
        };
        assert!(is(&[]) && is(&["*"]) && is(&["carrack.file.*"]) && is(&["x", "carrack.file.created"]));
        assert!(!is(&["carrack.link.*"]) && !is(&["carrack.file"]) && !is(&["file.created"]));
    }
}
