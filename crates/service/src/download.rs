//! What goes out: a rope's slice on its way to a client.

mod flow;
mod transfer;

use crate::Core;
use crate::contents::CONTENT_BYTES_MAX;
use carrack_domain::access::ReadFile;
use carrack_domain::file::{Blob, File};
use carrack_domain::{BlobId, Code, Error, Grant, Result, Rope};
use carrack_storage::{Address, Shown};
pub use carrack_storage::{Form, Reader};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use flow::Flow;
pub(crate) use transfer::COUNTED_BYTES;
pub use transfer::Transfer;

/// Opens files for download.
pub struct Downloads {
    core: Arc<Core>,
    readings: Arc<Readings>,
}

/// Blobs that are being read and could go meanwhile: those in pieces, of which a reader has one open at a time, and objects of
/// a shared store. Deletion asks here first, on every node: the next round of maintenance deletes what is held now. Bounded by
/// the requests being served.
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
    /// Keeps a blob that could go from being deleted; hold it as long as the rope is read.
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

    /// Where others may fetch a file past the server, for so long; `None` where it has to pass: one that is kept in the catalog,
    /// or in pieces.
    pub fn address(&self, file: &File, shown: &Shown, good_for: Duration) -> Option<Address> {
        let [(run, _)] = file.blob.stored()[..] else { return None };
        let is_stored = file.blob.size > CONTENT_BYTES_MAX;
        is_stored.then(|| self.core.storage.blob_address(run, shown, good_for)).flatten()
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

    /// A local file that is open stays when its name goes; pieces that are not open yet do not, nor do objects of a store that
    /// others delete from.
    fn hold(&self, file: &File) -> Option<Arc<dyn Send + Sync>> {
        let blob = &file.blob;
        let goes = blob.pieces.is_some() || (self.core.storage.is_shared() && blob.size > CONTENT_BYTES_MAX);
        goes.then(|| self.readings.begin(blob.id) as Arc<dyn Send + Sync>)
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
