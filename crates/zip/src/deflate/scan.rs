//! Walks over a deflate stream without inflating it: where its last block begins, and where it ends, to the bit.

/// Where things are in a stream, in bits from its begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The first bit of the last block's header, which says that it is the last (3.2.3).
    pub(super) last_block: usize,
    /// Bits of the whole stream.
    pub(super) bits: usize,
}

/// Longest code (3.2.7).
const BITS_MAX: usize = 15;
/// Order in which the lengths of the code length codes come (3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Bits after a symbol for a length, from 257 on (3.2.5).
const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// Bits after a symbol for a distance.
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// The end of a stream that ends with these bytes; `None` if that is no such stream.
pub(super) fn end(stream: &[u8]) -> Option<End> {
    let mut bits = Bits { bytes: stream, at: 0 };
    loop {
        let block = bits.at;
        let (last, kind) = (bits.take(1)? == 1, bits.take(2)?);
        match kind {
            0 => bits.skip_stored()?,
            1 => {
                let (literals, distances) = fixed()?;
                bits.skip_symbols(&literals, &distances)?;
            }
            2 => {
                let (literals, distances) = bits.codes()?;
                bits.skip_symbols(&literals, &distances)?;
            }
            _ => return None,
        }
        if last {
            let whole = bits.at.div_ceil(8) == stream.len();
            return whole.then_some(End { last_block: block, bits: bits.at });
        }
    }
}

/// The next symbol by the next bits: symbol << 4 | bits of its code. 0 where no code leads.
struct Code {
    table: Vec<u16>,
    bits: usize,
}

impl Code {
    /// From the length of each symbol's code (3.2.2); `None` for lengths that no code has.
    fn new(lengths: &[u8]) -> Option<Code> {
        let bits = usize::from(*lengths.iter().max()?).max(1);
        let mut next = [0_usize; BITS_MAX + 2];
        for length in lengths.iter().filter(|length| **length > 0) {
            next[usize::from(*length) + 1] += 1;
        }
        for length in 1..=BITS_MAX {
            // Before: how many codes are shorter by one. After: the first code of this length.
            next[length] = (next[length - 1] + next[length]) << 1;
        }
        let mut table = vec![0; 1 << bits];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let length = usize::from(*length);
            let code = next[length];
            next[length] += 1;
            if code >> length != 0 {
                return None;
            }
            let reversed = (code as u16).reverse_bits() >> (16 - length);
            for at in (usize::from(reversed)..1 << bits).step_by(1 << length) {
                table[at] = (symbol as u16) << 4 | length as u16;
            }
        }
        Some(Code { table, bits })
    }
}

/// The codes that every decoder knows (3.2.6).
fn fixed() -> Option<(Code, Code)> {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Some((Code::new(&lengths)?, Code::new(&[5; 30])?))
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next bits, at least 57, the first of them lowest; zeros after the end.
    fn peek(&self) -> u64 {
        let byte = self.at / 8;
        let word = match self.bytes.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => *word,
            None => {
                let mut word = [0; 8];
                let rest = self.bytes.get(byte..).unwrap_or_default();
                word[..rest.len()].copy_from_slice(rest);
                word
            }
        };
        u64::from_le_bytes(word) >> (self.at % 8)
    }

    fn advance(&mut self, bits: usize) -> Option<()> {
        self.at += bits;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    fn take(&mut self, bits: usize) -> Option<usize> {
        let value = self.peek() & ((1 << bits) - 1);
        self.advance(bits)?;
        Some(value as usize)
    }

    fn symbol(&mut self, code: &Code) -> Option<usize> {
        let found = code.table[(self.peek() as usize) & ((1 << code.bits) - 1)];
        self.advance(usize::from(found & 15))?;
        (found != 0).then_some(usize::from(found >> 4))
    }

    fn skip_stored(&mut self) -> Option<()> {
        self.at = self.at.next_multiple_of(8);
        let (len, check) = (self.take(16)?, self.take(16)?);
        if len ^ check != 0xffff { None } else { self.advance(len * 8) }
    }

    /// The codes that a block brings along (3.2.7).
    fn codes(&mut self) -> Option<(Code, Code)> {
        let (literals, distances, lengths) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        let mut of_lengths = [0; 19];
        for at in &ORDER[..lengths] {
            of_lengths[*at] = self.take(3)? as u8;
        }
        let code = Code::new(&of_lengths)?;
        let mut all = Vec::with_capacity(literals + distances);
        while all.len() < literals + distances {
            let (value, count) = match self.symbol(&code)? {
                length @ 0..=15 => (length as u8, 1),
                16 => (*all.last()?, self.take(2)? + 3),
                17 => (0, self.take(3)? + 3),
                _ => (0, self.take(7)? + 11),
            };
            all.extend(std::iter::repeat_n(value, count));
        }
        if all.len() > literals + distances {
            return None;
        }
        Some((Code::new(&all[..literals])?, Code::new(&all[literals..])?))
    }

    fn skip_symbols(&mut self, literals: &Code, distances: &Code) -> Option<()> {
        loop {
            match self.symbol(literals)? {
                0..256 => {}
                256 => return Some(()),
                length => {
                    self.advance(usize::from(*LENGTH_EXTRA.get(length - 257)?))?;
                    let distance = self.symbol(distances)?;
                    self.advance(usize::from(*DISTANCE_EXTRA.get(distance)?))?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_streams() {
        // An empty fixed block; an empty stored one; one stored byte before an empty fixed block.
        assert_eq!(end(&[0x03, 0x00]), Some(End { last_block: 0, bits: 10 }));
        assert_eq!(end(&[0x01, 0, 0, 0xff, 0xff]), Some(End { last_block: 0, bits: 40 }));
        let two = [0x00, 1, 0, 0xfe, 0xff, b'x', 0x03, 0x00];
        assert_eq!(end(&two), Some(End { last_block: 48, bits: 58 }));
    }

    #[test]
    fn what_is_no_stream() {
        for bad in [&[][..], &[0x03], &[0x07, 0], &[0x01, 1, 0, 0, 0], &[0x03, 0, 0], &[0x05; 20]] {
            assert_eq!(end(bad), None, "{bad:?}");
        }
    }
}
