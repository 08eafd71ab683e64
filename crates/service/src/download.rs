//! What goes out: a rope's slice on its way to a client.

use crate::limit::Traffic;
use crate::link::Delivery;
use crate::transfers::{Standing, Watched};
use crate::{Core, metrics};
use ::metrics::{Counter, Gauge};
use bytes::Bytes;
use carrack_domain::access::ReadFile;
use carrack_domain::file::{Blob, File};
use carrack_domain::rope::{Extent, Slice};
use carrack_domain::{BlobId, Code, Error, Grant, Result, Rope};
use carrack_storage::INLINE_BYTES_MAX;
pub use carrack_storage::{Form, Reader};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes read at once. Large enough to amortise a system call, small enough that a slow client costs little.
const READ_BYTES: u64 = 256 << 10;
/// The same where the reader may be asked for more although its client takes nothing (HTTP/2, for each stream).
const COPIED_BYTES: u64 = 64 << 10;
/// Bytes handed over at once where they are not read but mapped: they take no memory, and the kernel sends what fits.
const MAPPED_BYTES: u64 = 4 << 20;
/// The same where it counts what was sent: what is handed over may not have left yet.
pub(crate) const COUNTED_BYTES: u64 = 256 << 10;
/// Extents gathered into one read: many small files of a ZIP become one buffer.
const GATHER_MAX: usize = 128;

/// Opens files for download.
pub struct Downloads {
    core: Arc<Core>,
    readings: Arc<Readings>,
}

/// Blobs in pieces that are being read. A reader has one piece open at a time, so deletion asks here first: the next
/// round of maintenance deletes what is held now. Bounded by the requests being served.
#[derive(Default)]
pub(crate) struct Readings(Mutex<HashMap<BlobId, usize>>);

impl Readings {
    fn counts(&self) -> MutexGuard<'_, HashMap<BlobId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody reads this blob piece by piece.
    pub(crate) fn holds(&self, blob: BlobId) -> bool {
        self.counts().contains_key(&blob)
    }

    fn begin(self: &Arc<Readings>, blob: BlobId) -> Arc<Reading> {
        *self.counts().entry(blob).or_default() += 1;
        Arc::new(Reading { readings: self.clone(), blob })
    }
}

/// One of them, until dropped.
struct Reading {
    readings: Arc<Readings>,
    blob: BlobId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut counts = self.readings.counts();
        if let Some(count) = counts.get_mut(&self.blob) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.blob);
            }
        }
    }
}

/// A file that is open: its bytes are there, and stay while this lives.
pub struct OpenFile {
    /// The file's facts.
    pub file: Arc<File>,
    /// Its content.
    pub rope: Rope,
    /// Has its blob open.
    pub reader: Box<dyn Reader>,
    /// Keeps a blob in pieces from being deleted; hold it as long as the rope is read.
    pub hold: Option<Arc<dyn Send + Sync>>,
}

impl Downloads {
    pub(crate) fn new(core: Arc<Core>, readings: Arc<Readings>) -> Downloads {
        Downloads { core, readings }
    }

    /// A file's content, opened: everything that can fail before the first byte has not failed.
    pub async fn open(&self, grant: &Grant<ReadFile>, form: Form) -> Result<OpenFile> {
        let place = grant.resource();
        let mut reader = self.core.contents.reader(form);
        let mut file = self.core.facts.file(place).await?;
        let mut hold = self.hold(&file);
        if hold.is_some() {
            // Looked up once more: whoever deletes it from now on sees the hold.
            file = self.core.facts.file(place).await?;
            hold = self.hold(&file);
        }
        if let Err(error) = open_all(&mut *reader, &file.blob).await {
            // Replaced or deleted between the two look-ups? Then that is the answer, not the missing blob.
            let now = self.core.facts.file(place).await?;
            if error.code() != Code::DataLost || now.blob.id == file.blob.id {
                return Err(error);
            }
            file = now;
            hold = self.hold(&file);
            open_all(&mut *reader, &file.blob).await?;
        }
        let rope = Rope::of_blob(file.blob.clone(), file.etag(), file.created_at);
        Ok(OpenFile { file, rope, reader, hold })
    }

    /// A file's content as it was, opened, whether the file still has it or not; `content_gone` once it is not stored any
    /// more. Who asks has asked whether it may be read.
    pub(crate) async fn open_content(&self, file: &File, form: Form) -> Result<OpenFile> {
        let gone = || Error::new(Code::ContentGone, "The content is not stored any more.");
        let mut reader = self.core.contents.reader(form);
        let blob = self.core.catalog.blob(&file.blob.id).await?.ok_or_else(gone)?;
        let file = Arc::new(File { blob, ..file.clone() });
        let hold = self.hold(&file);
        if let Err(error) = open_all(&mut *reader, &file.blob).await {
            let known = self.core.catalog.blob(&file.blob.id).await?.is_some();
            return Err(if known || error.code() != Code::DataLost { error } else { gone() });
        }
        let rope = Rope::of_blob(file.blob.clone(), file.etag(), file.created_at);
        Ok(OpenFile { file, rope, reader, hold })
    }

    fn hold(&self, file: &File) -> Option<Arc<dyn Send + Sync>> {
        file.blob.pieces.as_ref().map(|_| self.readings.begin(file.blob.id) as Arc<dyn Send + Sync>)
    }
}

/// Makes sure that every byte of the blob is there.
async fn open_all(reader: &mut dyn Reader, blob: &Blob) -> Result<()> {
    for (run, size) in blob.stored() {
        reader.open(run, size).await?;
    }
    Ok(())
}

/// What a transfer is, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole file.
    Full,
    /// A part of one, or several.
    Range,
    /// An archive or a part of one.
    Zip,
}

impl Kind {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Range => "range",
            Kind::Zip => "zip",
        }
    }
}

impl Kind {
    /// Handles of this kind's metrics, looked up in the recorder once.
    fn meters(self) -> &'static Meters {
        static METERS: [OnceLock<Meters>; 3] = [const { OnceLock::new() }; 3];
        METERS[self as usize].get_or_init(|| Meters::new(self.as_str()))
    }
}

struct Meters {
    in_progress: Gauge,
    bytes: Counter,
    completed: Counter,
    aborted: Counter,
    failed: Counter,
}

impl Meters {
    fn new(kind: &'static str) -> Meters {
        let ended = |result: &'static str| ::metrics::counter!(metrics::DOWNLOADS, "kind" => kind, "result" => result);
        Meters {
            in_progress: ::metrics::gauge!(metrics::DOWNLOADS_IN_PROGRESS, "kind" => kind),
            bytes: ::metrics::counter!(metrics::DOWNLOAD_BYTES, "kind" => kind),
            completed: ended("completed"),
            aborted: ended("aborted"),
            failed: ended("failed"),
        }
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Completed,
    /// The client went away, or has not finished yet.
    Aborted,
    Failed,
}

/// A slice under way. Every way it can end, also being dropped in the middle, is counted.
pub struct Transfer {
    slice: Slice,
    reader: Box<dyn Reader>,
    /// An extent that did not fit into the read before.
    rest: Option<Extent>,
    kind: Kind,
    form: Form,
    sent: u64,
    result: Ending,
    /// The right to it, and the rates that it shares with others.
    traffic: Traffic,
    /// Where it counts as part of a link's use.
    delivery: Option<Delivery>,
    /// Where it is shown to those who watch.
    watched: Option<Watched>,
    /// What has to live until the last byte is read, such as an archive's manifest.
    _hold: Option<Arc<dyn Send + Sync>>,
}

impl Transfer {
    /// Begins to send `slice`, reading with `reader`, as `traffic` allows; `hold` lives as long as the transfer.
    pub fn new(
        traffic: Traffic,
        slice: Slice,
        reader: Box<dyn Reader>,
        form: Form,
        kind: Kind,
        hold: Option<Arc<dyn Send + Sync>>,
    ) -> Transfer {
        kind.meters().in_progress.increment(1);
        Transfer {
            slice,
            reader,
            rest: None,
            kind,
            form,
            sent: 0,
            result: Ending::Aborted,
            traffic,
            delivery: None,
            watched: None,
            _hold: hold,
        }
    }

    /// Shows how it goes.
    pub fn watched(mut self, watched: Option<Watched>) -> Transfer {
        self.watched = watched;
        self
    }

    /// Counts what is sent as part of a link's use.
    pub fn counted(mut self, delivery: Delivery) -> Transfer {
        self.delivery = Some(delivery);
        self
    }

    /// The bytes that follow; `None` after the last. After an error the answer has to end as a broken one.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let left = self.slice.len() + self.rest.as_ref().map_or(0, Extent::len);
        let extents = match left {
            0 => Vec::new(),
            left => {
                let wants = left.min(self.mapped());
                let admitted = self.traffic.meter().admit(wants).await;
                let extents = self.gather(admitted);
                let total = extents.iter().map(Extent::len).sum();
                self.traffic.meter().give_back(admitted.saturating_sub(total));
                extents
            }
        };
        if extents.is_empty() {
            self.result = Ending::Completed;
            return Ok(None);
        }
        if let Some(delivery) = &mut self.delivery
            && let Err(error) = delivery.take(extents.iter().map(Extent::len).sum())
        {
            // What was sent so far was sent: nothing of it was lost on the way.
            if let Some(delivery) = self.delivery.take() {
                delivery.end(true);
            }
            return Err(error);
        }
        match self.reader.read(extents).await {
            Ok(bytes) => {
                self.sent += bytes.len() as u64;
                if let Some(watched) = &self.watched {
                    watched.sent(self.sent);
                }
                if self.slice.is_empty() && self.rest.is_none() {
                    self.result = Ending::Completed;
                }
                Ok(Some(bytes))
            }
            Err(error) => {
                self.result = Ending::Failed;
                Err(error)
            }
        }
    }

    /// Bytes that are handed over at once, at most.
    fn mapped(&self) -> u64 {
        match (self.form, &self.delivery) {
            (Form::Copied, _) => COPIED_BYTES,
            (Form::Mapped, Some(_)) => COUNTED_BYTES,
            (Form::Mapped, None) => MAPPED_BYTES,
        }
    }

    /// What comes next, in order, of at most `piece` bytes: one large run of a blob by itself, or small extents together.
    fn gather(&mut self, piece: u64) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut total = 0;
        let mapped = self.mapped().min(piece);
        let most = if self.form == Form::Copied { COPIED_BYTES } else { READ_BYTES };
        let most = most.min(piece);
        while total < most && extents.len() < GATHER_MAX {
            let Some(extent) = self.rest.take().or_else(|| self.slice.next()) else { break };
            if self.form == Form::Mapped && is_run(&extent) {
                if extents.is_empty() {
                    let (now, later) = split(extent, mapped);
                    self.rest = later;
                    extents.push(now);
                } else {
                    self.rest = Some(extent);
                }
                break;
            }
            let (now, later) = split(extent, most - total);
            total += now.len();
            extents.push(now);
            self.rest = later;
        }
        extents
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.end(matches!(self.result, Ending::Completed));
        }
        if let Some(watched) = self.watched.take() {
            watched.end(match self.result {
                Ending::Completed => Standing::Completed,
                Ending::Aborted => Standing::Aborted,
                Ending::Failed => Standing::Failed,
            });
        }
        let meters = self.kind.meters();
        meters.in_progress.decrement(1);
        meters.bytes.increment(self.sent);
        match self.result {
            Ending::Completed => meters.completed.increment(1),
            Ending::Aborted => meters.aborted.increment(1),
            Ending::Failed => meters.failed.increment(1),
        }
    }
}

/// Whether an extent is worth a `sendfile` of its own.
fn is_run(extent: &Extent) -> bool {
    matches!(extent, Extent::Blob { len, .. } if *len > INLINE_BYTES_MAX)
}

/// The first `len_max` bytes of an extent, and what remains.
fn split(extent: Extent, len_max: u64) -> (Extent, Option<Extent>) {
    if extent.len() <= len_max {
        return (extent, None);
    }
    match extent {
        Extent::Inline(mut bytes) => {
            let first = bytes.split_to(len_max as usize);
            (Extent::Inline(first), Some(Extent::Inline(bytes)))
        }
        Extent::Blob { blob, size, offset, len } => (
            Extent::Blob { blob, size, offset, len: len_max },
            Some(Extent::Blob { blob, size, offset: offset + len_max, len: len - len_max }),
        ),
    }
}
