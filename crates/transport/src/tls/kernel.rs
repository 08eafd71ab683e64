//! Whether the kernel could encrypt by itself.

/// Where the kernel lists the protocols that a TCP connection can be handed over to (`TCP_ULP`).
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_ulp";

/// Whether this kernel has TLS (`CONFIG_TLS`), built in or loaded. Nothing is sent that way yet
/// (`docs/decisions/0015-tls-in-user-space.md`); the log tells operators where it could be.
pub fn offers_tls() -> bool {
    std::fs::read_to_string(AVAILABLE).is_ok_and(|list| lists_tls(&list))
}

fn lists_tls(list: &str) -> bool {
    list.split_whitespace().any(|name| name == "tls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_list() {
        assert!(lists_tls("espintcp mptcp tls\n") && lists_tls("tls"));
        assert!(!lists_tls("espintcp mptcp\n") && !lists_tls("") && !lists_tls("mtls"));
    }
}
