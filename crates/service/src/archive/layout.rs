//! A ZIP's manifest as a rope's layout.

use bytes::Bytes;
use carrack_domain::BlobId;
use carrack_domain::rope::{Extent, Layout};
use carrack_zip::{Manifest, Piece};
use std::sync::Arc;

pub(super) struct ZipLayout {
    manifest: Arc<Manifest>,
}

impl ZipLayout {
    pub(super) fn new(manifest: Arc<Manifest>) -> ZipLayout {
        ZipLayout { manifest }
    }
}

impl Layout for ZipLayout {
    fn len(&self) -> u64 {
        self.manifest.len()
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        Some(match self.manifest.piece_at(offset)? {
            Piece::Bytes(bytes) => Extent::Inline(Bytes::from(bytes)),
            Piece::Data { entry, content, offset, len } => {
                let size = self.manifest.size(entry)?;
                Extent::Blob { blob: BlobId::from_bytes(content), size, offset, len }
            }
        })
    }
}
