//! Redis away: nothing is refused, each node keeps to its share.

use super::cells::{Cell, RECOVERY, When, every, metric, start, within};
use super::proxy::{Mode, Proxy};
use super::traffic::{Need, before, during};
use crate::access::Caller;
use crate::server::Server;
use crate::server::Setup;
use carrack_engines::Redis;
use std::time::{Duration, Instant};

/// What a user may have at once, and in a second.
const BURST: usize = 40;

const NEED: Need = Need {
    refuses: false,
    leaves_facts: true,
    breaks: false,
    bound: Duration::from_secs(10),
    bytes: 12 << 20,
};

/// A node on a Redis at this port, with a limit for users.
fn limited(prefix: &str, port: u16) -> Setup {
    Setup::new()
        .set("CARRACK_STATE__URL", &format!("redis://127.0.0.1:{port}"))
        .set("CARRACK_STATE__PREFIX", prefix)
        .set("CARRACK_LIMITS__ROLES__USER__REQUESTS_PER_SECOND", "1")
        .set("CARRACK_LIMITS__ROLES__USER__BURST", &BURST.to_string())
}

/// A new user is admitted as often in a row as this node's share is: one of so many has 1.2 times an even one, at most all.
async fn share_is_kept(server: &Server, name: &str, nodes: usize) {
    let user = Caller::user(server, name).await;
    let (begun, mut admitted) = (Instant::now(), 0);
    while user.get("/v1/me").await.status() == 200 {
        admitted += 1;
        assert!(admitted < 4 * BURST, "no limit is kept");
    }
    let share = BURST.min(BURST * 6 / 5 / nodes);
    let came_back = begun.elapsed().as_secs() as usize + 2;
    assert!((share..=share + came_back).contains(&admitted), "{admitted} instead of {share}");
}

async fn cell(cell: Cell) {
    // The administrator, who makes the traffic, is under none.
    let setup = limited(&cell.name, cell.proxy.port()).set("CARRACK_CLUSTER__NODE_ID", "one");
    if cell.when == When::Before {
        cell.fail();
        let begun = Instant::now();
        let server = start(setup);
        assert!(begun.elapsed() < Duration::from_secs(15), "Redis holds up no start: {:?}", begun.elapsed());
        share_is_kept(&server, "early", 1).await;
        before(&cell, &server, NEED).await;
        connected(&server).await;
    } else {
        let server = start(setup);
        connected(&server).await;
        during(&cell, &server, NEED).await;
        connected(&server).await;
        cell.fail();
        share_is_kept(&server, "late", 1).await;
        cell.heal();
        connected(&server).await;
    }
}

async fn connected(server: &Server) {
    within(RECOVERY, "Redis is used again", server, async || {
        metric(server, "carrack_state_connected").await == 1.0
    })
    .await;
}

#[test]
fn redis_away_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), None).unwrap();
    every(redis.port(), 200, cell);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_two_nodes_keeps_to_its_share_while_redis_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), None).unwrap();
    let proxy = Proxy::start(redis.port()).await;
    let nodes =
        ["one", "two"].map(|id| start(limited("two", proxy.port()).set("CARRACK_CLUSTER__NODE_ID", id)));
    for node in &nodes {
        within(RECOVERY, "it knows of the other", node, async || {
            metric(node, "carrack_cluster_nodes").await == 2.0
        })
        .await;
    }
    proxy.set(Mode::Hang);
    for node in &nodes {
        within(RECOVERY, "it is noticed", node, async || {
            metric(node, "carrack_state_connected").await == 0.0
        })
        .await;
        share_is_kept(node, "ann", 2).await;
    }
    proxy.set(Mode::Pass);
    for node in &nodes {
        connected(node).await;
    }
}
