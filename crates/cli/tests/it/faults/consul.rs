//! Consul away: a node serves all the same, and is registered again soon after.

use super::cells::{Cell, RECOVERY, When, every, metric, start, within};
use super::traffic::{Need, before, during};
use crate::cluster::consul::Consul;
use crate::server::Server;
use std::sync::Arc;
use std::time::Duration;

const NEED: Need = Need {
    refuses: false,
    leaves_facts: true,
    breaks: false,
    bound: Duration::from_secs(10),
    bytes: 12 << 20,
};

async fn cell(consul: Arc<Consul>, cell: Cell) {
    let setup = consul.setup_by(cell.proxy.port()).set("CARRACK_CLUSTER__NODE_ID", &cell.name);
    let server = if cell.when == When::Before {
        cell.fail();
        let server = start(setup);
        // Long enough for pauses to have grown.
        tokio::time::sleep(Duration::from_secs(8)).await;
        before(&cell, &server, NEED).await;
        server
    } else {
        let server = start(setup);
        passes(&consul, &cell, &server).await;
        during(&cell, &server, NEED).await;
        server
    };
    passes(&consul, &cell, &server).await;
}

/// The agent knows the node, and hears that it lives.
async fn passes(consul: &Consul, cell: &Cell, server: &Server) {
    let before = consul.beats(&cell.name);
    within(RECOVERY, "the agent hears of it", server, async || {
        consul.beats(&cell.name) > before && metric(server, "carrack_discovery_registered").await == 1.0
    })
    .await;
}

#[test]
fn consul_away_in_every_way() {
    let consul = Arc::new(Consul::start());
    every(consul.port(), 20, |one| cell(consul.clone(), one));
}
