//! Digests: what is computed of every byte that arrives, and what clients may demand.

use crate::error::{Code, Error, Fact, Result};
use crate::id::hex;
use crate::tree::Fragment;

/// Algorithms a client may name. CRC-32 and BLAKE3 are always computed; the others only when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CRC-32 as in ZIP and gzip (ISO 3309), 4 bytes big-endian.
    Crc32,
    /// MD5 (RFC 1321): detects accidents only.
    Md5,
    /// SHA-1 (FIPS 180-4): detects accidents only; tus clients know no other.
    Sha1,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// BLAKE3, 32 bytes.
    Blake3,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 6] = [
        Algorithm::Crc32,
        Algorithm::Md5,
        Algorithm::Sha1,
        Algorithm::Sha256,
        Algorithm::Sha512,
        Algorithm::Blake3,
    ];

    /// The name used in JSON bodies and, where one is registered, in `Content-Digest` (RFC 9530 §5).
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "crc32",
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha-1",
            Algorithm::Sha256 => "sha-256",
            Algorithm::Sha512 => "sha-512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// Bytes of a digest.
    pub const fn width(self) -> usize {
        match self {
            Algorithm::Crc32 => 4,
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 | Algorithm::Blake3 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A digest somebody claims or computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    value: Vec<u8>,
}

impl Digest {
    /// A digest of the right width, else `invalid_digest`.
    pub fn new(algorithm: Algorithm, value: Vec<u8>) -> Result<Digest> {
        if value.len() == algorithm.width() {
            return Ok(Digest { algorithm, value });
        }
        let (name, want, got) = (algorithm.name(), algorithm.width(), value.len());
        Err(Error::new(Code::InvalidDigest, format!("A {name} digest has {want} bytes, this one has {got}.")))
    }

    /// Which algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest's bytes.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// `digest_mismatch` unless `actual` is this digest.
    pub fn verify(&self, actual: &[u8]) -> Result<()> {
        if self.value == actual {
            return Ok(());
        }
        let name = self.algorithm.name();
        Err(Error::new(
            Code::DigestMismatch,
            format!("The bytes that arrived do not have the {name} digest that was announced. Nothing was stored; send them again."),
        )
        .with_fact(Fact::Expected { expected: hex(&self.value), actual: hex(actual) }))
    }
}

/// The digests of every stored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest {
    /// CRC-32 of the whole: what a ZIP header needs.
    pub crc32: u32,
    /// BLAKE3 of the whole.
    pub blake3: [u8; 32],
    /// SHA-256 of the whole, when the uploader named one.
    pub sha256: Option<[u8; 32]>,
}

/// CRC-32 of two runs of bytes, the second of which has `len` bytes.
pub fn join_crc32(first: u32, second: u32, len: u64) -> u32 {
    // Only the length of the second matters for the arithmetic.
    let mut crc = crc32fast::Hasher::new_with_initial_len(first, 0);
    crc.combine(&crc32fast::Hasher::new_with_initial_len(second, len));
    crc.finalize()
}

/// CRC-32 and BLAKE3 of a piece while it passes, in a form that joins with its neighbours.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    crc: crc32fast::Hasher,
    fragment: Fragment,
}

impl PieceHasher {
    /// A hasher for the piece of a whole that begins at `offset`.
    pub fn new(offset: u64) -> PieceHasher {
        PieceHasher { crc: crc32fast::Hasher::new(), fragment: Fragment::new(offset) }
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.fragment.update(bytes);
    }

    /// What the piece came to.
    pub fn finish(self) -> Piece {
        Piece { crc32: self.crc.finalize(), fragment: self.fragment }
    }
}

/// The digests of a piece, ready to be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// CRC-32 of the piece's bytes.
    pub crc32: u32,
    /// BLAKE3 of the piece as a part of the whole; knows where the piece begins and ends.
    pub fragment: Fragment,
}

impl Piece {
    /// A piece without bytes that begins at `offset`.
    pub fn empty(offset: u64) -> Piece {
        Piece { crc32: 0, fragment: Fragment::new(offset) }
    }

    /// The piece `start..end` of bytes that came to the storage past this process, of which it says this CRC-32.
    pub fn unseen(start: u64, end: u64, crc32: u32) -> Piece {
        Piece { crc32, fragment: Fragment::unseen(start, end) }
    }

    /// Bytes in the piece.
    pub fn len(&self) -> u64 {
        self.fragment.end() - self.fragment.start()
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This piece followed by `next`; `None` unless they are neighbours.
    pub fn join(self, next: &Piece) -> Option<Piece> {
        let crc32 = join_crc32(self.crc32, next.crc32, next.len());
        Some(Piece { crc32, fragment: self.fragment.join(&next.fragment)? })
    }

    /// The digests of a whole file; `None` unless the piece begins at 0 and all of it was seen.
    pub fn content(&self) -> Option<ContentDigest> {
        Some(ContentDigest { crc32: self.crc32, blake3: self.fragment.root()?, sha256: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut whole = Piece::empty(0);
        for (index, part) in bytes.chunks(3_000).enumerate() {
            let mut hasher = PieceHasher::new(index as u64 * 3_000);
            hasher.update(part);
            whole = whole.join(&hasher.finish()).unwrap();
        }
        let digest = whole.content().unwrap();
        assert_eq!(digest.crc32, crc32fast::hash(&bytes));
        assert_eq!(&digest.blake3, blake3::hash(&bytes).as_bytes());
        assert!(whole.join(&Piece::empty(3)).is_none());
    }

    #[test]
    fn mismatch_names_both() {
        let digest = Digest::new(Algorithm::Crc32, vec![0, 0, 0, 1]).unwrap();
        let error = digest.verify(&[0, 0, 0, 2]).unwrap_err();
        assert_eq!(error.code(), Code::DigestMismatch);
        assert!(Digest::new(Algorithm::Md5, vec![0; 3]).is_err());
    }
}
