//! The deflated form of contents (RFC 1951), the same bytes for the same content everywhere: one level, one size of
//! blocks, one library of one version.
//!
//! A content up to [`BLOCK_BYTES`] is deflated whole. A longer one is cut into blocks of that size, each deflated by itself,
//! on whichever core is free, and joined as pigz does: every block but the last ends in an empty stored block, which takes
//! it to the next byte. libdeflate only makes streams that end, so [`scan`] finds the bit that says so, and it is cleared.

mod scan;

use crate::ZipError;
use libdeflater::{CompressionLvl, Compressor};

/// What made a stream. It changes with whatever changes a byte of one: level, block size, library.
pub const CODEC: &str = "deflate libdeflate-1.26 level 6 block 1 MiB";
/// Bytes of content that are deflated at once.
pub const BLOCK_BYTES: usize = 1 << 20;
const LEVEL: i32 = 6;

/// Whether a stream of `deflated` bytes is worth having for a content of `size` bytes: it saves a 64th.
pub fn is_smaller(deflated: u64, size: u64) -> bool {
    deflated < size - size / 64
}

/// Deflates; each thread has its own, which takes about a MiB.
pub struct Deflater {
    compressor: Compressor,
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Deflater {
    /// A new one.
    pub fn new() -> Self {
        Self { compressor: Compressor::new(level(LEVEL)) }
    }

    /// Appends one block of at most [`BLOCK_BYTES`] to `out`: the last of a content ends the stream, the others end at a
    /// byte, so that the next one can follow.
    ///
    /// # Errors
    /// [`ZipError::Deflate`] if the library breaks its own promises; `out` then has bytes of no use.
    pub fn block(&mut self, content: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), ZipError> {
        let begin = out.len();
        let most = self.compressor.deflate_compress_bound(content.len());
        out.resize(begin + most, 0);
        let len = self
            .compressor
            .deflate_compress(content, &mut out[begin..])
            .map_err(|error| ZipError::Deflate(error.to_string()))?;
        out.truncate(begin + len);
        if last {
            return Ok(());
        }
        let end = scan::end(&out[begin..]).ok_or_else(|| ZipError::Deflate("a stream without end".into()))?;
        out[begin + end.last_block / 8] &= !(1 << (end.last_block % 8));
        // The header of an empty stored block: three zero bits, then zero bits to the next byte (3.2.4).
        let bits = end.bits + 3;
        out.truncate(begin + end.bits.div_ceil(8));
        out.resize(begin + bits.div_ceil(8), 0);
        out.extend_from_slice(&[0, 0, 0xff, 0xff]);
        Ok(())
    }

    /// The stream of a whole content, however long: its blocks one after the other.
    ///
    /// # Errors
    /// As [`Deflater::block`].
    pub fn whole(&mut self, content: &[u8]) -> Result<Vec<u8>, ZipError> {
        let mut out = Vec::new();
        let mut rest = content;
        loop {
            let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES));
            self.block(block, after.is_empty(), &mut out)?;
            if after.is_empty() {
                return Ok(out);
            }
            rest = after;
        }
    }
}

/// A level that is there; the fastest one otherwise, which no level of ours is.
fn level(number: i32) -> CompressionLvl {
    CompressionLvl::new(number).unwrap_or_else(|_| CompressionLvl::fastest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdeflater::Decompressor;

    /// Text with structure, then noise, then zeros, so that blocks of all three kinds occur.
    fn content(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (state >> 60) % 4 {
                0 => bytes.extend_from_slice(&state.to_le_bytes()),
                1 => bytes.extend(std::iter::repeat_n((state >> 40) as u8, (state >> 50) as usize % 500)),
                _ => bytes.extend_from_slice(format!("line {} of a text\n", (state >> 33) % 1000).as_bytes()),
            }
        }
        bytes.truncate(len);
        bytes
    }

    fn inflated(stream: &[u8], len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        assert_eq!(Decompressor::new().deflate_decompress(stream, &mut out).unwrap(), len);
        out
    }

    #[test]
    fn what_was_deflated_comes_back() {
        let mut deflater = Deflater::new();
        let sizes =
            [0, 1, 2, 100, 5000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 777];
        for (seed, len) in sizes.into_iter().enumerate() {
            let content = content(len, seed as u64);
            let stream = deflater.whole(&content).unwrap();
            assert!(inflated(&stream, len) == content, "{len}");
            assert!(Deflater::new().whole(&content).unwrap() == stream, "the same every time");
        }
    }

    /// Any block may be followed by any other, and each ends at a byte.
    #[test]
    fn blocks_of_all_kinds_join() {
        let mut deflater = Deflater::new();
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().by_ref_bytes(200_000);
        let blocks: Vec<Vec<u8>> = vec![
            Vec::new(),
            content(300_000, 5),
            noise.clone(),
            b"a".to_vec(),
            vec![0; 500_000],
            content(70_000, 9),
            noise[..70_000].to_vec(),
            Vec::new(),
        ];
        let (mut stream, mut whole) = (Vec::new(), Vec::new());
        for (at, block) in blocks.iter().enumerate() {
            deflater.block(block, at + 1 == blocks.len(), &mut stream).unwrap();
            whole.extend_from_slice(block);
        }
        assert!(inflated(&stream, whole.len()) == whole);
        for seed in 0..300 {
            let (one, two) = (content(seed as usize * 37 % 4000, seed), content(50, seed + 1));
            let mut stream = Vec::new();
            deflater.block(&one, false, &mut stream).unwrap();
            deflater.block(&two, true, &mut stream).unwrap();
            assert_eq!(inflated(&stream, one.len() + two.len()), [one, two].concat());
        }
    }

    /// If this fails, [`CODEC`] must change.
    #[test]
    fn the_same_forever() {
        let stream = Deflater::new().whole(&content(2 * BLOCK_BYTES + 5, 42)).unwrap();
        assert_eq!((stream.len(), crc32fast::hash(&stream)), GOLDEN);
    }

    const GOLDEN: (usize, u32) = (140_235, 3_066_638_277);

    trait Bytes {
        fn by_ref_bytes(self, len: usize) -> Vec<u8>;
    }

    impl Bytes for blake3::OutputReader {
        fn by_ref_bytes(mut self, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.fill(&mut bytes);
            bytes
        }
    }
}
