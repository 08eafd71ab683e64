//! Archives to test with, and reading them through `piece_at`.

use carrack_zip::{Manifest, ManifestBuilder, Method, NewEntry, Piece};

/// 2023-11-14T22:13:20Z.
pub(crate) const MODIFIED: i64 = 1_700_000_000;

/// An entry without content: a folder, or a file whose data is never looked at.
pub(crate) fn blank(name: &str, size: u64) -> NewEntry<'_> {
    NewEntry {
        name,
        size,
        compressed: size,
        crc32: if size == 0 { 0 } else { 0x1234_5678 },
        method: Method::Store,
        modified: MODIFIED,
        content: [1; 16],
        stream: [0; 16],
        digest: [2; 32],
    }
}

/// A manifest of the given entries.
pub(crate) fn manifest<'a>(entries: impl IntoIterator<Item = NewEntry<'a>>) -> Manifest {
    let mut builder = ManifestBuilder::new();
    for entry in entries {
        builder.push(entry).unwrap();
    }
    builder.finish().unwrap()
}

/// A manifest and the blobs behind it; the content id of an entry is the index of its blob.
pub(crate) struct Archive {
    pub(crate) manifest: Manifest,
    /// Bytes as they lie in the archive.
    pub(crate) blobs: Vec<Vec<u8>>,
}

/// `(name, content, deflated)`.
pub(crate) type File = (String, Vec<u8>, bool);

impl Archive {
    pub(crate) fn new(files: &[File]) -> Self {
        let mut builder =
            ManifestBuilder::with_capacity(files.len(), files.iter().map(|file| file.0.len()).sum());
        let mut blobs = Vec::with_capacity(files.len());
        for (at, (name, content, deflated)) in files.iter().enumerate() {
            let blob = if *deflated { deflate_stored(content) } else { content.clone() };
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(at as u64).to_le_bytes());
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
            builder
                .push(NewEntry {
                    name,
                    size: content.len() as u64,
                    compressed: blob.len() as u64,
                    crc32: crc32fast::hash(content),
                    method: if *deflated { Method::Deflate } else { Method::Store },
                    modified: MODIFIED + 2 * at as i64,
                    content: id,
                    stream: id,
                    digest,
                })
                .unwrap();
            blobs.push(blob);
        }
        Self { manifest: builder.finish().unwrap(), blobs }
    }

    /// `len` bytes from `offset` on, or fewer at the end, piece by piece.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        read_with(&self.manifest, offset, len, |content, at, out| {
            let blob = &self.blobs[u64::from_le_bytes(content[..8].try_into().unwrap()) as usize];
            out.copy_from_slice(&blob[at as usize..at as usize + out.len()]);
        })
    }

    pub(crate) fn whole(&self) -> Vec<u8> {
        self.read(0, u64::MAX)
    }
}

/// Reads through `piece_at`; `data` fills in bytes of a blob from an offset on. Checks what is promised of pieces.
pub(crate) fn read_with(
    manifest: &Manifest,
    offset: u64,
    len: u64,
    data: impl Fn([u8; 16], u64, &mut [u8]),
) -> Vec<u8> {
    let end = offset.saturating_add(len).min(manifest.len());
    let (mut at, mut out) = (offset, Vec::new());
    while at < end {
        match manifest.piece_at(at).expect("there is a piece before the end") {
            Piece::Bytes(bytes) => {
                assert!(!bytes.is_empty() && bytes.len() <= 128 * 1024);
                let take = bytes.len().min((end - at) as usize);
                out.extend_from_slice(&bytes[..take]);
                at += take as u64;
            }
            Piece::Data { entry, content, offset, len } => {
                assert!(len > 0);
                assert_eq!(manifest.content(entry), Some(content));
                assert_eq!(manifest.compressed(entry), Some(offset + len));
                let take = len.min(end - at) as usize;
                let begin = out.len();
                out.resize(begin + take, 0);
                data(content, offset, &mut out[begin..]);
                at += take as u64;
            }
        }
    }
    assert_eq!(manifest.piece_at(manifest.len()), None);
    out
}

/// Reads headers only: data is zeros.
pub(crate) fn read_sparse(manifest: &Manifest, offset: u64, len: u64) -> Vec<u8> {
    read_with(manifest, offset, len, |_, _, out| out.fill(0))
}

/// A raw deflate stream made of stored blocks (RFC 1951, 3.2.4), which needs no compressor.
pub(crate) fn deflate_stored(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in content.chunks(65_535) {
        out.push(0);
        out.extend_from_slice(&(block.len() as u16).to_le_bytes());
        out.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&[1, 0, 0, 0xFF, 0xFF]);
    out
}

/// `count` small files and folders with ASCII and other names, every seventh empty, some deflated.
pub(crate) fn mixed(count: usize) -> Vec<File> {
    (0..count)
        .map(|at| match at % 50 {
            7 => (format!("ordner-ä-{at}/"), Vec::new(), false),
            8 => (format!("ordner-ä-{}/日本語-🎉-{at}.txt", at - 1), format!("{at}").into_bytes(), false),
            9 => (format!("plain-{at}/"), Vec::new(), false),
            10 => (format!("squeezed-{at}.txt"), format!("deflated {at}").into_bytes(), true),
            other if other % 7 == 0 && at > 0 => (format!("empty-{at}"), Vec::new(), false),
            _ => (format!("d/file-{at}.txt"), format!("{at}").into_bytes(), false),
        })
        .collect()
}
