//! A catalog in PostgreSQL: everything works, on one node and on two, and a database that goes and comes costs answers of
//! 503 and nothing else.

use crate::access::{Caller, make_token};
use crate::contract::answers::json;
use crate::server::{Server, Setup, TOKEN, content, without_variables};
use crate::tus;
use carrack_engines::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json as value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Everything is well again within this time.
const RECOVERY: Duration = Duration::from_secs(10);

/// A server of PostgreSQL with one empty database, and a data folder.
pub(super) struct Ground {
    postgres: Postgres,
    url: String,
    folder: TempDir,
}

impl Ground {
    pub(super) fn new() -> Ground {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("postgres")).unwrap();
        // Whoever the server runs as must find its way.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let postgres = Postgres::start(&folder.path().join("postgres")).unwrap();
        let url = postgres.database("carrack").unwrap();
        Ground { postgres, url, folder }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn node(&self) -> Setup {
        Setup::new().data(&self.data()).set("CARRACK_CATALOG__URL", &self.url)
    }

    pub(super) fn shared(&self) -> Setup {
        self.node().set("CARRACK_STORAGE__SHARED", "true")
    }

    /// What a start says that is refused.
    fn refused(&self, data: &Path, variables: &[(&str, &str)]) -> String {
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .current_dir(self.folder.path())
            .env("CARRACK_ROOT_TOKEN", TOKEN)
            .env("CARRACK_CATALOG__URL", &self.url)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("engine") && !said.contains("secret"), "no password: {said}");
        said
    }
}

async fn store(server: &Server, key: &str, bytes: &[u8]) {
    let path = format!("/v1/files/default/{key}");
    let stored = server.put(&path).body(bytes.to_vec()).send().await.unwrap();
    assert!(stored.status().is_success(), "{}", stored.text().await.unwrap());
}

async fn load(server: &Server, key: &str) -> Vec<u8> {
    let got = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
    assert_eq!(got.status(), 200, "{key}");
    got.bytes().await.unwrap().to_vec()
}

/// `carrack audit verify`, which must find the log whole.
fn verify(ground: &Ground) {
    let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
        .args(["audit", "verify", "--data"])
        .arg(ground.data())
        .current_dir(ground.folder.path())
        .env("CARRACK_CATALOG__URL", &ground.url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("whole: "), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Uploads in parts, of which `send(number)` says by which server.
async fn in_parts<'a>(send: impl Fn(usize) -> &'a Server, key: &str, bytes: &[u8]) {
    const PART: usize = 1 << 20;
    let wish = value!({"bucket": "default", "key": key, "size": bytes.len(), "part_size": PART});
    let made = json(send(0).post("/v1/uploads").json(&wish).send().await.unwrap(), 201).await;
    let upload = format!("/v1/uploads/{}", made["upload_id"].as_str().unwrap());
    for (number, part) in bytes.chunks(PART).enumerate() {
        let path = format!("{upload}/parts/{}", number + 1);
        let stored = send(number).put(&path).body(part.to_vec()).send().await.unwrap();
        assert!(stored.status().is_success(), "{}", stored.text().await.unwrap());
    }
    let done = send(1).post(&format!("{upload}/complete")).json(&value!({})).send().await.unwrap();
    assert!(done.status().is_success(), "{}", done.text().await.unwrap());
}

/// Asks for an archive; its path.
async fn ask(server: &Server, prefix: &str) -> String {
    let wish = value!({
        "name": "a", "bucket": "default", "prefix": prefix, "format": "zip", "compression": "deflate"
    });
    let made: Value = server.post("/v1/archives").json(&wish).send().await.unwrap().json().await.unwrap();
    format!("/v1/archives/{}", made["id"].as_str().unwrap())
}

/// The archive once it is so.
async fn until(server: &Server, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let now = json(server.get(path).send().await.unwrap(), 200).await;
        if is_so(&now) {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn archive(server: &Server, prefix: &str) -> Value {
    let path = ask(server, prefix).await;
    until(server, &path, |now| now["state"] == "completed").await
}

#[tokio::test]
async fn everything_works_on_postgres() {
    let ground = Ground::new();
    let mut server = ground.node().start();
    let (small, large) = (content(1000, 1), content(3_000_000, 2));
    store(&server, "dir/small", &small).await;
    store(&server, "dir/large", &large).await;
    in_parts(|_| &server, "dir/parts", &large).await;
    let url =
        tus::create(&server, &[("Upload-Length", "1000"), ("Upload-Metadata", &tus::key("dir/tus"))]).await;
    assert_eq!(tus::patch(&server, &url, 0, &small[..400]).send().await.unwrap().status(), 204);
    assert_eq!(tus::patch(&server, &url, 400, &small[400..]).send().await.unwrap().status(), 204);
    for (key, bytes) in
        [("dir/small", &small), ("dir/large", &large), ("dir/parts", &large), ("dir/tus", &small)]
    {
        assert!(load(&server, key).await == *bytes, "{key}");
    }
    let listed = json(server.get("/v1/files/default?prefix=dir/").send().await.unwrap(), 200).await;
    assert_eq!(listed["files"].as_array().unwrap().len(), 4, "{listed}");
    let zip = server.get("/v1/zip/default?prefix=dir/").send().await.unwrap();
    assert_eq!(zip.status(), 200);
    assert!(zip.bytes().await.unwrap().len() > 6_000_000);
    let made = archive(&server, "dir/").await;
    assert_eq!(made["progress"]["entries_total"], 4, "{made}");
    assert_eq!(server.delete("/v1/files/default/dir/small").send().await.unwrap().status(), 204);
    let log = json(server.get("/v1/audit?action=file.put").send().await.unwrap(), 200).await;
    let changes = log["records"].as_array().unwrap().iter().filter(|record| record["kind"] == "change");
    assert_eq!(changes.count(), 4, "{log}");
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("carrack_catalog_pool_connections"), "{metrics}");
    server.stop();
    verify(&ground);

    // What was written is there after a restart, also one that was not asked for.
    let mut server = ground.node().start();
    assert!(load(&server, "dir/large").await == large);
    server.kill();
    let server = ground.node().start();
    assert!(load(&server, "dir/tus").await == small);
}

#[tokio::test]
async fn two_nodes_are_one() {
    let ground = Ground::new();
    let mut nodes = [ground.shared().start(), ground.shared().start()];
    let [one, two] = &nodes;
    let bytes = content(5_000_000, 1);
    store(one, "f", &bytes).await;
    assert!(load(two, "f").await == bytes);
    store(two, "f", &bytes[..70_000]).await;
    assert!(load(one, "f").await == bytes[..70_000], "what is replaced on one is so on the other");
    in_parts(|number| &nodes[number % 2], "parts", &bytes).await;
    assert!(load(one, "parts").await == bytes);

    let length = bytes.len().to_string();
    let fields = [("Upload-Length", length.as_str()), ("Upload-Metadata", &tus::key("tus"))];
    let url = tus::create(one, &fields).await;
    let path = url.strip_prefix(&one.base).unwrap();
    let mut at = 0;
    for (turn, piece) in bytes.chunks(1_300_000).enumerate() {
        let node = &nodes[turn % 2];
        assert_eq!(tus::offset(node, path).await, Ok(Some(at)));
        assert_eq!(tus::patch(node, path, at, piece).send().await.unwrap().status(), 204);
        at += piece.len();
    }
    assert!(load(two, "tus").await == bytes);
    let made = archive(two, "").await;
    let got =
        one.get(&format!("/v1/archives/{}/content", made["id"].as_str().unwrap())).send().await.unwrap();
    assert_eq!(got.status(), 200, "made by whichever, read from the other");
    for node in &mut nodes {
        node.stop();
    }
    verify(&ground);
}

/// Nobody can tell the other node: what it has kept holds for no longer than two seconds.
#[tokio::test]
async fn without_redis_what_one_node_takes_away_the_other_refuses_soon() {
    const SOON: Duration = Duration::from_secs(2);
    let ground = Ground::new();
    let nodes = [ground.shared().start(), ground.shared().start()];
    store(&nodes[0], "f", b"bytes").await;
    let rules = |action: &str| value!([{"effect": "allow", "actions": [action], "to": ["role:user"]}]);
    let (allow, refuse) = (rules("read"), rules("list"));
    let put = async |node: &Server, rules: &Value| {
        let settings = value!({"policy": {"rules": rules}});
        let answer = node.put("/v1/buckets/default").json(&settings).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    for (one, two) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (token, id) = make_token(one, value!({"subject": "ann", "role": "user"})).await;
        let ann = Caller::with(two, &token);
        let turned = async |status: u16| {
            let begun = Instant::now();
            // Asked for all the time, so that whatever is kept is kept warm.
            while ann.get("/v1/files/default/f").await.status() != status {
                assert!(begun.elapsed() < SOON, "not {status} within {SOON:?}");
            }
        };
        for _ in 0..2 {
            put(one, &allow).await;
            turned(200).await;
            put(one, &refuse).await;
            turned(403).await;
        }
        put(one, &allow).await;
        turned(200).await;
        assert_eq!(one.delete(&format!("/v1/tokens/{id}")).send().await.unwrap().status(), 204);
        turned(401).await;
    }
}

/// A node that is killed leaves its job and its upload to the other, which waits no longer than for the lease.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_was_at_goes_on_at_the_other() {
    let ground = Ground::new();
    let workers = |setup: Setup, of: &str| setup.set("CARRACK_ARCHIVES__WORKERS", of).start();
    let (mut one, two) = (workers(ground.shared(), "1"), workers(ground.shared(), "1"));
    let text = "a line that becomes smaller \n".repeat(200_000);
    for number in 0..60 {
        store(&one, &format!("many/{number}"), format!("{number}{text}").as_bytes()).await;
    }
    let fields = [("Upload-Length", "2000"), ("Upload-Metadata", &tus::key("tus"))];
    let url = tus::create(&one, &fields).await;
    let upload = url.strip_prefix(&one.base).unwrap().to_owned();
    let bytes = content(2000, 1);
    assert_eq!(tus::patch(&one, &upload, 0, &bytes[..700]).send().await.unwrap().status(), 204);
    let path = ask(&one, "many/").await;
    until(&two, &path, |now| now["state"] == "running").await;
    one.kill();
    let done = until(&two, &path, |now| now["state"] == "completed").await;
    assert_eq!(done["progress"]["entries_total"], 60);
    assert_eq!(tus::offset(&two, &upload).await, Ok(Some(700)), "what was acknowledged");
    assert_eq!(tus::patch(&two, &upload, 700, &bytes[700..]).send().await.unwrap().status(), 204);
    assert!(load(&two, "tus").await == bytes);
}

/// What a client does that goes on as long as it is told to: the keys that were acknowledged, and the other answers.
async fn write_until(server: Arc<Server>, name: usize, stop: Arc<AtomicBool>) -> (Vec<String>, Vec<u16>) {
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("w{name}/{number}");
        // Small ones go into the catalog, large ones beside it.
        let bytes = content(if number.is_multiple_of(2) { 500 } else { 50_000 }, number);
        let answer = server.put(&format!("/v1/files/default/{key}")).body(bytes).send().await.unwrap();
        match answer.status() {
            StatusCode::CREATED => kept.push(key),
            status => {
                assert!(answer.headers().contains_key("retry-after"), "{status}");
                others.push(status.as_u16());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    (kept, others)
}

/// The first success after a fault, and how long it took.
async fn recovered(server: &Server, key: &str) {
    let begun = Instant::now();
    loop {
        let put = server.put(&format!("/v1/files/default/{key}")).body("x").send().await.unwrap();
        if put.status().is_success() {
            return;
        }
        assert!(begun.elapsed() < RECOVERY, "{}: {}", put.status(), server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_and_comes_loses_nothing_acknowledged() {
    let mut ground = Ground::new();
    let server = Arc::new(ground.node().start());
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for name in 0..6 {
        writers.spawn(write_until(server.clone(), name, stop.clone()));
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    tokio::task::block_in_place(|| ground.postgres.kill());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let down = server.get("/v1/files/default/absent").send().await.unwrap();
    assert_eq!(down.status(), 503);
    assert_eq!(down.json::<Value>().await.unwrap()["code"], "unavailable");
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 503);
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200);
    tokio::task::block_in_place(|| ground.postgres.start_again().unwrap());
    recovered(&server, "after-kill").await;
    ground.postgres.freeze();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let frozen =
        tokio::time::timeout(Duration::from_secs(30), server.put("/v1/files/default/f").body("x").send());
    assert_eq!(frozen.await.unwrap().unwrap().status(), 503);
    ground.postgres.thaw();
    recovered(&server, "after-freeze").await;
    tokio::task::block_in_place(|| {
        ground.postgres.stop();
        ground.postgres.start_again().unwrap();
    });
    recovered(&server, "after-restart").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    for (keys, answers) in writers.join_all().await {
        kept.extend(keys);
        others.extend(answers);
    }
    assert!(others.iter().all(|status| *status == 503) && !others.is_empty(), "{others:?}");
    for key in &kept {
        let (_, number) = key.split_once('/').unwrap();
        let number: u64 = number.parse().unwrap();
        let bytes = content(if number.is_multiple_of(2) { 500 } else { 50_000 }, number);
        assert!(load(&server, key).await == bytes, "{key} was acknowledged");
    }
    let mut server = Arc::into_inner(server).unwrap();
    server.stop();
    verify(&ground);
}

#[tokio::test]
async fn what_is_unsafe_is_refused_at_the_start() {
    let ground = Ground::new();
    let server = ground.node().start();
    let elsewhere = ground.folder.path().join("elsewhere");
    let said = ground.refused(&ground.data(), &[]);
    assert!(said.contains("in use by another carrack"), "{said}");
    let said = ground.refused(&ground.data(), &[("CARRACK_STORAGE__SHARED", "true")]);
    assert!(said.contains("in use by another carrack"), "the first does not share: {said}");
    let said = ground.refused(&elsewhere, &[]);
    assert!(said.contains("storage.shared = true"), "{said}");
    let said = ground.refused(&elsewhere, &[("CARRACK_STORAGE__SHARED", "true")]);
    assert!(said.contains("belongs to files that are stored elsewhere"), "{said}");
    let sqlite = [("CARRACK_STORAGE__SHARED", "true"), ("CARRACK_CATALOG__URL", "sqlite")];
    assert!(ground.refused(&elsewhere, &sqlite).contains("setting storage.shared"));
    let wrong = [("CARRACK_CATALOG__URL", "mysql://a:secret@b/c")];
    assert!(ground.refused(&elsewhere, &wrong).contains("setting catalog.url"));
    let wrong = ground.url.replace(":engine@", ":secret@");
    let said = ground.refused(&elsewhere, &[("CARRACK_CATALOG__URL", &wrong)]);
    assert!(said.contains("refuses these credentials"), "{said}");
    store(&server, "f", b"bytes that are still there").await;
}

#[tokio::test]
async fn migrate_says_what_it_did() {
    let ground = Ground::new();
    let migrate = |variables: &[(&str, &str)]| {
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .arg("migrate")
            .current_dir(ground.folder.path())
            .env("CARRACK_CATALOG__URL", &ground.url)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let not_yet = ground.refused(&ground.data(), &[("CARRACK_CATALOG__MIGRATE", "false")]);
    assert!(not_yet.contains("carrack migrate"), "{not_yet}");
    assert!(migrate(&[]).starts_with("schema version 0 -> "));
    assert!(migrate(&[]).ends_with("nothing to do\n"));
    assert!(migrate(&[("CARRACK_CATALOG__URL", "sqlite")]).contains("SQLite"));
    let server = ground.node().set("CARRACK_CATALOG__MIGRATE", "false").start();
    let ready = server.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 200);
}
