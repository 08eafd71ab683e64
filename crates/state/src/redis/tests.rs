use super::*;
use carrack_domain::Timestamp;
use carrack_engines::Redis;
use std::time::Instant;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

struct Setup {
    redis: Redis,
    _folder: TempDir,
}

impl Setup {
    fn new() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        Setup { redis: Redis::start(folder.path(), None).unwrap(), _folder: folder }
    }

    fn options(&self, node: u8) -> RedisOptions {
        RedisOptions {
            url: self.redis.url(),
            prefix: "test".to_owned(),
            node: format!("node-{node}"),
            instance: [node; 16],
        }
    }

    async fn node(&self, node: u8) -> Arc<RedisState> {
        Arc::new(RedisState::open(self.options(node)).await.unwrap())
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn next(watch: &mut Box<dyn Watch>) -> Option<Bytes> {
    tokio::time::timeout(SOON, watch.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let setup = Setup::new();
    let state = setup.node(1).await;
    let passing = |span| async move {
        tokio::time::sleep(span).await;
        // This node's clock is an hour off, which nobody notices.
        now()
    };
    crate::conformance::run(state.clone(), passing).await;
    state.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_are_one() {
    let setup = Setup::new();
    let (one, two) = (setup.node(1).await, setup.node(2).await);
    let (mut watch, mut hear) = (one.watch("t").await.unwrap(), one.hear("t").await.unwrap());
    for number in 0..200_u32 {
        two.publish("t", number.to_string().into()).await.unwrap();
    }
    for number in 0..200_u32 {
        let heard = tokio::time::timeout(SOON, hear.next()).await.unwrap();
        assert_eq!(heard.unwrap(), number.to_string());
    }
    while next(&mut watch).await.unwrap() != "199" {}

    let refill = Refill::per_minute(50).unwrap();
    let mut taking = tokio::task::JoinSet::new();
    for number in 0..200 {
        let state = if number % 2 == 0 { one.clone() } else { two.clone() };
        taking.spawn(async move { state.take(&[7; 16], refill, false, now()).await.unwrap().is_admitted });
    }
    assert_eq!(taking.join_all().await.into_iter().filter(|admitted| *admitted).count(), 50);

    assert_eq!(one.compare(&[([1; 16], 5), ([2; 16], 6)]).await.unwrap(), vec![Vec::<u64>::new(); 2]);
    assert_eq!(two.compare(&[([2; 16], 7), ([1; 16], 0)]).await.unwrap(), vec![vec![6], vec![5]]);
    assert_eq!(one.compare(&[([2; 16], 0)]).await.unwrap(), vec![vec![7]]);
    assert_eq!(two.compare(&[([2; 16], 7)]).await.unwrap(), vec![Vec::<u64>::new()], "taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_know_each_other_and_names_are_for_one() {
    let setup = Setup::new();
    let (one, two) = (setup.node(1).await, setup.node(2).await);
    two.introduce(Bytes::from_static(b"{\"load\":1}"));
    until("one hears of two", || one.nodes().iter().any(|node| node.about == "{\"load\":1}")).await;
    assert_eq!(one.nodes().iter().map(|node| node.is_self).collect::<Vec<_>>(), [true, false]);
    let double = RedisOptions { instance: [9; 16], ..setup.options(1) };
    let refused = RedisState::open(double.clone()).await.err().unwrap();
    assert!(refused.contains("node-1") && refused.contains("cluster.node_id"), "{refused}");
    one.close().await;
    let successor = RedisState::open(double).await.unwrap();
    until("the name is free at once", || successor.nodes().len() == 2).await;
    two.close().await;
    until("who has gone is gone", || successor.nodes().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_has_its_share_and_the_facts_are_looked_at() {
    let mut setup = Setup::new();
    let (one, two) = (setup.node(1).await, setup.node(2).await);
    until("both know both", || one.nodes().len() == 2 && two.nodes().len() == 2).await;
    let (mut here, mut there) = (one.watch("t").await.unwrap(), two.watch("t").await.unwrap());
    setup.redis.engine.kill();
    until("it is noticed", || {
        one.link.suspect("test");
        one.link.connection().is_none()
    })
    .await;
    assert_eq!(one.nodes().len(), 1, "nobody else is heard of");

    let refill = Refill::per_minute(100).unwrap();
    let begun = Instant::now();
    let mut admitted = 0;
    for _ in 0..200 {
        admitted += u32::from(one.take(&[3; 16], refill, false, now()).await.unwrap().is_admitted);
    }
    assert_eq!(admitted, 60, "a half, and a fifth of it more");
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody waits for who is known to be away");
    assert!(one.compare(&[([1; 16], 1)]).await.is_err());

    one.publish("t", Bytes::from_static(b"here")).await.unwrap();
    while next(&mut here).await.is_none_or(|message| message != "here") {}
    assert_eq!(next(&mut there).await, None, "look at the facts");
    assert_eq!(next(&mut there).await, None, "again");

    setup.redis.engine.start_again().unwrap();
    until("it is there again", || one.link.connection().is_some()).await;
    let begun = Instant::now();
    loop {
        one.publish("t", Bytes::from_static(b"again")).await.unwrap();
        if next(&mut there).await.is_some_and(|message| message == "again") {
            break;
        }
        assert!(begun.elapsed() < SOON, "messages arrive again");
    }
    assert!(
        one.take(&[3; 16], refill, false, now()).await.unwrap().left == 99,
        "the others have not used it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_costs_a_moment_and_comes_back() {
    let setup = Setup::new();
    let state = setup.node(1).await;
    let refill = Refill::per_minute(1000).unwrap();
    setup.redis.engine.freeze();
    let begun = Instant::now();
    for _ in 0..500 {
        assert!(state.take(&[4; 16], refill, false, now()).await.unwrap().is_admitted);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    setup.redis.engine.thaw();
    until("it is used again", || state.link.connection().is_some()).await;
    assert!(state.take(&[4; 16], refill, true, now()).await.unwrap().left > 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushing_it_loses_nothing_but_counts() {
    let setup = Setup::new();
    let (one, two) = (setup.node(1).await, setup.node(2).await);
    let mut watch = one.watch("t").await.unwrap();
    let refill = Refill::per_minute(2).unwrap();
    one.take(&[5; 16], refill, false, now()).await.unwrap();
    assert_eq!(setup.redis.say("FLUSHALL").unwrap(), "+OK");
    assert_eq!(setup.redis.say("SCRIPT FLUSH").unwrap(), "+OK");
    assert_eq!(one.take(&[5; 16], refill, false, now()).await.unwrap().left, 1);
    two.publish("t", Bytes::from_static(b"x")).await.unwrap();
    while next(&mut watch).await.is_none() {}
    until("nodes are known again", || one.nodes().len() == 2).await;
}

#[tokio::test]
async fn who_is_refused_is_refused_here() {
    let setup = Setup::new();
    let state = setup.node(1).await;
    let refill = Refill { every: SOON, burst: 1 };
    assert!(state.take(&[6; 16], refill, false, now()).await.unwrap().is_admitted);
    assert!(!state.take(&[6; 16], refill, false, now()).await.unwrap().is_admitted);
    setup.redis.say("FLUSHALL").unwrap();
    let refused = state.take(&[6; 16], refill, false, now()).await.unwrap();
    assert!(!refused.is_admitted && refused.retry_after > SOON / 2, "without asking: {refused:?}");
}

#[tokio::test]
async fn bad_settings_stop_the_start_and_show_no_secret() {
    for url in
        ["memry", "http://user:geheim@host", "redis://user:geheim@host/x", "redis://:geheim@host:99999"]
    {
        let said = check_url(url).unwrap_err();
        assert!(!said.contains("geheim") && said.contains("redis://"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), Some("geheim")).unwrap();
    let options = |url: String| RedisOptions {
        url,
        prefix: "test".to_owned(),
        node: "node".to_owned(),
        instance: [1; 16],
    };
    for login in ["", ":falsch@", "niemand:falsch@"] {
        let url = format!("redis://{login}127.0.0.1:{}", redis.port());
        let said = RedisState::open(options(url)).await.err().unwrap();
        assert!(said.contains("refuses us") && !said.contains("falsch"), "{said}");
        assert!(said.contains("NOAUTH") || said.contains("authentication failed"), "{said}");
    }
    RedisState::open(options(redis.url())).await.unwrap().close().await;
    let nobody = format!("redis://127.0.0.1:{}", carrack_engines::free_port().unwrap());
    let state = RedisState::open(options(nobody)).await.unwrap();
    assert!(state.nodes().len() == 1, "one that is away stops nothing");
}
