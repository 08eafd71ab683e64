//! The rope: what goes out. A length, a strong ETag, and extents that can be sliced at any byte.
//!
//! A file is a rope of one extent, a ZIP a rope of headers and blobs, a `multipart/byteranges` body a rope of part
//! headers and slices: whatever leaves can therefore be resumed, throttled, counted and sent without a copy in one
//! place.

use crate::clock::Timestamp;
use crate::etag::ETag;
use crate::file::Blob;
use crate::id::BlobId;
use crate::range::ByteRange;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// A run of bytes of a rope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Bytes made here.
    Inline(Bytes),
    /// `len` bytes at `offset` of a stored blob that has `size` bytes in all.
    Blob {
        /// Which blob.
        blob: BlobId,
        /// The blob's whole size: a stored file of another size is damaged.
        size: u64,
        /// Where the run begins in the blob.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

impl Extent {
    /// Bytes in the run.
    pub fn len(&self) -> u64 {
        match self {
            Extent::Inline(bytes) => bytes.len() as u64,
            Extent::Blob { len, .. } => *len,
        }
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same run, cut to its first `len_max` bytes.
    fn truncated(self, len_max: u64) -> Extent {
        match self {
            Extent::Inline(bytes) if bytes.len() as u64 > len_max => {
                Extent::Inline(bytes.slice(..len_max as usize))
            }
            Extent::Blob { blob, size, offset, len } => {
                Extent::Blob { blob, size, offset, len: len.min(len_max) }
            }
            short @ Extent::Inline(_) => short,
        }
    }
}

/// Where the bytes of a rope come from. Extents are made when they are asked for, so a rope over a million entries
/// costs no more than its layout.
pub trait Layout: Send + Sync + 'static {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// The run of bytes that begins at `offset`, as long as the layout likes but never empty; `None` at the end.
    fn extent_at(&self, offset: u64) -> Option<Extent>;

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Rope {
    layout: Arc<dyn Layout>,
    etag: ETag,
    modified: Timestamp,
}

impl Rope {
    /// A rope over a layout whose bytes never change while `etag` stays the same.
    pub fn new(layout: Arc<dyn Layout>, etag: ETag, modified: Timestamp) -> Rope {
        Rope { layout, etag, modified }
    }

    /// The rope of a stored file.
    pub fn of_blob(blob: Blob, etag: ETag, modified: Timestamp) -> Rope {
        Rope::new(Arc::new(OneBlob(blob)), etag, modified)
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.layout.len()
    }

    /// Whether there is no byte at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The strong tag.
    pub fn etag(&self) -> &ETag {
        &self.etag
    }

    /// When the content last changed.
    pub fn modified(&self) -> Timestamp {
        self.modified
    }

    /// All of it.
    pub fn all(&self) -> Slice {
        Slice { layout: self.layout.clone(), at: 0, end: self.len() }
    }

    /// The bytes of `range`, clamped to what exists.
    pub fn slice(&self, range: ByteRange) -> Slice {
        let end = range.end().min(self.len());
        Slice { layout: self.layout.clone(), at: range.offset().min(end), end }
    }
}

impl fmt::Debug for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rope({} bytes, {})", self.len(), self.etag)
    }
}

struct OneBlob(Blob);

impl Layout for OneBlob {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        let (blob, size, offset) = match &self.0.pieces {
            None => Some((self.0.id, self.0.size, offset)),
            Some(pieces) => pieces.at(offset),
        }?;
        let len = size.checked_sub(offset).filter(|len| *len > 0)?;
        Some(Extent::Blob { blob, size, offset, len })
    }
}

/// A slice of a rope on its way out: an iterator over its extents, in order.
#[derive(Clone)]
pub struct Slice {
    layout: Arc<dyn Layout>,
    at: u64,
    end: u64,
}

impl Slice {
    /// A slice of bytes made here.
    pub fn of_bytes(bytes: Bytes) -> Slice {
        let end = bytes.len() as u64;
        Slice { layout: Arc::new(Inline(bytes)), at: 0, end }
    }

    /// Slices one after the other: how `multipart/byteranges` is put together. The extents of each are found again
    /// by linear search, so keep the sequence short ([`crate::range::RANGES_MAX`]).
    pub fn sequence(slices: Vec<Slice>) -> Slice {
        let end = slices.iter().map(Slice::len).sum();
        Slice { layout: Arc::new(Sequence(slices)), at: 0, end }
    }

    /// Bytes still to come.
    pub fn len(&self) -> u64 {
        self.end - self.at
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }
}

impl Iterator for Slice {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.is_empty() {
            return None;
        }
        let extent = self.layout.extent_at(self.at)?.truncated(self.end - self.at);
        self.at += extent.len();
        Some(extent)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({}..{})", self.at, self.end)
    }
}

struct Inline(Bytes);

impl Layout for Inline {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        let offset = usize::try_from(offset).ok().filter(|at| *at < self.0.len())?;
        Some(Extent::Inline(self.0.slice(offset..)))
    }
}

struct Sequence(Vec<Slice>);

impl Layout for Sequence {
    fn len(&self) -> u64 {
        self.0.iter().map(Slice::len).sum()
    }

    fn extent_at(&self, mut offset: u64) -> Option<Extent> {
        for slice in &self.0 {
            if offset < slice.len() {
                let mut rest = Slice { layout: slice.layout.clone(), at: slice.at + offset, end: slice.end };
                return rest.next();
            }
            offset -= slice.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentDigest;
    use proptest::prelude::*;

    fn blob(size: u64) -> Rope {
        let digest = ContentDigest { crc32: 0, blake3: [0; 32], sha256: None };
        let blob = Blob { id: BlobId::from_bytes([1; 16]), size, digest, pieces: None };
        Rope::of_blob(blob, ETag::new("x").unwrap(), Timestamp::from_millis(0))
    }

    #[test]
    fn a_slice_of_a_blob_is_one_extent() {
        let rope = blob(100);
        let extents: Vec<Extent> = rope.slice(ByteRange::new(90, 50).unwrap()).collect();
        assert_eq!(
            extents,
            [Extent::Blob { blob: BlobId::from_bytes([1; 16]), size: 100, offset: 90, len: 10 }]
        );
        assert_eq!(blob(0).all().next(), None);
        assert!(rope.slice(ByteRange::new(100, 1).unwrap()).is_empty());
    }

    #[test]
    fn a_blob_in_pieces_is_one_extent_for_each() {
        let id = |n| BlobId::from_bytes([n; 16]);
        let digest = ContentDigest { crc32: 0, blake3: [0; 32], sha256: None };
        let pieces = crate::file::Pieces::new([(id(1), 10), (id(2), 5), (id(1), 10)], None);
        let blob = Blob { id: id(9), size: 25, digest, pieces: Some(Arc::new(pieces)) };
        let rope = Rope::of_blob(blob, ETag::new("x").unwrap(), Timestamp::from_millis(0));
        let extents: Vec<Extent> = rope.slice(ByteRange::new(8, 10).unwrap()).collect();
        let run = |n, size, offset, len| Extent::Blob { blob: id(n), size, offset, len };
        assert_eq!(extents, [run(1, 10, 8, 2), run(2, 5, 0, 5), run(1, 10, 0, 3)]);
        assert_eq!(rope.all().count(), 3);
    }

    proptest! {
        #[test]
        fn sequences_slice_like_bytes(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
                                      a in 0usize..130, b in 0usize..130) {
            let whole: Vec<u8> = parts.concat();
            let slices = parts.iter().map(|p| Slice::of_bytes(Bytes::copy_from_slice(p))).collect();
            let sequence = Slice::sequence(slices);
            let (a, b) = (a.min(b).min(whole.len()), a.max(b).min(whole.len()));
            let part = Slice { layout: sequence.layout.clone(), at: a as u64, end: b as u64 };
            prop_assert_eq!(part.len(), (b - a) as u64);
            let mut got = Vec::new();
            for extent in part {
                match extent {
                    Extent::Inline(bytes) => got.extend_from_slice(&bytes),
                    Extent::Blob { .. } => unreachable!(),
                }
            }
            prop_assert_eq!(&got[..], &whole[a..b]);
        }
    }
}
