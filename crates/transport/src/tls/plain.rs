//! What a client is told that speaks plain HTTP where TLS is expected.

/// The whole answer: nothing has been agreed on with such a client, so it is the oldest form that all understand.
pub(super) const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: application/problem+json\r\n\
    Content-Length: 202\r\n\
    Connection: close\r\n\
    \r\n\
    {\"type\":\"urn:carrack:problem:https_required\",\"title\":\"Bad Request\",\"status\":400,\
    \"detail\":\"This port speaks HTTPS alone: use an address that begins with https://.\",\
    \"code\":\"https_required\",\"trace_id\":\"\"}\n";

/// Whether the first byte of a connection begins a request line; TLS begins with 22, the kind of a handshake record.
pub(super) fn begins_a_request(first: u8) -> bool {
    first.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_body() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
