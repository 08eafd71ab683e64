//! Resumable uploads of the IETF (draft-ietf-httpbis-resumable-upload) against the real binary: one test for each
//! statement of the draft, its 104 on bare sockets, and a client that follows its text over a bad network.

mod appending;
mod client;
mod crash;
mod creation;
mod digests;
mod interim;
mod looking;
mod pace;
mod pipelined;
mod versions;

use crate::operations::wire::{Head, Wire};
use crate::server::{Server, TOKEN};
use serde_json::Value;

/// The newest version of the draft.
pub(crate) const NEWEST: &str = "upload-draft-interop-version: 8";
pub(crate) const PARTIAL: &str = "content-type: application/partial-upload";
const MISMATCH: &str = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
const INCONSISTENT: &str = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
const COMPLETED: &str = "https://iana.org/assignments/http-problem-types#completed-upload";

/// All that came in answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) interims: Vec<Head>,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads the answer to a request with this method.
    pub(crate) fn read(wire: &mut Wire, method: &str) -> Answer {
        let mut interims = Vec::new();
        let head = loop {
            let head = wire.head();
            match head.status {
                100..200 => interims.push(head),
                _ => break head,
            }
        };
        let length = match (method, head.status) {
            ("HEAD", _) | (_, 204 | 304) => 0,
            _ => head.length(),
        };
        Answer { interims, body: wire.body(length), head }
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        self.head.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A problem document of this kind.
    #[track_caller]
    fn refused(&self, status: u16, kind: &str) -> Value {
        let problem = self.json();
        assert_eq!((self.status(), problem["type"].as_str()), (status, Some(kind)), "{self:?} {problem}");
        problem
    }
}

/// A request with a body of known length, on a connection of its own.
pub(crate) fn ask(server: &Server, line: &str, fields: &[&str], body: &[u8]) -> Answer {
    let mut wire = Wire::connect(server);
    ask_on(&mut wire, server, line, fields, body)
}

pub(crate) fn ask_on(wire: &mut Wire, server: &Server, line: &str, fields: &[&str], body: &[u8]) -> Answer {
    wire.send(head_of(server, line, fields, body.len()).as_bytes()).unwrap();
    // Refused early, it may not be read.
    let _ = wire.send(body);
    Answer::read(wire, line.split(' ').next().unwrap())
}

/// The head of a request; the target of its line is a path or a URL of the server.
pub(crate) fn head_of(server: &Server, line: &str, fields: &[&str], length: usize) -> String {
    let line = line.replace(&server.base, "");
    let mut head =
        format!("{line} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\n", server.address());
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str(&format!("content-length: {length}\r\n\r\n"));
    head
}

/// Begins an upload of a file without a byte; its URL.
fn create(server: &Server, key: &str, fields: &[&str]) -> String {
    let fields = [&[NEWEST, "upload-complete: ?0"], fields].concat();
    let answer = ask(server, &format!("POST /v1/files/default/{key}"), &fields, b"");
    assert_eq!(answer.status(), 201, "{answer:?}");
    answer.field("location").to_owned()
}

/// Appends, `last` with what ends the upload.
fn append(server: &Server, url: &str, offset: usize, last: bool, bytes: &[u8]) -> Answer {
    append_with(server, url, offset, last, &[], bytes)
}

fn append_with(server: &Server, url: &str, offset: usize, last: bool, more: &[&str], bytes: &[u8]) -> Answer {
    let (offset, complete) =
        (format!("upload-offset: {offset}"), format!("upload-complete: ?{}", u8::from(last)));
    let fields = [&[NEWEST, PARTIAL, &offset, &complete], more].concat();
    ask(server, &format!("PATCH {url}"), &fields, bytes)
}

fn look(server: &Server, url: &str) -> Answer {
    ask(server, &format!("HEAD {url}"), &[NEWEST], b"")
}

/// Where an upload stands, and whether it has ended.
#[track_caller]
fn standing(server: &Server, url: &str) -> (usize, bool) {
    let answer = look(server, url);
    assert_eq!(answer.status(), 204, "{answer:?}");
    (answer.field("upload-offset").parse().unwrap(), answer.field("upload-complete") == "?1")
}

fn fetch(server: &Server, key: &str) -> Answer {
    ask(server, &format!("GET /v1/files/default/{key}"), &[], b"")
}
