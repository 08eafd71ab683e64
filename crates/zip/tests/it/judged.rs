//! Any list of entries that bytes make up, through the manifest -> bytes functions, with [`crate::oracle`] as the judge, and any
//! bytes through what reads stored manifests. `make fuzz` looks for more than the tests have time for.

use carrack_zip::{Manifest, ManifestBuilder, Method, NewEntry, Piece};

use crate::oracle;

/// Sizes around every limit, picked by a byte.
const SIZES: [u64; 10] = [0, 1, 2, 40, 1000, 65_535, 0xFFFF_FFFE, 0xFFFF_FFFF, 1 << 32, 1 << 40];

/// A manifest of what the bytes say: two for each entry, then its name's length.
fn manifest(data: &[u8]) -> Option<Manifest> {
    let mut builder = ManifestBuilder::new();
    for (at, wish) in data.chunks_exact(3).enumerate() {
        let size = SIZES[usize::from(wish[0]) % SIZES.len()];
        let method = if wish[1] & 1 == 1 { Method::Deflate } else { Method::Store };
        let compressed = match method {
            Method::Store => size,
            Method::Deflate => SIZES[usize::from(wish[1] >> 1) % SIZES.len()].max(2),
        };
        let filler = if wish[1] & 64 == 0 { "n" } else { "ä" };
        let name = format!("{at}{}", filler.repeat(usize::from(wish[2])));
        let crc32 = if size == 0 { 0 } else { u32::from(wish[0]) << 20 };
        let entry = NewEntry {
            name: &name,
            size,
            compressed,
            crc32,
            method,
            modified: i64::from(wish[0]) << 24,
            content: [wish[0]; 16],
            stream: [wish[1]; 16],
            digest: [wish[2]; 32],
        };
        builder.push(entry).expect("sound entries");
    }
    builder.finish().ok()
}

/// Bytes of the archive; the contents are zeros.
fn read(manifest: &Manifest, offset: u64, len: u64) -> Vec<u8> {
    let (mut at, end, mut out) = (offset, (offset + len).min(manifest.len()), Vec::new());
    while at < end {
        let bytes = match manifest.piece_at(at).expect("a piece before the end") {
            Piece::Bytes(bytes) => bytes,
            Piece::Data { len, .. } => vec![0; len.min(end - at) as usize],
        };
        assert!(!bytes.is_empty());
        let take = bytes.len().min((end - at) as usize);
        out.extend_from_slice(&bytes[..take]);
        at += take as u64;
    }
    out
}

/// Panics if anything is wrong.
pub(crate) fn judge(data: &[u8]) {
    if let Ok(kept) = Manifest::read(data) {
        assert!(kept.piece_at(kept.len() - 1).is_some());
    }
    let Some(made) = manifest(data) else { return };
    let listing = oracle::parse(made.len(), |at, len| read(&made, at, len));
    assert_eq!(listing.entries.len(), made.entries());
    let back = Manifest::read(&made.to_bytes()[..]).expect("what was kept can be read");
    assert_eq!((back.len(), back.etag()), (made.len(), made.etag()));
    for entry in &listing.entries {
        for at in [entry.local.start, entry.local.end, entry.central.start, entry.central.end] {
            for at in [at.saturating_sub(1), at, at + 1] {
                assert_eq!(read(&made, at, 50), read(&back, at, 50));
                let skip = at.min(7) as usize;
                let whole = read(&made, at - skip as u64, 50 + skip as u64);
                assert_eq!(read(&made, at, 50), whole[skip.min(whole.len())..]);
            }
        }
    }
}
