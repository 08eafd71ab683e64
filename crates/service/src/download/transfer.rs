//! A slice of a rope on its way, and what is counted of everything that is.

use super::{Form, Kind, Reader};
use crate::limit::Traffic;
use crate::link::Delivery;
use crate::metrics;
use crate::transfers::{Standing, Watched};
use ::metrics::{Counter, Gauge};
use bytes::Bytes;
use carrack_domain::Result;
use carrack_domain::rope::{Extent, Slice};
use carrack_storage::INLINE_BYTES_MAX;
use std::sync::{Arc, OnceLock};

/// Bytes read at once. Large enough to amortise a system call, small enough that a slow client costs little.
const READ_BYTES: u64 = 256 << 10;
/// The same where the reader may be asked for more although its client takes nothing (HTTP/2, for each stream).
pub(super) const COPIED_BYTES: u64 = 64 << 10;
/// Bytes handed over at once where they are not read but mapped: they take no memory, and the kernel sends what fits.
const MAPPED_BYTES: u64 = 4 << 20;
/// The same where it counts what was sent: what is handed over may not have left yet.
pub(crate) const COUNTED_BYTES: u64 = 256 << 10;
/// Extents gathered into one read: many small files of a ZIP become one buffer.
const GATHER_MAX: usize = 128;

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
pub(super) enum Ending {
    Completed,
    /// The client went away, or has not finished yet.
    Aborted,
    Failed,
}

/// How far it is, and who is told. Every way it can end, also being dropped in the middle, is counted.
pub(super) struct Account {
    kind: Kind,
    sent: u64,
    result: Ending,
    /// Where it counts as part of a link's use.
    delivery: Option<Delivery>,
    /// Where it is shown to those who watch.
    watched: Option<Watched>,
}

impl Account {
    pub(super) fn begin(kind: Kind) -> Account {
        kind.meters().in_progress.increment(1);
        Account { kind, sent: 0, result: Ending::Aborted, delivery: None, watched: None }
    }

    /// Shown to those who watch.
    pub(super) fn watched(mut self, watched: Option<Watched>) -> Account {
        self.watched = watched;
        self
    }

    pub(super) fn send(&mut self, bytes: u64) {
        self.sent += bytes;
        if let Some(watched) = &self.watched {
            watched.sent(self.sent);
        }
    }

    pub(super) fn end(&mut self, result: Ending) {
        self.result = result;
    }
}

impl Drop for Account {
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

/// A slice under way.
pub struct Transfer {
    slice: Slice,
    reader: Box<dyn Reader>,
    /// An extent that did not fit into the read before.
    rest: Option<Extent>,
    form: Form,
    account: Account,
    /// The right to it, and the rates that it shares with others.
    traffic: Traffic,
    /// What has to live until the last byte is read, such as an archive's manifest.
    _hold: Option<Arc<dyn Send + Sync>>,
}

impl Transfer {
    /// Begins to send `slice`, reading with `reader`, as `traffic` allows; `hold` lives as long as the transfer.
    pub fn new(
        traffic: Traffic,
        slice: Slice,
        mut reader: Box<dyn Reader>,
        form: Form,
        kind: Kind,
        hold: Option<Arc<dyn Send + Sync>>,
    ) -> Transfer {
        reader.follow(Box::new(slice.clone()));
        let form = if reader.maps() { form } else { Form::Copied };
        Transfer { slice, reader, rest: None, form, account: Account::begin(kind), traffic, _hold: hold }
    }

    /// Shows how it goes.
    pub fn watched(mut self, watched: Option<Watched>) -> Transfer {
        self.account.watched = watched;
        self
    }

    /// Counts what is sent as part of a link's use.
    pub fn counted(mut self, delivery: Delivery) -> Transfer {
        self.account.delivery = Some(delivery);
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
            self.account.end(Ending::Completed);
            return Ok(None);
        }
        if let Some(delivery) = &mut self.account.delivery
            && let Err(error) = delivery.take(extents.iter().map(Extent::len).sum())
        {
            // What was sent so far was sent: nothing of it was lost on the way.
            if let Some(delivery) = self.account.delivery.take() {
                delivery.end(true);
            }
            return Err(error);
        }
        match self.reader.read(extents).await {
            Ok(bytes) => {
                self.account.send(bytes.len() as u64);
                if self.slice.is_empty() && self.rest.is_none() {
                    self.account.end(Ending::Completed);
                }
                Ok(Some(bytes))
            }
            Err(error) => {
                self.account.end(Ending::Failed);
                Err(error)
            }
        }
    }

    /// Bytes that are handed over at once, at most.
    fn mapped(&self) -> u64 {
        match (self.form, &self.account.delivery) {
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
