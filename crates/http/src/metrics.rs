//! Names and units of what this room measures. `route` is the template, never the path.

use metrics::{Counter, Gauge, Histogram, Unit, describe_counter, describe_gauge, describe_histogram};

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
}

impl Meters {
    pub(crate) fn new(route: &'static str) -> Meters {
        Meters {
            active: metrics::gauge!(ACTIVE, "route" => route),
            first_byte: metrics::histogram!(FIRST_BYTE, "route" => route),
            response_bytes: metrics::counter!(RESPONSE_BYTES),
        }
    }
}
