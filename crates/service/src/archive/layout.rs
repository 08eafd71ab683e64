//! A ZIP's manifest as a rope's layout.

use bytes::Bytes;
use carrack_domain::BlobId;
use carrack_domain::file::Pieces;
use carrack_domain::rope::{Extent, Layout};
use carrack_zip::{Manifest, Piece};
use std::collections::HashMap;
use std::sync::Arc;

/// An archive laid out.
pub(super) struct ZipLayout {
    pub(super) manifest: Manifest,
    /// Of the blobs in it that are put together from pieces, these.
    pub(super) pieces: HashMap<[u8; 16], Arc<Pieces>>,
}

impl ZipLayout {
    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        /// Name and end of a run.
        const RUN_BYTES: usize = 24;
        let runs: usize = self.pieces.values().map(|pieces| pieces.runs().count()).sum();
        self.manifest.memory() + runs * RUN_BYTES
    }
}

impl Layout for ZipLayout {
    fn len(&self) -> u64 {
        self.manifest.len()
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        Some(match self.manifest.piece_at(offset)? {
            Piece::Bytes(bytes) => Extent::Inline(Bytes::from(bytes)),
            Piece::Data { entry, content, offset, len } => match self.pieces.get(&content) {
                None => {
                    let size = self.manifest.size(entry)?;
                    Extent::Blob { blob: BlobId::from_bytes(content), size, offset, len }
                }
                Some(pieces) => {
                    let (blob, size, within) = pieces.at(offset)?;
                    Extent::Blob { blob, size, offset: within, len: len.min(size - within) }
                }
            },
        })
    }
}
