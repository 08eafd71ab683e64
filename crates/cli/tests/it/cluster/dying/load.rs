//! Clients that work as long as they are told to, as ordinary ones do, and keep a ledger of what they were told.

use super::ground::{Ground, PATIENCE, ask};
use crate::server::{content, tool};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const MIB: usize = 1 << 20;
/// Bytes of what tus-js-client uploads, and of what is downloaded.
const FILE: usize = 6 * MIB;
/// Small enough that it is soon told of, large enough that not everything is overhead.
const CHUNK: usize = 512 << 10;
/// The least that S3 takes.
const PART: usize = 5 * MIB;
const PARTS: usize = 4;
/// First requests for one use of a link.
const FIRSTS: usize = 20;

/// What a client of tus was told, when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Broke,
    Accepted(u64),
}

/// Everybody's ledger.
pub(super) struct Load<'a> {
    ground: &'a Ground,
    token: String,
    stop: AtomicBool,
    /// What was done, by what it is.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Of the client of tus that sends small chunks.
    told: Mutex<Vec<(Instant, Told)>>,
    /// Milliseconds of completions that had to be asked for again, from the first request to the answer.
    completions: Mutex<Vec<u64>>,
}

impl<'a> Load<'a> {
    pub(super) async fn new(ground: &'a Ground) -> Load<'a> {
        let wish = json!({"subject": "load", "role": "user"});
        let (made, _) = ask(|| ground.root(Method::POST, "/v1/tokens").json(&wish)).await;
        let made: Value = made.json().await.unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        let load = Load {
            ground,
            token,
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            told: Mutex::default(),
            completions: Mutex::default(),
        };
        let body = content(FILE, 1);
        load.ask(|| load.request(Method::PUT, "/v1/files/default/large").body(body.clone())).await;
        load
    }

    /// Works until [`Load::end`] is called, by all clients at once.
    pub(super) async fn run(&self) {
        let chunk = CHUNK.to_string();
        tokio::join!(
            self.tus("chunks", &chunk),
            self.tus("whole", "infinite"),
            self.parts(),
            self.curl(),
            self.aria2(),
            self.links(),
            self.small(),
        );
    }

    /// Everybody ends what they are at.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, what: &'static str, more: u64) {
        *self.counts.lock().unwrap().entry(what).or_default() += more;
    }

    /// How much was done.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap().clone()
    }

    pub(super) fn completions(&self) -> Vec<u64> {
        self.completions.lock().unwrap().clone()
    }

    /// How long after this moment the upload that broke then was told of its next bytes; `None` when it did not break.
    pub(super) fn first_byte(&self, killed: Instant) -> Option<Duration> {
        let told = self.told.lock().unwrap();
        let soon = |at: &Instant| *at >= killed && at.duration_since(killed) < Duration::from_secs(10);
        let broke = told.iter().position(|(at, told)| *told == Told::Broke && soon(at))?;
        let before = told[..broke].iter().rev().find_map(|(_, told)| match told {
            Told::Accepted(offset) => Some(*offset),
            Told::Broke => None,
        });
        let next = told[broke..]
            .iter()
            .find(|(_, told)| matches!(told, Told::Accepted(offset) if Some(*offset) > before))?;
        Some(next.0.duration_since(killed))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.ground.base) };
        self.ground.client.request(method, url).bearer_auth(&self.token)
    }

    async fn ask(&self, request: impl Fn() -> RequestBuilder) -> reqwest::Response {
        let (answer, again) = ask(request).await;
        self.count("retries", again);
        answer
    }

    /// A file's bytes, however often that is broken off.
    async fn fetch(&self, key: &str) -> Vec<u8> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(|| self.request(Method::GET, &format!("/v1/files/default/{key}"))).await;
            assert_eq!(answer.status(), 200, "{key} was acknowledged");
            match answer.bytes().await {
                Ok(bytes) => return bytes.to_vec(),
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{key}: {error}"),
            }
            self.count("retries", 1);
        }
    }

    async fn delete(&self, key: &str) {
        let answer = self.ask(|| self.request(Method::DELETE, &format!("/v1/files/default/{key}"))).await;
        // The answer to the first one may have been lost.
        assert!(matches!(answer.status().as_u16(), 204 | 404), "{}", answer.status());
    }

    /// tus-js-client, one file after the other.
    async fn tus(&self, name: &str, chunk: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/tus-load.mjs");
        let mut client = Command::from(tool("node", "nodejs"))
            .arg(script)
            .args([&format!("{}/v1/tus", self.ground.base), &self.token, name, &FILE.to_string(), chunk])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let (mut input, mut begun) = (client.stdin.take(), 0);
        while let Some(line) = lines.next_line().await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap();
            match line["event"].as_str().unwrap() {
                "created" => {
                    begun += 1;
                    assert_eq!(begun, 1, "an upload was begun anew: {line}");
                }
                "broke" => self.note(name, Told::Broke),
                "accepted" => {
                    let [offset, known] = ["offset", "known"].map(|name| line[name].as_u64().unwrap());
                    assert!(offset >= known, "{known} bytes were acknowledged, {offset} are there: {line}");
                    self.note(name, Told::Accepted(offset));
                }
                "done" => {
                    begun = 0;
                    let key = line["key"].as_str().unwrap();
                    let found = Sha256::digest(self.fetch(key).await);
                    let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(line["sha256"], found.as_str(), "{key}");
                    self.delete(key).await;
                    self.count("uploads by tus-js-client", 1);
                }
                _ => panic!("{line}"),
            }
            if !self.goes_on() {
                drop(input.take());
            }
        }
        assert!(client.wait().await.unwrap().success());
    }

    fn note(&self, name: &str, told: Told) {
        if told == Told::Broke {
            self.count("breaks of tus-js-client", 1);
        }
        if name == "chunks" {
            self.told.lock().unwrap().push((Instant::now(), told));
        }
    }

    /// Uploads in numbered parts, two at a time.
    async fn parts(&self) {
        for number in 0.. {
            if !self.goes_on() {
                return;
            }
            let (key, whole) = (format!("parts/{number}"), content(PARTS * PART - 1000, 5000 + number));
            let wish = json!({"bucket": "default", "key": key, "size": whole.len(), "part_size": PART});
            let made = self.ask(|| self.request(Method::POST, "/v1/uploads").json(&wish)).await;
            assert_eq!(made.status(), 201);
            let made: Value = made.json().await.unwrap();
            let upload = format!("/v1/uploads/{}", made["upload_id"].as_str().unwrap());
            let pieces: Vec<&[u8]> = whole.chunks(PART).collect();
            for pair in [[1, 2], [3, 4]] {
                let [one, two] = pair.map(|part| self.part(&upload, part, pieces[part - 1]));
                tokio::join!(one, two);
                let stands: Value =
                    self.ask(|| self.request(Method::GET, &upload)).await.json().await.unwrap();
                assert_eq!(stands["received"], format!("1-{}", pair[1]), "what was acknowledged: {stands}");
            }
            let begun = Instant::now();
            let (answer, again) = ask(|| self.request(Method::POST, &format!("{upload}/complete"))).await;
            self.count("retries", again);
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            if again > 0 {
                self.completions.lock().unwrap().push(begun.elapsed().as_millis() as u64);
            }
            let file: Value = answer.json().await.unwrap();
            assert_eq!(file["blake3"], blake3::hash(&whole).to_hex().as_str());
            assert!(self.fetch(&key).await == whole, "{key}");
            self.delete(&key).await;
            self.count("uploads in parts", 1);
        }
    }

    async fn part(&self, upload: &str, part: usize, piece: &[u8]) {
        let path = format!("{upload}/parts/{part}");
        let stored = self.ask(|| self.request(Method::PUT, &path).body(piece.to_vec())).await;
        assert_eq!(stored.status(), 200, "{}", stored.text().await.unwrap());
        self.count("parts", 1);
    }

    /// `curl --retry -C -`, over and over.
    async fn curl(&self) {
        let folder = self.ground.folder("curl");
        self.download("downloads by curl", &folder, || {
            let mut curl = tool("curl", "curl");
            curl.args(["-fsS", "--retry", "30", "--retry-all-errors", "--retry-delay", "1", "-C", "-"])
                .args(["-H", &format!("Authorization: Bearer {}", self.token), "-o", "large"])
                .arg(format!("{}/v1/files/default/large", self.ground.base));
            curl
        })
        .await;
    }

    /// aria2c over two connections, over and over.
    async fn aria2(&self) {
        let folder = self.ground.folder("aria2");
        self.download("downloads by aria2c", &folder, || {
            let mut aria2 = tool("aria2c", "aria2");
            aria2
                .args(["-q", "-x2", "-s2", "-k1M", "-c", "--max-tries=30", "--retry-wait=1", "--no-conf"])
                .args(["--file-allocation=none", "-o", "large"])
                .args(["--header", &format!("Authorization: Bearer {}", self.token)])
                .arg(format!("{}/v1/files/default/large", self.ground.base));
            aria2
        })
        .await;
    }

    async fn download(&self, what: &'static str, folder: &Path, client: impl Fn() -> std::process::Command) {
        let (file, whole) = (folder.join("large"), content(FILE, 1));
        while self.goes_on() {
            let begun = Instant::now();
            loop {
                let mut client = Command::from(client());
                let output = client.current_dir(folder).kill_on_drop(true).output().await.unwrap();
                if output.status.success() {
                    break;
                }
                // Who is told that it did not work says it once more, and it goes on where it was.
                assert!(begun.elapsed() < PATIENCE, "{what}: {output:?}");
                self.count("programs begun again", 1);
            }
            assert!(std::fs::read(&file).unwrap() == whole, "{what}: other bytes");
            std::fs::remove_file(&file).unwrap();
            self.count(what, 1);
        }
    }

    /// Links for one use, each asked for by many at once.
    async fn links(&self) {
        while self.goes_on() {
            let wish = json!({"bucket": "default", "key": "large", "expires_in": 600, "max_downloads": 1});
            let made = self.ask(|| self.request(Method::POST, "/v1/links").json(&wish)).await;
            let link: Value = made.json().await.unwrap();
            let url = link["url"].as_str().unwrap();
            let first = || async { Some(self.ground.client.get(url).send().await.ok()?.status().as_u16()) };
            let firsts = futures_util::future::join_all((0..FIRSTS).map(|_| first())).await;
            let of = |wanted: u16| firsts.iter().filter(|status| **status == Some(wanted)).count();
            let (claims, gone) = (of(307), of(410));
            let unknown = FIRSTS - claims - gone;
            assert!(firsts.iter().flatten().all(|status| matches!(status, 307 | 410 | 500..)), "{firsts:?}");
            assert!(claims <= 1, "{firsts:?}");
            // Whoever was answered by nobody may have had it, or may ask again. The balancer asks another node by itself,
            // so that all of them may be told that it is used: of a node that died with the answer.
            let last = self.ask(|| self.ground.client.get(url)).await.status().as_u16();
            let told = claims + usize::from(last == 307);
            assert!(told <= 1 && matches!(last, 307 | 410), "{firsts:?}, {last}");
            let path = format!("/v1/links/{}", link["id"].as_str().unwrap());
            let facts: Value = self.ask(|| self.request(Method::GET, &path)).await.json().await.unwrap();
            assert_eq!(facts["uses"], 1, "{facts}");
            self.count("links claimed once", 1);
            self.count("links whose use went with a node", 1 - told as u64);
            self.count("requests for links without an answer", unknown as u64);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Small files, which are looked for in the end.
    async fn small(&self) {
        let mut kept = Vec::new();
        for number in 0.. {
            if !self.goes_on() {
                break;
            }
            // Some go into the catalog, others beside it.
            let (key, body) =
                (format!("small/{number}"), content(1000 + number as usize % 2 * 50_000, number));
            let stored = self
                .ask(|| self.request(Method::PUT, &format!("/v1/files/default/{key}")).body(body.clone()))
                .await;
            assert!(stored.status().is_success(), "{}", stored.text().await.unwrap());
            kept.push((key, body));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        for (key, body) in kept {
            assert!(self.fetch(&key).await == body, "{key}");
            self.count("small files", 1);
        }
    }
}
