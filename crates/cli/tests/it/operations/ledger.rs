//! What a client was told: the last acknowledged state of each key, and the one change that may or may not have come
//! through when the server died.

use crate::server::{Server, content};
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes that a seed and a length stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) len: usize,
}

impl Content {
    pub(crate) fn bytes(self) -> Vec<u8> {
        content(self.len, self.seed)
    }
}

/// A file as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fate {
    size: u64,
    blake3: String,
}

impl Fate {
    pub(crate) fn of(file: &Value) -> Fate {
        Fate { size: file["size"].as_u64().unwrap(), blake3: file["blake3"].as_str().unwrap().to_owned() }
    }

    fn expected(bytes: &[u8]) -> Fate {
        Fate { size: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// One key. Only one change of it is ever under way.
#[derive(Debug, Default)]
struct Entry {
    /// The file, or that there is none.
    acknowledged: Option<Content>,
    /// A change that was sent and not answered.
    attempted: Option<Option<Content>>,
}

/// All keys of one writer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// A change is about to be sent: `None` deletes.
    pub(crate) fn attempt(&mut self, key: &str, change: Option<Content>) {
        self.entries.entry(key.to_owned()).or_default().attempted = Some(change);
    }

    /// The change was acknowledged.
    pub(crate) fn acknowledge(&mut self, key: &str) {
        let entry = self.entries.get_mut(key).unwrap();
        entry.acknowledged = entry.attempted.take().unwrap();
    }

    pub(crate) fn present(&self, key: &str) -> Option<Content> {
        self.entries.get(key)?.acknowledged
    }

    /// The files there are.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, Content)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.acknowledged?)))
    }

    /// A file as a listing shows it.
    pub(crate) fn described((key, content): (&String, Content)) -> (String, Fate) {
        (key.clone(), Fate::expected(&content.bytes()))
    }

    /// Looks every key up after a restart: the acknowledged state or the attempted one, byte for byte. What is found
    /// is the acknowledged state from then on: a server that is dead can no longer change its mind.
    pub(crate) async fn verify(&mut self, server: &Server) {
        for (key, entry) in &mut self.entries {
            let found = look(server, key).await;
            let mut possible = vec![entry.acknowledged];
            possible.extend(entry.attempted.take());
            let settled = possible.iter().find(|content| match (content, &found) {
                (Some(content), Some((fate, bytes))) => {
                    let expected = content.bytes();
                    *fate == Fate::expected(&expected) && *bytes == expected
                }
                (None, None) => true,
                _ => false,
            });
            let Some(settled) = settled else {
                let found = found.map(|(fate, bytes)| (fate, bytes.len()));
                panic!("{key}: expected one of {possible:?}, found {found:?}");
            };
            entry.acknowledged = *settled;
        }
    }
}

/// A file's description and its content; `None` when there is none.
async fn look(server: &Server, key: &str) -> Option<(Fate, Vec<u8>)> {
    let path = format!("/v1/files/default/{key}");
    let meta = server.get(&format!("{path}?meta")).send().await.unwrap();
    let got = server.get(&path).send().await.unwrap();
    assert_eq!(meta.status(), got.status(), "{key}");
    match meta.status().as_u16() {
        404 => None,
        200 => {
            let fate = Fate::of(&meta.json().await.unwrap());
            Some((fate, got.bytes().await.unwrap().to_vec()))
        }
        other => panic!("{key}: {other}"),
    }
}
