//! A ZIP's manifest as a rope's layout.

use bytes::Bytes;
use carrack_domain::BlobId;
use carrack_domain::file::Pieces;
use carrack_domain::rope::{Extent, Layout};
use carrack_zip::{Manifest, Method, Piece};
use std::collections::HashMap;
use std::sync::Arc;

/// An archive laid out.
pub(super) struct ZipLayout {
    pub(super) manifest: Manifest,
    /// Of the blobs in it that are put together from pieces, these.
    pub(super) pieces: HashMap<[u8; 16], Arc<Pieces>>,
    /// The packs in which its deflated entries lie, with their sizes.
    pub(super) packs: Vec<(BlobId, u64)>,
}

/// Where a deflated entry lies: what the manifest keeps of it instead of a blob's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Which pack of the layout.
    pub(super) pack: u32,
    /// Where in it.
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn to_content(self) -> [u8; 16] {
        (u128::from(self.pack) << 64 | u128::from(self.offset)).to_be_bytes()
    }

    pub(super) fn from_content(content: [u8; 16]) -> Place {
        let number = u128::from_be_bytes(content);
        Place { pack: (number >> 64) as u32, offset: number as u64 }
    }
}

impl ZipLayout {
    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        /// Name and end of a run.
        const RUN_BYTES: usize = 24;
        let runs: usize = self.pieces.values().map(|pieces| pieces.runs().count()).sum();
        self.manifest.memory() + (runs + self.packs.len()) * RUN_BYTES
    }

    /// Whether it needs this blob or pack.
    pub(super) fn needs(&self, blob: BlobId) -> bool {
        let stored = |entry| self.manifest.method(entry) == Some(Method::Store);
        self.packs.iter().any(|(pack, _)| *pack == blob)
            || (0..self.manifest.entries())
                .any(|entry| self.manifest.content(entry) == Some(*blob.as_bytes()) && stored(entry))
    }

    /// A run of an entry's content that begins at `offset`, uncompressed, as long as it is in one piece.
    fn stored(&self, entry: usize, content: [u8; 16], offset: u64, len: u64) -> Option<Extent> {
        Some(match self.pieces.get(&content) {
            None => {
                let size = self.manifest.size(entry)?;
                Extent::Blob { blob: BlobId::from_bytes(content), size, offset, len }
            }
            Some(pieces) => {
                let (blob, size, within) = pieces.at(offset)?;
                Extent::Blob { blob, size, offset: within, len: len.min(size - within) }
            }
        })
    }

    /// The extents of `len` bytes at `offset` of a stored entry.
    pub(super) fn extents(&self, entry: usize, mut offset: u64, mut len: u64) -> Option<Vec<Extent>> {
        let mut extents = Vec::new();
        while len > 0 {
            let extent = self.stored(entry, self.manifest.content(entry)?, offset, len)?;
            offset += extent.len();
            len -= extent.len();
            extents.push(extent);
        }
        Some(extents)
    }
}

impl Layout for ZipLayout {
    fn len(&self) -> u64 {
        self.manifest.len()
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        match self.manifest.piece_at(offset)? {
            Piece::Bytes(bytes) => Some(Extent::Inline(Bytes::from(bytes))),
            Piece::Data { entry, content, offset, len }
                if self.manifest.method(entry) == Some(Method::Deflate) =>
            {
                let place = Place::from_content(content);
                let (blob, size) = *self.packs.get(place.pack as usize)?;
                Some(Extent::Blob { blob, size, offset: place.offset + offset, len })
            }
            Piece::Data { entry, content, offset, len } => self.stored(entry, content, offset, len),
        }
    }
}
