//! Names and units of what this room measures.

use metrics::{Unit, describe_counter, describe_gauge};

/// Open connections.
pub const CONNECTIONS: &str = "carrack_http_connections";
/// Bytes that came in over sockets.
pub const RECEIVED_BYTES: &str = "carrack_network_received_bytes_total";
/// Bytes that went out over sockets.
pub const SENT_BYTES: &str = "carrack_network_sent_bytes_total";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections.");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "Bytes that came in over sockets.");
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes that went out over sockets.");
}
