//! The bytes of headers and end records: pure encoders, each with a function that says its length beforehand.

use crate::Method;
use crate::time;

/// From this value on a 32-bit field holds `0xFFFFFFFF` and the truth moves to Zip64 (4.4.1.4). The value itself is
/// included, because it is the mark.
pub(crate) const MARK32: u64 = 0xFFFF_FFFF;
/// The same for the 16-bit entry counts of the end record.
pub(crate) const MARK16: u64 = 0xFFFF;

const LOCAL_FIXED: u64 = 30;
const CENTRAL_FIXED: u64 = 46;
/// `UT` extra (0x5455): id, length, flags (1 = modification time only), 32-bit seconds.
const UT_LEN: u64 = 9;
/// Zip64 extra of a local header: id, length and *both* sizes (4.5.3).
const LOCAL_ZIP64_LEN: u64 = 20;
const END_LEN: u64 = 22;
/// Zip64 end record (4.3.14) and its locator (4.3.15).
const END_ZIP64_LEN: u64 = 56 + 20;

/// 2.0, also for stored files, because some readers of office documents insist on it.
const VERSION: u16 = 20;
/// 4.5, only where a Zip64 field is present.
const VERSION_ZIP64: u16 = 45;
/// Upper byte of "version made by": Unix, so that external attributes carry a mode (4.4.2).
const MADE_BY_UNIX: u16 = 3 << 8;
/// Bit 11: the name is UTF-8 (4.4.4).
const FLAG_UTF8: u16 = 1 << 11;
/// Bit 3: CRC and sizes follow the data.
const FLAG_DESCRIBED: u16 = 1 << 3;

const MODE_FILE: u32 = 0o100_644;
const MODE_FOLDER: u32 = 0o040_755;
const DOS_FOLDER: u32 = 0x10;

/// Unix mode of an entry: regular file 0644, or folder 0755 if the name ends in `/`.
pub(crate) fn mode(name: &str) -> u32 {
    if name.ends_with('/') { MODE_FOLDER } else { MODE_FILE }
}

/// Does the local header need the Zip64 extra?
pub(crate) fn local_zip64(size: u64, compressed: u64) -> bool {
    size >= MARK32 || compressed >= MARK32
}

/// Length of a local header (4.3.7) in bytes.
pub(crate) fn local_len(name_len: u64, size: u64, compressed: u64) -> u64 {
    LOCAL_FIXED + name_len + if local_zip64(size, compressed) { LOCAL_ZIP64_LEN } else { 0 } + UT_LEN
}

/// Length of a central directory header (4.3.12) in bytes, for an entry whose local header lies at `offset`.
pub(crate) fn central_len(name_len: u64, size: u64, compressed: u64, offset: u64) -> u64 {
    let fields = central_fields(size, compressed, offset);
    CENTRAL_FIXED + name_len + if fields > 0 { 4 + 8 * fields } else { 0 } + UT_LEN
}

/// How many of the three central Zip64 fields are present: each only where its 32-bit field holds the mark (4.5.3).
fn central_fields(size: u64, compressed: u64, offset: u64) -> u64 {
    [size, compressed, offset].iter().map(|&value| u64::from(value >= MARK32)).sum()
}

/// Everything the headers of one entry say.
pub(crate) struct Record<'a> {
    pub(crate) name: &'a str,
    pub(crate) size: u64,
    pub(crate) compressed: u64,
    pub(crate) crc32: u32,
    pub(crate) method: Method,
    pub(crate) modified: i64,
    /// CRC and sizes stand behind the data, in a descriptor (4.3.9).
    pub(crate) described: bool,
}

impl Record<'_> {
    /// Appends the local header (4.3.7).
    pub(crate) fn write_local(&self, out: &mut Vec<u8>) {
        let zip64 = local_zip64(self.size, self.compressed);
        put32(out, 0x0403_4b50);
        put16(out, if zip64 { VERSION_ZIP64 } else { VERSION });
        self.write_shared(out, if self.described { 0 } else { self.crc32 });
        if self.described {
            self.write_undecided(out, zip64);
            return;
        }
        // Both sizes are marked together: readers that take Zip64 fields in turn would misread a lone second one.
        put32(out, if zip64 { u32::MAX } else { low32(self.compressed) });
        put32(out, if zip64 { u32::MAX } else { low32(self.size) });
        put16(out, self.name.len() as u16);
        put16(out, (UT_LEN + if zip64 { LOCAL_ZIP64_LEN } else { 0 }) as u16);
        out.extend_from_slice(self.name.as_bytes());
        if zip64 {
            put16(out, 0x0001);
            put16(out, 16);
            put64(out, self.size);
            put64(out, self.compressed);
        }
        self.write_ut(out);
    }

    /// Appends the central directory header (4.3.12) of an entry whose local header lies at `offset`.
    pub(crate) fn write_central(&self, out: &mut Vec<u8>, offset: u64) {
        let fields = central_fields(self.size, self.compressed, offset);
        let version = if fields > 0 { VERSION_ZIP64 } else { VERSION };
        put32(out, 0x0201_4b50);
        put16(out, MADE_BY_UNIX | version);
        put16(out, version);
        self.write_shared(out, self.crc32);
        put32(out, low32(self.compressed));
        put32(out, low32(self.size));
        put16(out, self.name.len() as u16);
        put16(out, (UT_LEN + if fields > 0 { 4 + 8 * fields } else { 0 }) as u16);
        // No comment, disk 0, no internal attributes.
        out.extend_from_slice(&[0; 6]);
        let folder = if self.name.ends_with('/') { DOS_FOLDER } else { 0 };
        put32(out, mode(self.name) << 16 | folder);
        put32(out, low32(offset));
        out.extend_from_slice(self.name.as_bytes());
        if fields > 0 {
            // First of the extras: Windows 7 looks nowhere else.
            put16(out, 0x0001);
            put16(out, (8 * fields) as u16);
            for value in [self.size, self.compressed, offset] {
                if value >= MARK32 {
                    put64(out, value);
                }
            }
        }
        self.write_ut(out);
    }

    /// Flags, method, time, date and CRC, which stand in the same order in both headers.
    fn write_shared(&self, out: &mut Vec<u8>, crc32: u32) {
        let (dos_time, dos_date) = time::dos(self.modified);
        let utf8 = if self.name.is_ascii() { 0 } else { FLAG_UTF8 };
        put16(out, utf8 | if self.described { FLAG_DESCRIBED } else { 0 });
        put16(out, if self.method == Method::Deflate { 8 } else { 0 });
        put16(out, dos_time);
        put16(out, dos_date);
        put32(out, crc32);
    }

    /// The rest of a local header whose sizes nobody knows yet. With Zip64 the extra field says that the descriptor's
    /// sizes have 64 bits (4.3.9.2).
    fn write_undecided(&self, out: &mut Vec<u8>, zip64: bool) {
        let mark = if zip64 { u32::MAX } else { 0 };
        put32(out, mark);
        put32(out, mark);
        put16(out, self.name.len() as u16);
        put16(out, (UT_LEN + if zip64 { LOCAL_ZIP64_LEN } else { 0 }) as u16);
        out.extend_from_slice(self.name.as_bytes());
        if zip64 {
            put16(out, 0x0001);
            put16(out, 16);
            put64(out, 0);
            put64(out, 0);
        }
        self.write_ut(out);
    }

    /// Appends the descriptor that follows the data (4.3.9), of the width that the local header said.
    pub(crate) fn write_descriptor(&self, out: &mut Vec<u8>, zip64: bool) {
        put32(out, 0x0807_4b50);
        put32(out, self.crc32);
        for size in [self.compressed, self.size] {
            if zip64 { put64(out, size) } else { put32(out, low32(size)) }
        }
    }

    fn write_ut(&self, out: &mut Vec<u8>) {
        put16(out, 0x5455);
        put16(out, (UT_LEN - 4) as u16);
        out.push(1);
        put32(out, time::unix(self.modified));
    }
}

/// What the end records say: how many headers the central directory has, where it lies, how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) entries: u64,
    pub(crate) directory_at: u64,
    pub(crate) directory_len: u64,
}

impl End {
    fn zip64(&self) -> bool {
        self.entries >= MARK16 || self.directory_at >= MARK32 || self.directory_len >= MARK32
    }

    /// Length in bytes of the end records together.
    pub(crate) fn len(&self) -> u64 {
        END_LEN + if self.zip64() { END_ZIP64_LEN } else { 0 }
    }

    /// Appends the Zip64 end record and locator, if any field needs them, and the end record (4.3.14 to 4.3.16).
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if self.zip64() {
            put32(out, 0x0606_4b50);
            // The record's size without its first 12 bytes.
            put64(out, 44);
            put16(out, MADE_BY_UNIX | VERSION_ZIP64);
            put16(out, VERSION_ZIP64);
            put64(out, 0);
            put64(out, self.entries);
            put64(out, self.entries);
            put64(out, self.directory_len);
            put64(out, self.directory_at);
            put32(out, 0x0706_4b50);
            put32(out, 0);
            put64(out, self.directory_at + self.directory_len);
            put32(out, 1);
        }
        // Each field is marked for itself only; the others keep telling the truth (4.4.1.4).
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX);
        put32(out, 0x0605_4b50);
        put32(out, 0);
        put16(out, entries);
        put16(out, entries);
        put32(out, low32(self.directory_len));
        put32(out, low32(self.directory_at));
        put16(out, 0);
    }
}

/// The value, or the mark if it does not fit.
fn low32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
