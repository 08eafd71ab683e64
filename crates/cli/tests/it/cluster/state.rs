//! Redis as the memory that nodes share.

use crate::access::Caller;
use crate::contract::answers::eventually;
use crate::server::{Server, Setup};
use carrack_engines::{Redis, free_port};
use tempfile::TempDir;

struct Shared {
    redis: Redis,
    _folder: TempDir,
}

impl Shared {
    fn start(password: Option<&str>) -> Shared {
        let folder = tempfile::tempdir().unwrap();
        Shared { redis: Redis::start(folder.path(), password).unwrap(), _folder: folder }
    }

    fn setup(&self) -> Setup {
        Setup::new().set("CARRACK_STATE__URL", &self.redis.url())
    }
}

/// A gauge or counter as it is now.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn limits_are_kept_in_redis_and_by_this_nodes_share_without_it() {
    let mut shared = Shared::start(None);
    let server = shared
        .setup()
        .set("CARRACK_LIMITS__REQUESTS_PER_SECOND", "1")
        .set("CARRACK_LIMITS__BURST", "40")
        .start();
    let burst = async |caller: &Caller<'_>| {
        let mut admitted = 0;
        while caller.get("/v1/me").await.status() == 200 {
            admitted += 1;
        }
        admitted
    };
    let ann = Caller::user(&server, "ann").await;
    assert!((40..60).contains(&burst(&ann).await));
    assert_eq!(metric(&server, "carrack_state_connected").await, 1.0);
    shared.redis.engine.kill();
    let bob = Caller::user(&server, "bob").await;
    assert!((40..60).contains(&burst(&bob).await), "one node has all of it");
    assert!(metric(&server, "carrack_state_fallbacks_total").await > 0.0);
    eventually("it is noticed", async || metric(&server, "carrack_state_connected").await == 0.0).await;
    shared.redis.engine.start_again().unwrap();
    eventually("it is there again", async || metric(&server, "carrack_state_connected").await == 1.0).await;
    let log = server.log();
    let said = |what: &str| log.matches(what).count();
    assert_eq!((said("Redis does not answer"), said("Redis answers again")), (1, 1), "said once: {log}");
}

#[tokio::test]
async fn flushing_redis_in_the_midst_loses_nothing() {
    let shared = Shared::start(None);
    let server = shared.setup().start();
    let body = "some bytes";
    assert_eq!(server.put("/v1/files/default/a").body(body).send().await.unwrap().status(), 201);
    let upload = server.post("/v1/uploads").body(r#"{"bucket": "default", "key": "b", "size": 10}"#);
    let upload: serde_json::Value = upload.send().await.unwrap().json().await.unwrap();
    let id = upload["upload_id"].as_str().unwrap();
    let ann = Caller::user(&server, "ann").await;
    assert_eq!(shared.redis.say("FLUSHALL").unwrap(), "+OK");
    let part = server.put(&format!("/v1/uploads/{id}/parts/1")).body(body);
    assert_eq!(part.send().await.unwrap().status(), 200);
    assert_eq!(shared.redis.say("FLUSHALL").unwrap(), "+OK");
    assert_eq!(server.post(&format!("/v1/uploads/{id}/complete")).send().await.unwrap().status(), 201);
    for key in ["a", "b"] {
        let found = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
        assert_eq!(found.text().await.unwrap(), body);
    }
    assert_eq!(ann.get("/v1/me").await.status(), 200);
}

#[tokio::test]
async fn a_redis_that_is_away_stops_nothing_and_one_that_refuses_us_does() {
    let nobody = format!("redis://:geheim@127.0.0.1:{}", free_port().unwrap());
    let server = Setup::new().set("CARRACK_STATE__URL", &nobody).start();
    assert_eq!(server.put("/v1/files/default/a").body("a").send().await.unwrap().status(), 201);
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    assert!(!server.log().contains("geheim"), "no secret is logged");

    let shared = Shared::start(Some("geheim"));
    let wrong = format!("redis://:falsch@127.0.0.1:{}", shared.redis.port());
    let said = Setup::new().set("CARRACK_STATE__URL", &wrong).refused();
    assert!(said.contains("refuses us") && said.contains("state.url") && !said.contains("falsch"), "{said}");
    let said = Setup::new().set("CARRACK_STATE__URL", "http://user:falsch@host").refused();
    assert!(said.contains("state.url") && said.contains("redis://") && !said.contains("falsch"), "{said}");
    let good = shared.setup().start();
    assert_eq!(good.get("/v1/me").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn two_nodes_with_one_name_are_not_two_nodes() {
    let shared = Shared::start(None);
    let mut first = shared.setup().set("CARRACK_CLUSTER__NODE_ID", "one").start();
    let said = shared.setup().set("CARRACK_CLUSTER__NODE_ID", "one").refused();
    assert!(said.contains("\"one\"") && said.contains("cluster.node_id"), "{said}");
    first.kill();
    // Who was killed comes again under its name, once it counts as gone.
    let mut again = shared.setup().set("CARRACK_CLUSTER__NODE_ID", "one").start();
    again.stop();
    let mut last = shared.setup().set("CARRACK_CLUSTER__NODE_ID", "one").start();
    last.stop();
}
