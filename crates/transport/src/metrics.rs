//! Names and units of what this room measures.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Open connections.
pub const CONNECTIONS: &str = "carrack_http_connections";
/// Bytes that came in over sockets.
pub const RECEIVED_BYTES: &str = "carrack_network_received_bytes_total";
/// Bytes that went out over sockets.
pub const SENT_BYTES: &str = "carrack_network_sent_bytes_total";
/// Bytes that came in over one connection, known when it ends.
pub const CONNECTION_RECEIVED: &str = "carrack_network_connection_received_bytes";
/// Bytes that went out over one connection, known when it ends.
pub const CONNECTION_SENT: &str = "carrack_network_connection_sent_bytes";
/// TLS handshakes, by the version agreed on and how they went.
pub const TLS_HANDSHAKES: &str = "carrack_tls_handshakes_total";
/// When the certificate expires, or the first of its chain.
pub const TLS_CERTIFICATE_EXPIRY: &str = "carrack_tls_certificate_expiry_timestamp_seconds";

/// Registers help texts and units with the installed recorder.
pub fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections.");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "Bytes that came in over sockets.");
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes that went out over sockets.");
    describe_histogram!(CONNECTION_RECEIVED, Unit::Bytes, "Bytes that came in over one connection.");
    describe_histogram!(CONNECTION_SENT, Unit::Bytes, "Bytes that went out over one connection.");
    describe_counter!(TLS_HANDSHAKES, "TLS handshakes, by the version agreed on and how they went.");
    describe_gauge!(
        TLS_CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When the TLS certificate expires, in seconds since 1970."
    );
}
