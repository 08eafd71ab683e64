//! Names and units of what this room measures. `route` is the template, never the path.

use http::Method;
use metrics::{Counter, Gauge, Histogram, Unit, describe_counter, describe_gauge, describe_histogram};
use std::sync::OnceLock;

/// Seconds from the request's head to the answer's last byte, by `method`, `route`, `status`.
pub const REQUEST_DURATION: &str = "carrack_http_server_request_duration_seconds";
/// Seconds from the request's head to the answer's head, by `route`.
pub const FIRST_BYTE: &str = "carrack_http_time_to_first_byte_seconds";
/// Requests under way, by `route`.
pub const ACTIVE: &str = "carrack_http_server_active_requests";
/// Bytes of request bodies.
pub const REQUEST_BYTES: &str = "carrack_http_server_request_body_bytes_total";
/// Bytes of answers' bodies.
pub const RESPONSE_BYTES: &str = "carrack_http_server_response_body_bytes_total";
/// Answers that ended before their last byte, by `route` and `by` (client, server).
pub const ABORTED: &str = "carrack_http_requests_aborted_total";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "Duration of requests by method, route and status.");
    describe_histogram!(FIRST_BYTE, Unit::Seconds, "Time to the head of the answer, by route.");
    describe_gauge!(ACTIVE, "Requests under way, by route.");
    describe_counter!(REQUEST_BYTES, Unit::Bytes, "Bytes of request bodies received.");
    describe_counter!(RESPONSE_BYTES, Unit::Bytes, "Bytes of response bodies sent.");
    describe_counter!(ABORTED, "Answers that ended before their last byte, by route and side.");
}

/// Handles of a route's metrics, so that a request does not look each of them up by name.
pub(crate) struct Meters {
    pub(crate) active: Gauge,
    pub(crate) first_byte: Histogram,
    pub(crate) response_bytes: Counter,
    route: &'static str,
    /// By method and status.
    durations: Box<[[OnceLock<Histogram>; STATUSES.len() + 1]]>,
}

impl Meters {
    pub(crate) fn new(route: &'static str) -> Meters {
        Meters {
            active: metrics::gauge!(ACTIVE, "route" => route),
            first_byte: metrics::histogram!(FIRST_BYTE, "route" => route),
            response_bytes: metrics::counter!(RESPONSE_BYTES),
            route,
            durations: METHODS.iter().map(|_| [const { OnceLock::new() }; STATUSES.len() + 1]).collect(),
        }
    }

    /// Records how long a request took, from its head to the last byte of its answer.
    pub(crate) fn record(&self, method: MethodLabel, status: u16, seconds: f64) {
        let status = STATUSES.iter().position(|(known, _)| *known == status).unwrap_or(STATUSES.len());
        let Some(duration) = self.durations.get(method.0).and_then(|row| row.get(status)) else { return };
        let label = STATUSES.get(status).map_or("other", |(_, label)| label);
        let register = || {
            metrics::histogram!(
                REQUEST_DURATION, "method" => method.as_str(), "route" => self.route, "status" => label
            )
        };
        duration.get_or_init(register).record(seconds);
    }
}

/// Methods as label values: bounded, whatever clients send. The last stands for all others.
const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "other"];

/// A place in [`METHODS`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodLabel(usize);

impl MethodLabel {
    pub(crate) fn of(method: &Method) -> MethodLabel {
        let known = METHODS.iter().position(|name| *name == method.as_str());
        MethodLabel(known.unwrap_or(METHODS.len() - 1))
    }

    pub(crate) fn as_str(self) -> &'static str {
        METHODS.get(self.0).copied().unwrap_or("other")
    }
}

/// Statuses that have a label value of their own, the most frequent first.
const STATUSES: [(u16, &str); 23] = [
    (200, "200"),
    (206, "206"),
    (304, "304"),
    (404, "404"),
    (201, "201"),
    (204, "204"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (415, "415"),
    (416, "416"),
    (422, "422"),
    (423, "423"),
    (460, "460"),
    (500, "500"),
    (503, "503"),
    (507, "507"),
];
