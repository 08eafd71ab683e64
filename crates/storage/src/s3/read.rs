//! Reading blobs: ranged requests whose answers are taken as they come, several opened ahead of the one that is read, so that
//! small blobs do not cost a round trip each, and what waits does so in the sockets' buffers.
//!
//! What breaks off is asked for again from the very next byte, with `If-Match`: a blob that is gone or another one is
//! `data_lost`, never fewer bytes.

use super::client::{Bodied, Call, unsent};
use super::fault::{Fault, error, lost};
use super::receipt::{Place, Run};
use super::stage::{blob_key, loose_key};
use super::{Inner, Reading};
use crate::{Coming, Reader};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use carrack_domain::digest::join_crc32;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Error, Result, UploadId};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, Response};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Bytes of one request; a longer run takes several.
const REQUEST_BYTES: u64 = 16 << 20;
/// Requests that are opened ahead, as long as they are for no more than so many bytes, but two of any size.
const AHEAD_MAX: usize = 16;
const AHEAD_BYTES: u64 = 16 << 20;
/// How long S3 may bring nothing in the middle of an answer.
const IDLE: Duration = Duration::from_secs(10);
/// How long an answer may take to begin.
const BEGIN: Duration = Duration::from_secs(5);
/// How often in a row it is asked again without a byte having come, and after what pauses: 100 ms, then twice as long each time.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// Blobs that a reader keeps from being deleted.
const HELD_MAX: usize = 256;

/// What is known of a stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) tag: String,
    /// The CRC-32 of the whole, where S3 tells.
    pub(super) crc32: Option<String>,
}

/// Bytes of a blob that were asked for.
struct Fetch {
    blob: BlobId,
    size: u64,
    next: u64,
    end: u64,
    answer: Answer,
    tries: u32,
}

enum Answer {
    Coming(oneshot::Receiver<std::result::Result<Response, Fault>>),
    Here(Response),
    /// What came and was not taken yet, and what comes after it.
    Broken,
}

pub(super) struct S3Reader {
    inner: Arc<Inner>,
    coming: Option<Coming>,
    /// What is left of the last run of `coming`.
    rest: Option<(BlobId, u64, u64, u64)>,
    fetches: VecDeque<Fetch>,
    /// What came of the first fetch and was not taken yet.
    taken: Bytes,
    asking: JoinSet<()>,
    held: VecDeque<Reading>,
}

impl Inner {
    /// What S3 has under the name of a blob.
    pub(super) async fn look(&self, blob: BlobId) -> Result<Option<Facts>> {
        let call = Call::new("head", Method::HEAD, blob_key(blob)).header("x-amz-checksum-mode", "ENABLED");
        let answer = match self.client.call(&call).await {
            Ok(answer) => answer,
            Err(fault) if fault.is_absent() => return Ok(None),
            Err(fault) => return Err(error("head", fault)),
        };
        let size = answer.header("content-length").and_then(|size| size.parse().ok());
        let tag = answer.header("etag").map(str::to_owned);
        let (Some(size), Some(tag)) = (size, tag) else {
            return Err(error("head", Fault::Broken("an object without size or ETag".to_owned())));
        };
        let crc32 =
            answer.header("x-amz-checksum-crc32").filter(|crc32| !crc32.contains('-')).map(str::to_owned);
        let composite = answer.header("x-amz-checksum-type").is_some_and(|kind| kind != "FULL_OBJECT");
        Ok(Some(Facts { size, tag, crc32: crc32.filter(|_| !composite) }))
    }

    /// The loose objects one after the other, as the body of a request.
    pub(super) fn loose_body(
        self: &Arc<Self>,
        stage: UploadId,
        runs: &[Run],
    ) -> Arc<dyn Fn() -> Bodied + Send + Sync> {
        let inner = self.clone();
        let runs: Vec<(String, u64)> = runs
            .iter()
            .filter_map(|run| match run.place {
                Place::Loose(name, _) => Some((loose_key(stage, run.from, name), run.len())),
                Place::Parts(_) | Place::Whole | Place::Direct(..) => None,
            })
            .collect();
        Arc::new(move || {
            let inner = inner.clone();
            let bodies = stream::iter(runs.clone()).then(move |(key, len)| {
                let inner = inner.clone();
                async move {
                    let response = inner.client.begin(&Call::new("read_loose", Method::GET, key)).await?;
                    if response.content_length() != Some(len) {
                        return Err(Fault::Lie("a loose object of another length".to_owned()));
                    }
                    Ok(response.bytes_stream().map_err(|error| unsent(&error)))
                }
            });
            Box::pin(bodies.try_flatten())
        })
    }
}

/// The CRC-32 of loose runs, one after the other.
pub(super) fn crc32_of(runs: &[Run]) -> u32 {
    runs.iter().fold(0, |all, run| match run.place {
        Place::Loose(_, crc32) => join_crc32(all, crc32, run.len()),
        Place::Parts(_) | Place::Whole | Place::Direct(..) => all,
    })
}

impl S3Reader {
    pub(super) fn new(inner: Arc<Inner>) -> S3Reader {
        S3Reader {
            inner,
            coming: None,
            rest: None,
            fetches: VecDeque::new(),
            taken: Bytes::new(),
            asking: JoinSet::new(),
            held: VecDeque::new(),
        }
    }

    /// Keeps a blob from being deleted by this process.
    fn hold(&mut self, blob: BlobId) -> Result<()> {
        if self.held.iter().any(|held| held.blob() == blob) {
            return Ok(());
        }
        let held = Reading::begin(&self.inner, blob).ok_or_else(|| lost(format!("blob {blob} is gone")))?;
        if self.held.len() == HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back(held);
        Ok(())
    }

    /// Asks for bytes, on a task that this reader owns.
    fn ask(&mut self, blob: BlobId, size: u64, from: u64, end: u64) -> Fetch {
        while self.asking.try_join_next().is_some() {}
        let (sender, receiver) = oneshot::channel();
        let inner = self.inner.clone();
        let call = get(&inner, blob, from, end);
        self.asking.spawn(async move {
            // Nobody waits any more: the answer is not needed.
            let _unneeded = sender.send(inner.client.begin(&call).await);
        });
        Fetch { blob, size, next: from, end, answer: Answer::Coming(receiver), tries: 0 }
    }

    /// Opens requests for what will be read.
    fn look_ahead(&mut self) {
        loop {
            let bytes: u64 = self.fetches.iter().map(|fetch| fetch.end - fetch.next).sum();
            let many = self.fetches.len() >= AHEAD_MAX || bytes >= AHEAD_BYTES;
            if many && self.fetches.len() >= 2 {
                return;
            }
            let run = self.rest.take().or_else(|| match self.coming.as_mut()?.next()? {
                Extent::Blob { blob, size, offset, len } => Some((blob, size, offset, offset + len)),
                Extent::Inline(_) => Some((BlobId::from_bytes([0; 16]), 0, 0, 0)),
            });
            let Some((blob, size, from, end)) = run else { return };
            if from == end {
                continue;
            }
            let until = end.min(from + REQUEST_BYTES);
            if until < end {
                self.rest = Some((blob, size, until, end));
            }
            let fetch = self.ask(blob, size, from, until);
            self.fetches.push_back(fetch);
        }
    }

    /// Makes the bytes at `offset` the next of the first fetch.
    fn turn_to(&mut self, blob: BlobId, size: u64, offset: u64, len: u64) {
        let is_next = |fetch: &Fetch| fetch.blob == blob && fetch.next == offset;
        self.look_ahead();
        if self
            .fetches
            .front()
            .is_some_and(|fetch| fetch.blob == blob && fetch.next - self.taken.len() as u64 == offset)
        {
            return;
        }
        self.taken = Bytes::new();
        match self.fetches.iter().position(is_next) {
            Some(at) => drop(self.fetches.drain(..at)),
            // Not what was said would come.
            None => {
                let fetch = self.ask(blob, size, offset, offset + len);
                self.fetches.push_front(fetch);
            }
        }
        self.look_ahead();
    }

    async fn read_blob(
        &mut self,
        target: &mut BytesMut,
        blob: BlobId,
        size: u64,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        self.hold(blob)?;
        let (mut at, end) = (offset, offset + len);
        while at < end {
            self.turn_to(blob, size, at, end - at);
            let fetched = self.fetches.front_mut().map(|fetch| (fetch.end, fetch));
            let Some((until, fetch)) = fetched else { return Err(Error::broken("nothing was asked for")) };
            if self.taken.is_empty() {
                self.taken = fetch.more(&self.inner).await?;
            }
            let count = (end - at).min(self.taken.len() as u64);
            target.extend_from_slice(&self.taken.split_to(count as usize));
            at += count;
            if at == until {
                self.fetches.pop_front();
            }
        }
        Ok(())
    }
}

fn get(inner: &Inner, blob: BlobId, from: u64, end: u64) -> Call {
    let mut call =
        Call::new("read", Method::GET, blob_key(blob)).header("range", format!("bytes={from}-{}", end - 1));
    if let Some(facts) = inner.facts.get(&blob) {
        call = call.header("if-match", facts.tag);
    }
    call.patience = BEGIN;
    call
}

impl Fetch {
    /// The bytes that follow, at least one.
    async fn more(&mut self, inner: &Arc<Inner>) -> Result<Bytes> {
        loop {
            let fault = match self.once(inner).await {
                Ok(bytes) => {
                    self.tries = 0;
                    self.next += bytes.len() as u64;
                    return Ok(bytes);
                }
                Err(fault) => fault,
            };
            self.answer = Answer::Broken;
            let blob = self.blob;
            if fault.is_absent() || matches!(fault, Fault::Refused { status: 412 | 416, .. }) {
                return Err(lost(format!("blob {blob} is gone or is not what it was: {fault}")));
            }
            if let Fault::Lie(what) = fault {
                return Err(lost(format!("blob {blob}: {what}")));
            }
            if let Fault::Silent = fault
                && let Some(since) = Instant::now().checked_sub(IDLE)
            {
                inner.client.renew(since);
            }
            self.tries += 1;
            let passing = fault.is_passing() || matches!(fault, Fault::Silent);
            if self.tries >= TRIES || !passing {
                return Err(error("read", fault));
            }
            ::metrics::counter!(crate::metrics::RETRIES, "op" => "read", "kind" => fault.kind()).increment(1);
            tokio::time::sleep(PAUSE * 2_u32.pow(self.tries - 1)).await;
        }
    }

    async fn once(&mut self, inner: &Arc<Inner>) -> std::result::Result<Bytes, Fault> {
        let response = match &mut self.answer {
            Answer::Here(response) => response,
            answer => {
                let response = match answer {
                    Answer::Coming(coming) => coming.await.unwrap_or(Err(Fault::Silent))?,
                    Answer::Here(_) | Answer::Broken => {
                        inner.client.begin(&get(inner, self.blob, self.next, self.end)).await?
                    }
                };
                check(&response, self.size, self.next, self.end)?;
                *answer = Answer::Here(response);
                let Answer::Here(response) = answer else { return Err(Fault::Silent) };
                response
            }
        };
        loop {
            let chunk = match tokio::time::timeout(IDLE, response.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| unsent(&error))?,
                Err(_) => return Err(Fault::Silent),
            };
            match chunk {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) if chunk.len() as u64 <= self.end - self.next => return Ok(chunk),
                Some(_) => return Err(Fault::Lie("S3 sends more than it was asked for".to_owned())),
                None => return Err(Fault::Broken("an answer that ends too early".to_owned())),
            }
        }
    }
}

/// A lie unless the answer is what was asked for, of a blob of the right size.
fn check(response: &Response, size: u64, from: u64, end: u64) -> std::result::Result<(), Fault> {
    if response.status() != 206 {
        let whole = from == 0 && end == size && response.content_length() == Some(size);
        return if whole { Ok(()) } else { Err(Fault::Lie("S3 does not answer with a range".to_owned())) };
    }
    let expected = format!("bytes {from}-{}/{size}", end - 1);
    let found =
        response.headers().get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if found == expected {
        Ok(())
    } else {
        Err(Fault::Lie(format!("S3 has {found:?} instead of {expected:?}")))
    }
}

#[async_trait]
impl Reader for S3Reader {
    fn follow(&mut self, coming: Coming) {
        self.coming = Some(coming);
    }

    fn maps(&self) -> bool {
        false
    }

    async fn open(&mut self, blob: BlobId, size: u64) -> Result<()> {
        self.hold(blob)?;
        let Some(facts) = self.inner.look(blob).await? else {
            return Err(lost(format!("blob {blob} is gone")));
        };
        if facts.size != size {
            return Err(lost(format!("blob {blob} has {} bytes instead of {size}", facts.size)));
        }
        self.inner.facts.insert(blob, facts);
        Ok(())
    }

    async fn read(&mut self, extents: Vec<Extent>) -> Result<Bytes> {
        if let [Extent::Inline(bytes)] = &extents[..] {
            return Ok(bytes.clone());
        }
        let len: u64 = extents.iter().map(Extent::len).sum();
        let len = usize::try_from(len).map_err(|error| Error::internal("size a read", error))?;
        let mut target = BytesMut::with_capacity(len);
        for extent in extents {
            match extent {
                Extent::Inline(bytes) => target.extend_from_slice(&bytes),
                Extent::Blob { blob, size, offset, len } => {
                    self.read_blob(&mut target, blob, size, offset, len).await?;
                }
            }
        }
        Ok(target.freeze())
    }
}
