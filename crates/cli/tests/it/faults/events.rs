//! RabbitMQ or the endpoint of a webhook away: nothing is refused, and every event is told afterwards, at least once and those
//! of one subject in order.

use super::cells::{Cell, RECOVERY, When, every, start, within};
use super::traffic::{Ledger, Need, before, during};
use crate::cluster::events::{Endpoint, Queue, hooks};
use crate::server::{Server, Setup};
use carrack_engines::RabbitMq;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How often one file is replaced by another size, to see the order.
const TURNS: u64 = 12;

const NEED: Need = Need {
    refuses: false,
    leaves_facts: true,
    breaks: false,
    bound: Duration::from_secs(10),
    bytes: 12 << 20,
};

async fn replace(server: &Server, sizes: std::ops::Range<u64>) {
    for size in sizes {
        let body = vec![b'x'; size as usize + 1];
        let answer = server.put("/v1/files/default/turns").body(body).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

/// Traffic over a fault, with a file that is replaced before it, during it and after it.
async fn disturb(cell: &Cell, server: &Arc<Server>) -> Ledger {
    replace(server, 0..TURNS / 3).await;
    let ledger = match cell.when {
        When::Before => {
            cell.fail();
            replace(server, TURNS / 3..TURNS * 2 / 3).await;
            before(cell, server, NEED).await
        }
        When::During => {
            let (ledger, ()) = tokio::join!(during(cell, server, NEED), async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                replace(server, TURNS / 3..TURNS * 2 / 3).await;
            });
            ledger
        }
    };
    replace(server, TURNS * 2 / 3..TURNS).await;
    ledger
}

/// What was told, each event once however often that was.
#[derive(Default)]
struct Told {
    ids: HashSet<String>,
    subjects: BTreeSet<String>,
    sizes: Vec<u64>,
}

impl Told {
    fn hear(&mut self, event: &Value) {
        if event["type"] != "carrack.file.created"
            || !self.ids.insert(event["id"].as_str().unwrap().to_owned())
        {
            return;
        }
        let subject = event["subject"].as_str().unwrap().to_owned();
        if subject == "default/turns" {
            self.sizes.push(event["data"]["size"].as_u64().unwrap() - 1);
        }
        self.subjects.insert(subject);
    }

    fn is_all(&self, ledger: &Ledger) -> bool {
        self.sizes.len() as u64 == TURNS
            && ledger.kept.keys().all(|key| self.subjects.contains(&format!("default/{key}")))
    }

    fn is_in_order(&self) {
        assert_eq!(self.sizes, (0..TURNS).collect::<Vec<_>>(), "events of one subject come in order");
    }
}

async fn at_the_broker(broker: Arc<RabbitMq>, cell: Cell) {
    let by_proxy = broker.url().replace(&format!(":{}/", broker.port()), &format!(":{}/", cell.proxy.port()));
    let setup =
        Setup::new().set("CARRACK_EVENTS__AMQP_URL", &by_proxy).set("CARRACK_EVENTS__EXCHANGE", &cell.name);
    let mut queue = Queue::declare(&broker, &cell.name).await;
    if cell.when == When::Before {
        cell.fail();
    }
    let server = start(setup);
    let ledger = disturb(&cell, &server).await;
    let mut told = Told::default();
    let all = async {
        while !told.is_all(&ledger) {
            told.hear(&serde_json::from_slice(&queue.next().await.data).unwrap());
        }
    };
    let limit = RECOVERY + Duration::from_secs(5);
    assert!(tokio::time::timeout(limit, all).await.is_ok(), "not all is told: {}", server.log());
    told.is_in_order();
}

async fn at_an_endpoint(endpoint: Arc<Endpoint>, cell: Cell) {
    let path = format!("hook-{}", cell.name);
    let hook = endpoint.hook_by(cell.proxy.port(), &path);
    if cell.when == When::Before {
        cell.fail();
    }
    let server = start(hooks(Setup::new(), &[hook]));
    let ledger = disturb(&cell, &server).await;
    // A connection that stands still is given ten seconds.
    let limit = RECOVERY + Duration::from_secs(10);
    let told = || {
        let mut told = Told::default();
        for one in endpoint.told().iter().filter(|one| one.path == format!("/{path}")) {
            told.hear(&one.event());
        }
        told
    };
    within(limit, "all is told", &server, async || told().is_all(&ledger)).await;
    told().is_in_order();
}

#[test]
fn rabbitmq_away_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Arc::new(RabbitMq::start(folder.path()).unwrap());
    every(broker.port(), 700, |cell| at_the_broker(broker.clone(), cell));
}

#[test]
fn the_endpoint_of_a_webhook_away_in_every_way() {
    let endpoint = Arc::new(Endpoint::start(204));
    every(endpoint.port(), 20, |cell| at_an_endpoint(endpoint.clone(), cell));
}
