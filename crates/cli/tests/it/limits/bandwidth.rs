//! Bytes per second. Too fast is a fault wherever it shows; too slow may be the machine's, so there the bounds are wide.
//! The figures are in `bench/limits.py`.

use crate::access::Caller;
use crate::contract::answers::{eventually, json, store, until};
use crate::server::{Server, Setup, TOKEN, content};
use crate::tls::{curl, https};
use reqwest::Method;
use serde_json::json as value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const FILE: &str = "/v1/files/default/f";
const MB: u64 = 1_000_000;
const LEN: u64 = 64 * MB;

async fn serve(setup: Setup, settings: &[(&str, &str)]) -> Server {
    let set =
        |setup: Setup, (name, value): &(&str, &str)| setup.set(&format!("CARRACK_LIMITS__{name}"), value);
    let server = settings.iter().fold(setup, set).start();
    // What an administrator sends is not limited here.
    store(&server, FILE, &content(LEN as usize, 1)).await;
    server
}

/// Reads of a URL over so many connections until dropped; what has come.
fn read(caller: &Caller<'_>, url: &str, connections: usize) -> (JoinSet<()>, Arc<AtomicU64>) {
    let got = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (request, got) = (caller.request(Method::GET, url), got.clone());
        tasks.spawn(async move {
            let mut answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            while let Some(bytes) = answer.chunk().await.unwrap() {
                got.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        });
    }
    (tasks, got)
}

/// Bytes per second of each of these, over two seconds once they have got under way.
async fn rates(all: &[&Arc<AtomicU64>]) -> Vec<u64> {
    tokio::time::sleep(Duration::from_millis(700)).await;
    let now = || all.iter().map(|got| got.load(Ordering::Relaxed)).collect::<Vec<u64>>();
    let (began, before) = (Instant::now(), now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (after, seconds) = (now(), began.elapsed().as_secs_f64());
    after.iter().zip(before).map(|(after, before)| ((after - before) as f64 / seconds) as u64).collect()
}

/// A number among the metrics; 0 as long as it is not there.
async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Downloads of whole files under way.
async fn in_progress(server: &Server) -> u64 {
    metric(server, "carrack_downloads_in_progress{kind=\"full\"}").await
}

/// Downloads of whole files whose clients went away, or were given up.
async fn aborted(server: &Server) -> u64 {
    metric(server, "carrack_downloads_total{kind=\"full\",result=\"aborted\"}").await
}

fn is_near(rate: u64, expected: u64) {
    assert!(rate <= expected * 120 / 100, "{rate} bytes per second where {expected} are allowed");
    assert!(rate >= expected * 50 / 100, "{rate} bytes per second where {expected} are there to be had");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_the_same_over_one_and_over_many_connections() {
    let server = serve(Setup::new(), &[("ROLES__USER__BANDWIDTH_PER_USER", "4MB")]).await;
    for connections in [1, 4, 16] {
        let alice = Caller::user(&server, "alice").await;
        let (_reading, got) = read(&alice, FILE, connections);
        is_near(rates(&[&got]).await[0], 4 * MB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_share_the_server_whatever_number_of_connections_they_open() {
    let server = serve(Setup::new(), &[("ROLES__USER__BANDWIDTH", "8MB")]).await;
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let (_alices, by_alice) = read(&alice, FILE, 1);
    let (bobs, by_bob) = read(&bob, FILE, 16);
    let both = rates(&[&by_alice, &by_bob]).await;
    is_near(both[0] + both[1], 8 * MB);
    let share = both[0] as f64 / (both[0] + both[1]) as f64;
    assert!((0.35..0.65).contains(&share), "{both:?}");
    drop(bobs);
    is_near(rates(&[&by_alice]).await[0], 8 * MB);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_rate_on_the_way_wins() {
    let settings = [
        ("ROLES__USER__BANDWIDTH", "16MB"),
        ("ROLES__USER__BANDWIDTH_PER_USER", "4MB"),
        ("ROLES__USER__BANDWIDTH_PER_CONNECTION", "1MB"),
    ];
    let server = serve(Setup::new(), &settings).await;
    let alice = Caller::user(&server, "alice").await;
    let (_reading, one) = read(&alice, FILE, 1);
    is_near(rates(&[&one]).await[0], MB);
    let wish = value!({"bucket": "default", "key": "f", "expires_in": 600, "rate_limit": 500_000});
    let link = json(alice.post("/v1/links", wish).await, 201).await;
    let nobody = Caller::nobody(&server);
    let (_linked, by_link) = read(&nobody, link["url"].as_str().unwrap(), 8);
    is_near(rates(&[&by_link]).await[0], MB / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_and_uploads_are_bound_as_files_are() {
    let server = serve(Setup::new(), &[("ROLES__USER__BANDWIDTH_PER_USER", "4MB")]).await;
    let alice = Caller::user(&server, "alice").await;
    let (reading, got) = read(&alice, "/v1/zip/default", 3);
    is_near(rates(&[&got]).await[0], 4 * MB);
    drop(reading);
    // Random bytes: what is made as it is sent is as large as what it is made of.
    let (reading, got) = read(&alice, "/v1/zip/default?compression=deflate", 2);
    is_near(rates(&[&got]).await[0], 4 * MB);
    drop(reading);
    let began = Instant::now();
    assert_eq!(alice.put("/v1/files/default/up", &content(8_000_000, 2)).await.status(), 201);
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds > 1.5, "8 MB at 4 MB/s took {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_http2_and_tls() {
    let setup = https().set("CARRACK_LIMITS__ROLES__ADMIN__BANDWIDTH_PER_USER", "20MB");
    let server = setup.start();
    store(&server, FILE, &content(40_000_000, 1)).await;
    for protocol in ["--http1.1", "--http2"] {
        let mut command = curl(protocol);
        command.args(["-o", "/dev/null", &server.url(FILE)]);
        let began = Instant::now();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        assert!(output.status.success() && seconds > 1.6, "{protocol}: 40 MB at 20 MB/s took {seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_limits_bind_what_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carrack.toml");
    std::fs::write(&file, "").unwrap();
    let server = serve(Setup::new().set("CARRACK_CONFIG", file.to_str().unwrap()), &[]).await;
    let alice = Caller::user(&server, "alice").await;
    let mut answer = alice.get(FILE).await;
    let before = answer.chunk().await.unwrap().unwrap().len();
    std::fs::write(&file, "[limits]\nbandwidth = \"2MB\"\n").unwrap();
    server.signal("HUP");
    until("SIGHUP", || server.log().contains("the limits and the signing keys were read")).await;
    let (began, mut got) = (Instant::now(), before);
    while began.elapsed() < Duration::from_secs(3) {
        let more = tokio::time::timeout(Duration::from_secs(1), answer.chunk()).await;
        got += more.ok().map_or(0, |bytes| bytes.unwrap().map_or(0, |bytes| bytes.len()));
    }
    // Some MB were on their way in buffers of both ends.
    assert!(got < 40_000_000, "{got} bytes in 3 s");
}

/// A client that takes next to nothing does not hold a connection for ever, either.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_a_few_bytes_now_and_then_is_given_up() {
    let server = serve(Setup::new().set("CARRACK_SERVER__IDLE_TIMEOUT", "1s"), &[]).await;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let head = format!("GET {FILE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let reading = async {
        loop {
            // What the kernels hold by then is far more than is read in this time.
            stream.read_u8().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = reading => unreachable!(),
        () = eventually("it is given up", async || aborted(&server).await == 1) => {}
    }
}

/// A client that takes nothing does not hold a connection for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_given_up() {
    let server = serve(Setup::new().set("CARRACK_SERVER__IDLE_TIMEOUT", "1s"), &[]).await;
    let stalled = server.get(FILE).send().await.unwrap();
    assert_eq!(in_progress(&server).await, 1);
    eventually("it is given up", async || in_progress(&server).await == 0).await;
    drop(stalled);
}
