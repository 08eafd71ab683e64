//! Clients that say little, and take their time.

use crate::contract::answers::store;
use crate::contract::wire::{Wire, head};
use crate::server::Setup;
use std::time::{Duration, Instant};

/// Says nothing, part of a head, part of a body, and sees itself given up.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dribble_are_given_up_and_others_are_served() {
    let setup = Setup::new().set("CARRACK_SERVER__HEADER_TIMEOUT", "2s");
    let setup = setup.set("CARRACK_SERVER__IDLE_TIMEOUT", "2s").set("CARRACK_SERVER__MIN_RATE", "1000");
    let server = setup.start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let put = head("PUT", "/v1/files/default/g", "Content-Length: 1000000\r\n");
    let beginnings = ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0\r\n\r\nS", &put];
    let mut dribbling = tokio::task::JoinSet::new();
    for (number, beginning) in beginnings.into_iter().cycle().take(100).enumerate() {
        let mut wire = Wire::with(&server, beginning).await;
        let goes_on = number % 2 == 0 && !beginning.is_empty();
        dribbling.spawn(async move {
            let began = Instant::now();
            while goes_on && wire.try_send("x").await.is_ok() && began.elapsed() < Duration::from_secs(8) {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            wire.rest().await;
            began.elapsed()
        });
    }
    for _ in 0..20 {
        assert_eq!(server.get("/v1/files/default/f").send().await.unwrap().status(), 200);
    }
    for lasted in dribbling.join_all().await {
        assert!(lasted < Duration::from_secs(40), "{lasted:?}");
    }
}
