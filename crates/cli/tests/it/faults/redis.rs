//! Redis away: nothing is refused, each node keeps to its share.

use super::cells::{Cell, RECOVERY, When, every, metric, start, within};
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

fn setup(cell: &Cell) -> Setup {
    Setup::new()
        .set("CARRACK_STATE__URL", &format!("redis://127.0.0.1:{}", cell.proxy.port()))
        .set("CARRACK_STATE__PREFIX", &cell.name)
        .set("CARRACK_CLUSTER__NODE_ID", "one")
}

/// How many requests of a new user are admitted in a row: neither none nor all.
async fn share_is_kept(server: &Server, name: &str) {
    let user = Caller::user(server, name).await;
    let (begun, mut admitted) = (Instant::now(), 0);
    while user.get("/v1/me").await.status() == 200 {
        admitted += 1;
        assert!(admitted < 4 * BURST, "no limit is kept");
    }
    let came_back = begun.elapsed().as_secs() as usize + 1;
    assert!((BURST..=BURST * 6 / 5 + came_back).contains(&admitted), "{admitted} of {BURST}");
}

async fn cell(cell: Cell) {
    // The administrator, who makes the traffic, is under none.
    let setup = setup(&cell)
        .set("CARRACK_LIMITS__ROLES__USER__REQUESTS_PER_SECOND", "1")
        .set("CARRACK_LIMITS__ROLES__USER__BURST", &BURST.to_string());
    if cell.when == When::Before {
        cell.fail();
        let begun = Instant::now();
        let server = start(setup);
        assert!(begun.elapsed() < Duration::from_secs(15), "Redis holds up no start: {:?}", begun.elapsed());
        share_is_kept(&server, "early").await;
        before(&cell, &server, NEED).await;
        connected(&server).await;
    } else {
        let server = start(setup);
        connected(&server).await;
        during(&cell, &server, NEED).await;
        connected(&server).await;
        cell.fail();
        share_is_kept(&server, "late").await;
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
