//! Running sums over entries: where the next local header and the next central header will lie.

use crate::ZipError;
use crate::record::{End, central_len, local_len};

/// Sums over the entries so far, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Local headers and data: the offset of the next local header.
    pub(crate) local: u64,
    /// Central headers: the offset of the next one from the start of the directory.
    pub(crate) central: u64,
}

impl Tally {
    /// Counts one more entry. The values are those of an entry in the archive, so nothing overflows.
    pub(crate) fn step(&mut self, name_len: u64, size: u64, compressed: u64) {
        self.central += central_len(name_len, size, compressed, self.local);
        self.local += local_len(name_len, size, compressed) + compressed;
    }

    /// The same for an entry not yet known to fit: [`ZipError::TooLarge`] beyond `i64::MAX` bytes.
    pub(crate) fn try_step(&mut self, name_len: u64, size: u64, compressed: u64) -> Result<(), ZipError> {
        // `compressed` is at most i64::MAX and both sums were, so these u64 additions cannot wrap.
        self.step(name_len, size, compressed);
        if self.local.checked_add(self.central).is_some_and(|sum| sum < i64::MAX as u64 - 1024) {
            Ok(())
        } else {
            Err(ZipError::TooLarge)
        }
    }

    /// The end records of an archive of `entries` entries that ends here.
    pub(crate) fn end(&self, entries: u64) -> End {
        End { entries, directory_at: self.local, directory_len: self.central }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// T3: a central directory beyond 4 GiB, by arithmetic only.
    #[test]
    fn directory_beyond_4_gib() {
        let mut tally = Tally::default();
        let entries = 65_600_u64;
        for _ in 0..entries {
            tally.step(65_535, 0, 0);
        }
        // From the first offset of 0xFFFFFFFF on, the central header grows by a Zip64 field.
        let each = 30 + 65_535 + 9;
        let late = entries - u64::from(u32::MAX).div_ceil(each);
        assert_eq!(tally.local, entries * each);
        assert_eq!(tally.central, entries * (46 + 65_535 + 9) + late * 12);
        assert!(tally.central > 1 << 32);
        let end = tally.end(entries);
        let mut bytes = Vec::new();
        end.write(&mut bytes);
        assert_eq!(bytes.len() as u64, end.len());
        assert_eq!(bytes.len(), 98);
        assert_eq!(le(&bytes[40..48]), tally.central);
        assert_eq!(le(&bytes[48..56]), tally.local);
        assert_eq!(le(&bytes[64..72]), tally.local + tally.central);
        assert_eq!(bytes[76 + 8..76 + 20], [0xFF; 12]);
    }

    /// Which end records each single condition calls for, and that the fields are marked one by one.
    #[test]
    fn end_record_conditions() {
        let mark = 0xFFFF_FFFF_u64;
        for (entries, at, len, zip64) in [
            (1, 40, 60, false),
            (65_534, mark - 1, mark - 1, false),
            (65_535, 40, 60, true),
            (65_536, 40, 60, true),
            (1, mark, 60, true),
            (1, mark + 1, 60, true),
            (1, 40, mark, true),
            (1, 40, mark + 1, true),
        ] {
            let end = End { entries, directory_at: at, directory_len: len };
            let mut bytes = Vec::new();
            end.write(&mut bytes);
            assert_eq!(bytes.len() as u64, end.len());
            assert_eq!(bytes.len(), if zip64 { 98 } else { 22 });
            let tail = &bytes[bytes.len() - 22..];
            assert_eq!(le(&tail[8..10]), entries.min(0xFFFF));
            assert_eq!(le(&tail[10..12]), entries.min(0xFFFF));
            assert_eq!(le(&tail[12..16]), len.min(mark));
            assert_eq!(le(&tail[16..20]), at.min(mark));
            if zip64 {
                assert_eq!(
                    (le(&bytes[4..12]), le(&bytes[24..32]), le(&bytes[32..40])),
                    (44, entries, entries)
                );
                assert_eq!((le(&bytes[40..48]), le(&bytes[48..56])), (len, at));
            }
        }
    }

    #[test]
    fn beyond_i64_is_refused() {
        let mut tally = Tally::default();
        assert_eq!(tally.try_step(1, 1 << 62, 1 << 62), Ok(()));
        assert_eq!(tally.try_step(1, 1 << 62, 1 << 62), Err(ZipError::TooLarge));
    }
}
