//! The strong ETag: a hash over everything that decides a byte of the archive.

use crate::record::mode;
use crate::{Method, NewEntry};

/// BLAKE3 takes several chunks at once only when it gets them at once, so records wait here until they fill this.
const BATCH: usize = 64 * 1024;
/// 160 bits: 32 letters of base32 without padding.
const TAG_BYTES: usize = 20;
/// Lower-case base32 alphabet of RFC 4648.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Collects entries in the order they are pushed.
pub(crate) struct TagHasher {
    hasher: blake3::Hasher,
    pending: Vec<u8>,
    entries: u64,
}

impl TagHasher {
    /// Starts a tag for header bytes of `layout_version`.
    pub(crate) fn new(layout_version: u32) -> Self {
        let mut pending = Vec::with_capacity(BATCH + 4096);
        pending.extend_from_slice(b"carrack-zip\0");
        pending.extend_from_slice(&layout_version.to_le_bytes());
        // Options: none exist yet; the first one takes a bit here.
        pending.extend_from_slice(&0_u32.to_le_bytes());
        Self { hasher: blake3::Hasher::new(), pending, entries: 0 }
    }

    /// Adds one entry. Names are length-prefixed, so no two lists of entries read the same.
    pub(crate) fn push(&mut self, entry: &NewEntry<'_>) {
        let mut fixed = [0_u8; 65];
        fixed[0] = u8::from(entry.method == Method::Deflate);
        fixed[1..9].copy_from_slice(&entry.size.to_le_bytes());
        fixed[9..17].copy_from_slice(&entry.compressed.to_le_bytes());
        fixed[17..21].copy_from_slice(&entry.crc32.to_le_bytes());
        fixed[21..53].copy_from_slice(&entry.digest);
        fixed[53..61].copy_from_slice(&entry.modified.to_le_bytes());
        fixed[61..65].copy_from_slice(&mode(entry.name).to_le_bytes());
        self.pending.extend_from_slice(&(entry.name.len() as u32).to_le_bytes());
        self.pending.extend_from_slice(entry.name.as_bytes());
        self.pending.extend_from_slice(&fixed);
        if entry.method == Method::Deflate {
            // The digest fixes the content, not the stream a compressor made of it; the stream's name does.
            self.pending.extend_from_slice(&entry.stream);
        }
        self.entries += 1;
        if self.pending.len() >= BATCH {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    /// The tag without quotes: `z1-` and 32 lower-case base32 letters.
    pub(crate) fn finish(mut self) -> String {
        self.pending.extend_from_slice(&self.entries.to_le_bytes());
        self.hasher.update(&self.pending);
        let hash = self.hasher.finalize();
        let mut tag = String::with_capacity(3 + TAG_BYTES * 8 / 5);
        tag.push_str("z1-");
        for five in hash.as_bytes()[..TAG_BYTES].chunks_exact(5) {
            let bits = five.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
            for letter in (0..8).rev() {
                tag.push(char::from(ALPHABET[(bits >> (letter * 5) & 31) as usize]));
            }
        }
        tag
    }
}
