//! The ways a plain answer leaves: a connection that stays, one that ends with the answer, HTTP/2 without TLS.

use crate::operations::wire::{Head, Wire};
use crate::server::{Server, TOKEN, tool};

/// A client that asks in one of these ways.
pub(super) enum Way<'a> {
    KeptAlive(Wire),
    Closing(&'a Server),
    /// HTTP/2 with prior knowledge, by `curl`.
    Http2(&'a Server),
}

impl Way<'_> {
    pub(super) fn all(server: &Server) -> [Way<'_>; 3] {
        [Way::KeptAlive(Wire::connect(server)), Way::Closing(server), Way::Http2(server)]
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Way::KeptAlive(_) => "kept alive",
            Way::Closing(_) => "closing",
            Way::Http2(_) => "HTTP/2",
        }
    }

    /// The answer to GET, with a range unless it is empty.
    pub(super) fn get(&mut self, path: &str, range: &str) -> (Head, Vec<u8>) {
        let header = format!("range: {range}");
        let headers: &[&str] = if range.is_empty() { &[] } else { &[&header] };
        self.ask("GET", path, headers)
    }

    /// The answer to HEAD, which has no body.
    pub(super) fn head(&mut self, path: &str) -> Head {
        let (head, body) = self.ask("HEAD", path, &[]);
        assert!(body.is_empty(), "HEAD {path}: {} bytes", body.len());
        head
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[&str]) -> (Head, Vec<u8>) {
        match self {
            // A byte too many would be the beginning of the next answer.
            Way::KeptAlive(wire) => {
                wire.request(&format!("{method} {path}"), headers);
                let head = wire.head();
                let body = if method == "HEAD" { Vec::new() } else { wire.body(head.length()) };
                (head, body)
            }
            Way::Closing(server) => {
                let mut wire = Wire::connect(server);
                wire.request(&format!("{method} {path}"), &[headers, &["connection: close"]].concat());
                (wire.head(), wire.rest())
            }
            Way::Http2(server) => http2(server, method, path, headers),
        }
    }
}

fn http2(server: &Server, method: &str, path: &str, headers: &[&str]) -> (Head, Vec<u8>) {
    let mut curl = tool("curl", "curl");
    curl.args(["-sS", "-g", "--noproxy", "*", "--http2-prior-knowledge"]);
    curl.args(["-H", &format!("Authorization: Bearer {TOKEN}")]);
    curl.arg(if method == "HEAD" { "--head" } else { "--include" });
    headers.iter().for_each(|header| {
        curl.args(["-H", header]);
    });
    let output = curl.arg(server.url(path)).output().unwrap();
    assert!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let head = Head::parse(&output.stdout[..end]);
    assert!(head.text.starts_with("http/2 "), "{}", head.text);
    (head, output.stdout[end..].to_vec())
}
