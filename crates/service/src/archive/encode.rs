//! The job of an archive: the deflated form of every content in it that is not there yet, then its manifest.
//!
//! Deflated forms are written into packs, many small ones into one, so that a million tiny files do not cost a million syncs.
//! A pack that is recorded is what a job that was killed continues from: at most one pack, or one large content, is made
//! again.

use super::layout::{Place, ZipLayout};
use super::packs::Packs;
use super::pool::Pool;
use super::sources::{self, SIZE_MIN, encoding_of, verdict_of};
use super::stored;
use crate::job::{Ended, Running, Work};
use crate::{Core, metrics};
use async_trait::async_trait;
use carrack_catalog::{Claim, Encoding};
use carrack_domain::archive::{Compression, Content};
use carrack_domain::{BlobId, EncodingId, Error, Result, Timestamp};
use carrack_zip::{BLOCK_BYTES, ManifestBuilder, Method, NewEntry};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;

/// Entries that are looked up at once.
const BATCH: usize = 1024;

/// Makes archives.
pub(super) struct ArchiveWork {
    pub(super) core: Arc<Core>,
    pub(super) pool: Arc<Pool>,
}

/// How an entry will lie in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Stored,
    /// In this pack, at this offset, so many bytes.
    Deflated(BlobId, u64, u64),
}

#[async_trait]
impl Work for ArchiveWork {
    async fn run(&self, claim: &Claim, running: &Running) -> std::result::Result<(), Ended> {
        let archive = self.core.catalog.archive(&claim.job).await?;
        let layout = Arc::new(stored::load(&self.core, archive.manifest).await?);
        let mut making = Making::new(self, claim, running, layout.clone());
        let made = making.make(archive.compression == Compression::Auto).await;
        making.packs.abandon().await;
        let forms = made?;
        let packs = making.packs.sizes;
        let laid_out = stored::aside("lay out an archive", move || lay_out(&layout, &forms, &packs)).await?;
        running.check()?;
        let finished = Arc::new(laid_out);
        let run = stored::keep(&self.core, &finished).await?;
        let content = content_of(&finished);
        match self.core.catalog.complete_archive(claim, &content, run).await {
            Ok(plan) => self.discard(plan).await,
            Err(error) => {
                self.discard(run.0).await;
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl ArchiveWork {
    /// Deletes a manifest that nothing needs; what stays after a failure is found without a record, and deleted, later.
    async fn discard(&self, run: BlobId) {
        if let Err(error) = self.core.storage.delete(run).await {
            tracing::warn!(%run, error = error.chain(), "a manifest will be deleted later");
        }
    }
}

/// What a finished layout comes to.
pub(super) fn content_of(layout: &ZipLayout) -> Content {
    Content {
        size: layout.manifest.len(),
        etag: layout.manifest.etag().to_owned(),
        modified: Timestamp::from_millis(layout.manifest.modified().saturating_mul(1000)),
    }
}

/// The job under way.
struct Making<'a> {
    work: &'a ArchiveWork,
    running: &'a Running,
    layout: Arc<ZipLayout>,
    /// How each entry will lie, once that is known.
    forms: Vec<Option<Form>>,
    /// The entry that is the first with a content that was not known.
    first: HashMap<EncodingId, usize>,
    /// Entries whose content another brings, and which.
    same: Vec<(usize, usize)>,
    packs: Packs,
}

impl<'a> Making<'a> {
    fn new(
        work: &'a ArchiveWork,
        claim: &'a Claim,
        running: &'a Running,
        layout: Arc<ZipLayout>,
    ) -> Making<'a> {
        let forms = vec![None; layout.manifest.entries()];
        let packs = Packs::new(work.core.clone(), claim.clone());
        Making { work, running, layout, forms, first: HashMap::new(), same: Vec::new(), packs }
    }

    /// The form of every entry, once all of them are there.
    async fn make(&mut self, probing: bool) -> std::result::Result<Vec<Form>, Ended> {
        let missing = self.settle_known(probing).await?;
        self.deflate(missing).await?;
        let forms: Option<Vec<Form>> = std::mem::take(&mut self.forms).into_iter().collect();
        Ok(forms.ok_or_else(|| Error::broken("an entry of an archive was not settled"))?)
    }

    fn size(&self, entry: usize) -> u64 {
        self.layout.manifest.size(entry).unwrap_or(0)
    }

    fn digest(&self, entry: usize) -> Result<[u8; 32]> {
        self.layout
            .manifest
            .digest(entry)
            .ok_or_else(|| Error::broken("the plan of an archive has no digests"))
    }

    /// Settles what is known already, and returns the others, each content once.
    async fn settle_known(&mut self, probing: bool) -> std::result::Result<Vec<(usize, u64)>, Ended> {
        let mut missing = Vec::new();
        for begin in (0..self.forms.len()).step_by(BATCH) {
            self.running.check()?;
            let end = self.forms.len().min(begin + BATCH);
            let mut batch = Vec::new();
            for entry in begin..end {
                if self.size(entry) < SIZE_MIN {
                    self.settle(entry, Form::Stored);
                } else {
                    batch.push((entry, encoding_of(&self.digest(entry)?, self.size(entry))));
                }
            }
            let mut unknown = self.look_up(&batch).await?;
            if probing {
                unknown = self.probe(unknown).await?;
            }
            for (entry, id) in unknown {
                match self.first.get(&id) {
                    Some(first) => self.same.push((entry, *first)),
                    None => {
                        self.first.insert(id, entry);
                        missing.push((entry, self.size(entry)));
                    }
                }
            }
        }
        Ok(missing)
    }

    /// Settles those whose encoding is recorded; returns the rest.
    async fn look_up(&mut self, batch: &[(usize, EncodingId)]) -> Result<Vec<(usize, EncodingId)>> {
        let ids: Vec<EncodingId> = batch.iter().map(|(_, id)| *id).collect();
        let known = self.work.core.catalog.encodings(&ids).await?;
        let gone = self.packs.adopt(known.iter().flatten()).await?;
        let mut unknown = Vec::new();
        for ((entry, id), known) in batch.iter().zip(known) {
            match known.filter(|encoding| !gone.contains(&encoding.pack())) {
                None => unknown.push((*entry, *id)),
                Some(Encoding::Stored { .. }) => self.settle(*entry, Form::Stored),
                Some(Encoding::Deflated { pack, offset, size, .. }) => {
                    self.settle(*entry, Form::Deflated(pack, offset, size));
                }
            }
        }
        Ok(unknown)
    }

    /// Looks at some of each long content, and settles those that are not worth the work. The verdicts are kept.
    async fn probe(
        &mut self,
        batch: Vec<(usize, EncodingId)>,
    ) -> std::result::Result<Vec<(usize, EncodingId)>, Ended> {
        let (long, mut worth): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(entry, _)| self.size(*entry) > BLOCK_BYTES as u64);
        let mut verdicts = Vec::with_capacity(long.len());
        for (entry, _) in &long {
            verdicts.push((*entry, verdict_of(&self.digest(*entry)?, self.size(*entry))));
        }
        let mut unknown = Vec::new();
        let open = self.look_up(&verdicts).await?;
        let open: HashMap<usize, EncodingId> = open.into_iter().collect();
        for (entry, id) in long {
            if let Some(verdict) = open.get(&entry) {
                unknown.push((entry, id, *verdict));
            }
        }
        let (work, layout) = (self.work, self.layout.clone());
        let sizes: Vec<u64> = unknown.iter().map(|(entry, ..)| self.size(*entry)).collect();
        let looks = unknown.into_iter().zip(sizes).map(|((entry, id, verdict), size)| {
            let layout = layout.clone();
            async move {
                let looked = sources::probe(&work.core, &work.pool, &layout, entry, size).await;
                (entry, id, verdict, looked)
            }
        });
        let mut looks = futures_util::stream::iter(looks).buffered(work.pool.width());
        while let Some((entry, id, verdict, looked)) = looks.next().await {
            self.running.check()?;
            if looked.map_err(|error| self.fault(entry, error))? {
                worth.push((entry, id));
            } else {
                self.packs.verdict(verdict);
                self.settle(entry, Form::Stored);
            }
        }
        drop(looks);
        worth.sort_unstable_by_key(|(entry, _)| *entry);
        Ok(worth)
    }

    /// Deflates what is missing, pack by pack.
    async fn deflate(&mut self, missing: Vec<(usize, u64)>) -> std::result::Result<(), Ended> {
        let (core, pool, layout) = (self.work.core.clone(), self.work.pool.clone(), self.layout.clone());
        let mut parts = std::pin::pin!(sources::deflate(core, pool, layout, missing.into_iter()));
        while let Some(unit) = parts.next().await {
            if self.running.stop.is_cancelled() {
                // What is whole is kept, unless the job is somebody else's by now.
                self.packs.flush().await?;
                return Err(Ended::Stopped);
            }
            let unit = unit.map_err(|(entry, error)| self.fault(entry, error))?;
            for part in unit {
                let (entry, content, last) = (part.entry, part.content, part.last);
                let id = encoding_of(&self.digest(entry)?, self.size(entry));
                let size = self.size(entry);
                let made = self.packs.push(id, size, part).await;
                self.running.add(u64::from(last), content);
                ::metrics::counter!(metrics::DEFLATED_BYTES).increment(content);
                for (entry, form) in made.map_err(|error| self.fault(entry, error))? {
                    self.place(entry, form);
                }
            }
        }
        for (entry, form) in self.packs.flush().await? {
            self.place(entry, form);
        }
        for (entry, first) in std::mem::take(&mut self.same) {
            if let Some(form) = self.forms[first] {
                self.settle(entry, form);
            }
        }
        Ok(())
    }

    fn settle(&mut self, entry: usize, form: Form) {
        self.running.add(1, self.size(entry));
        self.forms[entry] = Some(form);
    }

    /// Settles an entry that was counted while it was made.
    fn place(&mut self, entry: usize, form: Form) {
        self.forms[entry] = Some(form);
    }

    fn fault(&self, entry: usize, error: Error) -> Ended {
        Ended::Fault(error, self.layout.manifest.name(entry).map(str::to_owned))
    }
}

/// The finished archive: the plan with each entry in its form.
pub(super) fn lay_out(plan: &ZipLayout, forms: &[Form], sizes: &HashMap<BlobId, u64>) -> Result<ZipLayout> {
    let manifest = &plan.manifest;
    let mut builder = ManifestBuilder::with_capacity(manifest.entries(), 0);
    let (mut packs, mut index) = (Vec::new(), HashMap::new());
    for (at, form) in forms.iter().enumerate() {
        let missing = || Error::broken("the plan of an archive misses a column");
        let (size, digest) = (manifest.size(at), manifest.digest(at));
        let (Some(size), Some(digest), Some(content)) = (size, digest, manifest.content(at)) else {
            return Err(missing());
        };
        let mut entry = NewEntry {
            name: manifest.name(at).ok_or_else(missing)?,
            size,
            compressed: size,
            crc32: manifest.crc32(at).ok_or_else(missing)?,
            method: Method::Store,
            modified: manifest.entry_modified(at).ok_or_else(missing)?,
            content,
            stream: [0; 16],
            digest,
        };
        if let Form::Deflated(pack, offset, deflated) = *form {
            let pack_size = *sizes.get(&pack).ok_or_else(missing)?;
            let pack = *index.entry(pack).or_insert_with(|| {
                packs.push((pack, pack_size));
                packs.len() as u32 - 1
            });
            entry.method = Method::Deflate;
            entry.compressed = deflated;
            entry.content = Place { pack, offset }.to_content();
            entry.stream = *encoding_of(&digest, size).as_bytes();
        }
        builder.push(entry).map_err(super::plan::refused)?;
    }
    let manifest = builder.finish().map_err(super::plan::refused)?;
    Ok(ZipLayout { manifest, pieces: plan.pieces.clone(), packs })
}
