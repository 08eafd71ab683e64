//! A reader of its own, written from APPNOTE: from the end record over the central directory to the local headers.
//! It is strict where readers differ: no gaps, no overlaps, no superfluous Zip64 field.

use std::ops::Range;

const M32: u64 = 0xFFFF_FFFF;

/// What both headers of an entry say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) made_by: u64,
    pub(crate) needed: u64,
    pub(crate) local_needed: u64,
    pub(crate) flags: u64,
    pub(crate) method: u64,
    pub(crate) dos_time: u64,
    pub(crate) dos_date: u64,
    pub(crate) crc32: u64,
    pub(crate) size: u64,
    pub(crate) compressed: u64,
    pub(crate) external: u64,
    pub(crate) unix_time: u64,
    /// Zip64 data of the local header, if any, and of the central one.
    pub(crate) local_zip64: Option<Vec<u8>>,
    pub(crate) central_zip64: Option<Vec<u8>>,
    /// Where the local header and the data lie in the archive.
    pub(crate) local: Range<u64>,
    pub(crate) data: Range<u64>,
    pub(crate) central: Range<u64>,
}

/// A whole archive.
pub(crate) struct Listing {
    pub(crate) entries: Vec<Found>,
    pub(crate) directory: Range<u64>,
    pub(crate) zip64_end: bool,
}

struct Cursor {
    bytes: Vec<u8>,
    at: usize,
}

impl Cursor {
    fn take(&mut self, len: usize) -> &[u8] {
        let begin = self.at;
        self.at += len;
        &self.bytes[begin..self.at]
    }

    fn le(&mut self, len: usize) -> u64 {
        self.take(len).iter().rev().fold(0, |value, &byte| value * 256 + u64::from(byte))
    }

    fn expect(&mut self, len: usize, value: u64, what: &str) {
        assert_eq!(self.le(len), value, "{what}");
    }
}

/// Parses an archive of `len` bytes given as `read(offset, len)`; fails the test on anything irregular.
pub(crate) fn parse(len: u64, read: impl Fn(u64, u64) -> Vec<u8>) -> Listing {
    let cursor = |range: Range<u64>| {
        let bytes = read(range.start, range.end - range.start);
        assert_eq!(bytes.len() as u64, range.end - range.start, "short read of {range:?}");
        Cursor { bytes, at: 0 }
    };
    let mut end = cursor(len - 22..len);
    end.expect(4, 0x0605_4b50, "end record");
    end.expect(4, 0, "disk numbers");
    let (here, total) = (end.le(2), end.le(2));
    assert_eq!(here, total);
    let (short_len, short_at) = (end.le(4), end.le(4));
    end.expect(2, 0, "comment length");
    let (mut entries, mut directory_len, mut directory_at) = (total, short_len, short_at);
    let marked = total == 0xFFFF || short_len == M32 || short_at == M32;
    let mut directory_end = len - 22;
    if marked {
        let mut locator = cursor(len - 42..len - 22);
        locator.expect(4, 0x0706_4b50, "locator");
        locator.expect(4, 0, "disk of the Zip64 end record");
        let record_at = locator.le(8);
        locator.expect(4, 1, "number of disks");
        assert_eq!(record_at, len - 98);
        directory_end = record_at;
        let mut record = cursor(record_at..len - 42);
        record.expect(4, 0x0606_4b50, "Zip64 end record");
        record.expect(8, 44, "its size");
        record.expect(2, 0x032D, "made by");
        record.expect(2, 45, "needed");
        record.expect(8, 0, "disk numbers");
        entries = record.le(8);
        record.expect(8, entries, "entries in total");
        directory_len = record.le(8);
        directory_at = record.le(8);
        assert!(
            entries >= 0xFFFF || directory_len >= M32 || directory_at >= M32,
            "needless Zip64 end record"
        );
        assert_eq!(total, entries.min(0xFFFF));
        assert_eq!((short_len, short_at), (directory_len.min(M32), directory_at.min(M32)));
    }
    assert_eq!(directory_at + directory_len, directory_end, "the directory ends where the end records begin");
    let directory = directory_at..directory_end;
    let mut central = cursor(directory.clone());
    let mut found = Vec::new();
    let mut next_local = 0;
    for _ in 0..entries {
        let entry = entry(&mut central, directory_at, next_local, &cursor);
        next_local = entry.data.end;
        found.push(entry);
    }
    assert_eq!(central.at as u64, directory_len, "the directory has no more than its entries");
    assert_eq!(next_local, directory_at, "no gap before the directory");
    Listing { entries: found, directory, zip64_end: marked }
}

fn entry(
    central: &mut Cursor,
    directory_at: u64,
    next_local: u64,
    cursor: &impl Fn(Range<u64>) -> Cursor,
) -> Found {
    let central_at = directory_at + central.at as u64;
    central.expect(4, 0x0201_4b50, "central header");
    let (made_by, needed, flags, method) = (central.le(2), central.le(2), central.le(2), central.le(2));
    let (dos_time, dos_date, crc32) = (central.le(2), central.le(2), central.le(4));
    let (mut compressed, mut size) = (central.le(4), central.le(4));
    let (name_len, extra_len) = (central.le(2) as usize, central.le(2) as usize);
    central.expect(2 + 2 + 2, 0, "comment, disk and internal attributes");
    let (external, mut offset) = (central.le(4), central.le(4));
    let name = String::from_utf8(central.take(name_len).to_vec()).expect("names are UTF-8");
    let extra = central.take(extra_len).to_vec();
    let (central_zip64, unix_time) = extras(extra);
    let mut wide = Cursor { bytes: central_zip64.clone().unwrap_or_default(), at: 0 };
    for field in [&mut size, &mut compressed, &mut offset] {
        if *field == M32 {
            *field = wide.le(8);
            assert!(*field >= M32, "needless central Zip64 field");
        }
    }
    assert_eq!(wide.at, wide.bytes.len(), "the central Zip64 extra has exactly the marked fields");
    assert_eq!(offset, next_local, "entries follow each other without gaps");

    let mut local = cursor(offset..offset + 30);
    local.expect(4, 0x0403_4b50, "local header");
    let local_needed = local.le(2);
    local.expect(2, flags, "flags agree");
    local.expect(2, method, "methods agree");
    local.expect(2, dos_time, "times agree");
    local.expect(2, dos_date, "dates agree");
    local.expect(4, crc32, "CRCs agree");
    let (local_compressed, local_size) = (local.le(4), local.le(4));
    local.expect(2, name_len as u64, "name lengths agree");
    let local_extra_len = local.le(2);
    let header_end = offset + 30 + name_len as u64 + local_extra_len;
    let mut rest = cursor(offset + 30..header_end);
    assert_eq!(rest.take(name_len), name.as_bytes(), "names agree");
    let local_extra = rest.take(local_extra_len as usize).to_vec();
    let (local_zip64, local_unix_time) = extras(local_extra);
    assert_eq!(local_unix_time, unix_time, "UT times agree");
    if let Some(both) = &local_zip64 {
        let mut both = Cursor { bytes: both.clone(), at: 0 };
        assert_eq!((local_size, local_compressed), (M32, M32), "both marked");
        both.expect(8, size, "sizes agree");
        both.expect(8, compressed, "compressed sizes agree");
        assert!(size >= M32 || compressed >= M32, "needless local Zip64 extra");
    } else {
        assert_eq!((local_size, local_compressed), (size, compressed), "sizes agree");
    }
    Found {
        name,
        made_by,
        needed,
        local_needed,
        flags,
        method,
        dos_time,
        dos_date,
        crc32,
        size,
        compressed,
        external,
        unix_time,
        local_zip64,
        central_zip64,
        local: offset..header_end,
        data: header_end..header_end + compressed,
        central: central_at..directory_at + central.at as u64,
    }
}

/// Zip64 data and UT time; Zip64 must come first, UT must be there with the modification time only, no others.
fn extras(bytes: Vec<u8>) -> (Option<Vec<u8>>, u64) {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut id = cursor.le(2);
    let mut zip64 = None;
    if id == 1 {
        let len = cursor.le(2) as usize;
        zip64 = Some(cursor.take(len).to_vec());
        id = cursor.le(2);
    }
    assert_eq!(id, 0x5455, "UT extra");
    cursor.expect(2, 5, "UT length");
    cursor.expect(1, 1, "UT flags");
    let time = cursor.le(4);
    assert_eq!(cursor.at, cursor.bytes.len(), "no other extras");
    (zip64, time)
}
