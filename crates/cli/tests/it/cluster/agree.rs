//! What one node is told, all of them do: two nodes with PostgreSQL, Redis and one folder.
//!
//! `CARRACK_NODE_CLAIM_RACES` says how many links are raced for (5 unless set), `CARRACK_REVOCATIONS` how many tokens are
//! revoked (5).

use super::postgres::Ground;
use crate::access::make_token;
use crate::archives::text;
use crate::contract::answers::json;
use crate::server::{Server, Setup, content};
use carrack_engines::Redis;
use reqwest::{Client, redirect};
use serde_json::{Value, json as value};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// First requests for one use.
const FIRSTS: usize = 200;
/// When what was revoked on one node is refused on the other, at the latest.
const REVOKED: Duration = Duration::from_secs(2);
/// When the other node stops what it is told to stop. It may be at a piece of it.
const PROMPT: Duration = Duration::from_secs(3);

/// Two nodes with all that they share. Ends from top to bottom.
struct Pair {
    nodes: [Server; 2],
    _redis: Redis,
    _folder: TempDir,
    ground: Ground,
}

impl Pair {
    fn start(change: impl Fn(Setup) -> Setup) -> Pair {
        let (ground, folder) = (Ground::new(), tempfile::tempdir().unwrap());
        let redis = Redis::start(folder.path(), None).unwrap();
        let nodes = [(); 2].map(|()| change(ground.shared().set("CARRACK_STATE__URL", &redis.url())).start());
        Pair { nodes, _redis: redis, _folder: folder, ground }
    }
}

fn times(variable: &str) -> usize {
    std::env::var(variable).map_or(5, |text| text.parse().unwrap())
}

async fn store(server: &Server, key: &str, bytes: Vec<u8>) {
    let stored = server.put(&format!("/v1/files/default/{key}")).body(bytes).send().await.unwrap();
    assert!(stored.status().is_success(), "{}", stored.text().await.unwrap());
}

/// However many come at once to however many nodes, as many get a use as there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_at_two_nodes_one_gets_the_one_use() {
    let rounds = times("CARRACK_NODE_CLAIM_RACES");
    let pair = Pair::start(|setup| setup);
    store(&pair.nodes[0], "f", content(1000, 1)).await;
    // One for each: nobody waits for another's connection.
    let clients: Vec<Client> = (0..FIRSTS)
        .map(|_| Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap())
        .collect();
    for round in 0..rounds {
        let maker = &pair.nodes[round % 2];
        let wish = value!({"bucket": "default", "key": "f", "expires_in": 3600, "max_downloads": 1});
        let link = json(maker.post("/v1/links").json(&wish).send().await.unwrap(), 201).await;
        let path = link["url"].as_str().unwrap().strip_prefix(&maker.base).unwrap();
        let mut tasks = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            let request = client.get(pair.nodes[number % 2].url(path));
            tasks.spawn(async move { request.send().await.unwrap().status().as_u16() });
        }
        let answers = tasks.join_all().await;
        let of = |wanted: u16| answers.iter().filter(|status| **status == wanted).count();
        assert_eq!((of(307), of(410)), (1, FIRSTS - 1), "{answers:?}");
        let facts = format!("/v1/links/{}", link["id"].as_str().unwrap());
        assert_eq!(json(pair.nodes[0].get(&facts).send().await.unwrap(), 200).await["uses"], 1);
    }
    println!("{rounds} links of one use, each asked for by {FIRSTS} at once over two nodes: {rounds} claims");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_one_node_revokes_the_other_refuses() {
    let pair = Pair::start(|setup| setup);
    let client = Client::builder().no_proxy().build().unwrap();
    let mut took = Vec::new();
    for round in 0..times("CARRACK_REVOCATIONS") {
        let [here, there] = [&pair.nodes[round % 2], &pair.nodes[1 - round % 2]];
        let (secret, id) = make_token(here, value!({"subject": "alice", "role": "user"})).await;
        let use_it =
            async || client.get(there.url("/v1/me")).bearer_auth(&secret).send().await.unwrap().status();
        // Known well by the other node.
        for _ in 0..5 {
            assert_eq!(use_it().await, 200);
        }
        let revoked = here.delete(&format!("/v1/tokens/{id}")).send().await.unwrap();
        assert_eq!(revoked.status(), 204);
        let begun = Instant::now();
        while use_it().await != 401 {
            assert!(begun.elapsed() < REVOKED, "it is still good after {:?}", begun.elapsed());
        }
        took.push(begun.elapsed());
    }
    took.sort();
    let (p99, most) = (took[took.len() * 99 / 100], took[took.len() - 1]);
    println!(
        "{}",
        value!({"revocations": took.len(), "p99_ms": p99.as_secs_f64() * 1e3, "max_ms": most.as_secs_f64() * 1e3})
    );
}

/// Jobs that this node runs.
async fn jobs(server: &Server) -> u64 {
    let all = json(server.get("/v1/cluster").send().await.unwrap(), 200).await;
    let own = all["nodes"].as_array().unwrap().iter().find(|node| node["self"] == true).unwrap();
    own["jobs"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_one_node_is_paused_and_cancelled_by_the_other() {
    let pair = Pair::start(|setup| setup.set("CARRACK_ARCHIVES__WORKERS", "1"));
    for number in 0..60 {
        store(&pair.nodes[0], &format!("many/{number}"), text(4 << 20, number)).await;
    }
    let wish = value!({"name": "a", "bucket": "default", "prefix": "many/", "compression": "deflate"});
    let made = json(pair.nodes[0].post("/v1/archives").json(&wish).send().await.unwrap(), 202).await;
    let path = format!("/v1/archives/{}", made["id"].as_str().unwrap());
    let runner = async || loop {
        for (index, node) in pair.nodes.iter().enumerate() {
            if jobs(node).await > 0 {
                return index;
            }
        }
        let now = json(pair.nodes[0].get(&path).send().await.unwrap(), 200).await;
        assert!(matches!(now["state"].as_str(), Some("waiting" | "running")), "it is over too soon: {now}");
    };
    for (action, state) in [("pause", "paused"), ("resume", ""), ("cancel", "cancelled")] {
        let other = if action == "resume" { 0 } else { 1 - runner().await };
        let asked = pair.nodes[other].post(&format!("{path}/{action}")).send().await.unwrap();
        let now: Value = json(asked, 200).await;
        if state.is_empty() {
            continue;
        }
        let begun = Instant::now();
        assert_eq!(now["state"], state, "{now}");
        while jobs(&pair.nodes[1 - other]).await > 0 {
            assert!(begun.elapsed() < PROMPT, "{action}: the other node goes on");
        }
        println!("{action}: the other node had stopped after {:?}", begun.elapsed());
        for node in &pair.nodes {
            assert_eq!(json(node.get(&path).send().await.unwrap(), 200).await["state"], state);
        }
    }
}

/// What runs out of time does so once, however many nodes look for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_does_so_once() {
    let mut pair = Pair::start(|setup| setup.set("CARRACK_UPLOADS__TTL", "1s"));
    let [one, two] = &pair.nodes;
    for number in 0..40 {
        let wish = value!({"bucket": "default", "key": format!("u{number}"), "size": 10});
        json([one, two][number % 2].post("/v1/uploads").json(&wish).send().await.unwrap(), 201).await;
    }
    // Each node looks at its start, and both are about to.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for node in &mut pair.nodes {
        node.stop();
    }
    let again = |()| pair.ground.shared().start();
    let nodes = std::thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| again(()))).map(|node| node.join().unwrap())
    });
    let begun = Instant::now();
    let expired = async || {
        let log =
            json(nodes[0].get("/v1/audit?action=upload.expire&limit=1000").send().await.unwrap(), 200).await;
        let mut ids: Vec<String> =
            log["records"].as_array().unwrap().iter().map(|record| record["id"].to_string()).collect();
        ids.sort();
        ids
    };
    while expired().await.len() < 40 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", expired().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut once = expired().await;
    once.dedup();
    assert_eq!((once.len(), expired().await.len()), (40, 40));
}
