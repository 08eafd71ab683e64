//! Consul, by a strict stand-in for its agent, written from the documentation of its HTTP API: it knows the calls that are made
//! and their fields, and refuses whatever else it is told.

use crate::contract::answers::{eventually, json};
use crate::server::{Server, Setup};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const TOKEN: &str = "b1gs33cr3t";

/// `PUT /v1/agent/service/register`
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Registration {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    #[serde(default)]
    address: String,
    port: u16,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    checks: Vec<Check>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(rename = "Name")]
    _name: String,
    #[serde(rename = "TTL")]
    ttl: Option<String>,
    #[serde(rename = "HTTP")]
    http: Option<String>,
    method: Option<String>,
    interval: Option<String>,
    timeout: Option<String>,
    #[serde(rename = "TLSSkipVerify")]
    _skip: Option<bool>,
    deregister_critical_service_after: Option<String>,
}

/// `PUT /v1/agent/check/update/:check_id`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Update {
    status: String,
    #[serde(rename = "Output")]
    _output: String,
}

#[derive(Default)]
struct Agent {
    services: BTreeMap<String, (Registration, bool)>,
    /// When each TTL check was passing last.
    beats: BTreeMap<String, (u32, Instant)>,
    /// What was done, in order.
    done: Vec<String>,
    /// What it was told that there is not.
    nonsense: Vec<String>,
    /// Whether it answers 500.
    is_ill: bool,
}

fn is_duration(text: &str) -> bool {
    let digits = text.trim_end_matches(['h', 'm', 's']);
    text.ends_with(['h', 'm', 's']) && digits.chars().all(|c| c.is_ascii_digit() || "hms".contains(c))
}

impl Agent {
    /// The status of an answer.
    fn hear(&mut self, method: &str, target: &str, token: &str, body: &[u8]) -> u16 {
        if self.is_ill {
            return 500;
        }
        if token != TOKEN {
            return 403;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let rest = path.strip_prefix("/v1/agent/").unwrap_or_default();
        let status = match (method, rest.rsplit_once('/')) {
            ("PUT", Some(("service", "register")))
                if ["", "replace-existing-checks=true"].contains(&query) =>
            {
                self.register(body)
            }
            ("PUT", Some(("check/update", id))) if query.is_empty() => self.update(id, body),
            ("PUT", Some(("service/maintenance", id))) => self.maintain(id, query),
            ("PUT", Some(("service/deregister", id))) if query.is_empty() => {
                self.done.push("deregister".to_owned());
                if self.services.remove(id).is_some() { 200 } else { 404 }
            }
            _ => 405,
        };
        if !matches!(status, 200 | 404) {
            self.nonsense.push(format!("{method} {target} {} {}", status, String::from_utf8_lossy(body)));
        }
        status
    }

    fn register(&mut self, body: &[u8]) -> u16 {
        let Ok(registration) = serde_json::from_slice::<Registration>(body) else { return 400 };
        let is_sound = |check: &Check| match (&check.ttl, &check.http) {
            (Some(ttl), None) => is_duration(ttl) && check.interval.is_none(),
            (None, Some(url)) => {
                url.starts_with("http")
                    && check.method.as_deref().is_none_or(|method| method == "GET")
                    && check.interval.as_deref().is_some_and(is_duration)
                    && check.timeout.as_deref().is_none_or(is_duration)
            }
            _ => false,
        };
        let is_forgotten =
            |check: &Check| check.deregister_critical_service_after.as_deref().is_none_or(is_duration);
        if registration.id.is_empty()
            || !registration.checks.iter().all(|check| is_sound(check) && is_forgotten(check))
        {
            return 400;
        }
        self.done.push("register".to_owned());
        self.services.insert(registration.id.clone(), (registration, false));
        200
    }

    fn update(&mut self, id: &str, body: &[u8]) -> u16 {
        let Ok(update) = serde_json::from_slice::<Update>(body) else { return 400 };
        if !["passing", "warning", "critical"].contains(&update.status.as_str()) {
            return 400;
        }
        let mut checks = self.services.values().flat_map(|(service, _)| &service.checks);
        if !checks.any(|check| check.id == id && check.ttl.is_some()) {
            return 404;
        }
        let beat = self.beats.entry(id.to_owned()).or_insert((0, Instant::now()));
        *beat = (beat.0 + 1, Instant::now());
        200
    }

    fn maintain(&mut self, id: &str, query: &str) -> u16 {
        let Some((_, maintained)) = self.services.get_mut(id) else { return 404 };
        let mut fields = query.split('&').filter_map(|field| field.split_once('='));
        match fields.find(|(name, _)| *name == "enable") {
            Some((_, "true")) => *maintained = true,
            Some((_, "false")) => *maintained = false,
            _ => return 400,
        }
        self.done.push("maintenance".to_owned());
        200
    }
}

pub(crate) struct Consul {
    port: u16,
    agent: Arc<Mutex<Agent>>,
}

impl Consul {
    pub(crate) fn start() -> Consul {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = Arc::new(Mutex::new(Agent::default()));
        let heard = agent.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let agent = heard.clone();
                std::thread::spawn(move || serve(stream, &agent));
            }
        });
        Consul { port, agent }
    }

    fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap()
    }

    fn setup(&self) -> Setup {
        self.setup_by(self.port).set("CARRACK_CLUSTER__NODE_ID", "one")
    }

    /// A node that reaches the agent by this port.
    pub(crate) fn setup_by(&self, port: u16) -> Setup {
        Setup::new()
            .set("CARRACK_DISCOVERY__CONSUL_URL", &format!("http://127.0.0.1:{port}"))
            .set("CARRACK_DISCOVERY__TOKEN", TOKEN)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How often a node has said that it lives.
    pub(crate) fn beats(&self, node: &str) -> u32 {
        self.agent().beats.get(&format!("carrack-{node}:alive")).map_or(0, |beat| beat.0)
    }
}

fn serve(stream: TcpStream, agent: &Mutex<Agent>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut token) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_lowercase().as_str() {
                "content-length" => length = value.parse().ok()?,
                "x-consul-token" => token = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let status = agent.lock().unwrap().hear(&method, &target, &token, &body);
        write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

async fn beats(consul: &Consul, least: u32) {
    let is = || consul.agent().beats.get("carrack-one:alive").is_some_and(|beat| beat.0 >= least);
    eventually("it says that it lives", async || is()).await;
}

#[tokio::test]
async fn a_node_is_registered_says_that_it_lives_and_leaves_in_order() {
    let consul = Consul::start();
    let mut server = consul.setup().start();
    beats(&consul, 2).await;
    let (service, maintained) = consul.agent().services["carrack-one"].clone();
    assert!(!maintained && service.name == "carrack" && service.tags == ["http"]);
    assert_eq!(format!("{}:{}", service.address, service.port), server.address());
    assert_eq!(service.meta["node"], "one");
    let ready = service.checks.iter().find_map(|check| check.http.clone()).unwrap();
    assert_eq!(reqwest::get(ready).await.unwrap().status(), 200, "what the agent asks is there");
    server.stop();
    let agent = consul.agent();
    assert_eq!(agent.done, ["register", "maintenance", "deregister"]);
    assert!(agent.nonsense.is_empty() && agent.services.is_empty(), "{:?}", agent.nonsense);
    assert!(!server.log().contains(TOKEN), "no secret is logged");
}

#[tokio::test]
async fn without_consul_a_node_serves_and_comes_back_when_it_does() {
    let consul = Consul::start();
    consul.agent().is_ill = true;
    let server = consul.setup().start();
    assert_eq!(server.put("/v1/files/default/a").body("a").send().await.unwrap().status(), 201);
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    let failures = async |server: &Server| {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        text.lines().any(|line| line.starts_with("carrack_discovery_failures_total") && !line.ends_with(" 0"))
    };
    eventually("it is counted", async || failures(&server).await).await;
    consul.agent().is_ill = false;
    beats(&consul, 1).await;
    // The agent was started anew and knows nothing.
    *consul.agent() = Agent::default();
    let begun = Instant::now();
    beats(&consul, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(server.log().matches("Consul cannot be told").count(), 1, "said once");
}

#[tokio::test]
async fn the_cluster_is_shown_and_a_single_node_is_one() {
    let server = Setup::new().set("CARRACK_CLUSTER__NODE_ID", "one").start();
    let shown = json(server.get("/v1/cluster").send().await.unwrap(), 200).await;
    let node = &shown["nodes"][0];
    assert_eq!(
        (shown["nodes"].as_array().unwrap().len(), &node["id"], &node["self"]),
        (1, &"one".into(), &true.into())
    );
    assert_eq!((&node["state"], &node["downloads"]), (&"ready".into(), &0.into()));
    assert!(node["load"].is_number() && node["started_at"].as_str().unwrap().ends_with('Z'), "{node}");
    assert_eq!(shown["event_sinks"], serde_json::json!([]));
    let said = Setup::new().set("CARRACK_DISCOVERY__CONSUL_URL", "127.0.0.1:8500").refused();
    assert!(said.contains("discovery.consul_url"), "{said}");
}
