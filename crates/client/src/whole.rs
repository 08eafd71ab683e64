//! The digest of a whole from pieces that come in any order.

use carrack_domain::digest::{ContentDigest, Piece};
use std::collections::BTreeMap;

/// Pieces that are known. Neighbours are joined as soon as they meet, so as much is kept as there are gaps.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    by_start: BTreeMap<u64, Piece>,
}

impl Whole {
    /// Takes a piece that overlaps no other.
    pub(crate) fn insert(&mut self, piece: Piece) {
        let mut piece = piece;
        if let Some((&start, before)) = self.by_start.range(..piece.fragment.start()).next_back()
            && before.fragment.end() == piece.fragment.start()
            && let Some(joined) = before.clone().join(&piece)
        {
            self.by_start.remove(&start);
            piece = joined;
        }
        let end = piece.fragment.end();
        if let Some(after) = self.by_start.get(&end)
            && let Some(joined) = piece.clone().join(after)
        {
            self.by_start.remove(&end);
            piece = joined;
        }
        self.by_start.insert(piece.fragment.start(), piece);
    }

    /// The digest of all `size` bytes; `None` while some are missing.
    pub(crate) fn digest(&self, size: u64) -> Option<ContentDigest> {
        if size == 0 {
            return Piece::empty(0).content();
        }
        let piece = self.by_start.get(&0)?;
        (piece.fragment.end() == size).then(|| piece.content())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::digest::PieceHasher;

    #[test]
    fn any_order_comes_to_the_whole() {
        let bytes: Vec<u8> = (0..50_000u32).map(|i| (i % 253) as u8).collect();
        let mut whole = Whole::default();
        for index in [4, 0, 9, 2, 1, 3, 8, 5, 7, 6] {
            assert_eq!(whole.digest(50_000), None);
            let mut hasher = PieceHasher::new(index * 5_000);
            hasher.update(&bytes[index as usize * 5_000..][..5_000]);
            whole.insert(hasher.finish());
        }
        assert_eq!(whole.by_start.len(), 1);
        assert_eq!(&whole.digest(50_000).unwrap().blake3, blake3::hash(&bytes).as_bytes());
        assert_eq!(&Whole::default().digest(0).unwrap().blake3, blake3::hash(b"").as_bytes());
    }
}
