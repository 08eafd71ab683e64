//! A client that follows the draft's text, over a network that breaks 20 times in 64 MiB: the bytes arrive whole, no
//! upload begins again, and little is sent twice.

use super::{Answer, head_of};
use crate::operations::wire::Wire;
use crate::server::{Server, content};
use crate::tus::proxy::BadNetwork;
use std::time::Duration;

const BYTES: usize = 64 << 20;
const BREAKS: usize = 20;
/// Bytes that are handed to the socket at once.
const STEP: usize = 64 << 10;
/// Attempts in a row that come to nothing.
const ATTEMPTS_MAX: usize = 50;

/// How a client creates an upload (section "Upload Strategies").
#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    /// All bytes in the first request; the upload is known by a 104.
    Optimistic,
    /// No byte in the first request.
    Careful,
    /// Many requests with so many bytes.
    InParts(usize),
}

struct Client<'a> {
    server: &'a Server,
    address: String,
    bytes: &'a [u8],
    version: u8,
    /// The upload, once it is known.
    url: Option<String>,
    offset: usize,
    created: usize,
}

/// What came of a request.
enum Outcome {
    Final(Answer),
    Broken,
}

impl Client<'_> {
    /// Sends a request, listening for what is said meanwhile.
    fn send(&mut self, line: &str, fields: &[String], bytes: &[u8]) -> Outcome {
        let Ok(mut wire) = Wire::to(&self.address) else { return Outcome::Broken };
        let version = format!("upload-draft-interop-version: {}", self.version);
        let mut all = vec![version.as_str()];
        all.extend(fields.iter().map(String::as_str));
        if wire.send(head_of(self.server, line, &all, bytes.len()).as_bytes()).is_err() {
            return Outcome::Broken;
        }
        // "A client might wait for a limited duration to receive a 104 before starting to transmit."
        if line.starts_with("POST") && !bytes.is_empty() {
            match wire.try_head() {
                Some(head) if head.status == 104 => self.learn(&head),
                Some(head) => panic!("no 104 but {head:?}"),
                None => return Outcome::Broken,
            }
        }
        for step in bytes.chunks(STEP) {
            if wire.send_listening(step).is_err() {
                break;
            }
        }
        loop {
            match wire.try_head() {
                None => return Outcome::Broken,
                Some(head) if head.status < 200 => self.learn(&head),
                Some(head) => {
                    let length =
                        if line.starts_with("HEAD") || head.status == 204 { 0 } else { head.length() };
                    let Some(body) = wire.try_body(length) else { return Outcome::Broken };
                    return Outcome::Final(Answer { interims: Vec::new(), head, body });
                }
            }
        }
    }

    fn learn(&mut self, head: &crate::operations::wire::Head) {
        if let Some(url) = head.header("location") {
            assert!(self.url.is_none() || self.url.as_deref() == Some(url), "another upload");
            self.url = Some(url.to_owned());
        }
    }

    fn complete(&self, complete: bool) -> String {
        match self.version {
            3 => format!("upload-incomplete: ?{}", u8::from(!complete)),
            _ => format!("upload-complete: ?{}", u8::from(complete)),
        }
    }

    fn create(&mut self, strategy: Strategy) -> Outcome {
        self.created += 1;
        let (bytes, last) = match strategy {
            Strategy::Optimistic => (self.bytes, true),
            Strategy::Careful => (&[][..], false),
            Strategy::InParts(size) => (&self.bytes[..size], false),
        };
        let fields = [self.complete(last), format!("upload-length: {}", self.bytes.len())];
        let outcome = self.send("POST /v1/files/default/sent", &fields, bytes);
        if let Outcome::Final(answer) = &outcome
            && !last
        {
            self.learn(&answer.head);
            self.offset = bytes.len();
        }
        outcome
    }

    fn append(&mut self, strategy: Strategy) -> Outcome {
        let end = match strategy {
            Strategy::InParts(size) => self.bytes.len().min(self.offset + size),
            Strategy::Optimistic | Strategy::Careful => self.bytes.len(),
        };
        let last = end == self.bytes.len();
        let mut fields = vec![format!("upload-offset: {}", self.offset), self.complete(last)];
        if self.version >= 6 {
            fields.push("content-type: application/partial-upload".to_owned());
        }
        let line = format!("PATCH {}", self.url.as_ref().unwrap());
        let outcome = self.send(&line, &fields, &self.bytes[self.offset..end]);
        if let Outcome::Final(answer) = &outcome
            && answer.status() < 300
        {
            self.offset = end;
        }
        outcome
    }

    /// Asks where to go on; whether there was an answer.
    fn retrieve(&mut self) -> bool {
        let line = format!("HEAD {}", self.url.as_ref().unwrap());
        let Outcome::Final(answer) = self.send(&line, &[], b"") else { return false };
        assert_eq!(answer.status(), 204, "{answer:?}");
        let offset = answer.field("upload-offset").parse().unwrap();
        assert!(offset >= self.offset.min(offset), "the offset went back");
        self.offset = offset;
        true
    }

    /// Uploads; the answer of the resource that the first request named.
    fn upload(&mut self, strategy: Strategy) -> Answer {
        let mut broken = 0;
        let mut outcome = self.create(strategy);
        loop {
            match outcome {
                Outcome::Final(answer) if self.is_end(&answer) => return answer,
                Outcome::Final(answer) if answer.status() < 300 => broken = 0,
                Outcome::Final(answer) => {
                    assert!(matches!(answer.status(), 409 | 500..), "{answer:?}");
                    broken += 1;
                }
                Outcome::Broken => {
                    broken += 1;
                    assert!(broken < ATTEMPTS_MAX, "broken {broken} times in a row");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            let is_known = self.url.is_some();
            outcome = match is_known {
                // Only without a 104 is there nothing to go on with.
                false => self.create(strategy),
                true if broken > 0 && !self.retrieve() => Outcome::Broken,
                true => self.append(strategy),
            };
        }
    }

    fn is_end(&self, answer: &Answer) -> bool {
        match self.version {
            3 => answer.head.header("upload-incomplete") == Some("?0"),
            _ => answer.head.header("upload-complete") == Some("?1"),
        }
    }
}

async fn survives(seed: usize, version: u8, strategy: Strategy) {
    let server = Server::start();
    let whole = content(BYTES, seed as u64);
    let network = BadNetwork::start(server.address(), BREAKS, seed);
    let created = {
        let mut client = Client {
            server: &server,
            address: network.base.strip_prefix("http://").unwrap().to_owned(),
            bytes: &whole,
            version,
            url: None,
            offset: 0,
            created: 0,
        };
        let answer = tokio::task::block_in_place(|| client.upload(strategy));
        assert_eq!(answer.status(), 201, "{answer:?}\n{}", server.log());
        client.created
    };
    let stored = server.get("/v1/files/default/sent").send().await.unwrap().bytes().await.unwrap();
    assert!(stored == whole, "other bytes are stored");
    assert_eq!((created, network.breaks_left()), (1, 0), "begun once, broken {BREAKS} times");
    let sent = network.sent() as f64 / BYTES as f64;
    println!("sent {sent:.3} times the file");
    assert!(sent <= 1.2, "sent {sent:.3} times the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optimistic_client() {
    survives(11, 8, Strategy::Optimistic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_careful_client() {
    survives(12, 8, Strategy::Careful).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_in_parts() {
    survives(13, 8, Strategy::InParts(5 << 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optimistic_client_of_the_oldest_version() {
    survives(14, 3, Strategy::Optimistic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optimistic_client_of_version_6() {
    survives(15, 6, Strategy::Optimistic).await;
}
