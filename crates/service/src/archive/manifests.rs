//! The manifests there are: those kept for the next range of the same archive, and those of archives under way.
//!
//! A file may be deleted while a ZIP with it is being downloaded, its bytes not before that download has ended
//! (invariant 4): deletion asks [`Manifests::holds`] first.

use super::layout::ZipLayout;
use carrack_domain::{ArchiveId, BlobId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Kept manifests take at most so many bytes of memory together.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// And there are at most so many of them.
const KEPT_MAX: usize = 64;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Manifests {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For the next range of the same archive, oldest first.
    kept: VecDeque<Kept>,
    /// Everything that may still be read from. Ended ones are dropped at each addition.
    live: Vec<(Key, Weak<ZipLayout>)>,
    /// How many are being laid out: what they will name is not known yet.
    building: usize,
}

struct Kept {
    key: Key,
    manifest: Arc<ZipLayout>,
}

/// What a layout is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A selection, by its fingerprint, as the bucket was at this generation.
    Selection([u8; 32], u64),
    /// An archive that never changes.
    Archive(ArchiveId),
    /// What nobody asks for again.
    Unnamed,
}

impl Key {
    /// Whether a layout of `self` takes the place of one of `other`.
    fn replaces(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::Selection(one, _), Key::Selection(two, _)) => one == two,
            (one, two) => one == two,
        }
    }
}

impl Manifests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layout of this, if it is kept or somebody reads from it.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<ZipLayout>> {
        let state = self.state();
        let kept = state.kept.iter().find(|k| k.key == *key).map(|k| k.manifest.clone());
        kept.or_else(|| state.live.iter().find(|(k, _)| k == key)?.1.upgrade())
    }

    /// Nobody gets the layout of this archive any more.
    pub(crate) fn forget(&self, archive: ArchiveId) {
        self.state().kept.retain(|k| k.key != Key::Archive(archive));
    }

    /// The packs that archives under way, or kept, lie in; `None` while one is being laid out.
    pub(crate) fn packs(&self) -> Option<Vec<BlobId>> {
        let state = self.state();
        if state.building > 0 {
            return None;
        }
        let live: Vec<Arc<ZipLayout>> =
            state.live.iter().filter_map(|(_, layout)| layout.upgrade()).collect();
        drop(state);
        Some(live.iter().flat_map(|layout| layout.packs.iter().map(|(pack, _)| *pack)).collect())
    }

    /// Begins to lay one out: until the guard is used up or dropped, no blob may be deleted.
    pub(super) fn build(&self) -> Building<'_> {
        self.state().building += 1;
        Building(self)
    }

    /// Whether an archive under way, or about to be, needs this blob, which no file points at any more.
    pub(crate) fn holds(&self, blob: BlobId) -> bool {
        let mut state = self.state();
        if state.building > 0 {
            return true;
        }
        // Whoever lists the bucket now does not find the blob: kept manifests with it describe the past.
        state.kept.retain(|k| !k.manifest.needs(blob));
        let live: Vec<Arc<ZipLayout>> =
            state.live.iter().filter_map(|(_, layout)| layout.upgrade()).collect();
        drop(state);
        live.iter().any(|layout| layout.needs(blob))
    }
}

/// A manifest is being laid out.
pub(super) struct Building<'a>(&'a Manifests);

impl Building<'_> {
    /// It is laid out: keeps it for the next range, within bounds.
    pub(super) fn keep(self, key: Key, manifest: ZipLayout) -> Arc<ZipLayout> {
        let manifest = Arc::new(manifest);
        let mut state = self.0.state();
        state.live.retain(|(_, layout)| layout.strong_count() > 0);
        state.live.push((key, Arc::downgrade(&manifest)));
        state.kept.retain(|k| !key.replaces(&k.key));
        state.kept.push_back(Kept { key, manifest: manifest.clone() });
        let memory = |kept: &VecDeque<Kept>| kept.iter().map(|k| k.manifest.memory()).sum::<usize>();
        while state.kept.len() > KEPT_MAX || memory(&state.kept) > KEPT_BYTES_MAX {
            state.kept.pop_front();
        }
        manifest
    }
}

impl Building<'_> {
    /// It is laid out, and read from as it is, by one who never asks for it again.
    pub(super) fn register(self, layout: Arc<ZipLayout>) -> Arc<ZipLayout> {
        let mut state = self.0.state();
        state.live.retain(|(_, layout)| layout.strong_count() > 0);
        state.live.push((Key::Unnamed, Arc::downgrade(&layout)));
        layout
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.state().building -= 1;
    }
}
