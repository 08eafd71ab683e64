//! Everything that is computed of the bytes of an extent while they pass.

use carrack_domain::digest::{Algorithm, Digest, Piece, PieceHasher};
use carrack_domain::{Error, Result};
use carrack_storage::Observer;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use std::sync::{Arc, Mutex, PoisonError};

/// Computes CRC-32 and BLAKE3 always, the others when a client named them.
pub(super) struct ExtentHasher {
    piece: PieceHasher,
    /// BLAKE3 of the extent by itself; at offset 0 the piece knows it already.
    alone: Option<Box<blake3::Hasher>>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    sha512: Option<Box<Sha512>>,
    md5: Option<Md5>,
    bytes: u64,
}

/// What the bytes of an extent came to.
pub(super) struct ExtentDigests {
    /// Joins with its neighbours.
    pub(super) piece: Piece,
    /// Plain BLAKE3 of the extent, when it is known.
    alone: Option<[u8; 32]>,
    /// SHA-256 of the extent, when it was asked for.
    pub(super) sha256: Option<[u8; 32]>,
    others: Vec<(Algorithm, Vec<u8>)>,
}

impl ExtentHasher {
    /// For an extent at `offset`, able to verify `expected`.
    pub(super) fn new(offset: u64, expected: &[Digest]) -> ExtentHasher {
        let algorithms: Vec<Algorithm> = expected.iter().map(Digest::algorithm).collect();
        let alone = (offset != 0).then(Box::default);
        ExtentHasher { alone, ..ExtentHasher::for_joining(offset, &algorithms) }
    }

    /// For an extent at `offset` that will be joined to those before it, able to verify digests of these kinds: nobody
    /// asks for its BLAKE3 by itself, which would be a second one.
    pub(super) fn for_joining(offset: u64, algorithms: &[Algorithm]) -> ExtentHasher {
        let wanted = |algorithm| algorithms.contains(&algorithm);
        ExtentHasher {
            piece: PieceHasher::new(offset),
            alone: None,
            sha1: wanted(Algorithm::Sha1).then(Sha1::new),
            sha256: wanted(Algorithm::Sha256).then(Sha256::new),
            sha512: wanted(Algorithm::Sha512).then(|| Box::new(Sha512::new())),
            md5: wanted(Algorithm::Md5).then(Md5::new),
            bytes: 0,
        }
    }

    /// Takes the bytes that follow.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.piece.update(bytes);
        if let Some(hasher) = &mut self.alone {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha1 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha512 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.md5 {
            hasher.update(bytes);
        }
    }

    /// What they came to.
    pub(super) fn finish(self) -> ExtentDigests {
        let piece = self.piece.finish();
        let alone = self.alone.map(|hasher| *hasher.finalize().as_bytes()).or_else(|| piece.fragment.root());
        let sha256: Option<[u8; 32]> = self.sha256.map(|hasher| hasher.finalize().into());
        let mut others = Vec::new();
        others.extend(sha256.map(|value| (Algorithm::Sha256, value.to_vec())));
        others.extend(self.sha1.map(|hasher| (Algorithm::Sha1, hasher.finalize().to_vec())));
        others.extend(self.sha512.map(|hasher| (Algorithm::Sha512, hasher.finalize().to_vec())));
        others.extend(self.md5.map(|hasher| (Algorithm::Md5, hasher.finalize().to_vec())));
        ExtentDigests { piece, alone, sha256, others }
    }
}

impl ExtentDigests {
    /// Plain BLAKE3 of the extent; not of one that was hashed for joining.
    pub(super) fn blake3(&self) -> Result<[u8; 32]> {
        self.alone.ok_or_else(|| Error::broken("an extent without a BLAKE3 hash"))
    }

    /// `digest_mismatch` unless the extent has all these digests.
    pub(super) fn verify(&self, expected: &[Digest]) -> Result<()> {
        expected.iter().try_for_each(|digest| match digest.algorithm() {
            Algorithm::Crc32 => digest.verify(&self.piece.crc32.to_be_bytes()),
            Algorithm::Blake3 => digest.verify(&self.blake3()?),
            other => match self.others.iter().find(|(algorithm, _)| *algorithm == other) {
                Some((_, actual)) => digest.verify(actual),
                None => Err(Error::broken("a digest was expected that nobody computed")),
            },
        })
    }
}

/// A hasher that is fed on the writing thread and read by whoever waits for the write to end.
#[derive(Clone)]
pub(super) struct SharedHasher(Arc<Mutex<Option<ExtentHasher>>>);

impl SharedHasher {
    pub(super) fn new(hasher: ExtentHasher) -> SharedHasher {
        SharedHasher(Arc::new(Mutex::new(Some(hasher))))
    }

    /// What storage calls with every byte it writes.
    pub(super) fn observer(&self) -> Observer {
        let shared = self.0.clone();
        Box::new(move |bytes| {
            if let Some(hasher) = shared.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                hasher.update(bytes);
            }
        })
    }

    /// The digests of `len` bytes; an error when the writer has shown fewer.
    pub(super) fn finish(&self, len: u64) -> Result<ExtentDigests> {
        let hasher = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match hasher {
            Some(hasher) if hasher.bytes == len => Ok(hasher.finish()),
            _ => Err(Error::broken("the writer did not show every byte to the hasher")),
        }
    }
}
