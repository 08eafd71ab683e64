//! 104 on bare sockets: while a body comes in, to a client that does not read, and inside TLS.

use super::{Answer, NEWEST, PARTIAL, create, fetch, head_of};
use crate::operations::wire::Wire;
use crate::server::{Server, TOKEN, content, tool};
use crate::tls;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

/// More than two checkpoints of a body.
const LONG: usize = 200 << 20;

#[test]
fn q8_a_client_that_sends_for_long_is_told_how_far_it_is() {
    let server = Server::start();
    let url = create(&server, "q8", &[]);
    let part = content(1 << 20, 1);
    for (line, at) in [(format!("PATCH {url}"), 0), ("PUT /v1/files/default/q8b".to_owned(), 0)] {
        let mut wire = Wire::connect(&server);
        let offset = format!("upload-offset: {at}");
        let fields = [NEWEST, PARTIAL, &offset, "upload-complete: ?1"];
        wire.send(head_of(&server, &line, &fields, LONG).as_bytes()).unwrap();
        for _ in 0..LONG / part.len() {
            wire.send(&part).unwrap();
        }
        let answer = Answer::read(&mut wire, "PUT");
        assert_eq!(answer.status(), 201, "{answer:?}");
        let mut interims = answer.interims.iter();
        if line.starts_with("PUT") {
            assert!(interims.next().unwrap().header("location").is_some());
        }
        let mut before = 0;
        for interim in interims {
            assert_eq!((interim.status, interim.header("upload-draft-interop-version")), (104, Some("8")));
            assert!(interim.header("location").is_none(), "{interim:?}");
            let offset: usize = interim.header("upload-offset").unwrap().parse().unwrap();
            assert!(offset > before && offset <= LONG, "{offset} after {before}");
            before = offset;
        }
        assert!(before > 0, "told at least once: {:?}", answer.interims);
    }
}

#[test]
fn a_client_that_does_not_read_until_it_has_sent_all_is_served() {
    let server = Server::start();
    let whole = content(8 << 20, 4);
    let mut wire = Wire::connect(&server);
    for round in 0..50 {
        let bytes = &whole[round * 1000..][..100_000];
        let line = format!("PUT /v1/files/default/{round}");
        wire.send(head_of(&server, &line, &[NEWEST, "upload-complete: ?1"], bytes.len()).as_bytes()).unwrap();
        wire.send(bytes).unwrap();
    }
    for round in 0..50 {
        let answer = Answer::read(&mut wire, "PUT");
        assert_eq!(answer.status(), 201, "{round} {answer:?}");
        assert!(answer.interims.iter().all(|interim| interim.status == 104));
    }
    assert!(fetch(&server, "49").body == whole[49_000..][..100_000]);
}

/// No 104 can be sent there: a client that knows how to do without is served, any other stores a file.
#[test]
fn http2_does_without() {
    let server = tls::https().start();
    let body = server.folder().join("body");
    std::fs::write(&body, "hello").unwrap();
    let curl = |method: &str, url: &str, fields: &[&str]| {
        let mut command = tls::curl("--http2");
        command.args(["-i", "-X", method, "--data-binary"]).arg(format!("@{}", body.display()));
        for field in fields {
            command.args(["-H", field]);
        }
        let output = command.arg(url).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap().to_lowercase();
        assert!(output.status.success() && !said.contains("http/2 104"), "{said}");
        said
    };
    let url = server.url("/v1/files/default/h2");
    let said = curl("PUT", &url, &[NEWEST, "upload-complete: ?1"]);
    assert!(said.starts_with("http/2 201") && said.contains("upload-complete: ?1"), "{said}");
    let said = curl("POST", &url, &[NEWEST, "upload-complete: ?0"]);
    assert!(said.starts_with("http/2 201") && said.contains("upload-complete: ?0"), "{said}");
    let upload = said.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let said = curl("PATCH", upload, &[NEWEST, PARTIAL, "upload-offset: 5", "upload-complete: ?1"]);
    assert!(said.starts_with("http/2 200") && said.contains("\"size\":10"), "{said}");
}

#[test]
fn inside_tls_as_well() {
    let server = tls::https().start();
    let mut child = tool("openssl", "openssl")
        .args(["s_client", "-connect", server.address(), "-quiet", "-alpn", "http/1.1", "-CAfile"])
        .arg(&tls::authority().cert)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut near, far) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut far = BufReader::new(far);
    let mut head = || {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(far.read_line(&mut line).unwrap() > 0, "{lines:?}");
            match line.trim_end() {
                "" => return lines,
                text => lines.push(text.to_lowercase()),
            }
        }
    };
    let request = format!(
        "PUT /v1/files/default/tls HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\n{NEWEST}\r\n\
         upload-complete: ?1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
        server.address()
    );
    near.write_all(request.as_bytes()).unwrap();
    let named = head();
    assert!(named[0].starts_with("http/1.1 104 "), "{named:?}");
    let location = named.iter().find_map(|line| line.strip_prefix("location: ")).unwrap();
    assert!(location.starts_with(&server.url("/v1/resumable/")), "{location}");
    assert!(head()[0].starts_with("http/1.1 100 "));
    near.write_all(b"hello").unwrap();
    let answer = head();
    assert!(answer[0].starts_with("http/1.1 201 "), "{answer:?}");
    drop(near);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
}
