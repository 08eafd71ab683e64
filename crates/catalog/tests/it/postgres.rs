use carrack_catalog::{AuditCatalog, Catalog, PostgresCatalog, PostgresError, PostgresOptions, conformance};
use carrack_domain::audit::verify::{Signed, Verifier};
use carrack_domain::file::BucketSettings;
use carrack_domain::{BucketName, Clock, Code, Timestamp};
use carrack_engines::Postgres;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A server, and databases of its own for each test.
struct Server {
    postgres: Postgres,
    made: AtomicU32,
    _folder: TempDir,
}

impl Server {
    fn start() -> Server {
        let folder = TempDir::new().unwrap();
        let postgres = Postgres::start(folder.path()).unwrap();
        Server { postgres, made: AtomicU32::new(0), _folder: folder }
    }

    /// An empty database: its name and URL.
    fn database(&self) -> (String, String) {
        let name = format!("d{}", self.made.fetch_add(1, Ordering::Relaxed));
        let url = self.postgres.database(&name).unwrap();
        (name, url)
    }
}

fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.to_owned(),
        connections: 4,
        queue: 64,
        audit: Some(Arc::new(Standing)),
        events: Some(Arc::new(Standing)),
        migrate: true,
    }
}

async fn open(url: &str) -> PostgresCatalog {
    PostgresCatalog::open(options(url)).await.unwrap()
}

async fn refused(url: &str) -> PostgresError {
    match PostgresCatalog::open(options(url)).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn name(text: &str) -> BucketName {
    BucketName::parse(text).unwrap()
}

async fn put(catalog: &PostgresCatalog, bucket: &str) -> carrack_domain::Result<()> {
    let none = BucketSettings::of_quota(None);
    catalog.put_bucket(&name(bucket), &none, NOW).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    let server = Server::start();
    conformance::run(async || {
        let (_, url) = server.database();
        Arc::new(open(&url).await) as Arc<dyn Catalog>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_events() {
    let server = Server::start();
    conformance::events::run(async || {
        let (_, url) = server.database();
        Arc::new(open(&url).await)
    })
    .await;
}

/// There, back, and from one database to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_go_from_each_kind_to_each() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    let number = AtomicU32::new(0);
    let sqlite = async || {
        let folder = folder.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&folder).unwrap();
        Arc::new(crate::sqlite::open(&folder))
    };
    let postgres = async || Arc::new(open(&server.database().1).await);
    conformance::copies::run(&sqlite, &postgres).await;
    conformance::copies::run(&postgres, &sqlite).await;
    conformance::copies::run(&postgres, &postgres).await;
    conformance::copies::run(&sqlite, &sqlite).await;
}

/// A copy has every column, except where it is said why not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_leaves_out_nothing_by_oversight() {
    let server = Server::start();
    let (name, url) = server.database();
    drop(open(&url).await);
    let sql = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'";
    let found = server.postgres.run(&name, sql).unwrap();
    crate::check_columns(found.lines().map(str::to_owned));
}

/// Whatever several nodes write at the same time is one chain, and shares commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_write_at_once_make_one_log() {
    const EACH: usize = 100;
    let server = Server::start();
    let (_, url) = server.database();
    // Of nodes that start at once one makes the schema.
    let (one, two, three) = tokio::join!(open(&url), open(&url), open(&url));
    let nodes = [one, two, three].map(Arc::new);
    let mut set = JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        for change in 0..EACH {
            let node = node.clone();
            set.spawn(async move { put(&node, &format!("b-{number}-{change}")).await });
        }
    }
    for put in set.join_all().await {
        put.unwrap();
    }
    let commits: u64 = nodes.iter().map(|node| node.commits()).sum();
    assert!(commits < 200, "{commits} commits for 300 changes");
    assert_eq!(nodes[0].buckets().await.unwrap().len(), 3 * EACH);
    let mut verifier = Verifier::new([[].into_iter()], |_| Signed::Good);
    let (mut lines, mut after) = (0, 0);
    loop {
        let blocks = nodes[1].audit_blocks(after).await.unwrap();
        let Some(last) = blocks.last() else { break };
        after = last.header.block;
        for block in blocks {
            let text = block.text.unwrap();
            lines += text.iter().filter(|byte| **byte == b'\n').count();
            verifier.block(&block.header, &text);
        }
    }
    assert_eq!(verifier.finish().findings, []);
    assert_eq!(lines, 3 * EACH);
}

/// What was acknowledged is there after the server was killed, and everything works again without a restart of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_loses_nothing_and_is_found_again() {
    let mut server = Server::start();
    let (_, url) = server.database();
    let catalog = Arc::new(open(&url).await);
    let mut set = JoinSet::new();
    for number in 0..400 {
        let catalog = catalog.clone();
        set.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            let bucket = format!("b-{number}");
            let put = put(&catalog, &bucket).await;
            (bucket, put)
        });
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    tokio::task::block_in_place(|| server.postgres.kill());
    let error = put(&catalog, "meanwhile").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert_eq!(catalog.buckets().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(catalog.check().await.unwrap_err().code(), Code::Unavailable);
    tokio::task::block_in_place(|| server.postgres.start_again().unwrap());
    let begun = Instant::now();
    while let Err(error) = put(&catalog, "afterwards").await {
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut kept, mut lost) = (0, 0);
    for (bucket, put) in set.join_all().await {
        match put {
            Ok(()) => {
                catalog.bucket(&name(&bucket)).await.expect("it was acknowledged");
                kept += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Code::Unavailable, "{error:?}");
                lost += 1;
            }
        }
    }
    assert!(kept > 0 && lost > 0, "{kept} kept, {lost} refused");
    catalog.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stands_still_is_given_up_and_found_again() {
    let server = Server::start();
    let (_, url) = server.database();
    let catalog = open(&url).await;
    put(&catalog, "before").await.unwrap();
    server.postgres.freeze();
    let begun = Instant::now();
    let (read, written) = tokio::join!(catalog.buckets(), put(&catalog, "meanwhile"));
    assert_eq!(read.unwrap_err().code(), Code::Unavailable);
    assert_eq!(written.unwrap_err().code(), Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    server.postgres.thaw();
    let begun = Instant::now();
    while put(&catalog, "afterwards").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    catalog.bucket(&name("before")).await.unwrap();
}

/// A node that stands still in the middle of its turn does not keep the others from theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_turn_that_is_not_ended_is_taken_away() {
    let server = Server::start();
    let (database, url) = server.database();
    let catalog = open(&url).await;
    let sleeper = std::thread::spawn({
        let url = url.clone();
        move || {
            // As a node does that was stopped between two statements.
            let sql = "SET idle_in_transaction_session_timeout = '2s'; BEGIN; \
                       SELECT pg_advisory_xact_lock(x'006361727261636b'::bigint); \
                       SELECT 1";
            std::process::Command::new("psql")
                .args(["-X", "-q", &url])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .and_then(|mut psql| {
                    use std::io::Write;
                    let mut input = psql.stdin.take().unwrap();
                    writeln!(input, "{sql};")?;
                    std::thread::sleep(Duration::from_secs(8));
                    drop(input);
                    psql.wait()
                })
                .unwrap();
        }
    });
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    while server.postgres.run(&database, held).unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    put(&catalog, "bucket").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    sleeper.join().unwrap();
}

#[tokio::test]
async fn each_reason_not_to_start_has_its_words() {
    let server = Server::start();
    let (database, url) = server.database();
    let said = async |url: &str| {
        let error = refused(url).await.to_string();
        assert!(!error.contains("engine") && !error.contains("secret"), "no password: {error}");
        error
    };
    assert!(said(&url.replace(":engine@", ":secret@")).await.contains("refuses these credentials"));
    assert!(said(&url.replace(&format!("/{database}"), "/nowhere")).await.contains("no such database"));
    assert!(said("postgres://carrack:secret@127.0.0.1").await.contains("names no database"));
    assert!(said("postgres://carrack:secret@127.0.0.1:5x/d").await.contains("catalog.url"));
    server
        .postgres
        .run(&database, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"))
        .unwrap();
    assert!(said(&url).await.contains("takes no changes"));

    let (database, url) = server.database();
    server.postgres.run(&database, "CREATE TABLE bucket (n int)").unwrap();
    assert!(said(&url).await.contains("used by another program"));
    assert_eq!(
        server.postgres.run(&database, "SELECT to_regclass('carrack_migration') IS NULL").unwrap(),
        "t"
    );

    server
        .postgres
        .run(
            "postgres",
            "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        )
        .unwrap();
    assert!(said(&server.postgres.url("latin")).await.contains("UTF8"));
}

#[tokio::test]
async fn versions_side_by_side() {
    let server = Server::start();
    let (database, url) = server.database();
    let mut as_it_is = options(&url);
    as_it_is.migrate = false;
    let error = PostgresCatalog::open(as_it_is.clone()).await.err().unwrap();
    assert!(matches!(error, PostgresError::Outdated { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("carrack migrate"), "{error}");

    let done = PostgresCatalog::migrate(&url).await.unwrap();
    assert_eq!((done.from, done.applied.len() as i64), (0, done.to));
    let again = PostgresCatalog::migrate(&url).await.unwrap();
    assert_eq!((again.from, again.to, again.applied.len()), (done.to, done.to, 0));
    let catalog = PostgresCatalog::open(as_it_is).await.unwrap();
    put(&catalog, "bucket").await.unwrap();

    // The next version adds what this one does not mind; the one after needs a newer binary.
    let (next, after) = (done.to + 1, done.to + 2);
    let insert = |version, needs| {
        let sql = format!(
            "INSERT INTO carrack_migration (version, name, needs) VALUES ({version}, 'later', {needs})"
        );
        server.postgres.run(&database, &sql).unwrap();
    };
    insert(next, done.to);
    put(&open(&url).await, "other").await.unwrap();
    insert(after, next);
    let error = refused(&url).await;
    assert!(error.to_string().contains("use the newer binary"), "{error}");
    put(&catalog, "third").await.expect("who runs goes on");
}
