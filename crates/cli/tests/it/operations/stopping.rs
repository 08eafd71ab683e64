//! Start and stop: signals, draining, what load balancers and clients see of it.

use super::wait::{until, until_async};
use super::wire::{Head, Wire};
use crate::server::{Server, Setup, content};
use std::time::{Duration, Instant};

/// More than both sockets' buffers hold, so that a client that does not read keeps the transfer in flight.
const BIG: usize = 48 << 20;

async fn with_big_file(setup: Setup) -> (Server, Vec<u8>) {
    let server = setup.start();
    let bytes = content(BIG, 7);
    let stored = server.put("/v1/files/default/big").body(bytes.clone()).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    (server, bytes)
}

/// A download that has begun, and goes on only when somebody reads.
fn slow_download(server: &Server) -> (Wire, Head) {
    let mut wire = Wire::connect(server);
    wire.request("GET /v1/files/default/big", &[]);
    let head = wire.head();
    assert_eq!((head.status, head.length()), (200, BIG));
    (wire, head)
}

fn ask(server: &Server, line: &str) -> Head {
    let mut wire = Wire::connect(server);
    wire.request(line, &[]);
    wire.head()
}

fn draining(server: &Server) {
    until("readiness turns 503", || ask(server, "GET /readyz").status == 503);
}

#[tokio::test]
async fn while_draining_probes_are_answered_and_new_work_is_refused() {
    let (mut server, bytes) = with_big_file(Setup::new()).await;
    assert_eq!(ask(&server, "GET /readyz").status, 200);
    let (mut wire, _) = slow_download(&server);
    server.signal("TERM");
    draining(&server);
    let ready = ask(&server, "GET /readyz");
    assert_eq!(ready.header("connection"), Some("close"), "{}", ready.text);
    assert_eq!(ask(&server, "GET /livez").status, 200);
    assert_eq!(ask(&server, "GET /metrics").status, 200);
    for line in ["GET /v1/files/default/big", "GET /v1/buckets", "DELETE /v1/files/default/big", "GET /docs/"]
    {
        let mut refused = Wire::connect(&server);
        refused.request(line, &[]);
        let head = refused.head();
        assert_eq!(head.status, 503, "{line}");
        assert_eq!(head.header("connection"), Some("close"), "{line}");
        assert!(head.header("retry-after").is_some(), "{line}");
        let body = String::from_utf8(refused.body(head.length())).unwrap();
        assert!(body.contains("\"shutting_down\""), "{line}: {body}");
    }
    let mut upload = Wire::connect(&server);
    upload.request("PUT /v1/files/default/new", &["content-length: 1000000"]);
    assert_eq!(upload.head().status, 503, "an upload is refused before its body is sent");
    assert!(wire.body(BIG) == bytes, "the transfer in flight comes whole");
    drop(wire);
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_does_not_hold_the_stop_up() {
    let mut server = Server::start();
    let mut idle = Wire::connect(&server);
    idle.request("GET /livez", &[]);
    let head = idle.head();
    idle.body(head.length());
    let silent = Wire::connect(&server);
    server.stop();
    assert!(idle.rest().is_empty());
    assert!(silent.rest().is_empty());
}

#[tokio::test]
async fn an_upload_in_flight_at_sigint_is_stored() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Setup::new().data(data.path()).start();
    let bytes = content(3 << 20, 3);
    let half = bytes.len() / 2;
    let mut wire = Wire::connect(&server);
    wire.request("PUT /v1/files/default/up", &[&format!("content-length: {}", bytes.len())]);
    wire.send(&bytes[..half]).unwrap();
    until("the upload has begun", || std::fs::read_dir(data.path().join("staging")).unwrap().count() > 0);
    server.signal("INT");
    draining(&server);
    wire.send(&bytes[half..]).unwrap();
    assert_eq!(wire.head().status, 201);
    drop(wire);
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(0), "{}", server.log());
    let again = Setup::new().data(data.path()).start();
    let got = again.get("/v1/files/default/up").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn a_transfer_longer_than_the_grace_ends_short_and_the_stop_is_clean() {
    let setup = Setup::new().set("CARRACK_SERVER__SHUTDOWN_GRACE", "1s");
    let (mut server, bytes) = with_big_file(setup).await;
    let (wire, _) = slow_download(&server);
    let mut upload = Wire::connect(&server);
    upload.request("PUT /v1/files/default/up", &["content-length: 1000000"]);
    upload.send(&bytes[..1000]).unwrap();
    let staging = server.data.join("staging");
    until("the upload has begun", || std::fs::read_dir(&staging).unwrap().count() > 0);
    let asked = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(0), "{}", server.log());
    assert!(asked.elapsed() >= Duration::from_secs(1), "the grace is given");
    let got = wire.rest();
    assert!(got.len() < BIG, "the client can tell: fewer bytes than announced");
    assert!(got == bytes[..got.len()]);
    assert!(server.log().contains("broken off at the end of the grace period"), "{}", server.log());
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0, "the upload that was cut leaves nothing");
}

/// It waits for its share then, not for its client, and has to notice all the same that this one is gone.
#[tokio::test]
async fn an_upload_that_is_slowed_down_does_not_hold_the_stop_up() {
    let setup = Setup::new().set("CARRACK_SERVER__SHUTDOWN_GRACE", "1s");
    let mut server = setup.set("CARRACK_LIMITS__ROLES__ADMIN__BANDWIDTH_PER_CONNECTION", "1MB").start();
    let mut upload = Wire::connect(&server);
    upload.request("PUT /v1/files/default/up", &["content-length: 30000000"]);
    // More than it may take; broken off in the middle.
    let sending = std::thread::spawn(move || upload.send(&vec![1; 30_000_000]).is_err());
    let staging = server.data.join("staging");
    until("the upload has begun", || std::fs::read_dir(&staging).unwrap().count() > 0);
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(0), "{}", server.log());
    assert!(sending.join().unwrap());
    assert!(!server.log().contains("stopping although"), "{}", server.log());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut server, _) = with_big_file(Setup::new().set("CARRACK_SERVER__SHUTDOWN_GRACE", "1h")).await;
    let (_wire, _) = slow_download(&server);
    server.signal("TERM");
    draining(&server);
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(1), "{}", server.log());
    assert!(server.log().contains("stopping at once"));
}

#[tokio::test]
async fn sighup_ends_nothing() {
    let (mut server, bytes) = with_big_file(Setup::new()).await;
    let (mut wire, _) = slow_download(&server);
    server.signal("HUP");
    until("the signal is taken", || server.log().contains("SIGHUP"));
    assert_eq!(ask(&server, "GET /readyz").status, 200);
    assert!(wire.body(BIG) == bytes);
    drop(wire);
    server.stop();
}

#[tokio::test]
async fn a_clean_stop_is_remembered_and_a_kill_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Setup::new().data(data.path()).start();
    server.stop();
    let mut server = Setup::new().data(data.path()).start();
    until_async("ready", async || server.get("/readyz").send().await.unwrap().status() == 200).await;
    assert!(!server.log().contains("not closed in order"), "{}", server.log());
    server.kill();
    let server = Setup::new().data(data.path()).start();
    assert!(server.log().contains("not closed in order"), "{}", server.log());
}
