//! Two nodes over one catalog, one store and one Redis.

use super::*;
use carrack_domain::access::{
    ArchiveFile, ManageBucket, ManageTokens, ReadFile, ShareFile, UseLinks, UseUploads, WriteFile,
};
use carrack_domain::policy::{Circumstances, Policy};
use carrack_domain::{ByteRange, Identity};
use carrack_engines::Redis;
use carrack_service::access::{Credentials, NewToken};
use carrack_service::archive::Selection;
use carrack_service::coherence::EPOCH;
use carrack_service::download::Kind;
use carrack_service::limit::{RoleSettings, Settings, Unit, Who};
use carrack_service::link::NewLink;
use carrack_service::transfers::Standing;
use carrack_service::upload::NewUpload;
use carrack_state::{RedisOptions, RedisState};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

/// Sooner than what is kept would be looked up anew without a message, and late enough for a slow machine.
const BY_MESSAGE: Duration = Duration::from_millis(700);
/// When it has been looked up anew, whatever was heard.
const BY_ITSELF: Duration = Duration::from_millis(EPOCH.as_millis() as u64 + 500);

struct Nodes {
    one: Rooms,
    two: Arc<Service>,
    states: [Arc<RedisState>; 2],
    redis: Redis,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: TempDir,
}

impl Nodes {
    async fn open(limits: Settings) -> Nodes {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), None).unwrap();
        let state = |node: u8| {
            let options = RedisOptions {
                url: redis.url(),
                prefix: "test".to_owned(),
                node: format!("node-{node}"),
                instance: [node; 16],
            };
            async move { Arc::new(RedisState::open(options).await.unwrap()) }
        };
        let states = [state(1).await, state(2).await];
        let one = Rooms::open_with(tempfile::tempdir().unwrap(), states[0].clone(), limits).await;
        let two = Rooms::service(
            one.catalog.clone(),
            one.storage.clone(),
            one.clock.clone(),
            states[1].clone(),
            limits,
            1 << 32,
        );
        let nodes = Nodes {
            one,
            two: Arc::new(two),
            states,
            redis,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _folder: folder,
        };
        for service in [&nodes.one.service, &nodes.two] {
            nodes.tasks.spawn(service.clone().keep_up(nodes.stop.clone()));
            nodes.tasks.spawn(service.limiter.clone().run(nodes.stop.clone()));
        }
        nodes
            .until(Duration::from_secs(10), "they know each other", || async {
                nodes.states.iter().all(|state| state.nodes().len() == 2)
            })
            .await;
        nodes
    }

    async fn until<F: Future<Output = bool>>(&self, within: Duration, what: &str, holds: impl Fn() -> F) {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < within, "not within {within:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The tag of a file as the second node knows it.
    async fn seen(&self, key: &str) -> Option<String> {
        let file = self.two.files.get(&self.one.grant::<ReadFile>(key)).await.ok()?;
        Some(file.etag().to_string())
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for state in &self.states {
            state.close().await;
        }
    }
}

fn root() -> Principal {
    Principal::new("root", Role::Admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_one_node_changes_is_changed_on_the_other() {
    let mut nodes = Nodes::open(Settings::default()).await;
    for (within, redis_is_there) in [(BY_MESSAGE, true), (BY_ITSELF, false)] {
        if !redis_is_there {
            nodes.redis.engine.kill();
        }
        let first = nodes.one.put("a").await.etag().to_string();
        nodes
            .until(BY_ITSELF, "it is there", || async { nodes.seen("a").await == Some(first.clone()) })
            .await;
        let second = nodes.one.put_small("a").await.etag().to_string();
        nodes
            .until(within, "it is replaced", || async { nodes.seen("a").await == Some(second.clone()) })
            .await;
        nodes.one.service.files.delete(&nodes.one.grant("a"), &Precondition::None).await.unwrap();
        nodes.until(within, "it is gone", || async { nodes.seen("a").await.is_none() }).await;
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_one_node_revokes_is_refused_by_the_other() {
    let mut nodes = Nodes::open(Settings::default()).await;
    let manage = authorize::<ManageTokens>(&root(), ()).unwrap();
    for (within, redis_is_there) in [(BY_MESSAGE, true), (BY_ITSELF, false)] {
        let new = NewToken { subject: "ann".to_owned(), role: Role::User, expires_in: None, buckets: None };
        let made = nodes.one.service.access.create_token(&manage, new).await.unwrap();
        let is_good = || async {
            let of = Circumstances { address: None, tls: false, now: nodes.one.clock.now() };
            nodes.two.access.authenticate(Credentials::Bearer(&made.secret), of).await.is_ok()
        };
        assert!(is_good().await && is_good().await, "kept by now");
        if !redis_is_there {
            nodes.redis.engine.kill();
        }
        nodes.one.service.access.revoke(&manage, made.token.id).await.unwrap();
        nodes.until(within, "it is refused", || async { !is_good().await }).await;
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_one_node_changes_holds_on_the_other() {
    let mut nodes = Nodes::open(Settings::default()).await;
    let name = BucketName::parse("default").unwrap();
    let manage = authorize::<ManageBucket>(&root(), name.clone()).unwrap();
    let everyone =
        r#"{"rules": [{"effect": "allow", "actions": ["read"], "prefix": "", "to": ["everyone"]}]}"#;
    let nobody = r#"{"rules": []}"#;
    let may_read = || async {
        let identity = Arc::new(Identity::new("guest", Role::Guest));
        let of = Circumstances { address: None, tls: false, now: nodes.one.clock.now() };
        let place = FileRef { bucket: name.clone(), key: Key::parse("a").unwrap() };
        authorize::<ReadFile>(&nodes.two.access.principal(identity, of), place).is_ok()
    };
    for (policy, expected) in [(everyone, true), (nobody, false), (everyone, true)] {
        let policy = Some(serde_json::from_str::<Policy>(policy).unwrap());
        let settings = BucketSettings { policy, ..BucketSettings::default() };
        nodes.one.service.buckets.put(&manage, settings).await.unwrap();
        nodes.until(Duration::from_secs(1), "it holds", || async { may_read().await == expected }).await;
    }
    nodes.redis.engine.kill();
    let policy = Some(serde_json::from_str::<Policy>(nobody).unwrap());
    let settings = BucketSettings { policy, ..BucketSettings::default() };
    nodes.one.service.buckets.put(&manage, settings).await.unwrap();
    nodes.until(Duration::from_secs(1), "it holds without Redis too", || async { !may_read().await }).await;
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_one_node_is_seen_to_grow_on_the_other() {
    let mut nodes = Nodes::open(Settings::default()).await;
    let own = authorize::<UseUploads>(&root(), ()).unwrap();
    for redis_is_there in [true, false] {
        let new = NewUpload {
            size: 3 << 20,
            part_size: Some(1 << 20),
            content_type: "text/plain".to_owned(),
            metadata: Default::default(),
            digests: Vec::new(),
            only_create: false,
        };
        let uploads = &nodes.one.service.uploads;
        let id = uploads.create(&nodes.one.grant::<WriteFile>("a"), new).await.unwrap().id;
        let mut watch = nodes.two.uploads.watch(&own, id).await.unwrap().1;
        if !redis_is_there {
            nodes.redis.engine.kill();
        }
        let body = Box::pin(stream::iter([Ok(Bytes::from(vec![7; 1 << 20]))]));
        nodes.one.service.uploads.put_part(&own, id, 1, None, Vec::new(), body).await.unwrap();
        let begun = Instant::now();
        loop {
            // A hint, or that one may have been missed.
            let _told = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
            if nodes.two.uploads.status(&own, id).await.unwrap().received_bytes == 1 << 20 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_another_node_sends_are_not_deleted() {
    let mut nodes = Nodes::open(Settings::default()).await;
    for redis_is_there in [true, false] {
        if !redis_is_there {
            nodes.redis.engine.kill();
        }
        let file = nodes.one.put("a").await;
        let selection = || Selection::Files(vec![nodes.one.grant::<ArchiveFile>("a")]);
        let mut archive = nodes.two.archives.zip(selection(), Form::Copied).await.unwrap();
        nodes.one.service.files.delete(&nodes.one.grant("a"), &Precondition::None).await.unwrap();
        nodes.one.service.maintenance.round().await.unwrap();
        assert!(nodes.one.blob_path(&file).exists(), "it is being sent");
        let whole = ByteRange::new(0, archive.rope.len()).unwrap();
        let sent = archive.reader.read(archive.rope.slice(whole).collect()).await.unwrap();
        assert_eq!(sent.len() as u64, archive.rope.len());
        drop(archive);
        if redis_is_there {
            nodes.one.service.maintenance.round().await.unwrap();
            assert!(!nodes.one.blob_path(&file).exists(), "nobody needs it any more");
        }
    }
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_of_a_link_is_taken_once_and_a_revoked_one_is_revoked_everywhere() {
    let nodes = Nodes::open(Settings::default()).await;
    nodes.one.put("a").await;
    let new = NewLink { expires_in: Duration::from_secs(60), max_downloads: Some(1), ..NewLink::default() };
    let (read, share) = (nodes.one.grant::<ReadFile>("a"), nodes.one.grant::<ShareFile>("a"));
    let links = [&nodes.one.service, &nodes.two].map(Clone::clone);
    let link = links[0].links.create(&read, &share, new).await.unwrap();
    let of = Circumstances { address: None, tls: false, now: nodes.one.clock.now() };
    let mut claiming = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (node, link) = (links[number % 2].clone(), link.clone());
        claiming.spawn(async move { node.links.claim(&link, &of).await });
    }
    let claimed: Vec<_> = claiming.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(claimed.len(), 1);
    for node in &links {
        node.links.begin(&link, &claimed[0].to_string(), &of).await.unwrap();
    }
    let own = authorize::<UseLinks>(&root(), ()).unwrap();
    links[0].links.revoke(&own, link.id).await.unwrap();
    let token = links[0].links.token(&link).unwrap();
    let refused = links[1].links.open(&token, &of).await.err().unwrap();
    assert_eq!(refused.code(), Code::LinkRevoked, "at once");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_of_one_node_are_shown_on_the_other() {
    let nodes = Nodes::open(Settings::default()).await;
    let begun =
        nodes.one.service.transfers.begin("root", Kind::Full, 5 << 20, || "a.bin".to_owned()).unwrap();
    let shown = || async { nodes.two.transfers.shown_to(&root()) };
    nodes.until(Duration::from_secs(5), "it is shown", || async { shown().await.len() == 1 }).await;
    assert_eq!(shown().await[0].name, "a.bin");
    assert_eq!(nodes.one.service.transfers.shown_to(&root()).len(), 1, "once");
    drop(begun);
    nodes
        .until(Duration::from_secs(5), "how it ended is, too", || async {
            shown().await.iter().all(|one| one.standing == Standing::Aborted)
        })
        .await;
    nodes.close().await;
}

fn user(bandwidth: u64, transfers: u32) -> Settings {
    let role = RoleSettings {
        bandwidth_per_user: bandwidth,
        transfers_per_user: transfers,
        ..RoleSettings::default()
    };
    Settings { roles: [RoleSettings::default(), role, RoleSettings::default()], ..Settings::default() }
}

fn ann() -> Who {
    Who::named(Arc::new(Identity::new("ann", Role::User)))
}

/// Bytes that go through one node in so long.
async fn flow(service: &Service, span: Duration) -> u64 {
    let traffic = service.limiter.traffic(&ann(), Unit::Own, ann(), None, None).unwrap();
    let body = stream::iter(std::iter::repeat_with(|| Ok(Bytes::from_static(&[0; 16 << 10]))));
    let mut body = traffic.receive(Box::pin(body));
    let (mut bytes, end) = (0, tokio::time::Instant::now() + span);
    while let Ok(Some(Ok(piece))) = tokio::time::timeout_at(end, body.next()).await {
        bytes += piece.len() as u64;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_bandwidth_is_that_of_all_nodes_together() {
    const RATE: u64 = 2_000_000;
    let mut nodes = Nodes::open(user(RATE, 0)).await;
    let span = Duration::from_secs(8);
    let (one, two) = tokio::join!(flow(&nodes.one.service, span), flow(&nodes.two, span));
    let share = (one + two) as f64 / (RATE * span.as_secs()) as f64;
    assert!((0.95..=1.05).contains(&share), "{share} of it: {one} and {two}");
    let alone = flow(&nodes.one.service, span).await as f64 / (RATE * span.as_secs()) as f64;
    assert!((0.85..=1.05).contains(&alone), "what the other node leaves is there: {alone}");
    nodes.redis.engine.kill();
    nodes
        .until(Duration::from_secs(10), "it is noticed", || async {
            nodes.states.iter().all(|state| !state.is_connected())
        })
        .await;
    let (one, two) = tokio::join!(flow(&nodes.one.service, span), flow(&nodes.two, span));
    let share = (one + two) as f64 / (RATE * span.as_secs()) as f64;
    assert!((0.9..=1.3).contains(&share), "each has 1.2 times an even share: {one} and {two}");
    nodes.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_transfers_are_those_of_all_nodes_together() {
    let nodes = Nodes::open(user(0, 3)).await;
    let begin = |service: &Service| service.limiter.traffic(&ann(), Unit::Own, ann(), None, None).ok();
    let _held = [begin(&nodes.one.service).unwrap(), begin(&nodes.one.service).unwrap()];
    let third = begin(&nodes.two).unwrap();
    nodes
        .until(Duration::from_secs(3), "the other node knows", || async { begin(&nodes.two).is_none() })
        .await;
    nodes
        .until(Duration::from_secs(3), "the first one too", || async { begin(&nodes.one.service).is_none() })
        .await;
    drop(third);
    nodes
        .until(Duration::from_secs(5), "there is one again", || async { begin(&nodes.one.service).is_some() })
        .await;
    nodes.close().await;
}
