//! The product over a real catalog and a real disk, without HTTP: what only shows from inside.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

mod nodes;

use bytes::Bytes;
use carrack_catalog::{Catalog, SqliteCatalog, SqliteOptions};
use carrack_domain::access::{FileRef, Permission, authorize};
use carrack_domain::file::{BucketSettings, File, Precondition};
use carrack_domain::{BucketName, Clock, Code, Entropy, Grant, Key, Principal, Role, Timestamp};
use carrack_service::access::Options;
use carrack_service::audit;
use carrack_service::coherence::Coherence;
use carrack_service::contents::Contents;
use carrack_service::download::Form;
use carrack_service::facts::Facts;
use carrack_service::keys::{KeyRing, Secret};
use carrack_service::maintenance::Reconciled;
use carrack_service::upload::Put;
use carrack_service::{Core, Limits, Service};
use carrack_state::{MemoryState, State};
use carrack_storage::{Durability, LocalOptions, LocalStore};
use futures_util::{FutureExt, stream};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        let next = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        let len = bytes.len().min(next.len());
        bytes[..len].copy_from_slice(&next[..len]);
    }
}

/// Moves when it is told to.
struct Standing(AtomicI64);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn access() -> Options {
    let secret = Secret { kid: "k".to_owned(), secret: "s".repeat(32) };
    let keys = KeyRing::new(&[secret]).unwrap();
    Options { root_token: "root".to_owned(), keys, anonymous_read: false, issuers: Vec::new() }
}

/// The product, its catalog to be looked into, and the folder that goes with it.
struct Rooms {
    service: Arc<Service>,
    catalog: Arc<SqliteCatalog>,
    storage: Arc<LocalStore>,
    clock: Arc<Standing>,
    folder: TempDir,
}

impl Rooms {
    async fn open() -> Rooms {
        Rooms::open_in(tempfile::tempdir().unwrap()).await
    }

    async fn open_in(folder: TempDir) -> Rooms {
        let state = Arc::new(MemoryState::new("one".to_owned()));
        Rooms::open_with(folder, state, carrack_service::limit::Settings::default()).await
    }

    async fn open_with(
        folder: TempDir,
        state: Arc<dyn State>,
        limits: carrack_service::limit::Settings,
    ) -> Rooms {
        let path = folder.path().join("catalog.sqlite");
        let options = SqliteOptions { path, readers: 2, queue: 16, audit: None, events: None };
        let catalog = Arc::new(SqliteCatalog::open(options).unwrap());
        let storage = LocalStore::open(LocalOptions {
            folder: folder.path().to_owned(),
            durability: Durability::Process,
            reserve_bytes: 0,
            open_blobs_max: 16,
        });
        let clock = Arc::new(Standing(AtomicI64::new(1_700_000_000_000)));
        let storage = Arc::new(storage.unwrap());
        let service = Rooms::service(catalog.clone(), storage.clone(), clock.clone(), state, limits, 1);
        service.buckets.ensure_default().await.unwrap();
        Rooms { service: Arc::new(service), catalog, storage, clock, folder }
    }

    /// A node over rooms that others may share; what is random begins at a number of its own.
    fn service(
        catalog: Arc<SqliteCatalog>,
        storage: Arc<LocalStore>,
        clock: Arc<Standing>,
        state: Arc<dyn State>,
        limits: carrack_service::limit::Settings,
        random: u64,
    ) -> Service {
        let entropy = Arc::new(Counting(AtomicU64::new(random)));
        let coherence = Arc::new(Coherence::new(state.clone(), &*entropy));
        let core = Core {
            writers: carrack_service::upload::writers::Writers::default(),
            facts: Facts::new(catalog.clone(), coherence.clone()),
            coherence,
            events: None,
            contents: Contents::new(catalog.clone(), storage.clone()),
            catalog,
            storage,
            state,
            clock,
            entropy,
            limits: Limits {
                file_size_max: 1 << 30,
                part_size: NonZeroU64::new(1 << 20).unwrap(),
                upload_ttl: Duration::from_secs(60),
                archive_entries_max: 10,
                archive_bytes_max: 1 << 30,
                archive_ttl: Duration::from_secs(60),
                archive_workers: 1,
                encodings_quota: 1 << 30,
            },
            is_alone: true,
            tasks: TaskTracker::new(),
        };
        let audit = audit::Options {
            enabled: false,
            keep: None,
            checkpoint_every: Duration::from_secs(60),
            sinks: Vec::new(),
        };
        Service::new(core, access(), limits, audit).unwrap()
    }

    fn grant<P: Permission<Resource = FileRef>>(&self, key: &str) -> Grant<P> {
        let principal = Principal::new("root", Role::Admin);
        let bucket = BucketName::parse("default").unwrap();
        authorize(&principal, FileRef { bucket, key: Key::parse(key).unwrap() }).unwrap()
    }

    /// A file with bytes of its own.
    async fn put(&self, key: &str) -> File {
        self.put_bytes(key, Bytes::from(vec![7; 40_000])).await
    }

    /// A file whose bytes are kept with its record.
    async fn put_small(&self, key: &str) -> File {
        self.put_bytes(key, Bytes::from(format!("some bytes of {key}"))).await
    }

    async fn put_bytes(&self, key: &str, bytes: Bytes) -> File {
        let body = Box::pin(stream::iter([Ok(bytes)]));
        self.service.uploads.put(&self.grant(key), Put::default(), body).await.unwrap().0
    }

    fn blob_path(&self, file: &File) -> PathBuf {
        let id = file.blob.id.to_string();
        self.folder.path().join("blobs").join(&id[..2]).join(id)
    }
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn reconciling_counts_records_whose_bytes_are_gone_or_cut_short() {
    let rooms = Rooms::open().await;
    let whole = rooms.service.maintenance.reconcile();
    assert_eq!(whole.await.unwrap(), Reconciled { lost: 0, orphans: 0 });
    let (gone, short, _whole) = (rooms.put("gone").await, rooms.put("short").await, rooms.put("whole").await);
    assert_eq!(rooms.service.maintenance.reconcile().await.unwrap().lost, 0);
    std::fs::remove_file(rooms.blob_path(&gone)).unwrap();
    std::fs::File::options().write(true).open(rooms.blob_path(&short)).unwrap().set_len(3).unwrap();
    assert_eq!(rooms.service.maintenance.reconcile().await.unwrap(), Reconciled { lost: 2, orphans: 0 });
    rooms.service.files.delete(&rooms.grant("gone"), &Precondition::None).await.unwrap();
    rooms.put("short").await;
    assert_eq!(
        rooms.service.maintenance.reconcile().await.unwrap().lost,
        0,
        "what nothing names is not lost"
    );
}

#[tokio::test]
async fn small_contents_are_kept_with_their_records_and_go_with_them() {
    let rooms = Rooms::open().await;
    let (one, two) = (rooms.put_small("one").await, rooms.put_small("two").await);
    let large = rooms.put("large").await;
    assert!(!rooms.blob_path(&one).exists() && rooms.blob_path(&large).exists());
    let kept = async |file: &File| rooms.catalog.contents(&[file.blob.id]).await.unwrap().remove(0);
    assert_eq!(kept(&one).await.unwrap(), "some bytes of one");
    assert_eq!(kept(&large).await, None);
    let read = async |key: &str, form| {
        let mut open = rooms.service.downloads.open(&rooms.grant(key), form).await.unwrap();
        open.reader.read(open.rope.all().collect()).await.unwrap()
    };
    for form in [Form::Copied, Form::Mapped] {
        assert_eq!(read("one", form).await, "some bytes of one");
        assert_eq!(read("large", form).await, vec![7; 40_000]);
    }
    let mut open = rooms.service.downloads.open(&rooms.grant("two"), Form::Copied).await.unwrap();
    rooms.service.files.delete(&rooms.grant("two"), &Precondition::None).await.unwrap();
    rooms.put_bytes("one", Bytes::from_static(b"other")).await;
    assert!(kept(&one).await.is_some(), "they wait for others");
    let gone = until("nothing points at them", async || (kept(&one).await, kept(&two).await) == (None, None));
    let stop = CancellationToken::new();
    tokio::select! {
        () = gone => {}
        () = rooms.service.maintenance.collect_small(&stop) => unreachable!(),
    }
    let got = open.reader.read(open.rope.all().collect()).await.unwrap();
    assert_eq!(got, "some bytes of two", "whoever opened it has it");
    assert_eq!(rooms.service.maintenance.reconcile().await.unwrap(), Reconciled { lost: 0, orphans: 0 });
}

#[tokio::test]
async fn reconciling_finds_kept_contents_that_are_damaged() {
    let rooms = Rooms::open().await;
    rooms.put_small("whole").await;
    rooms.put_small("damaged").await;
    rooms.catalog.close().await.unwrap();
    // Closed, all of it is in the database, in which a page that changes is not noticed by SQLite.
    let path = rooms.folder.path().join("catalog.sqlite");
    let mut database = std::fs::read(&path).unwrap();
    let content = b"some bytes of damaged";
    let at = database.windows(content.len()).position(|window| window == content).unwrap();
    database[at] ^= 1;
    std::fs::write(&path, database).unwrap();
    let rooms = Rooms::open_in(rooms.folder).await;
    assert_eq!(rooms.service.maintenance.reconcile().await.unwrap(), Reconciled { lost: 1, orphans: 0 });
}

#[tokio::test]
async fn reconciling_leaves_young_bytes_and_foreign_files_alone() {
    let rooms = Rooms::open().await;
    let shard = rooms.folder.path().join("blobs/00");
    let stray = shard.join("00112233445566778899aabbccddeeff");
    let foreign = shard.join("README");
    std::fs::write(&stray, "perhaps being committed").unwrap();
    std::fs::write(&foreign, "not ours").unwrap();
    assert_eq!(rooms.service.maintenance.reconcile().await.unwrap().orphans, 0);
    assert!(stray.exists() && foreign.exists());
}

/// A client that goes away drops the request. The catalog has the command by then and will carry it out.
#[tokio::test]
async fn a_deletion_nobody_waits_for_any_more_is_forgotten_by_the_facts_too() {
    let rooms = Rooms::open().await;
    rooms.put("f").await;
    let read = rooms.grant("f");
    rooms.service.files.get(&read).await.unwrap();
    let delete = rooms.grant("f");
    assert!(rooms.service.files.delete(&delete, &Precondition::None).now_or_never().is_none());
    let place = delete.resource();
    until("the catalog has deleted it", async || {
        let found = rooms.catalog.file(&place.bucket, &place.key).await;
        found.is_err_and(|error| error.code() == Code::FileNotFound)
    })
    .await;
    until("the facts have forgotten it", async || rooms.service.files.get(&read).await.is_err()).await;
}

#[tokio::test]
async fn a_bucket_keeps_its_files_as_long_as_it_says() {
    let rooms = Rooms::open().await;
    let bucket = BucketName::parse("default").unwrap();
    let keep = async |retention_seconds| {
        let settings = BucketSettings { retention_seconds, ..BucketSettings::default() };
        rooms.catalog.put_bucket(&bucket, &settings, rooms.clock.now()).await.unwrap();
    };
    let pass = async |seconds: i64| {
        rooms.clock.0.fetch_add(seconds * 1000, Ordering::Relaxed);
        rooms.service.maintenance.round().await.unwrap();
    };
    let there = async |key: &str| rooms.service.files.get(&rooms.grant(key)).await.is_ok();
    let first = rooms.put("first").await;
    rooms.put("replaced").await;
    pass(1000).await;
    assert!(there("first").await, "without a retention for ever");
    keep(Some(2000)).await;
    pass(500).await;
    rooms.put("replaced").await;
    rooms.put("later").await;
    pass(500).await;
    assert!(there("first").await, "2000 s are not over");
    pass(1).await;
    assert!(!there("first").await && there("replaced").await && there("later").await);
    assert!(!rooms.blob_path(&first).exists(), "its bytes are gone too");
    pass(1499).await;
    assert!(there("later").await);
    pass(2).await;
    assert!(!there("replaced").await && !there("later").await);
    rooms.put("last").await;
    pass(100).await;
    keep(Some(50)).await;
    pass(0).await;
    assert!(!there("last").await, "a shorter retention holds for what is there");
}
