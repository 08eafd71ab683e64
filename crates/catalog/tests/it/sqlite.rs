use carrack_catalog::{Catalog, OpenError, Outcome, SqliteCatalog, SqliteOptions, conformance};
use carrack_domain::digest::PieceHasher;
use carrack_domain::file::{BucketSettings, Precondition};
use carrack_domain::upload::{Echo, PartPlan, Receipt, Shape, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BucketName, Clock, Code, Error, Key, Timestamp, UploadId};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::task::JoinSet;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        NOW
    }
}

fn options(directory: &Path) -> SqliteOptions {
    SqliteOptions {
        path: directory.join("catalog.sqlite"),
        readers: 2,
        queue: 64,
        audit: Some(Arc::new(Standing)),
        events: Some(Arc::new(Standing)),
    }
}

pub(crate) fn open(directory: &Path) -> SqliteCatalog {
    SqliteCatalog::open(options(directory)).unwrap()
}

fn refused(directory: &Path) -> OpenError {
    match SqliteCatalog::open(options(directory)) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn name(text: &str) -> BucketName {
    BucketName::parse(text).unwrap()
}

fn meta(directory: &Path, of: &str) -> i64 {
    let connection = rusqlite::Connection::open(options(directory).path).unwrap();
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [of], |row| row.get(0)).unwrap()
}

fn upload(size: u64) -> Upload {
    Upload {
        id: UploadId::from_bytes([7; 16]),
        owner: "ann".to_owned(),
        target: Target {
            bucket: name("bucket"),
            key: Key::parse("k").unwrap(),
            content_type: "a/b".to_owned(),
            metadata: [("a".to_owned(), "b".to_owned())].into(),
        },
        shape: Shape::Parts(PartPlan::new(size, Some(100), NonZeroU64::MIN).unwrap()),
        echo: Echo::default(),
        expected: Vec::new(),
        precondition: Precondition::None,
        told: false,
        wants_sha256: false,
        direct: false,
        state: UploadState::Open,
        created_at: NOW,
        expires_at: NOW,
    }
}

fn extent(offset: u64) -> StoredExtent {
    let mut hasher = PieceHasher::new(offset);
    hasher.update(&[1; 100]);
    StoredExtent { piece: hasher.finish(), blake3: [1; 32], receipt: Receipt::new() }
}

#[test]
fn a_copy_leaves_out_nothing_by_oversight() {
    let folder = TempDir::new().unwrap();
    drop(open(folder.path()));
    let connection = rusqlite::Connection::open(options(folder.path()).path).unwrap();
    let sql = "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).unwrap();
    let found: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    crate::check_columns(found.into_iter());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    let directories = Mutex::new(Vec::new());
    conformance::run(async || {
        let directory = TempDir::new().unwrap();
        let catalog = open(directory.path());
        directories.lock().unwrap().push(directory);
        Arc::new(catalog) as Arc<dyn Catalog>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_events() {
    let directories = Mutex::new(Vec::new());
    conformance::events::run(async || {
        let directory = TempDir::new().unwrap();
        let catalog = open(directory.path());
        directories.lock().unwrap().push(directory);
        Arc::new(catalog)
    })
    .await;
}

#[tokio::test]
async fn keeps_everything_when_dropped_without_close() {
    let directory = TempDir::new().unwrap();
    let catalog = open(directory.path());
    let (bucket, _) =
        catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(Some(1 << 40)), NOW).await.unwrap();
    catalog.create_upload(&upload(200)).await.unwrap();
    catalog.record_extent(&upload(200).id, &extent(100), NOW).await.unwrap();
    drop(catalog);
    assert_eq!(meta(directory.path(), "clean"), 0);
    let catalog = open(directory.path());
    assert_eq!(
        catalog.bucket(&name("bucket")).await.unwrap().settings.quota_bytes,
        bucket.settings.quota_bytes
    );
    assert_eq!(catalog.upload(&upload(200).id).await.unwrap(), upload(200));
    assert_eq!(catalog.extents(&upload(200).id).await.unwrap(), [extent(100)]);
    catalog.close().await.unwrap();
    catalog.close().await.expect("closing twice is closing once");
    assert_eq!(meta(directory.path(), "clean"), 1);
    drop(open(directory.path()));
    assert_eq!(meta(directory.path(), "clean"), 0, "cleared while it is open");
}

/// The files as they lie there while the catalog runs are what a kill would leave.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (directory, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let catalog = open(directory.path());
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(None), NOW).await.unwrap();
    catalog.create_upload(&upload(200)).await.unwrap();
    for (number, offset) in [(0, 0), (1, 100)] {
        catalog.record_extent(&upload(200).id, &extent(offset), NOW).await.unwrap();
        let target = copy.path().join(number.to_string());
        std::fs::create_dir(&target).unwrap();
        for file in ["catalog.sqlite", "catalog.sqlite-wal"] {
            std::fs::copy(directory.path().join(file), target.join(file)).unwrap();
        }
        let extents = open(&target).extents(&upload(200).id).await.unwrap();
        assert_eq!(extents.last(), Some(&extent(offset)));
        assert_eq!(extents.len(), number + 1);
    }
}

#[tokio::test]
async fn close_empties_the_log() {
    let directory = TempDir::new().unwrap();
    let catalog = open(directory.path());
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(None), NOW).await.unwrap();
    catalog.close().await.unwrap();
    let log = directory.path().join("catalog.sqlite-wal");
    assert!(!log.exists() || std::fs::metadata(log).unwrap().len() == 0);
    let error = catalog.put_bucket(&name("other"), &BucketSettings::of_quota(None), NOW).await.unwrap_err();
    assert_eq!(error.code(), Code::ShuttingDown);
}

/// What was accepted before `close` is written, whoever still waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn close_under_load_loses_nothing_that_was_acknowledged() {
    let directory = TempDir::new().unwrap();
    let catalog = Arc::new(open(directory.path()));
    let mut set = JoinSet::new();
    for number in 0..200 {
        let catalog = Arc::clone(&catalog);
        set.spawn(async move {
            (
                number,
                catalog.put_bucket(&name(&format!("b-{number}")), &BucketSettings::of_quota(None), NOW).await,
            )
        });
    }
    tokio::task::yield_now().await;
    catalog.close().await.unwrap();
    let results = set.join_all().await;
    let catalog = open(directory.path());
    for (number, result) in results {
        let found = catalog.bucket(&name(&format!("b-{number}"))).await;
        match result {
            Ok((_, outcome)) => assert_eq!((outcome, found.is_ok()), (Outcome::Created, true)),
            Err(error) => assert_eq!((error.code(), found.is_err()), (Code::ShuttingDown, true)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_changes_share_commits() {
    let directory = TempDir::new().unwrap();
    let catalog = Arc::new(open(directory.path()));
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(None), NOW).await.unwrap();
    catalog.create_upload(&upload(20_000)).await.unwrap();
    let before = catalog.commits();
    let mut set = JoinSet::new();
    for number in 0..200 {
        let catalog = Arc::clone(&catalog);
        set.spawn(async move { catalog.record_extent(&upload(0).id, &extent(number * 100), NOW).await });
    }
    for result in set.join_all().await {
        result.unwrap();
    }
    let commits = catalog.commits() - before;
    assert!(commits < 100, "{commits} commits for 200 changes");
    assert_eq!(catalog.extents(&upload(0).id).await.unwrap().len(), 200);
}

/// A command that fails within a shared transaction takes nothing of its neighbours with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failures_do_not_touch_their_neighbours() {
    let directory = TempDir::new().unwrap();
    let catalog = Arc::new(open(directory.path()));
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(Some(1000)), NOW).await.unwrap();
    let mut set = JoinSet::new();
    for number in 0..100u8 {
        let catalog = Arc::clone(&catalog);
        let mut upload = upload(if number % 2 == 0 { 10 } else { 5000 });
        upload.id = UploadId::from_bytes([number; 16]);
        set.spawn(async move { (number, catalog.create_upload(&upload).await) });
    }
    for (number, result) in set.join_all().await {
        assert_eq!(result.is_ok(), number % 2 == 0);
    }
    assert_eq!(catalog.bucket(&name("bucket")).await.unwrap().reserved_bytes, 500);
    assert_eq!(catalog.open_uploads().await.unwrap(), 50);
}

#[tokio::test]
async fn a_visitor_that_panics_costs_no_connection() {
    let directory = TempDir::new().unwrap();
    let catalog = open(directory.path());
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(None), NOW).await.unwrap();
    let file = carrack_catalog::NewFile {
        target: upload(0).target,
        blob: carrack_domain::file::Blob {
            id: carrack_domain::BlobId::from_bytes([1; 16]),
            size: 0,
            digest: extent(0).piece.content().unwrap(),
            pieces: None,
        },
        content: None,
        precondition: carrack_domain::file::Precondition::None,
        created_at: NOW,
        created_by: "ann".to_owned(),
        origin: carrack_catalog::Origin::Request,
    };
    catalog.commit_file(file).await.unwrap();
    for _ in 0..5 {
        let visit = Box::new(|_: carrack_catalog::Member<'_>| panic!("visitor"));
        let error = catalog.scan(&name("bucket"), &Default::default(), visit).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
    }
    let visit = Box::new(|_: carrack_catalog::Member<'_>| Ok(()));
    catalog.scan(&name("bucket"), &Default::default(), visit).await.unwrap();
    catalog.check().await.unwrap();
    catalog.close().await.unwrap();
}

#[tokio::test]
async fn newer_schema_is_refused() {
    let directory = TempDir::new().unwrap();
    open(directory.path()).close().await.unwrap();
    let path = options(directory.path()).path;
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 700).unwrap();
    let error = refused(directory.path());
    let OpenError::Newer { found: 700, known, .. } = error else { panic!("{error}") };
    let sentence = format!(
        "The catalog {} has schema version 700, this carrack knows {known}: use the newer binary that wrote it.",
        path.display()
    );
    assert_eq!(Error::from(error).detail(), sentence);
}

#[tokio::test]
async fn what_is_not_a_catalog_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = options(directory.path()).path;
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Damaged { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), "x".repeat(10_000).into_bytes(), "and left as it was");

    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = refused(directory.path());
    assert!(error.to_string().contains("another program"), "{error}");

    assert!(matches!(refused(&directory.path().join("nowhere")), OpenError::Io { .. }));
}

#[tokio::test]
async fn damage_is_found_after_an_unclean_stop() {
    let directory = TempDir::new().unwrap();
    let catalog = open(directory.path());
    catalog.put_bucket(&name("bucket"), &BucketSettings::of_quota(None), NOW).await.unwrap();
    drop(catalog);
    let path = options(directory.path()).path;
    let mut bytes = std::fs::read(&path).unwrap();
    let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    // Not the first page, which has the schema; some of the others are read only by a check.
    bytes[2 * page..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Damaged { .. }));
}

#[tokio::test]
async fn a_locked_database_is_refused() {
    let directory = TempDir::new().unwrap();
    open(directory.path()).close().await.unwrap();
    let holder = rusqlite::Connection::open(options(directory.path()).path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(refused(directory.path()), OpenError::Locked { .. }));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    open(directory.path()).close().await.unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let probe = directory.path().join("probe");
    if std::fs::write(&probe, "").is_err() {
        assert!(matches!(refused(directory.path()), OpenError::ReadOnly { .. }));
    } else {
        // Root may write anywhere but where the kernel allows no files at all.
        std::fs::remove_file(probe).unwrap();
        assert!(matches!(refused(Path::new("/sys")), OpenError::ReadOnly { .. }));
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What version 1 wrote is there after the upgrade, and works with what is new.
#[tokio::test]
async fn a_catalog_of_version_1_is_upgraded() {
    let directory = TempDir::new().unwrap();
    let connection = rusqlite::Connection::open(options(directory.path()).path).unwrap();
    connection.execute_batch(include_str!("../../migrations/sqlite/0001_facts.sql")).unwrap();
    let (id, fragment) = ("x'07070707070707070707070707070707'", extent(0).piece.fragment.encode());
    connection
        .execute_batch(&format!(
            "PRAGMA user_version = 1; PRAGMA application_id = {}; \
             INSERT INTO bucket VALUES (1, 'bucket', NULL, 5, 200, 1, 9, 0); \
             INSERT INTO blob VALUES ({id}, 5, 1, zeroblob(32), NULL, 1); \
             INSERT INTO file VALUES (1, CAST('old' AS BLOB), {id}, 5, 1, zeroblob(32), NULL, 0, 'ann', 'a/b', '{{}}'); \
             INSERT INTO upload VALUES ({id}, 'ann', 'bucket', CAST('k' AS BLOB), 200, 100, 0, 0, NULL, {now}, {now}, '', \
             'a/b', '{{\"a\":\"b\"}}', NULL)",
            0x4352_434b,
            now = NOW.as_millis(),
        ))
        .unwrap();
    let line = extent(0);
    connection
        .execute(
            &format!("INSERT INTO extent VALUES ({id}, 0, 100, ?1, ?2, ?3)"),
            (line.piece.crc32, line.blake3, fragment),
        )
        .unwrap();
    drop(connection);

    let catalog = open(directory.path());
    assert_eq!(catalog.upload(&upload(200).id).await.unwrap(), upload(200));
    assert_eq!(catalog.extents(&upload(200).id).await.unwrap(), [line]);
    let file = catalog.file(&name("bucket"), &Key::parse("old").unwrap()).await.unwrap();
    assert_eq!((file.blob.pieces.as_ref(), file.blob.blake3()), (None, Some([0; 32])));
    assert!(catalog.is_stored(&file.blob.id).await.unwrap());
    let new = Upload {
        id: UploadId::from_bytes([8; 16]),
        shape: Shape::Append { length: None, partial: false },
        ..upload(0)
    };
    catalog.create_upload(&new).await.unwrap();
    let taken = catalog.take_over(&new.id, None).await.unwrap();
    catalog.append(&new.id, taken.epoch, &extent(0).piece, &Receipt::new(), NOW).await.unwrap();
    assert_eq!(catalog.bucket(&name("bucket")).await.unwrap().reserved_bytes, 300);
    catalog.record_extent(&upload(200).id, &extent(100), NOW).await.unwrap();
    let finish = catalog.begin_finish(&upload(200).id, carrack_domain::BlobId::from_bytes([9; 16])).await;
    assert_eq!(finish.unwrap(), carrack_catalog::Finish::Begun);
    catalog.close().await.unwrap();
    drop(catalog);
    drop(open(directory.path()));
}
