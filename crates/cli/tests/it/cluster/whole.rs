//! `carrack cluster`: everything together, on real engines, by the balancer. A node that dies costs a retry and nothing else.

use crate::contract::answers::base64;
use crate::server::{content, without_variables};
use carrack_engines::free_port;
use reqwest::{Client, Method, RequestBuilder, Response, redirect};
use serde_json::{Value, json as value};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something may take that goes on at another node.
const PATIENCE: Duration = Duration::from_secs(15);

/// The command, and what it says of itself.
struct Cluster {
    command: Child,
    url: String,
    token: String,
    /// The process group of each node.
    nodes: Vec<String>,
    client: Client,
}

impl Cluster {
    fn start() -> Cluster {
        let listen = format!("127.0.0.1:{}", free_port().unwrap());
        let mut command = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["cluster", "--listen", &listen])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(command.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said: Vec<String> = Vec::new();
        // The empty line comes after all that is where.
        while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
            said.push(line);
        }
        let after = |name: &str| {
            let line =
                said.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {said:?}"));
            line[name.len()..].trim().to_owned()
        };
        let group = |line: &String| Some(line.split_once("kill -9 -- -")?.1.trim_end_matches(')').to_owned());
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap();
        let (url, token) = (after("url"), after("token"));
        Cluster { nodes: said.iter().filter_map(group).collect(), url, token, command, client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// Asks until the answer is this one, as a client does that tries again.
    async fn ask(&self, status: u16, request: impl Fn() -> RequestBuilder) -> Response {
        let begun = Instant::now();
        loop {
            let answer = request().send().await;
            match answer {
                Ok(answer) if answer.status() == status => return answer,
                Ok(answer) if begun.elapsed() > PATIENCE => panic!("{}", answer.text().await.unwrap()),
                Err(error) if begun.elapsed() > PATIENCE => panic!("{error}"),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn offset(&self, upload: &str) -> usize {
        let head = || self.request(Method::HEAD, upload).header("tus-resumable", "1.0.0");
        let answer = self.ask(200, head).await;
        answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
    }

    /// Sends the next bytes; whether they were acknowledged.
    async fn patch(&self, upload: &str, bytes: &[u8], offset: usize) -> bool {
        let request = self.request(Method::PATCH, upload).header("tus-resumable", "1.0.0");
        let request =
            request.header("upload-offset", offset).header("content-type", "application/offset+octet-stream");
        request.body(bytes.to_vec()).send().await.is_ok_and(|answer| answer.status() == 204)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

fn signal(words: &[&str]) {
    assert!(Command::new("kill").args(words).status().unwrap().success(), "{words:?}");
}

/// What runs of a process group. What has ended and was not looked at by its parent does not.
fn members(group: &str) -> Vec<String> {
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    let runs = |stat: &String| {
        // After the name, which may hold anything: state, parent, group.
        let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        words[0] != "Z" && words[2] == group
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).filter(runs).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_costs_a_retry_and_nothing_else() {
    let mut cluster = Cluster::start();
    assert_eq!(cluster.nodes.len(), 2);
    let small = content(10_000, 1);
    cluster.ask(201, || cluster.request(Method::PUT, "/v1/files/default/small").body(small.clone())).await;
    let all = cluster.ask(200, || cluster.request(Method::GET, "/v1/cluster")).await;
    let all: Value = all.json().await.unwrap();
    assert_eq!(all["nodes"].as_array().unwrap().len(), 2, "{all}");

    // An upload of which each request may reach another node, one of which dies in the middle.
    let bytes = content(24 << 20, 2);
    let create = || {
        let request = cluster.request(Method::POST, "/v1/tus").header("tus-resumable", "1.0.0");
        let request = request.header("upload-length", bytes.len());
        request.header("upload-metadata", format!("bucket {},key {}", base64(b"default"), base64(b"large")))
    };
    let made = cluster.ask(201, create).await;
    let upload = made.headers()["location"].to_str().unwrap().to_owned();
    let (mut offset, mut acknowledged, mut killed) = (0, 0, false);
    while offset < bytes.len() {
        if !killed && offset > bytes.len() / 2 {
            signal(&["-9", "--", &format!("-{}", cluster.nodes[0])]);
            killed = true;
        }
        let end = bytes.len().min(offset + (3 << 20) + 17);
        if cluster.patch(&upload, &bytes[offset..end], offset).await {
            acknowledged = end;
        }
        offset = cluster.offset(&upload).await;
        assert!(offset >= acknowledged, "{acknowledged} bytes were acknowledged, {offset} are there");
    }
    assert!(killed);
    for (key, expected) in [("small", &small), ("large", &bytes)] {
        let answer =
            cluster.ask(200, || cluster.request(Method::GET, &format!("/v1/files/default/{key}"))).await;
        assert!(answer.bytes().await.unwrap() == *expected, "{key}");
    }
    let zip = cluster.ask(200, || cluster.request(Method::GET, "/v1/zip/default")).await;
    let length: u64 = zip.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(zip.bytes().await.unwrap().len() as u64, length);
    let wish = value!({"bucket": "default", "key": "small", "expires_in": 600, "max_downloads": 1});
    let link = cluster.ask(201, || cluster.request(Method::POST, "/v1/links").json(&wish)).await;
    let link = link.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned();
    let firsts = futures_util::future::join_all((0..40).map(|_| cluster.client.get(&link).send())).await;
    let claims =
        firsts.iter().filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 307)).count();
    assert_eq!(claims, 1, "one download is one");

    let group = cluster.nodes[1].clone();
    signal(&["-TERM", &cluster.command.id().to_string()]);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = cluster.command.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(status.success(), "{status}");
    assert_eq!(members(&group), [] as [String; 0], "a node outlived the command");
}
