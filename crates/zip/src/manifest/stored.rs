//! A manifest as bytes that can be kept, and back.
//!
//! Little-endian. A head of [`HEAD`] bytes (magic, [`LAYOUT_VERSION`], flags, entries, bytes of names, newest time, bytes
//! of the tag), the tag, then the columns one after the other, and a CRC-32 of all that. Nothing in it is believed
//! before it was checked, so damage is an error, never another archive.

use super::columns::{Columns, DEFLATED};
use super::{Manifest, ZipError};
use crate::LAYOUT_VERSION;
use crate::record::MARK32;
use std::io::Read;

const MAGIC: &[u8; 8] = b"carrackM";
const HEAD: usize = 8 + 4 + 4 + 8 + 8 + 8 + 4;
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// The column of compressed sizes is there.
const HAS_PACKED: u32 = 1;
/// The column of digests is there.
const HAS_DIGESTS: u32 = 2;

impl Manifest {
    /// The manifest as bytes, for [`Manifest::read`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let columns = &self.columns;
        let mut flags = if columns.packed.is_empty() { 0 } else { HAS_PACKED };
        flags |= if columns.digests.is_some() { HAS_DIGESTS } else { 0 };
        let mut out = Vec::with_capacity(HEAD + self.etag.len() + columns.len() * 80 + columns.names.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&(columns.len() as u64).to_le_bytes());
        out.extend_from_slice(&(columns.names.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.modified.to_le_bytes());
        out.extend_from_slice(&(self.etag.len() as u32).to_le_bytes());
        out.extend_from_slice(self.etag.as_bytes());
        out.extend_from_slice(columns.names.as_bytes());
        columns.name_ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        columns.sizes.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
        columns.packed.iter().for_each(|packed| out.extend_from_slice(&packed.to_le_bytes()));
        columns.crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
        columns.times.iter().for_each(|time| out.extend_from_slice(&time.to_le_bytes()));
        out.extend_from_slice(columns.contents.as_flattened());
        if let Some(digests) = &columns.digests {
            out.extend_from_slice(digests.as_flattened());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`Manifest::to_bytes`] wrote: the same archive, byte for byte. Takes no more memory than the manifest.
    ///
    /// # Errors
    /// [`ZipError::Unreadable`] if the bytes are not whole, or were written for another [`LAYOUT_VERSION`].
    pub fn read(reader: impl Read) -> Result<Manifest, ZipError> {
        read(reader).ok_or(ZipError::Unreadable)
    }
}

/// Takes bytes from the front, and sums them up.
struct Source<R> {
    reader: R,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
}

impl<R: Read> Source<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.reader.read_exact(bytes).ok()?;
        self.crc.update(bytes);
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    /// Values of `N` bytes each. A number of them that memory has no room for is an error, not the end of the process.
    fn column<const N: usize, T>(&mut self, values: usize, value: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let mut column = Vec::new();
        column.try_reserve_exact(values).ok()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        while column.len() < values {
            buffer.resize((values - column.len()).min(CHUNK / N) * N, 0);
            self.fill(&mut buffer)?;
            column.extend(buffer.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)));
        }
        self.buffer = buffer;
        Some(column)
    }

    fn text(&mut self, len: usize) -> Option<String> {
        String::from_utf8(self.column(len, |[byte]: [u8; 1]| byte)?).ok()
    }
}

fn read(reader: impl Read) -> Option<Manifest> {
    let mut source = Source { reader, crc: crc32fast::Hasher::new(), buffer: Vec::new() };
    if source.array::<8>()? != *MAGIC || source.array::<4>()? != LAYOUT_VERSION.to_le_bytes() {
        return None;
    }
    let flags = u32::from_le_bytes(source.array()?);
    let entries = usize::try_from(u64::from_le_bytes(source.array()?)).ok()?;
    let names_len = usize::try_from(u64::from_le_bytes(source.array()?)).ok()?;
    let modified = i64::from_le_bytes(source.array()?);
    let etag_len = u32::from_le_bytes(source.array()?) as usize;
    let etag = source.text(etag_len)?;
    let names = source.text(names_len)?;
    let columns = Columns {
        names,
        name_ends: source.column(entries, u32::from_le_bytes)?,
        sizes: source.column(entries, u64::from_le_bytes)?,
        packed: source.column(if flags & HAS_PACKED == 0 { 0 } else { entries }, u64::from_le_bytes)?,
        crcs: source.column(entries, u32::from_le_bytes)?,
        times: source.column(entries, i64::from_le_bytes)?,
        contents: source.column(entries, |id: [u8; 16]| id)?,
        digests: match flags & HAS_DIGESTS {
            0 => None,
            _ => Some(source.column(entries, |digest: [u8; 32]| digest)?),
        },
    };
    let sum = source.crc.clone().finalize();
    let whole = u32::from_le_bytes(source.array()?) == sum && source.reader.read(&mut [0]).ok()? == 0;
    if !whole || entries == 0 || !is_sound(&columns) {
        return None;
    }
    Manifest::laid_out(columns, etag, modified).ok()
}

/// Whether names can be cut where they are said to end, and sizes are sizes.
fn is_sound(columns: &Columns) -> bool {
    let mut begin = 0;
    for end in &columns.name_ends {
        let end = *end as usize;
        let len = end.wrapping_sub(begin);
        let named = end > begin && len <= usize::from(u16::MAX) && columns.names.is_char_boundary(end);
        if !named || end > columns.names.len() {
            return false;
        }
        begin = end;
    }
    let most = i64::MAX as u64;
    begin == columns.names.len()
        && columns.sizes.iter().all(|size| *size <= most)
        && columns.packed.iter().all(|packed| packed & !DEFLATED <= most)
        && columns.len() as u64 <= MARK32
}

#[cfg(test)]
mod tests {
    use crate::{Manifest, ManifestBuilder, Method, NewEntry, ZipError};

    fn made(deflated: bool, digests: bool) -> Manifest {
        let mut builder = ManifestBuilder::new();
        if digests {
            builder.keep_digests();
        }
        for at in 0..200_u8 {
            let name = format!("ordner-ä/{at}");
            let method = if deflated && at % 3 == 0 { Method::Deflate } else { Method::Store };
            let compressed = if method == Method::Deflate { 7 } else { 1000 };
            builder
                .push(NewEntry {
                    name: &name,
                    size: 1000,
                    compressed,
                    crc32: u32::from(at),
                    method,
                    modified: i64::from(at) - 5,
                    content: [at; 16],
                    stream: [at; 16],
                    digest: [at; 32],
                })
                .unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_same_archive_comes_back() {
        for (deflated, digests) in [(false, false), (true, false), (false, true), (true, true)] {
            let made = made(deflated, digests);
            let back = Manifest::read(&made.to_bytes()[..]).unwrap();
            assert_eq!(
                (back.len(), back.etag(), back.modified()),
                (made.len(), made.etag(), made.modified())
            );
            let mut at = 0;
            while let Some(piece) = made.piece_at(at) {
                assert_eq!(back.piece_at(at), Some(piece));
                at += 97;
            }
            for at in 0..200 {
                assert_eq!((back.digest(at), back.method(at)), (made.digest(at), made.method(at)));
                assert_eq!(back.digest(at).is_some(), digests);
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = made(true, true).to_bytes();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Manifest::read(&damaged[..]).unwrap_err(), ZipError::Unreadable, "byte {at}");
            assert_eq!(Manifest::read(&bytes[..at]).unwrap_err(), ZipError::Unreadable, "cut at {at}");
        }
    }

    /// Bytes whose checksum is right although what they say is not: never a panic, never an archive that cannot be read.
    #[test]
    fn lies_are_errors() {
        let honest = made(true, false).to_bytes();
        for at in 12..honest.len() - 4 {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut lie = honest.clone();
                lie[at] = value;
                let end = lie.len() - 4;
                let crc = crc32fast::hash(&lie[..end]);
                lie[end..].copy_from_slice(&crc.to_le_bytes());
                if let Ok(archive) = Manifest::read(&lie[..]) {
                    assert!(archive.piece_at(archive.len() - 1).is_some());
                }
            }
        }
    }
}
