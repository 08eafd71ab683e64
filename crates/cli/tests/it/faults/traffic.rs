//! What clients do meanwhile, with a ledger of what was acknowledged to them.

use super::cells::{Cell, RECOVERY, within};
use super::proxy::Mode;
use crate::contract::answers::json;
use crate::server::{Server, content};
use crate::tus;
use futures_util::{StreamExt, stream};
use reqwest::{Body, RequestBuilder, StatusCode};
use serde_json::json as value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a fault lasts that begins in the middle.
const FAULT: Duration = Duration::from_secs(6);
/// Clients that write small files one after the other.
const WRITERS: usize = 3;

/// What an engine is needed for.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// Whether requests that write, and readiness, may be refused while it is away.
    pub(super) refuses: bool,
    /// Whether facts, and small files among them, are read and written all the same.
    pub(super) leaves_facts: bool,
    /// Whether a download may break that is under way.
    pub(super) breaks: bool,
    /// How long any answer may take to begin.
    pub(super) bound: Duration,
    /// Bytes of what is in flight when the fault begins: more than the buffers on the way hold.
    pub(super) bytes: usize,
}

/// What clients were told, to be looked at when all is well again.
#[derive(Default)]
pub(super) struct Ledger {
    /// Acknowledged files: key, length, seed.
    pub(super) kept: BTreeMap<String, (usize, u64)>,
    /// How many requests were refused.
    pub(super) refused: usize,
}

impl Ledger {
    fn keep(&mut self, key: &str, len: usize, seed: u64) {
        self.kept.insert(key.to_owned(), (len, seed));
    }

    /// Everything acknowledged is there, byte for byte.
    pub(super) async fn read_back(&self, server: &Server) {
        for (key, (len, seed)) in &self.kept {
            let got = server.get(&format!("/v1/files/default/{key}")).send().await.unwrap();
            assert_eq!(got.status(), 200, "{key} was acknowledged");
            assert!(got.bytes().await.unwrap() == content(*len, *seed), "{key} is not what was acknowledged");
        }
    }
}

impl Need {
    /// The status of an answer: in time, and one that may be given.
    pub(super) async fn answer(&self, what: &str, request: RequestBuilder) -> StatusCode {
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.bound, request.send()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer in {:?}", self.bound));
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:?} after {:?}", begun.elapsed()));
        let (status, may_retry) = (answer.status(), answer.headers().contains_key("retry-after"));
        let text = if status.is_server_error() { answer.text().await.unwrap() } else { String::new() };
        let unavailable = self.refuses && status == 503 && may_retry;
        assert!(status.is_success() || status.is_redirection() || unavailable, "{what}: {status} {text}");
        status
    }
}

async fn put(server: &Server, need: &Need, key: &str, len: usize, seed: u64) -> bool {
    let request = server.put(&format!("/v1/files/default/{key}")).body(content(len, seed));
    need.answer(key, request).await.is_success()
}

/// A small one, which may go into the catalog, or one that lies beside it.
fn size(number: u64) -> usize {
    if number.is_multiple_of(2) { 500 } else { 150_000 }
}

async fn write_until(
    server: Arc<Server>,
    need: Need,
    name: usize,
    mut stop: watch::Receiver<bool>,
) -> Ledger {
    let mut ledger = Ledger::default();
    for number in 0.. {
        if *stop.borrow_and_update() {
            break;
        }
        let key = format!("w{name}/{number}");
        if put(&server, &need, &key, size(number), number).await {
            ledger.keep(&key, size(number), number);
        } else {
            ledger.refused += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ledger
}

/// The first half at once, the rest when the gate opens.
fn gated(bytes: &[u8], mut gate: watch::Receiver<bool>) -> Body {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let (first, rest) = (first.to_vec(), rest.to_vec());
    let later = async move {
        gate.wait_for(|open| *open).await.unwrap();
        Ok(rest)
    };
    Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>(first)]).chain(stream::once(later)))
}

/// A request with a body under way: whether it was acknowledged. One whose body is broken off has no answer.
fn under_way(need: Need, request: RequestBuilder) -> JoinSet<bool> {
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let answer = tokio::time::timeout(FAULT + need.bound, request.send()).await;
        match answer.expect("an upload under way has no end") {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
                assert!(need.refuses && status.is_server_error(), "{status} {text}");
                false
            }
            Err(error) => {
                assert!(need.refuses, "{error:?}");
                false
            }
        }
    });
    sending
}

/// What is in flight when the fault begins.
struct InFlight {
    download: reqwest::Response,
    upload: JoinSet<bool>,
    append: JoinSet<bool>,
    url: String,
}

impl InFlight {
    async fn begin(server: &Server, need: Need, gate: &watch::Sender<bool>) -> InFlight {
        let bytes = content(need.bytes, 1);
        assert!(put(server, &need, "down", need.bytes, 2).await);
        let download = server.get("/v1/files/default/down").send().await.unwrap();
        assert_eq!(download.status(), 200);
        let upload = server.put("/v1/files/default/up").body(gated(&bytes, gate.subscribe()));
        let upload = under_way(need, upload);
        let length = need.bytes.to_string();
        let url =
            tus::create(server, &[("Upload-Length", &length), ("Upload-Metadata", &tus::key("tus"))]).await;
        let append = tus::patch(server, &url, 0, &[]).body(gated(&bytes, gate.subscribe()));
        InFlight { download, upload, append: under_way(need, append), url }
    }

    /// Waits for it; what was acknowledged goes into the ledger.
    async fn end(mut self, server: &Server, need: Need, ledger: &mut Ledger) {
        let whole = content(need.bytes, 2);
        let limit = FAULT + Duration::from_secs(60);
        let down =
            tokio::time::timeout(limit, self.download.bytes()).await.expect("a download without an end");
        match down {
            Ok(bytes) => assert!(bytes == whole, "a download that ends well is whole"),
            Err(error) => assert!(need.breaks, "{error:?}"),
        }
        if self.upload.join_next().await.unwrap().unwrap() {
            ledger.keep("up", need.bytes, 1);
        }
        let all = self.append.join_next().await.unwrap().unwrap();
        finish_tus(server, &self.url, need.bytes, if all { need.bytes } else { 0 }).await;
        ledger.keep("tus", need.bytes, 1);
    }
}

/// Sends the rest of an upload, of which so many bytes were acknowledged; another request may still be letting it go.
async fn finish_tus(server: &Server, url: &str, len: usize, acknowledged: usize) {
    let bytes = content(len, 1);
    within(RECOVERY, "the upload goes on", server, async || {
        let Ok(Some(offset)) = tus::offset(server, url).await else { return false };
        assert!(offset >= acknowledged, "{acknowledged} bytes were acknowledged, {offset} are there");
        offset == len
            || tus::patch(server, url, offset, &bytes[offset..]).send().await.unwrap().status() == 204
    })
    .await;
}

/// Readiness and small and large writes and reads all go well.
async fn works(server: &Server, key: &str) -> bool {
    let is_good = async |request: RequestBuilder| {
        let answer = tokio::time::timeout(RECOVERY, request.send()).await;
        matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
    };
    is_good(server.get("/readyz")).await
        && is_good(server.put(&format!("/v1/files/default/{key}")).body(content(150_000, 7))).await
        && is_good(server.get(&format!("/v1/files/default/{key}"))).await
}

/// Heals, and waits until all is well.
pub(super) async fn heal(cell: &Cell, server: &Server) {
    cell.heal();
    within(RECOVERY, &format!("{}: all is well again", cell.name), server, async || {
        works(server, "healed").await
    })
    .await;
}

/// Readiness says what is so, which it looks up every second: in time, whatever hangs.
async fn readiness(cell: &Cell, server: &Server, need: Need) {
    let need = Need { bound: Duration::from_secs(5), ..need };
    if need.refuses && !matches!(cell.mode, Mode::Reset(_)) {
        let what = format!("{}: it is not ready", cell.name);
        within(Duration::from_secs(5), &what, server, async || {
            need.answer("readyz", server.get("/readyz")).await == 503
        })
        .await;
    } else {
        need.answer("readyz", server.get("/readyz")).await;
    }
}

/// With the fault there, each kind of request. Then it heals, and what was begun before the fault goes on.
pub(super) async fn before(cell: &Cell, server: &Arc<Server>, need: Need) -> Ledger {
    let mut ledger = Ledger::default();
    assert!(put(server, &need, "hot", need.bytes, 3).await);
    ledger.keep("hot", need.bytes, 3);
    let length = need.bytes.to_string();
    let url = tus::create(server, &[("Upload-Length", &length), ("Upload-Metadata", &tus::key("tus"))]).await;
    let half = need.bytes / 2;
    let begun = tus::patch(server, &url, 0, &content(need.bytes, 1)[..half]).send().await.unwrap();
    assert_eq!(begun.status(), 204);
    let wish = value!({"bucket": "default", "key": "hot", "expires_in": 600, "max_downloads": 1});
    let link = json(server.post("/v1/links").json(&wish).send().await.unwrap(), 201).await;
    let link = link["url"].as_str().unwrap().strip_prefix(&server.base).unwrap().to_owned();

    cell.fail();
    let live = Need { bound: Duration::from_secs(5), ..need };
    let append = tus::patch(server, &url, half, &content(need.bytes, 1)[half..]);
    let (small, large, appended, claimed, listed, (), alive) = tokio::join!(
        put(server, &need, "small", 500, 4),
        put(server, &need, "large", need.bytes, 5),
        need.answer("append", append),
        need.answer("link", server.get(&link).header("accept", "application/octet-stream")),
        need.answer("list", server.get("/v1/files/default")),
        readiness(cell, server, need),
        live.answer("livez", server.get("/livez")),
    );
    assert_eq!(alive, 200);
    if need.refuses && cell.is_cut_off() {
        assert!(!large && appended == 503 && claimed == 503, "{appended} {claimed}");
    }
    if !need.refuses {
        assert!(large && appended == 204 && claimed == 200, "{appended} {claimed}");
    }
    if !need.refuses || need.leaves_facts {
        assert!(small && listed == 200, "what the catalog alone answers goes on: {listed}");
    }
    for (key, len, seed, is_there) in [("small", 500, 4, small), ("large", need.bytes, 5, large)] {
        if is_there {
            ledger.keep(key, len, seed);
        }
    }
    heal(cell, server).await;
    let acknowledged = if appended.is_success() { need.bytes } else { half };
    finish_tus(server, &url, need.bytes, acknowledged).await;
    ledger.keep("tus", need.bytes, 1);
    if cell.is_cut_off() && claimed == 503 {
        // A use that nobody had is not spent.
        let claim = server.get(&link).header("accept", "application/octet-stream").send().await.unwrap();
        assert!(claim.status().is_success(), "{}", claim.status());
    }
    ledger.read_back(server).await;
    ledger
}

/// The fault begins with requests of each kind under way, lasts a while, and heals.
pub(super) async fn during(cell: &Cell, server: &Arc<Server>, need: Need) -> Ledger {
    let (stop, stopped) = watch::channel(false);
    let gate = watch::Sender::new(false);
    let flight = InFlight::begin(server, need, &gate).await;
    let mut writers = JoinSet::new();
    for name in 0..WRITERS {
        writers.spawn(write_until(server.clone(), need, name, stopped.clone()));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    cell.fail();
    gate.send_replace(true);
    tokio::time::sleep(FAULT).await;
    heal(cell, server).await;
    let mut ledger = Ledger::default();
    flight.end(server, need, &mut ledger).await;
    stop.send_replace(true);
    for part in writers.join_all().await {
        ledger.kept.extend(part.kept);
        ledger.refused += part.refused;
    }
    ledger.read_back(server).await;
    ledger
}
