//! Connections that were quiet for so long that the server has put them aside.

use super::{assert_whole, get, store};
use crate::operations::wire::Wire;
use crate::server::{Server, TOKEN, content};
use std::time::Duration;

/// A connection is put aside when it was quiet at two looks, a second apart; time is what is tested here.
const PARKED: Duration = Duration::from_millis(2600);

fn request(key: &str) -> String {
    format!("{} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {TOKEN}\r\n\r\n", get(key))
}

/// A connection that was used once.
fn used(server: &Server, bytes: &[u8]) -> Wire {
    let mut wire = Wire::connect(server);
    wire.request(&get("f"), &[]);
    assert_whole(&mut wire, bytes);
    wire
}

#[tokio::test]
async fn requests_spaced_wide_are_answered_on_one_connection_however_they_are_cut() {
    let server = Server::start();
    let bytes = content(300_000, 7);
    store(&server, "f", &bytes).await;
    let ask = request("f");
    let cuts = [0, 1, 3, ask.len() / 2, ask.len() - 1, ask.len()];
    // Beginnings of heads that come before the connection would be put aside, and those that come after.
    let mut early: Vec<Wire> = cuts.iter().map(|_| used(&server, &bytes)).collect();
    let mut late: Vec<Wire> = cuts.iter().map(|_| used(&server, &bytes)).collect();
    for _ in 0..2 {
        for (wire, cut) in early.iter_mut().zip(cuts) {
            wire.send(&ask.as_bytes()[..cut]).unwrap();
        }
        tokio::time::sleep(PARKED).await;
        for (wire, cut) in late.iter_mut().zip(cuts) {
            wire.send(&ask.as_bytes()[..cut]).unwrap();
        }
        // The server has met the beginnings by the time it has answered this.
        assert_eq!(server.get("/livez").send().await.unwrap().status(), 200);
        for (wire, cut) in early.iter_mut().chain(&mut late).zip(cuts.into_iter().cycle()) {
            wire.send(&ask.as_bytes()[cut..]).unwrap();
            assert_whole(wire, &bytes);
            // One behind the other, the second cut.
            wire.send(format!("{ask}{}", &ask[..cut]).as_bytes()).unwrap();
            assert_whole(wire, &bytes);
            wire.send(&ask.as_bytes()[cut..]).unwrap();
            assert_whole(wire, &bytes);
        }
    }
}

#[tokio::test]
async fn the_beginning_of_a_second_request_that_came_with_the_first_is_kept() {
    let server = Server::start();
    let bytes = content(300_000, 7);
    store(&server, "f", &bytes).await;
    let ask = request("f");
    let mut wires: Vec<(Wire, usize)> =
        [1, 20, ask.len() - 1].map(|cut| (Wire::connect(&server), cut)).into();
    for (wire, cut) in &mut wires {
        wire.send(format!("{ask}{}", &ask[..*cut]).as_bytes()).unwrap();
        assert_whole(wire, &bytes);
    }
    for _ in 0..2 {
        tokio::time::sleep(PARKED).await;
    }
    for (wire, cut) in &mut wires {
        wire.send(&ask.as_bytes()[*cut..]).unwrap();
        assert_whole(wire, &bytes);
    }
}

#[tokio::test]
async fn a_client_that_stands_still_in_the_middle_is_not_put_aside() {
    let server = Server::start();
    let bytes = content(32 << 20, 8);
    store(&server, "f", &bytes).await;
    let mut wire = super::with_small_window(&server).await;
    for _ in 0..2 {
        wire.request(&get("f"), &[]);
        let head = wire.head();
        assert_eq!(head.length(), bytes.len());
        tokio::time::sleep(PARKED).await;
        assert!(wire.body(bytes.len()) == bytes);
    }
}

#[tokio::test]
async fn an_upload_and_an_end_wake_a_connection_that_was_put_aside() {
    let server = Server::start();
    let bytes = content(300_000, 9);
    store(&server, "f", &bytes).await;
    let (mut wire, mut ending) = (used(&server, &bytes), used(&server, &bytes));
    tokio::time::sleep(PARKED).await;
    wire.request("PUT /v1/files/default/g", &["content-length: 300000"]);
    wire.send(&bytes[..100_000]).unwrap();
    ending.finish_sending();
    assert!(ending.is_at_end());
    tokio::time::sleep(PARKED).await;
    wire.send(&bytes[100_000..]).unwrap();
    let stored = wire.head();
    assert_eq!(stored.status, 201);
    wire.body(stored.length());
    wire.request(&get("g"), &[]);
    assert_whole(&mut wire, &bytes);
}
