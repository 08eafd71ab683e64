//! The manifests there are: those kept for the next range of the same archive, and those of archives under way.
//!
//! A file may be deleted while a ZIP with it is being downloaded, its bytes not before that download has ended
//! (invariant 4): deletion asks [`Manifests::holds`] first.

use super::layout::ZipLayout;
use carrack_domain::BlobId;
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
    live: Vec<Weak<ZipLayout>>,
    /// How many are being laid out: what they will name is not known yet.
    building: usize,
}

struct Kept {
    fingerprint: [u8; 32],
    generation: u64,
    manifest: Arc<ZipLayout>,
}

impl Manifests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest of a selection as the bucket was at `generation`.
    pub(super) fn get(&self, fingerprint: &[u8; 32], generation: u64) -> Option<Arc<ZipLayout>> {
        let state = self.state();
        let hit = state.kept.iter().find(|k| k.fingerprint == *fingerprint && k.generation == generation)?;
        Some(hit.manifest.clone())
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
        state.kept.retain(|k| !contains(&k.manifest, blob));
        let live: Vec<Arc<ZipLayout>> = state.live.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        live.iter().any(|layout| contains(layout, blob))
    }
}

fn contains(layout: &ZipLayout, blob: BlobId) -> bool {
    let manifest = &layout.manifest;
    (0..manifest.entries()).any(|entry| manifest.content(entry) == Some(*blob.as_bytes()))
}

/// A manifest is being laid out.
pub(super) struct Building<'a>(&'a Manifests);

impl Building<'_> {
    /// It is laid out: keeps it for the next range, within bounds.
    pub(super) fn keep(self, fingerprint: [u8; 32], generation: u64, manifest: ZipLayout) -> Arc<ZipLayout> {
        let manifest = Arc::new(manifest);
        let mut state = self.0.state();
        state.live.retain(|m| m.strong_count() > 0);
        state.live.push(Arc::downgrade(&manifest));
        state.kept.retain(|k| k.fingerprint != fingerprint);
        state.kept.push_back(Kept { fingerprint, generation, manifest: manifest.clone() });
        let memory = |kept: &VecDeque<Kept>| kept.iter().map(|k| k.manifest.memory()).sum::<usize>();
        while state.kept.len() > KEPT_MAX || memory(&state.kept) > KEPT_BYTES_MAX {
            state.kept.pop_front();
        }
        manifest
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.state().building -= 1;
    }
}
