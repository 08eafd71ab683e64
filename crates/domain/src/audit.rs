//! The audit log: who did what, or tried to, written so that no later change of it goes unnoticed.
//!
//! A [`Record`] is a line of JSON. Lines are kept in blocks, each of which names the hash of the one before ([`chain`]); the
//! head of that chain is signed now and then ([`checkpoint`]), and [`verify`] proves the whole.

pub mod chain;
pub mod checkpoint;
mod record;
pub mod verify;

pub use record::{Fields, Kind, Lines, Record};

use crate::access::Identity;
use crate::clock::Timestamp;
use crate::id::{LinkId, TraceId};
use crate::key::{BucketName, Key};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// How somebody showed who they are. Of credentials only what names them is kept, never they themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// By nothing.
    Nothing,
    /// By the first administrator's token.
    Root,
    /// By an access token.
    Token,
    /// By the web app's cookie.
    Session,
    /// By a token that others have signed.
    Jwt,
    /// By a URL that was signed with the key of this id.
    Signed(String),
}

impl Via {
    /// Its name in a record.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Via::Nothing => "none",
            Via::Root => "root",
            Via::Token => "token",
            Via::Session => "session",
            Via::Jwt => "jwt",
            Via::Signed(_) => "signed",
        }
    }
}

/// What is acted on, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// A bucket.
    pub bucket: Option<String>,
    /// A key in it, or what keys begin with.
    pub key: Option<String>,
    /// An upload, archive, link or token.
    pub id: Option<String>,
}

/// What is known of a request besides what it does. It is learnt step by step, and goes with all work for the request.
#[derive(Debug)]
pub struct Context {
    trace: TraceId,
    address: Option<IpAddr>,
    began: Timestamp,
    actor: OnceLock<(Arc<Identity>, Via)>,
    link: OnceLock<LinkId>,
    place: OnceLock<Place>,
}

impl Context {
    /// Of a request that came from `address` at `began`.
    pub fn new(trace: TraceId, address: Option<IpAddr>, began: Timestamp) -> Context {
        let (actor, link, place) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Context { trace, address, began, actor, link, place }
    }

    /// Who makes it. What was said first holds.
    pub fn acts(&self, identity: Arc<Identity>, via: Via) {
        let _first = self.actor.set((identity, via));
    }

    /// The link it came by. What was said first holds.
    pub fn came_by(&self, link: LinkId) {
        let _first = self.link.set(link);
    }

    /// What it is about. What was said first holds.
    pub fn about(&self, place: Place) {
        let _first = self.place.set(place);
    }

    /// What it is about: a file.
    pub fn about_file(&self, bucket: &BucketName, key: &Key) {
        let (bucket, key) = (Some(bucket.to_string()), Some(key.to_string()));
        self.about(Place { bucket, key, id: None });
    }

    /// Who makes it, once that is known.
    pub fn identity(&self) -> Option<&Identity> {
        self.actor.get().map(|(identity, _)| &**identity)
    }

    /// From where it came.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// When it came.
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// A record of this request that says nothing yet of what it is about.
    pub fn by(&self, kind: Kind, at: Timestamp, action: &'static str) -> Record<'_> {
        let mut record = Record::new(kind, at, action);
        record.trace = Some(self.trace);
        record.address = self.address;
        record.link = self.link.get().copied();
        match self.actor.get() {
            Some((identity, via)) => {
                record.subject = Some(&identity.subject);
                record.role = Some(identity.role);
                record.token = identity.token;
                record.auth = via.as_str();
                if let Via::Signed(kid) = via {
                    record.kid = Some(kid);
                }
                if record.link.is_some() {
                    record.auth = "link";
                }
            }
            None => record.auth = "refused",
        }
        record
    }

    /// A record of this request.
    pub fn record(&self, kind: Kind, at: Timestamp, action: &'static str) -> Record<'_> {
        let mut record = self.by(kind, at, action);
        if let Some(place) = self.place.get() {
            record.bucket = place.bucket.as_deref();
            record.key = place.key.as_deref();
            record.id = place.id.as_deref();
        }
        record
    }
}

/// A change of the catalog: what was done to what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What was done, such as `file.put`.
    pub action: &'static str,
    /// To what.
    pub place: Place,
    /// The content it has now.
    pub version: Option<String>,
    /// Bytes it is about.
    pub bytes: Option<u64>,
    /// Anything else worth knowing.
    pub detail: Option<String>,
}

impl Change {
    /// A change that is not about anything yet.
    pub fn new(action: &'static str) -> Change {
        Change { action, ..Change::default() }
    }

    /// About a bucket.
    pub fn of_bucket(mut self, bucket: &BucketName) -> Change {
        self.place.bucket = Some(bucket.to_string());
        self
    }

    /// About a file.
    pub fn of_file(mut self, bucket: &BucketName, key: &Key) -> Change {
        self.place.key = Some(key.to_string());
        self.of_bucket(bucket)
    }

    /// About what has this id.
    pub fn of(mut self, id: impl std::fmt::Display) -> Change {
        self.place.id = Some(id.to_string());
        self
    }

    /// With so many bytes.
    pub fn bytes(mut self, bytes: u64) -> Change {
        self.bytes = Some(bytes);
        self
    }

    /// With this remark.
    pub fn detail(mut self, detail: impl Into<String>) -> Change {
        self.detail = Some(detail.into());
        self
    }

    /// Its record: of a request's doing, or, without one, of the server's own.
    pub fn record<'a>(&'a self, by: Option<&'a Context>, at: Timestamp) -> Record<'a> {
        let mut record = match by {
            Some(context) => context.by(Kind::Change, at, self.action),
            None => Record::new(Kind::Change, at, self.action),
        };
        record.bucket = self.place.bucket.as_deref();
        record.key = self.place.key.as_deref();
        record.id = self.place.id.as_deref();
        record.version = self.version.as_deref();
        record.bytes = self.bytes;
        record.detail = self.detail.as_deref();
        record
    }
}
