//! A client that changes its own keys until the server dies: whole bodies, parts, completions, deletions.

use super::ledger::{Content, Ledger};
use crate::server::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Whole bodies go to these; completed uploads to as many more.
const KEYS: u64 = 5;
const PART_BYTES: usize = 128 << 10;

/// Random numbers of a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// How much was acknowledged.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) puts: u64,
    pub(crate) parts: u64,
    pub(crate) completes: u64,
    pub(crate) deletes: u64,
}

impl Acknowledged {
    pub(crate) fn add(&mut self, other: &Acknowledged) {
        self.puts += other.puts;
        self.parts += other.parts;
        self.completes += other.completes;
        self.deletes += other.deletes;
    }
}

/// An upload that the server has acknowledged.
struct Upload {
    id: String,
    key: String,
    content: Content,
    /// Numbers of the parts that were acknowledged.
    parts: BTreeSet<usize>,
    /// A change of the whole that was sent and not answered.
    attempted: Option<Last>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Complete,
    Delete,
}

impl Upload {
    fn count(&self) -> usize {
        self.content.len.div_ceil(PART_BYTES)
    }

    fn path(&self) -> String {
        format!("/v1/uploads/{}", self.id)
    }
}

/// The server is gone: what was sent last has no answer.
struct Gone;

/// See the module's documentation.
pub(crate) struct Writer {
    pub(crate) name: u64,
    pub(crate) ledger: Ledger,
    upload: Option<Upload>,
    dice: Dice,
    done: Acknowledged,
}

/// An answer with its body, or that the server died before it was whole.
async fn answered(request: reqwest::RequestBuilder) -> Result<(u16, Value), Gone> {
    let answer = request.send().await.map_err(|_| Gone)?;
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await.map_err(|_| Gone)?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

impl Writer {
    pub(crate) fn new(name: u64, seed: u64) -> Writer {
        let dice = Dice::new(seed.wrapping_mul(1000).wrapping_add(name));
        Writer { name, ledger: Ledger::default(), upload: None, dice, done: Acknowledged::default() }
    }

    /// Works until the server dies; what was acknowledged meanwhile.
    pub(crate) async fn work(&mut self, server: &Server) -> Acknowledged {
        self.done = Acknowledged::default();
        while self.step(server).await.is_ok() {}
        self.done
    }

    async fn step(&mut self, server: &Server) -> Result<(), Gone> {
        match self.dice.below(10) {
            0..4 => self.put(server).await,
            4 => self.delete(server).await,
            _ if self.upload.is_none() => self.create(server).await,
            9 if self.dice.below(8) == 0 => self.give_up(server).await,
            _ => self.part_or_complete(server).await,
        }
    }

    fn key(&mut self, kind: &str) -> String {
        format!("w{}/{kind}{}", self.name, self.dice.below(KEYS))
    }

    /// Mostly small, sometimes empty, sometimes many writes long.
    fn content(&mut self) -> Content {
        let len = match self.dice.below(10) {
            0 => 0,
            1..6 => 1 + self.dice.below(4 << 10),
            6..9 => 1 + self.dice.below(300 << 10),
            _ => 1 + self.dice.below(3 << 20),
        };
        Content { seed: self.dice.roll(), len: len as usize }
    }

    async fn put(&mut self, server: &Server) -> Result<(), Gone> {
        let (key, content) = (self.key("f"), self.content());
        let expected = if self.ledger.present(&key).is_some() { 200 } else { 201 };
        self.ledger.attempt(&key, Some(content));
        let request = server.put(&format!("/v1/files/default/{key}")).body(content.bytes());
        let (status, body) = answered(request).await?;
        assert_eq!(status, expected, "{key}: {body}");
        self.ledger.acknowledge(&key);
        self.done.puts += 1;
        Ok(())
    }

    async fn delete(&mut self, server: &Server) -> Result<(), Gone> {
        let key = self.key("f");
        let expected = if self.ledger.present(&key).is_some() { 204 } else { 404 };
        self.ledger.attempt(&key, None);
        let (status, body) = answered(server.delete(&format!("/v1/files/default/{key}"))).await?;
        assert_eq!(status, expected, "{key}: {body}");
        self.ledger.acknowledge(&key);
        self.done.deletes += 1;
        Ok(())
    }

    async fn create(&mut self, server: &Server) -> Result<(), Gone> {
        let (key, len) = (self.key("u"), 1 + self.dice.below(700 << 10) as usize);
        let content = Content { seed: self.dice.roll(), len };
        let wished = json!({"bucket": "default", "key": key, "size": len, "part_size": PART_BYTES});
        let (status, body) = answered(server.post("/v1/uploads").body(wished.to_string())).await?;
        assert_eq!(status, 201, "{body}");
        let id = body["upload_id"].as_str().unwrap().to_owned();
        self.upload = Some(Upload { id, key, content, parts: BTreeSet::new(), attempted: None });
        Ok(())
    }

    async fn part_or_complete(&mut self, server: &Server) -> Result<(), Gone> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let missing: Vec<usize> = (1..=upload.count()).filter(|n| !upload.parts.contains(n)).collect();
        if missing.is_empty() {
            return self.complete(server).await;
        }
        let number = missing[self.dice.below(missing.len() as u64) as usize];
        let bytes = upload.content.bytes();
        let part = bytes.chunks(PART_BYTES).nth(number - 1).unwrap().to_vec();
        let hash = blake3::hash(&part).to_hex().to_string();
        let (status, body) =
            answered(server.put(&format!("{}/parts/{number}", upload.path())).body(part)).await?;
        assert_eq!((status, body["blake3"].as_str()), (200, Some(hash.as_str())), "{body}");
        upload.parts.insert(number);
        self.done.parts += 1;
        Ok(())
    }

    async fn complete(&mut self, server: &Server) -> Result<(), Gone> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        upload.attempted = Some(Last::Complete);
        self.ledger.attempt(&upload.key, Some(upload.content));
        let (status, body) = answered(server.post(&format!("{}/complete", upload.path()))).await?;
        let hash = blake3::hash(&upload.content.bytes()).to_hex().to_string();
        assert_eq!((status, body["blake3"].as_str()), (201, Some(hash.as_str())), "{body}");
        self.ledger.acknowledge(&upload.key);
        self.upload = None;
        self.done.completes += 1;
        Ok(())
    }

    async fn give_up(&mut self, server: &Server) -> Result<(), Gone> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        upload.attempted = Some(Last::Delete);
        let (status, body) = answered(server.delete(&upload.path())).await?;
        assert_eq!(status, 204, "{body}");
        self.upload = None;
        self.done.deletes += 1;
        Ok(())
    }

    /// After a restart: every key, and the upload with the parts that were acknowledged.
    pub(crate) async fn verify(&mut self, server: &Server) {
        self.ledger.verify(server).await;
        let Some(mut upload) = self.upload.take() else { return };
        let Ok((status, body)) = answered(server.get(&upload.path())).await else {
            panic!("it just started")
        };
        if status == 404 {
            assert_eq!(upload.attempted, Some(Last::Delete), "{} is gone: {body}", upload.id);
            return;
        }
        assert_eq!(status, 200, "{body}");
        let received = numbers(body["received"].as_str().unwrap());
        let lost: Vec<_> = upload.parts.difference(&received).collect();
        assert!(lost.is_empty(), "acknowledged parts {lost:?} of {} are lost: {body}", upload.id);
        if body["state"] == "complete" {
            assert_eq!(upload.attempted, Some(Last::Complete), "{body}");
            assert_eq!(self.ledger.present(&upload.key), Some(upload.content), "{body}");
            return;
        }
        assert_eq!(body["state"], "open", "nothing is left half-way: {body}");
        // What came through unacknowledged need not be sent again.
        upload.parts = received;
        upload.attempted = None;
        self.upload = Some(upload);
    }
}

/// `1-4,7` as numbers.
fn numbers(ranges: &str) -> BTreeSet<usize> {
    let parse = |text: &str| -> usize { text.parse().unwrap() };
    let spans = ranges.split(',').filter(|span| !span.is_empty());
    spans
        .flat_map(|span| {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            parse(first)..=parse(last)
        })
        .collect()
}
