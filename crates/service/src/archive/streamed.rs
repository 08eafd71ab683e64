//! A deflated ZIP at once: with a length when the deflated form of everything in it is there already, else made as it is sent.

use super::encode::{Form, lay_out};
use super::layout::ZipLayout;
use super::manifests::Key;
use super::plan::{plan, refused};
use super::pool::Pool;
use super::sources::{self, SIZE_MIN, encoding_of};
use super::stored::aside;
use super::{Archive, Archives, Selection};
use crate::{Body, Core};
use bytes::Bytes;
use carrack_catalog::Encoding;
use carrack_domain::{BlobId, Error, Result};
use carrack_storage::Form as Bytewise;
use carrack_zip::{Method, NewEntry, ZipStream, is_smaller};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Entries that are looked up at once.
const BATCH: usize = 1024;
/// The stream of a content up to this size is made before its header, so that the header says everything.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Entries are looked at, and then deflated, in runs of so many bytes or entries.
const RUN_BYTES: u64 = 64 << 20;
const RUN_ENTRIES: usize = 4096;
/// Pieces that wait for the client.
const WAITING: usize = 4;
/// Bytes of a stored content that are read at once.
const READ_BYTES: u64 = 256 << 10;

/// A deflated ZIP.
pub enum Deflated {
    /// All of it is there: a length, a tag, ranges.
    Ready(Archive),
    /// It is made as it is read. An error is never the end of it.
    Streamed(Body),
}

impl Archives {
    /// The ZIP of a selection, deflated where that makes it smaller.
    ///
    /// `empty_selection`, `archive_too_large`, `file_not_found` for a key that is not there.
    pub async fn deflated(&self, selection: Selection, form: Bytewise) -> Result<Deflated> {
        let bucket = selection.bucket()?.clone();
        let fingerprint = blake3::derive_key("carrack 2026 deflated selection", &selection.fingerprint());
        let generation = self.core.catalog.generation(&bucket).await?;
        if let Some(layout) = self.manifests.get(&Key::Selection(fingerprint, generation)) {
            return Ok(Deflated::Ready(self.outgoing(layout, form)?));
        }
        let turn = self.planning.lock().await;
        // From before the look-up until the layout is registered neither blob nor pack may be deleted.
        let building = self.manifests.build();
        let plan = plan(&self.core, selection, true).await?;
        let key = Key::Selection(fingerprint, plan.generation);
        let layout = Arc::new(plan.layout);
        if let Some((forms, packs)) = self.known(&layout).await? {
            let used: Vec<BlobId> = packs.keys().copied().collect();
            let laid_out = aside("lay out an archive", move || lay_out(&layout, &forms, &packs)).await?;
            let layout = building.keep(key, laid_out);
            self.core.catalog.touch_packs(&used, self.core.clock.now()).await?;
            return Ok(Deflated::Ready(self.outgoing(layout, form)?));
        }
        let layout = building.register(layout);
        drop(turn);
        let (sender, receiver) = mpsc::channel(WAITING);
        let stream = Streaming { core: self.core.clone(), pool: self.pool.clone(), layout, sender };
        self.core.tasks.spawn(stream.run());
        let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        Ok(Deflated::Streamed(Box::pin(body)))
    }

    /// The form of every entry, if all are known, with the packs they lie in.
    async fn known(&self, layout: &ZipLayout) -> Result<Option<(Vec<Form>, HashMap<BlobId, u64>)>> {
        let manifest = &layout.manifest;
        let mut forms = vec![Form::Stored; manifest.entries()];
        let mut packs = HashMap::new();
        let mut wanted = Vec::new();
        for entry in 0..manifest.entries() {
            let (size, digest) =
                (manifest.size(entry).unwrap_or(0), manifest.digest(entry).unwrap_or_default());
            if size >= SIZE_MIN {
                wanted.push((entry, encoding_of(&digest, size)));
            }
        }
        for batch in wanted.chunks(BATCH) {
            let ids: Vec<_> = batch.iter().map(|(_, id)| *id).collect();
            for ((entry, _), known) in batch.iter().zip(self.core.catalog.encodings(&ids).await?) {
                match known {
                    None => return Ok(None),
                    Some(Encoding::Stored { .. }) => {}
                    Some(Encoding::Deflated { pack, pack_size, offset, size }) => {
                        packs.insert(pack, pack_size);
                        forms[*entry] = Form::Deflated(pack, offset, size);
                    }
                }
            }
        }
        Ok(Some((forms, packs)))
    }
}

/// A ZIP on its way.
struct Streaming {
    core: Arc<Core>,
    pool: Arc<Pool>,
    layout: Arc<ZipLayout>,
    sender: mpsc::Sender<Result<Bytes>>,
}

/// Why no more is made.
enum Stop {
    /// The client has gone.
    Gone,
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fault(error)
    }
}

type Step<T> = std::result::Result<T, Stop>;

impl Streaming {
    async fn run(self) {
        if let Err(Stop::Fault(error)) = self.all().await {
            // The client has to see a broken body; if it has gone, nobody is left to be told.
            self.sender.send(Err(error)).await.ok();
        }
    }

    async fn send(&self, bytes: impl Into<Bytes>) -> Step<()> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(bytes)).await.map_err(|_| Stop::Gone)
    }

    fn size(&self, entry: usize) -> u64 {
        self.layout.manifest.size(entry).unwrap_or(0)
    }

    async fn all(&self) -> Step<()> {
        let mut zip = ZipStream::new();
        let entries = self.layout.manifest.entries();
        let mut begin = 0;
        while begin < entries {
            let (mut end, mut bytes) = (begin, 0);
            while end < entries && (end == begin || (bytes < RUN_BYTES && end - begin < RUN_ENTRIES)) {
                bytes += self.size(end);
                end += 1;
            }
            self.stretch(&mut zip, begin, end).await?;
            begin = end;
        }
        for piece in zip.finish() {
            self.send(piece).await?;
        }
        Ok(())
    }

    /// Sends the entries from `begin` to `end`.
    async fn stretch(&self, zip: &mut ZipStream, begin: usize, end: usize) -> Step<()> {
        let candidates = (begin..end).filter(|entry| self.size(*entry) >= SIZE_MIN);
        let looks = candidates.map(|entry| async move {
            let size = self.size(entry);
            let worth = size <= WHOLE_BYTES_MAX
                || sources::probe(&self.core, &self.pool, &self.layout, entry, size).await?;
            Ok::<_, Error>((entry, size, worth))
        });
        let mut looks = futures_util::stream::iter(looks).buffered(self.pool.width());
        let mut worth = Vec::new();
        while let Some(looked) = looks.next().await {
            let (entry, size, is_worth) = looked?;
            if is_worth {
                worth.push((entry, size));
            }
        }
        drop(looks);
        let (core, pool, layout) = (self.core.clone(), self.pool.clone(), self.layout.clone());
        let mut parts = std::pin::pin!(sources::deflate(core, pool, layout, worth.into_iter()));
        let (mut at, mut whole, mut sent) = (begin, Vec::new(), 0);
        while let Some(unit) = parts.next().await {
            for part in unit.map_err(|(_, error)| error)? {
                while at < part.entry {
                    self.stored(zip, at).await?;
                    at += 1;
                }
                if self.size(part.entry) <= WHOLE_BYTES_MAX {
                    whole.extend_from_slice(&part.bytes);
                    if part.last {
                        self.whole(zip, part.entry, std::mem::take(&mut whole)).await?;
                    }
                } else {
                    if sent == 0 {
                        self.send(zip.open(&self.entry(part.entry)?).map_err(refused)?).await?;
                    }
                    sent += part.bytes.len() as u64;
                    self.send(part.bytes).await?;
                    if part.last {
                        self.send(zip.close(std::mem::take(&mut sent))).await?;
                    }
                }
                at += usize::from(part.last);
            }
        }
        for entry in at..end {
            self.stored(zip, entry).await?;
        }
        Ok(())
    }

    fn entry(&self, entry: usize) -> Result<NewEntry<'_>> {
        let manifest = &self.layout.manifest;
        let missing = || Error::broken("the plan of an archive misses a column");
        let size = self.size(entry);
        Ok(NewEntry {
            name: manifest.name(entry).ok_or_else(missing)?,
            size,
            compressed: size,
            crc32: manifest.crc32(entry).ok_or_else(missing)?,
            method: Method::Store,
            modified: manifest.entry_modified(entry).ok_or_else(missing)?,
            content: [0; 16],
            stream: [0; 16],
            digest: [0; 32],
        })
    }

    /// Sends an entry whose stream is there, or, if that is no smaller, as it is.
    async fn whole(&self, zip: &mut ZipStream, entry: usize, stream: Vec<u8>) -> Step<()> {
        let len = stream.len() as u64;
        if !is_smaller(len, self.size(entry)) {
            return self.stored(zip, entry).await;
        }
        let deflated = NewEntry { method: Method::Deflate, compressed: len, ..self.entry(entry)? };
        let mut out = zip.ready(&deflated).map_err(refused)?;
        out.extend_from_slice(&stream);
        self.send(out).await
    }

    async fn stored(&self, zip: &mut ZipStream, entry: usize) -> Step<()> {
        self.send(zip.ready(&self.entry(entry)?).map_err(refused)?).await?;
        let (mut at, size) = (0, self.size(entry));
        let mut reader = self.core.contents.reader(Bytewise::Copied);
        while at < size {
            let len = READ_BYTES.min(size - at);
            let extents = self.layout.extents(entry, at, len);
            let extents = extents.ok_or_else(|| Error::broken("an archive names no blob for an entry"))?;
            self.send(reader.read(extents).await?).await?;
            at += len;
        }
        Ok(())
    }
}
