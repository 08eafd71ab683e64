//! Byte ranges, and what a `Range` header may ask for.

use std::num::NonZeroU64;

/// A non-empty range of bytes: offset and length. `offset + length` never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    offset: u64,
    len: NonZeroU64,
}

impl ByteRange {
    /// `len` bytes from `offset`; `None` when empty or past the end of `u64`.
    pub fn new(offset: u64, len: u64) -> Option<ByteRange> {
        offset.checked_add(len)?;
        Some(ByteRange { offset, len: NonZeroU64::new(len)? })
    }

    /// The first byte.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// How many bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a ByteRange is never empty")]
    pub fn len(self) -> u64 {
        self.len.get()
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.offset + self.len.get()
    }
}

/// How many ranges one request may ask for; more is ignored as RFC 9110 §14.2 allows.
pub const RANGES_MAX: usize = 16;

/// What a `Range` header comes to for a representation of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// No, another or a malformed unit, or a set not worth serving in parts: send everything (RFC 9110 §14.2).
    Whole,
    /// One range.
    One(ByteRange),
    /// Several ranges in the order asked, none overlapping.
    Many(Vec<ByteRange>),
    /// Well-formed, but no byte of it exists: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `length` bytes (RFC 9110 §14.1.2, §14.2).
///
/// Ranges past the end are clamped or dropped, a suffix longer than the content is all of it. Overlapping sets, sets of
/// more than [`RANGES_MAX`], and sets that add up to more than the content are answered whole: they are either broken
/// clients or an amplification attack.
pub fn select(header: &str, length: u64) -> Selection {
    let Some((unit, set)) = header.split_once('=') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut ranges = Vec::new();
    let mut asked = 0;
    for spec in set.split(',') {
        let spec = spec.trim_matches([' ', '\t']);
        if spec.is_empty() {
            continue; // RFC 9110 §5.6.1.2: a recipient ignores empty list elements.
        }
        asked += 1;
        if asked > RANGES_MAX {
            return Selection::Whole;
        }
        match resolve(spec, length) {
            Ok(Some(range)) => ranges.push(range),
            Ok(None) => {}
            Err(Malformed) => return Selection::Whole,
        }
    }
    if asked == 0 {
        return Selection::Whole;
    }
    settle(ranges, length)
}

fn settle(mut ranges: Vec<ByteRange>, length: u64) -> Selection {
    match ranges.len() {
        0 => return Selection::Unsatisfiable,
        1 => return Selection::One(ranges.remove(0)),
        _ => {}
    }
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.offset());
    let overlap = sorted.windows(2).any(|pair| pair[0].end() > pair[1].offset());
    let total = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.len()));
    if overlap || total > length { Selection::Whole } else { Selection::Many(ranges) }
}

struct Malformed;

/// One range-spec against `length`: `None` when it selects nothing.
fn resolve(spec: &str, length: u64) -> Result<Option<ByteRange>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    if first.is_empty() {
        let suffix = number(last)?.min(length);
        return Ok(ByteRange::new(length - suffix, suffix));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return Err(Malformed);
    }
    if first >= length {
        return Ok(None);
    }
    Ok(ByteRange::new(first, last.min(length - 1) - first + 1))
}

/// Digits only; numbers beyond `u64` mean "to the end", which clamping makes exact.
fn number(text: &str) -> Result<u64, Malformed> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(offset: u64, len: u64) -> Selection {
        Selection::One(ByteRange::new(offset, len).unwrap())
    }

    #[test]
    fn table_of_rfc_9110() {
        use Selection::{Unsatisfiable, Whole};
        let cases = [
            ("bytes=0-0", one(0, 1)),
            ("bytes=0-", one(0, 100)),
            ("BYTES=5-9", one(5, 5)),
            ("bytes=-1", one(99, 1)),
            ("bytes=-100", one(0, 100)),
            ("bytes=-101", one(0, 100)),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99-", one(99, 1)),
            ("bytes=99-5000", one(99, 1)),
            ("bytes=99-99999999999999999999999", one(99, 1)),
            ("bytes=100-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=100-,200-300", Unsatisfiable),
            ("bytes=5-4", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("lines=1-2", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=--1", Whole),
            ("bytes= 1-2 , ", one(1, 2)),
            ("bytes=0-9,5-14", Whole),
            ("bytes=0-,0-", Whole),
            ("bytes=0-1,200-", one(0, 2)),
        ];
        for (header, expected) in cases {
            assert_eq!(select(header, 100), expected, "{header}");
        }
        assert_eq!(
            select("bytes=90-,0-1", 100),
            Selection::Many(vec![ByteRange::new(90, 10).unwrap(), ByteRange::new(0, 2).unwrap()])
        );
        assert_eq!(select("bytes=0-", 0), Unsatisfiable);
        let many = (0..17).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(",");
        assert_eq!(select(&format!("bytes={many}"), 100), Whole);
    }

    proptest! {
        #[test]
        fn never_outside_never_more_than_all(header in "bytes=[-0-9, ]{0,30}", length in 0u64..300) {
            let ranges = match select(&header, length) {
                Selection::One(range) => vec![range],
                Selection::Many(ranges) => ranges,
                Selection::Whole | Selection::Unsatisfiable => vec![],
            };
            prop_assert!(ranges.iter().all(|r| r.end() <= length));
            prop_assert!(ranges.iter().map(|r| r.len()).sum::<u64>() <= length);
        }
    }
}
