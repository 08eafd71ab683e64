//! Clients that take little at a time, so that most sends are partial and many find no room at all.

use super::{assert_whole, get, multipart, store, with_small_window};
use crate::operations::wire::Wire;
use crate::server::{Server, TOKEN, content, tool};
use crate::tls::slow::relay;
use crate::zip::layout::unpack;

#[tokio::test]
async fn one_byte_at_a_time_is_every_byte() {
    let server = Server::start();
    let bytes = content(150_000, 1);
    store(&server, "f", &bytes).await;
    let mut wire = with_small_window(&server).await.by_bytes();
    let mut asked = |line: &str, headers: &[&str]| {
        wire.request(line, headers);
        let head = wire.head();
        let body = wire.body(head.length());
        (head, body)
    };
    assert!(asked(&get("f"), &[]).1 == bytes);
    let (head, body) = asked(&get("f"), &["range: bytes=0-0,20000-99999,-3"]);
    assert!(body == multipart(&head, &[(0, 0), (20_000, 99_999), (149_997, 149_999)], &bytes));
    let (_, zip) = asked("GET /v1/zip/default", &[]);
    assert!(unpack(&zip) == [("f".to_owned(), bytes)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_reads_one_byte_at_a_time_changes_nothing() {
    let server = Server::start();
    let bytes = content(150_000, 2);
    store(&server, "f", &bytes).await;
    let (port, _tasks) = relay(&server, 1).await;
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let mut curl = tool("curl", "curl");
        curl.args(["-sS", "--fail", "--noproxy", "*", protocol]);
        curl.args(["-H", &format!("Authorization: Bearer {TOKEN}")]);
        curl.arg(format!("http://127.0.0.1:{port}/v1/files/default/f"));
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{protocol}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == bytes, "{protocol}");
    }
}

/// More than the server's socket takes, so that it has to wait for room again and again.
#[tokio::test]
async fn a_receive_buffer_of_4_kib_changes_no_byte() {
    let server = Server::start();
    let bytes = content((8 << 20) + 3, 3);
    store(&server, "f", &bytes).await;
    let mut wire = with_small_window(&server).await;
    wire.request(&get("f"), &[]);
    assert_whole(&mut wire, &bytes);
    let ranges = [(5, 3_000_000), (3_000_007, 3_000_100), (4_000_000, 8 << 20)];
    wire.request(&get("f"), &["range: bytes=5-3000000,3000007-3000100,4000000-8388608"]);
    let head = wire.head();
    let body = wire.body(head.length());
    assert!(body == multipart(&head, &ranges, &bytes));
}

/// Said by order instead of by a clock: the fast one has all before the slow ones go on at all.
#[tokio::test]
async fn clients_that_stand_still_do_not_stop_one_that_reads() {
    const SLOW: usize = 40;
    let server = Server::start();
    let bytes = content(32 << 20, 4);
    store(&server, "f", &bytes).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut wire = with_small_window(&server).await;
        wire.request(&get("f"), &[]);
        assert_eq!(wire.head().length(), bytes.len());
        slow.push(wire);
    }
    let mut fast = Wire::connect(&server);
    for _ in 0..3 {
        fast.request(&get("f"), &[]);
        assert_whole(&mut fast, &bytes);
    }
    for (number, wire) in slow.iter_mut().enumerate() {
        let len = 100_000 + number;
        assert!(wire.body(len) == bytes[..len], "client {number} goes on where it stood");
    }
    fast.request(&get("f"), &[]);
    assert_whole(&mut fast, &bytes);
}
