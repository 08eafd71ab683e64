//! BLAKE3 of a whole from pieces that arrive in any order.
//!
//! BLAKE3 is a binary tree over chunks of 1,024 bytes (BLAKE3 paper §2.1, §5.1; IETF draft-aumasson-blake3). The
//! chaining value of every complete, aligned subtree depends on nothing outside it, so a piece that begins anywhere can
//! be reduced to its maximal aligned subtrees plus the raw bytes of the two chunks it only touches. Such
//! [`Fragment`]s form a monoid under [`Fragment::join`]: joined in order they give the hash of the whole, and no byte
//! is ever read again. A fragment holds at most 2 KiB of bytes and two nodes per tree level.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes in a leaf of the BLAKE3 tree.
const CHUNK: u64 = 1024;
const CHUNK_BYTES: usize = 1024;

type ChainingValue = [u8; 32];

/// A complete aligned subtree: `1 << level` chunks, the first of which is number `chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    chunk: u64,
    level: u32,
    value: ChainingValue,
}

/// What BLAKE3 needs to remember of the bytes `start..end` of something larger. Feed it bytes with [`update`], join
/// it with the fragment that follows, and ask the one that spans everything for its [`root`].
///
/// [`update`]: Fragment::update
/// [`root`]: Fragment::root
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    start: u64,
    end: u64,
    /// Bytes before the first chunk boundary, when `start` is not on one.
    head: Vec<u8>,
    nodes: Vec<Node>,
    /// Bytes of the last chunk while it may not be compressed yet: because it is incomplete, or because it is the
    /// first of all and might turn out to be the only one (the root is compressed in another way).
    tail: Vec<u8>,
    /// Nobody here has seen the bytes: where they are is all that is known.
    unseen: bool,
}

/// What stands in the place of the head's length in the form of a fragment whose bytes nobody has seen.
const UNSEEN: u16 = u16::MAX;

impl Fragment {
    /// A fragment without bytes that begins at `start`.
    pub fn new(start: u64) -> Fragment {
        Fragment { start, end: start, head: Vec::new(), nodes: Vec::new(), tail: Vec::new(), unseen: false }
    }

    /// The fragment `start..end` of bytes that came to the storage past this process: it joins like any other, and what it
    /// is joined to has no root.
    pub fn unseen(start: u64, end: u64) -> Fragment {
        Fragment { end, unseen: true, ..Fragment::new(start) }
    }

    /// Whether every byte of it has passed here.
    pub fn is_seen(&self) -> bool {
        !self.unseen
    }

    /// Where it begins.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes the bytes that follow. Large slices hash fastest: whole subtrees are taken from the slice at once.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let first_boundary = self.start.next_multiple_of(CHUNK);
        if self.end < first_boundary {
            let take = usize::try_from(first_boundary - self.end).unwrap_or(usize::MAX).min(bytes.len());
            self.head.extend_from_slice(&bytes[..take]);
            self.end += take as u64;
            bytes = &bytes[take..];
        }
        if !self.tail.is_empty() {
            let take = (CHUNK_BYTES - self.tail.len()).min(bytes.len());
            self.tail.extend_from_slice(&bytes[..take]);
            self.end += take as u64;
            bytes = &bytes[take..];
            self.settle_tail(!bytes.is_empty());
        }
        while bytes.len() >= CHUNK_BYTES {
            let chunk = self.end / CHUNK;
            let level = largest_subtree(chunk, bytes.len());
            let Some(level) = level else { break };
            let (block, rest) = bytes.split_at(CHUNK_BYTES << level);
            self.push(Node { chunk, level, value: subtree(chunk, block) });
            self.end += block.len() as u64;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.settle_halves();
            self.tail.extend_from_slice(bytes);
            self.end += bytes.len() as u64;
        }
    }

    /// This fragment followed by `next`; `None` unless `next` begins where this one ends.
    pub fn join(mut self, next: &Fragment) -> Option<Fragment> {
        if self.end != next.start {
            return None;
        }
        if self.start == self.end {
            return Some(next.clone());
        }
        if self.unseen || next.unseen {
            return Some(Fragment::unseen(self.start, next.end));
        }
        self.update(&next.head);
        if !next.nodes.is_empty() || !next.tail.is_empty() {
            self.settle_tail(true);
        }
        for node in &next.nodes {
            self.push(*node);
            self.end = (node.chunk + (1 << node.level)) * CHUNK;
        }
        self.update(&next.tail);
        Some(self)
    }

    /// The BLAKE3 hash of everything; `None` unless the fragment begins at 0 and every byte of it was seen.
    pub fn root(&self) -> Option<[u8; 32]> {
        if self.start != 0 || self.unseen {
            return None;
        }
        let mut values: Vec<ChainingValue> = self.nodes.iter().map(|node| node.value).collect();
        if values.is_empty() {
            return Some(*blake3::hash(&self.tail).as_bytes());
        }
        if !self.tail.is_empty() {
            values.push(subtree(self.end / CHUNK - u64::from(self.end.is_multiple_of(CHUNK)), &self.tail));
        }
        let mut right = values.pop()?;
        while values.len() > 1 {
            right = merge_subtrees_non_root(&values.pop()?, &right, Mode::Hash);
        }
        // One value alone cannot be: a subtree that is everything so far is kept as its two halves.
        Some(*merge_subtrees_root(&values.pop()?, &right, Mode::Hash).as_bytes())
    }

    /// Compresses a full last chunk, unless it is the very first and nothing is known to follow.
    fn settle_tail(&mut self, more_follows: bool) {
        if self.tail.len() < CHUNK_BYTES {
            return;
        }
        let chunk = self.end / CHUNK - 1;
        if chunk == 0 && !more_follows {
            return;
        }
        let value = subtree(chunk, &self.tail);
        self.tail.clear();
        self.push(Node { chunk, level: 0, value });
    }

    /// Adds the next subtree and merges what has become complete. The merge that would make one subtree of
    /// everything from byte 0 waits until more follows, since the root is merged in another way.
    fn push(&mut self, node: Node) {
        self.settle_halves();
        self.nodes.push(node);
        while let [.., left, right] = self.nodes[..] {
            let siblings = left.level == right.level && left.chunk.is_multiple_of(2 << left.level);
            if !siblings || (left.chunk == 0 && self.nodes.len() == 2) {
                break;
            }
            self.nodes.truncate(self.nodes.len() - 2);
            self.nodes.push(merged(left, right));
        }
    }

    /// Merges the two halves of everything so far, now that more follows.
    fn settle_halves(&mut self) {
        if let [left, right] = self.nodes[..]
            && left.chunk == 0
            && left.level == right.level
        {
            self.nodes.clear();
            self.nodes.push(merged(left, right));
        }
    }

    /// A compact form for the ledger; see [`Fragment::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + self.head.len() + self.tail.len() + self.nodes.len() * 33);
        bytes.extend_from_slice(&self.start.to_le_bytes());
        if self.unseen {
            bytes.extend_from_slice(&UNSEEN.to_le_bytes());
            bytes.extend_from_slice(&self.end.to_le_bytes());
            return bytes;
        }
        bytes.extend_from_slice(&(self.head.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.tail.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&self.tail);
        for node in &self.nodes {
            bytes.push(node.level as u8);
            bytes.extend_from_slice(&node.value);
        }
        bytes
    }

    /// Reads what [`Fragment::encode`] wrote; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Fragment> {
        let (start, bytes) = bytes.split_first_chunk::<8>()?;
        let (head_len, bytes) = bytes.split_first_chunk::<2>()?;
        if u16::from_le_bytes(*head_len) == UNSEEN {
            let (start, end) = (u64::from_le_bytes(*start), u64::from_le_bytes(bytes.try_into().ok()?));
            return (start <= end).then(|| Fragment::unseen(start, end));
        }
        let (tail_len, bytes) = bytes.split_first_chunk::<2>()?;
        let (head, bytes) = bytes.split_at_checked(u16::from_le_bytes(*head_len).into())?;
        let (tail, mut bytes) = bytes.split_at_checked(u16::from_le_bytes(*tail_len).into())?;
        let start = u64::from_le_bytes(*start);
        let mut end = start.checked_add(head.len() as u64)?;
        let mut nodes = Vec::new();
        while let Some((level, rest)) = bytes.split_first() {
            let (value, rest) = rest.split_first_chunk::<32>()?;
            let level = u32::from(*level);
            if level > 53 || !end.is_multiple_of(CHUNK) {
                return None;
            }
            nodes.push(Node { chunk: end / CHUNK, level, value: *value });
            end = end.checked_add(CHUNK << level)?;
            bytes = rest;
        }
        end = end.checked_add(tail.len() as u64)?;
        Some(Fragment { start, end, head: head.to_vec(), nodes, tail: tail.to_vec(), unseen: false })
    }
}

/// The level of the largest aligned subtree that begins at `chunk` and fits into `available` bytes; `None` when that
/// would be the one chunk that may still turn out to be everything.
fn largest_subtree(chunk: u64, available: usize) -> Option<u32> {
    let fits = (available / CHUNK_BYTES).ilog2();
    if chunk != 0 {
        return Some(fits.min(chunk.trailing_zeros()));
    }
    if available == CHUNK_BYTES << fits { fits.checked_sub(1) } else { Some(fits) }
}

/// The chaining value of a complete subtree, or of an incomplete last chunk.
fn subtree(chunk: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(chunk * CHUNK);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

fn merged(left: Node, right: Node) -> Node {
    let value = merge_subtrees_non_root(&left.value, &right.value, Mode::Hash);
    Node { chunk: left.chunk, level: left.level + 1, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn of(bytes: &[u8], start: usize, end: usize) -> Fragment {
        let mut fragment = Fragment::new(start as u64);
        fragment.update(&bytes[start..end]);
        fragment
    }

    #[test]
    fn every_small_and_power_of_two_size() {
        let bytes = content(70_000);
        let sizes =
            (0..=2050).chain([4095, 4096, 4097, 8192, 16_384, 16_385, 65_535, 65_536, 65_537, 70_000]);
        for size in sizes {
            assert_eq!(of(&bytes, 0, size).root(), Some(*blake3::hash(&bytes[..size]).as_bytes()), "{size}");
        }
    }

    #[test]
    fn equal_halves_join_to_the_root() {
        let bytes = content(65_536);
        for cut in [1, 512, 1023, 1024, 1025, 16_384, 32_768, 49_152, 65_535] {
            let whole = of(&bytes, 0, cut).join(&of(&bytes, cut, 65_536)).unwrap();
            assert_eq!(whole.root(), Some(*blake3::hash(&bytes).as_bytes()), "{cut}");
            assert_eq!(whole, of(&bytes, 0, 65_536), "{cut}");
        }
    }

    #[test]
    fn aligned_parts_are_one_node() {
        let bytes = content(1 << 20);
        assert!(of(&bytes, 1 << 19, 1 << 20).encode().len() < 50);
    }

    #[test]
    fn what_nobody_has_seen_has_a_place_and_no_root() {
        let bytes = content(3000);
        let unseen = Fragment::unseen(1000, 2000);
        let whole = of(&bytes, 0, 1000).join(&unseen).unwrap().join(&of(&bytes, 2000, 3000)).unwrap();
        assert_eq!((whole.start(), whole.end(), whole.root(), whole.is_seen()), (0, 3000, None, false));
        assert_eq!(Fragment::new(0).join(&Fragment::unseen(0, 7)), Some(Fragment::unseen(0, 7)));
        assert_eq!(unseen.clone().join(&Fragment::unseen(2001, 2002)), None);
        assert_eq!(Fragment::decode(&unseen.encode()), Some(unseen.clone()));
        assert_eq!(Fragment::decode(&unseen.encode()[..17]), None);
    }

    proptest! {
        #[test]
        fn any_cuts_in_any_grouping(size in 0usize..40_000, cuts in prop::collection::vec(0usize..40_000, 0..12),
                                    feed in 1usize..5_000, pivot in 0usize..12) {
            let bytes = content(size);
            let mut edges: Vec<usize> = cuts.into_iter().map(|c| c.min(size)).chain([0, size]).collect();
            edges.sort_unstable();
            let pieces: Vec<Fragment> = edges.windows(2).map(|edge| {
                let mut piece = Fragment::new(edge[0] as u64);
                for part in bytes[edge[0]..edge[1]].chunks(feed) {
                    piece.update(part);
                }
                Fragment::decode(&piece.encode()).unwrap()
            }).collect();
            let join = |pieces: &[Fragment], start: usize| pieces.iter()
                .try_fold(Fragment::new(start as u64), |whole, piece| whole.join(piece));
            let pivot = pivot.min(pieces.len());
            let left = join(&pieces[..pivot], 0).unwrap();
            let right = join(&pieces[pivot..], edges[pivot]).unwrap();
            let whole = left.join(&right).unwrap();
            prop_assert_eq!(whole.root(), Some(*blake3::hash(&bytes).as_bytes()));
            prop_assert_eq!(whole, of(&bytes, 0, size));
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(fragment) = Fragment::decode(&bytes) {
                let _ = fragment.root();
            }
        }
    }
}
