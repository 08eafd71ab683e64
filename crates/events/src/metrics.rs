//! Names and units of what this room measures. `sink` is one of those in the settings.

use metrics::{Unit, describe_counter, describe_gauge};

/// Events that a sink has taken, by `sink`.
pub const DELIVERED: &str = "carrack_events_delivered_total";
/// Tries that failed, by `sink`.
pub const FAILURES: &str = "carrack_events_failures_total";
/// Events that the broker took although no queue wanted them.
pub const UNROUTABLE: &str = "carrack_events_unroutable_total";
/// Events that a sink has yet to be told, by `sink`.
pub const PENDING: &str = "carrack_events_pending";
/// Whether a sink was given up, by `sink`: 1 or 0.
pub const DEAD: &str = "carrack_events_sink_dead";
/// How old the first event is that a sink has not taken, by `sink`.
pub const AGE: &str = "carrack_events_oldest_seconds";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_counter!(DELIVERED, "Events that a sink has taken.");
    describe_counter!(FAILURES, "Tries to tell a sink that failed.");
    describe_counter!(UNROUTABLE, "Events that the broker took although no queue wanted them.");
    describe_gauge!(PENDING, "Events that a sink has yet to be told.");
    describe_gauge!(DEAD, "Whether a sink was given up.");
    describe_gauge!(AGE, Unit::Seconds, "How long a sink has not taken its next event.");
}
