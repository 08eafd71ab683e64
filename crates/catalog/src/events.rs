//! What is told to others of changes: an outbox that is written in the transaction of the change, and where each of those
//! who are told is in it.
//!
//! *At least once.* An event is in the outbox if and only if its change was made. A sink passes it when it was told; a crash in
//! between tells it again, under the same id. *In order.* Events have numbers in the order in which their changes were made.
//! *Bounds.* What all sinks have passed is deleted, and what is too old whoever has passed it.
//! Nothing is written unless the catalog was opened to keep events.

use async_trait::async_trait;
use carrack_domain::audit::{Change, Context};
use carrack_domain::{Result, Timestamp};
use serde_json::{Map, Value};
use std::time::Duration;

/// A change, as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// Its name, which no other event has, of any catalog.
    pub id: String,
    /// When it happened.
    pub at: Timestamp,
    /// What happened, such as `file.created`.
    pub kind: String,
    /// To what: `BUCKET/KEY` of a file, a bucket's name, or an id. Events of the same subject are told in order.
    pub subject: String,
    /// An object in JSON.
    pub data: String,
}

/// Where a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// The number of the last event it was told.
    pub passed: u64,
    /// How many there are after it.
    pub pending: u64,
    /// Since when it has not taken the next one.
    pub failing_since: Option<Timestamp>,
    /// Why.
    pub problem: Option<String>,
    /// Whether it was given up: it is told nothing more.
    pub is_dead: bool,
}

/// The right to tell a sink, for as long as it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Raised with every new holder: what an older one writes is refused.
    pub fence: u64,
    /// The number of the last event the sink was told.
    pub passed: u64,
    /// Since when it has not taken the next one.
    pub failing_since: Option<Timestamp>,
}

/// The part of a catalog that keeps events.
#[async_trait]
pub trait EventCatalog: Send + Sync + 'static {
    /// These are the sinks from now on. One that is new is told what happens from now on; one that was given up is tried
    /// again; what is known of others is forgotten.
    async fn set_sinks(&self, names: &[String]) -> Result<()>;

    /// All sinks by name.
    async fn sinks(&self) -> Result<Vec<Sink>>;

    /// Takes or keeps the right to tell a sink, by the catalog's clock. `None` while somebody else has it, and of a sink that
    /// is unknown or was given up.
    async fn take_turn(&self, sink: &str, holder: [u8; 16], lease: Duration) -> Result<Option<Turn>>;

    /// Gives it back. Nothing when it is somebody else's by now.
    async fn end_turn(&self, sink: &str, fence: u64) -> Result<()>;

    /// Events after this number, oldest first, at most `limit`.
    async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>>;

    /// The sink was told everything up to this number; `superseded` when it is somebody else's turn by now.
    async fn pass(&self, sink: &str, fence: u64, seq: u64) -> Result<()>;

    /// The sink did not take the next event at `now`; with `give_up` it is told nothing more. `superseded` as above.
    async fn note_failure(
        &self,
        sink: &str,
        fence: u64,
        now: Timestamp,
        problem: &str,
        give_up: bool,
    ) -> Result<()>;

    /// Deletes what every sink has passed, given up or not, and what happened before `before`; at most `limit`, and how many.
    async fn drop_events(&self, before: Timestamp, limit: usize) -> Result<u64>;
}

/// An event about to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) kind: &'static str,
    pub(crate) subject: String,
    pub(crate) data: String,
}

/// What others are told of a change; nothing of most.
pub(crate) fn of_change(change: &Change, by: Option<&Context>) -> Vec<NewEvent> {
    // What else the detail says, such as a bucket's settings, comes after a space.
    let outcome = change.detail.as_deref().and_then(|detail| detail.split(' ').next());
    let is = |word: &str| outcome == Some(word);
    let kinds: &[&'static str] = match change.action {
        "file.put" => &["file.created"],
        "file.delete" | "file.expire" => &["file.deleted"],
        "upload.create" => &["upload.created"],
        "upload.delete" => &["upload.deleted"],
        "upload.expire" => &["upload.expired"],
        "archive.create" if is("completed") => &["archive.created", "archive.completed"],
        "archive.create" => &["archive.created"],
        "archive.complete" => &["archive.completed"],
        "archive.fail" => &["archive.failed"],
        "archive.delete" => &["archive.deleted"],
        "archive.expire" => &["archive.expired"],
        "link.create" => &["link.created"],
        "link.use" => &["link.used"],
        "link.revoke" => &["link.revoked"],
        "bucket.put" if is("created") => &["bucket.created"],
        "bucket.put" => &["bucket.changed"],
        "bucket.delete" => &["bucket.deleted"],
        _ => &[],
    };
    if kinds.is_empty() {
        return Vec::new();
    }
    let (subject, data) = (subject(change), data(change, by));
    kinds.iter().map(|kind| NewEvent { kind, subject: subject.clone(), data: data.clone() }).collect()
}

fn subject(change: &Change) -> String {
    let place = &change.place;
    let is_of_file = change.action.starts_with("file.");
    match (&place.bucket, &place.key, &place.id) {
        (Some(bucket), Some(key), None) => format!("{bucket}/{key}"),
        (Some(bucket), Some(key), Some(_)) if is_of_file => format!("{bucket}/{key}"),
        (_, _, Some(id)) => id.clone(),
        (bucket, _, None) => bucket.clone().unwrap_or_default(),
    }
}

fn data(change: &Change, by: Option<&Context>) -> String {
    let mut data = Map::new();
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            data.insert(name.to_owned(), Value::from(value));
        }
    };
    text("bucket", change.place.bucket.as_deref());
    text("key", change.place.key.as_deref());
    text("id", change.place.id.as_deref());
    text("etag", change.version.as_deref());
    text("detail", change.detail.as_deref());
    text("subject", by.and_then(Context::identity).map(|identity| identity.subject.as_str()));
    if let Some(bytes) = change.bytes {
        data.insert("size".to_owned(), Value::from(bytes));
    }
    if change.action == "file.expire" {
        data.insert("detail".to_owned(), Value::from("expired"));
    }
    Value::Object(data).to_string()
}
