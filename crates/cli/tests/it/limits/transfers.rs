//! Transfers at once.

use crate::access::Caller;
use crate::contract::answers::{eventually, header, json, refused, store};
use crate::server::{Server, Setup, content};
use serde_json::{Value, json as value};

const FILE: &str = "/v1/files/default/f";

/// A server on which a user's transfers last, and there may be two of them.
async fn server() -> Server {
    let setup = Setup::new().set("CARRACK_LIMITS__ROLES__USER__TRANSFERS_PER_USER", "2");
    let setup = setup.set("CARRACK_LIMITS__ROLES__GUEST__TRANSFERS_PER_USER", "2");
    let setup = setup.set("CARRACK_LIMITS__ROLES__USER__BANDWIDTH_PER_CONNECTION", "100000");
    let server = setup.start();
    store(&server, FILE, &content(8 << 20, 1)).await;
    server
}

#[tokio::test]
async fn one_too_many_is_refused_until_one_ends() {
    let server = server().await;
    let alice = Caller::user(&server, "alice").await;
    let first = alice.get(FILE).await;
    let second = alice.get("/v1/zip/default").await;
    assert!(first.status() == 200 && second.status() == 200);
    let refusal = alice.get(FILE).await;
    assert_eq!(header(&refusal, "retry-after"), "2");
    refused(refusal, 429, "too_many_transfers").await;
    refused(alice.put("/v1/files/default/new", b"x").await, 429, "too_many_transfers").await;
    assert_eq!(alice.get(&format!("{FILE}?meta")).await.status(), 200, "facts are no transfer");
    let bob = Caller::user(&server, "bob").await;
    assert_eq!(bob.get(FILE).await.status(), 200, "others are not concerned");
    drop(first);
    eventually("the place is free", async || alice.put("/v1/files/default/new", b"x").await.status() == 201)
        .await;
    drop(second);
}

#[tokio::test]
async fn an_archive_that_is_made_as_it_is_sent_is_one_too() {
    let server = server().await;
    let alice = Caller::user(&server, "alice").await;
    let made = "/v1/zip/default?compression=deflate";
    let (first, second) = (alice.get(made).await, alice.get(made).await);
    assert!(first.status() == 200 && second.status() == 200);
    assert!(!first.headers().contains_key("content-length"));
    refused(alice.get(made).await, 429, "too_many_transfers").await;
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("carrack_downloads_in_progress{kind=\"zip\"} 2\n"), "{metrics}");
    drop((first, second));
    eventually("the places are free", async || alice.get(FILE).await.status() == 200).await;
}

/// Links of alice, whose transfers are slow; who uses them is a guest, and may have two.
#[tokio::test]
async fn all_connections_of_one_use_of_a_link_are_one_transfer() {
    let server = server().await;
    let alice = Caller::user(&server, "alice").await;
    let link = async |more: Value| {
        let mut wish = value!({"bucket": "default", "key": "f", "expires_in": 600});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json(alice.post("/v1/links", wish).await, 201).await["url"].as_str().unwrap().to_owned()
    };
    let counted = link(value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let sent_on = nobody.get(&counted).await;
    let claim = header(&sent_on, "location").to_owned();
    let mut held = Vec::new();
    for connection in 0..16 {
        let range = format!("bytes={}-{}", connection << 19, (connection << 19) + (1 << 19) - 1);
        let request = nobody.request(reqwest::Method::GET, &claim).header("range", range);
        let part = request.send().await.unwrap();
        assert_eq!(part.status(), 206, "connection {connection}");
        held.push(part);
    }
    let open = link(value!({})).await;
    held.push(nobody.get(&open).await);
    held.push(nobody.get(&open).await);
    assert!(held.iter().all(|answer| answer.status().is_success()));
    let another = link(value!({})).await;
    refused(nobody.get(&another).await, 429, "too_many_transfers").await;
    drop(held);
    eventually("the places are free", async || nobody.get(&another).await.status() == 200).await;
}
