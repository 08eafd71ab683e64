//! What is told to others: RabbitMQ and webhooks.

use crate::contract::answers::{eventually, json};
use crate::server::{Server, Setup};
use carrack_engines::RabbitMq;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SOON: Duration = Duration::from_secs(60);

/// What an endpoint was told.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) path: String,
    head: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        self.head.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An endpoint that answers as it is told to.
pub(crate) struct Endpoint {
    port: u16,
    status: Arc<AtomicU16>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Endpoint {
    pub(crate) fn start(status: u16) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (status, told) = (Arc::new(AtomicU16::new(status)), Arc::new(Mutex::new(Vec::new())));
        let (answer, heard) = (status.clone(), told.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, heard) = (answer.clone(), heard.clone());
                std::thread::spawn(move || serve(stream, &answer, &heard));
            }
        });
        Endpoint { port, status, told }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn hook(&self, types: &str) -> String {
        format!("{{url=\"http://127.0.0.1:{}/hook\", secret=\"{SECRET}\", types=[{types}]}}", self.port)
    }

    /// The setting of one that is told of every type, at a path, by another port.
    pub(crate) fn hook_by(&self, port: u16, path: &str) -> String {
        format!("{{url=\"http://127.0.0.1:{port}/{path}\", secret=\"{SECRET}\", types=[]}}")
    }
}

fn serve(stream: TcpStream, status: &AtomicU16, told: &Mutex<Vec<Told>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            head.push((name.to_lowercase(), value.to_owned()));
        }
        let length = head.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let status = status.load(Ordering::Relaxed);
        told.lock().unwrap().push(Told { path, head, body });
        let location = if status / 100 == 3 { "location: http://127.0.0.1:1/\r\n" } else { "" };
        // At once: pieces of an answer wait for each other's acknowledgements.
        let answer = format!("HTTP/1.1 {status} Ok\r\n{location}content-length: 0\r\n\r\n");
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

pub(crate) fn hooks(setup: Setup, hooks: &[String]) -> Setup {
    let setup = setup.set("CARRACK_EVENTS__WEBHOOKS", &format!("[{}]", hooks.join(", ")));
    setup.set("CARRACK_EVENTS__ALLOW_ADDRESSES", "[\"127.0.0.0/8\"]")
}

async fn put(server: &Server, key: &str) {
    let answer = server.put(&format!("/v1/files/default/{key}")).body(key.to_owned()).send().await.unwrap();
    assert!(answer.status().is_success());
}

#[tokio::test]
async fn a_webhook_is_told_signed_and_in_order() {
    let endpoint = Endpoint::start(204);
    let setup = Setup::new().set("CARRACK_SERVER__PUBLIC_URL", "https://files.example.org");
    let server = hooks(setup, &[endpoint.hook("")]).start();
    put(&server, "a").await;
    assert_eq!(server.delete("/v1/files/default/a").send().await.unwrap().status(), 204);
    let link = r#"{"bucket": "default", "key": "b", "expires_in": 60, "max_downloads": 1}"#;
    put(&server, "b").await;
    let link = json(server.post("/v1/links").body(link).send().await.unwrap(), 201).await;
    let claim = reqwest::get(
        server.url(&format!("/d/{}", link["url"].as_str().unwrap().rsplit('/').next().unwrap())),
    );
    assert_eq!(claim.await.unwrap().text().await.unwrap(), "b");
    let archive =
        r#"{"name": "x.zip", "bucket": "default", "prefix": "", "format": "zip", "compression": "store"}"#;
    json(server.post("/v1/archives").body(archive).send().await.unwrap(), 201).await;
    let types = [
        "carrack.bucket.created",
        "carrack.file.created",
        "carrack.file.deleted",
        "carrack.file.created",
        "carrack.link.created",
        "carrack.link.used",
        "carrack.archive.created",
        "carrack.archive.completed",
    ];
    eventually("all is told", async || endpoint.told().len() >= types.len()).await;
    let told = endpoint.told();
    let found: Vec<String> =
        told.iter().map(|told| told.event()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, types);
    let mut ids = HashSet::new();
    for told in &told {
        let event = told.event();
        assert_eq!(
            (&event["specversion"], &event["source"]),
            (&"1.0".into(), &"https://files.example.org".into())
        );
        assert!(told.header("content-type").starts_with("application/cloudevents+json"));
        assert_eq!(event["id"], told.header("webhook-id"));
        assert!(ids.insert(event["id"].to_string()), "each has an id of its own");
        // Computed as Standard Webhooks says, by OpenSSL.
        let at = told.header("webhook-timestamp");
        assert!(at.parse::<u64>().unwrap() > 1_700_000_000);
        let signed = [told.header("webhook-id").as_bytes(), b".", at.as_bytes(), b".", &told.body].concat();
        let file = server.folder().join("signed");
        std::fs::write(&file, signed).unwrap();
        let script = format!(
            "key=$(printf %s '{}' | base64 -d | od -An -tx1 | tr -d ' \\n'); \
             openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary '{}' | base64",
            &SECRET[6..],
            file.display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told.header("webhook-signature"), format!("v1,{}", expected.trim()));
    }
    let created = told[1].event();
    assert_eq!((&created["subject"], &created["data"]["size"]), (&"default/a".into(), &1.into()));
    assert_eq!(created["data"]["subject"], "root");
}

#[tokio::test]
async fn one_that_is_dead_holds_up_nobody_and_is_given_up() {
    let (good, bad, gone, moved) =
        (Endpoint::start(200), Endpoint::start(500), Endpoint::start(410), Endpoint::start(302));
    let files = "\"carrack.file.*\"";
    let all = [good.hook(files), bad.hook(files), gone.hook(files), moved.hook("\"carrack.file.deleted\"")];
    let setup = Setup::new().set("CARRACK_EVENTS__GIVE_UP_AFTER", "5s");
    let mut server = hooks(setup, &all).start();
    for key in ["a", "b", "c"] {
        put(&server, key).await;
    }
    eventually("the good one is told", async || good.told().len() == 3).await;
    let dead = async |server: &Server| {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        text.lines()
            .filter(|line| line.starts_with("carrack_events_sink_dead") && line.ends_with(" 1"))
            .count()
    };
    eventually("the others are given up", async || dead(&server).await == 2).await;
    let tries = bad.told();
    assert!(
        tries.len() >= 2
            && tries.iter().all(|told| told.header("webhook-id") == tries[0].header("webhook-id"))
    );
    assert_eq!(gone.told().len(), 1, "410 is for good");
    assert!(moved.told().is_empty(), "it does not want to know of these");
    let log = server.log();
    assert!(log.contains("given up") && !log.contains(&SECRET[6..]) && !log.contains("/hook"), "{log}");
    // At the next start they are told what they have missed.
    bad.status.store(200, Ordering::Relaxed);
    server.stop();
    let missed = bad.told().len();
    let server = hooks(Setup::new().data(&server.data), &all).start();
    eventually("it is told again", async || bad.told().len() >= missed + 3).await;
    assert_eq!(good.told().len(), 3, "others are told nothing twice");
    assert_eq!(server.delete("/v1/files/default/a").send().await.unwrap().status(), 204);
    eventually("a redirect is not followed", async || moved.told().len() > 1).await;
}

#[tokio::test]
async fn what_was_not_told_before_a_crash_is_told_after_it() {
    let endpoint = Endpoint::start(503);
    let setup = || hooks(Setup::new(), &[endpoint.hook("\"carrack.file.*\"")]);
    let mut server = setup().start();
    for number in 0..20 {
        put(&server, &format!("k{}", number % 3)).await;
    }
    server.kill();
    endpoint.told.lock().unwrap().clear();
    endpoint.status.store(200, Ordering::Relaxed);
    let _again = setup().data(&server.data).start();
    eventually("all is told", async || endpoint.told().len() >= 20).await;
    let subjects: Vec<String> =
        endpoint.told().iter().map(|told| told.event()["subject"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..20).map(|number| format!("default/k{}", number % 3)).collect();
    assert_eq!(subjects, expected);
}

#[tokio::test]
async fn webhooks_lead_nowhere_near_us() {
    let endpoint = Endpoint::start(200);
    let by_address = format!("[{}]", endpoint.hook(""));
    let said = Setup::new().set("CARRACK_EVENTS__WEBHOOKS", &by_address).refused();
    assert!(said.contains("events.webhooks[0].url") && said.contains("events.allow_addresses"), "{said}");
    let by_name = by_address.replace("127.0.0.1", "localhost");
    let server = Setup::new().set("CARRACK_EVENTS__WEBHOOKS", &by_name).start();
    put(&server, "a").await;
    eventually("it is refused", async || server.log().contains("has no public address")).await;
    assert!(endpoint.told().is_empty());
    let short = by_address.replace(SECRET, "whsec_Z2VoZWlt");
    let said = Setup::new().set("CARRACK_EVENTS__WEBHOOKS", &short).refused();
    assert!(said.contains("events.webhooks[0].secret") && !said.contains("Z2VoZWlt"), "{said}");
    let said = Setup::new().set("CARRACK_EVENTS__AMQP_URL", "http://ann:geheim@host").refused();
    assert!(said.contains("events.amqp_url") && !said.contains("geheim"), "{said}");
}

/// A queue at the broker.
pub(crate) struct Queue {
    _connection: Connection,
    consumer: lapin::Consumer,
}

impl Queue {
    /// Makes the exchange as well, as whoever comes before the first event does.
    pub(crate) async fn declare(broker: &RabbitMq, exchange: &str) -> Queue {
        let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let (kind, table) = (lapin::ExchangeKind::Topic, FieldTable::default());
        channel.exchange_declare(exchange.into(), kind, durable, table).await.unwrap();
        Queue::open(broker, exchange, "#").await
    }

    async fn open(broker: &RabbitMq, exchange: &str, key: &str) -> Queue {
        let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let name = format!("{exchange}.q");
        channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await.unwrap();
        let (options, table) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), options, table).await.unwrap();
        let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            channel.basic_consume(name.as_str().into(), "test".into(), options, table).await.unwrap();
        Queue { _connection: connection, consumer }
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        let next = futures_util::StreamExt::next(&mut self.consumer);
        let delivery = tokio::time::timeout(SOON, next).await.unwrap().unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        delivery
    }
}

async fn exchange_is_there(broker: &RabbitMq, exchange: &str) {
    let begun = Instant::now();
    loop {
        let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Topic;
        if channel.exchange_declare(exchange.into(), kind, passive, FieldTable::default()).await.is_ok() {
            return;
        }
        assert!(begun.elapsed() < SOON, "the exchange is made");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_broker_is_told_and_again_after_it_was_away() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let mut broker = RabbitMq::start(folder.path()).unwrap();
    let server = Setup::new()
        .set("CARRACK_EVENTS__AMQP_URL", &broker.url())
        .set("CARRACK_EVENTS__EXCHANGE", "ex")
        .start();
    put(&server, "unwanted").await;
    exchange_is_there(&broker, "ex").await;
    eventually("nobody wants it, and it holds up nobody", async || {
        server.log().contains("no queue is bound")
    })
    .await;
    let mut queue = Queue::open(&broker, "ex", "carrack.file.#").await;
    put(&server, "a").await;
    let told = queue.next().await;
    let event: Value = serde_json::from_slice(&told.data).unwrap();
    assert_eq!((told.routing_key.as_str(), &event["subject"]), ("carrack.file.created", &"default/a".into()));
    assert_eq!(told.properties.message_id().as_ref().map(|id| id.as_str()), event["id"].as_str());
    assert!(
        told.properties.content_type().as_ref().unwrap().as_str().starts_with("application/cloudevents+json")
    );
    drop(queue);

    broker.engine.kill();
    for number in 0..300 {
        put(&server, &format!("k{}", number % 7)).await;
    }
    broker.engine.start_again().unwrap();
    let mut queue = Queue::open(&broker, "ex", "carrack.file.#").await;
    let mut seen = Vec::new();
    let mut ids = HashSet::new();
    while seen.len() < 300 {
        let event: Value = serde_json::from_slice(&queue.next().await.data).unwrap();
        if ids.insert(event["id"].as_str().unwrap().to_owned()) {
            seen.push(event["subject"].as_str().unwrap().to_owned());
        }
    }
    let expected: Vec<String> = (0..300).map(|number| format!("default/k{}", number % 7)).collect();
    for subject in ["default/k0", "default/k6"] {
        let count = |all: &[String]| all.iter().filter(|found| *found == subject).count();
        assert_eq!(count(&seen), count(&expected), "each once, by its id");
    }
    assert!(!server.log().contains("guest:guest"), "no secret is logged");
}
