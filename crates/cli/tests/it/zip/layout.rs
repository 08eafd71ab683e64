//! Where things lie in a ZIP without Zip64, read from the front as it is written: no gaps, no descriptors.

use std::ops::Range;

/// One entry.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) flags: u64,
    pub(super) crc32: u32,
    /// Its local header, its data, its central header.
    pub(super) local: Range<usize>,
    pub(super) data: Range<usize>,
    pub(super) central: Range<usize>,
}

fn number(zip: &[u8], at: usize, len: usize) -> u64 {
    zip[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// All entries, and where the end record begins. Fails the test when anything is not where it should be.
pub(super) fn parse(zip: &[u8]) -> (Vec<Entry>, usize) {
    let at = |offset, len| number(zip, offset, len) as usize;
    let (mut entries, mut here) = (Vec::new(), 0);
    while at(here, 4) == 0x0403_4b50 {
        let (name_len, extra_len) = (at(here + 26, 2), at(here + 28, 2));
        let data = here + 30 + name_len + extra_len;
        let size = at(here + 18, 4);
        assert_eq!(size, at(here + 22, 4), "stored");
        entries.push(Entry {
            name: String::from_utf8(zip[here + 30..here + 30 + name_len].to_vec()).unwrap(),
            flags: number(zip, here + 6, 2),
            crc32: at(here + 14, 4) as u32,
            local: here..data,
            data: data..data + size,
            central: 0..0,
        });
        here = data + size;
    }
    let directory = here;
    for entry in &mut entries {
        assert_eq!(at(here, 4), 0x0201_4b50, "central header of {}", entry.name);
        let len = 46 + at(here + 28, 2) + at(here + 30, 2);
        assert_eq!(&zip[here + 46..here + 46 + at(here + 28, 2)], entry.name.as_bytes());
        assert_eq!(at(here + 42, 4), entry.local.start);
        entry.central = here..here + len;
        here += len;
    }
    assert_eq!(at(here, 4), 0x0605_4b50, "end record");
    assert_eq!(at(here + 16, 4), directory);
    assert_eq!(zip.len(), here + 22);
    (entries, here)
}

/// Name and content of every entry, contents checked against their CRC.
pub(crate) fn unpack(zip: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (entries, _) = parse(zip);
    let unpacked = entries.into_iter().map(|entry| {
        let content = zip[entry.data].to_vec();
        assert_eq!(crc32fast::hash(&content), entry.crc32, "{}", entry.name);
        (entry.name, content)
    });
    unpacked.collect()
}
