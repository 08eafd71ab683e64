//! Connections that end: too early, broken, or with the server.

use super::{PROTOCOLS, authority, curl, https, text};
use crate::operations::disk::{blobs, descriptors};
use crate::operations::wait::until;
use crate::server::{Server, content, tool};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BYTES: usize = 48 << 20;

async fn with_file() -> (Server, Vec<u8>) {
    let server = https().start();
    let bytes = content(BYTES, 5);
    server.put("/v1/files/default/f").body(bytes.clone()).send().await.unwrap();
    (server, bytes)
}

/// A download whose output is a pipe that nobody empties until it is read.
fn download(server: &Server, protocol: &str) -> Child {
    curl(protocol)
        .arg(server.url("/v1/files/default/f"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn begin(child: &mut Child) -> Vec<u8> {
    let mut first = vec![0; 10_000];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    first
}

#[tokio::test]
async fn clients_that_go_away_leave_no_descriptor() {
    let (server, _) = with_file().await;
    for protocol in PROTOCOLS {
        // One whole download first: pools and caches have their descriptors then.
        let warm = curl(protocol).args(["-o", "/dev/null"]).arg(server.url("/v1/files/default/f")).status();
        assert!(warm.unwrap().success());
        let before = descriptors(server.pid());
        for _ in 0..5 {
            let mut children: Vec<Child> = (0..10).map(|_| download(&server, protocol)).collect();
            for child in &mut children {
                begin(child);
            }
            for mut child in children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        until("descriptors are back", || descriptors(server.pid()) <= before);
    }
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_blob_that_is_cut_short_while_it_is_sent_ends_in_a_broken_body() {
    for protocol in PROTOCOLS {
        let (server, bytes) = with_file().await;
        let mut child = download(&server, protocol);
        let mut got = begin(&mut child);
        let cut = BYTES / 2;
        File::options().write(true).open(&blobs(&server.data)[0]).unwrap().set_len(cut as u64).unwrap();
        child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
        let ended = child.wait().unwrap();
        assert!(!ended.success(), "{protocol}: the client is told");
        assert!(
            got.len() <= cut && got == bytes[..got.len()],
            "{protocol}: {} bytes, all of the file",
            got.len()
        );
        until("the operator is told", || server.log().contains("\"level\":\"ERROR\""));
        assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200, "{protocol}");
    }
}

#[tokio::test]
async fn a_transfer_is_finished_before_the_server_stops() {
    for protocol in PROTOCOLS {
        let (mut server, bytes) = with_file().await;
        let mut child = download(&server, protocol);
        let mut got = begin(&mut child);
        server.signal("TERM");
        until("it is stopping", || server.log().contains("stopping"));
        child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
        assert!(child.wait().unwrap().success() && got == bytes, "{protocol}: {} bytes", got.len());
        assert!(server.wait(Duration::from_secs(40)).success(), "{protocol}");
    }
}

/// Kinds of frames of HTTP/2 (RFC 9113 §6) in what a server sent.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        kinds.push(*kind);
        bytes = rest.get(len..).unwrap_or_default();
    }
    kinds
}

#[test]
fn an_idle_http2_connection_is_told_to_go_away() {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let mut server = https().set("CARRACK_SERVER__SHUTDOWN_GRACE", "2s").start();
    let mut child = s_client_on(&server);
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    child.stdin.as_mut().unwrap().write_all(&preface).unwrap();
    let mut said = vec![0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(said[3], SETTINGS, "{said:?}");
    server.signal("TERM");
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    child.wait().unwrap();
    assert!(frames(&said).contains(&GOAWAY), "{said:?}");
    assert!(server.wait(Duration::from_secs(40)).success());
}

fn s_client_on(server: &Server) -> Child {
    let mut command: Command = tool("openssl", "openssl");
    command
        .args(["s_client", "-connect", server.address(), "-quiet", "-alpn", "h2", "-CAfile"])
        .arg(&authority().cert)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The end is said inside the encryption, too: a client can tell it from a line that was cut.
#[test]
fn a_connection_is_closed_with_a_goodbye() {
    let server = https().start();
    let output = curl("--http1.1")
        .args(["-v", "-H", "Connection: close", "-o", "/dev/null"])
        .arg(server.url("/readyz"))
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.contains("TLS alert, close notify"), "{said}");
}
