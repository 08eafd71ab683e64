//! Entries as a struct of arrays, so that a million of them stay small and walks touch little memory.

use crate::record::Record;
use crate::{Method, NewEntry, ZipError};

/// Top bit of a `packed` value: the entry is deflated. Sizes stay below it.
pub(super) const DEFLATED: u64 = 1 << 63;

/// The facts of every entry. Accessors take an index below [`Columns::len`].
#[derive(Default)]
pub(crate) struct Columns {
    /// All names one after the other.
    pub(super) names: String,
    /// Where each name ends in `names`.
    pub(super) name_ends: Vec<u32>,
    pub(super) sizes: Vec<u64>,
    /// Compressed size and [`DEFLATED`]; empty as long as every entry is stored.
    pub(super) packed: Vec<u64>,
    pub(super) crcs: Vec<u32>,
    pub(super) times: Vec<i64>,
    pub(super) contents: Vec<[u8; 16]>,
    /// Digests of the contents, if they are kept.
    pub(super) digests: Option<Vec<[u8; 32]>>,
}

impl Columns {
    pub(crate) fn reserve(&mut self, entries: usize, name_bytes: usize) {
        self.names.reserve(name_bytes);
        self.name_ends.reserve(entries);
        self.sizes.reserve(entries);
        self.crcs.reserve(entries);
        self.times.reserve(entries);
        self.contents.reserve(entries);
    }

    pub(crate) fn keep_digests(&mut self) {
        self.digests = Some(Vec::with_capacity(self.sizes.capacity()));
    }

    /// Gives back what growing left over.
    pub(crate) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.name_ends.shrink_to_fit();
        self.sizes.shrink_to_fit();
        self.packed.shrink_to_fit();
        self.crcs.shrink_to_fit();
        self.times.shrink_to_fit();
        self.contents.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        self.names.capacity()
            + self.name_ends.capacity() * size_of::<u32>()
            + (self.sizes.capacity() + self.packed.capacity()) * size_of::<u64>()
            + self.crcs.capacity() * size_of::<u32>()
            + self.times.capacity() * size_of::<i64>()
            + self.contents.capacity() * size_of::<[u8; 16]>()
            + self.digests.as_ref().map_or(0, |digests| digests.capacity() * size_of::<[u8; 32]>())
    }

    pub(crate) fn push(&mut self, entry: &NewEntry<'_>) -> Result<(), ZipError> {
        let end = u32::try_from(self.names.len() + entry.name.len()).map_err(|_| ZipError::NamesTooLong)?;
        if entry.method == Method::Deflate && self.packed.is_empty() {
            // Stored so far: compressed sizes are the sizes.
            self.packed.clone_from(&self.sizes);
        }
        if entry.method == Method::Deflate {
            self.packed.push(entry.compressed | DEFLATED);
        } else if !self.packed.is_empty() {
            self.packed.push(entry.compressed);
        }
        self.names.push_str(entry.name);
        self.name_ends.push(end);
        self.sizes.push(entry.size);
        self.crcs.push(entry.crc32);
        self.times.push(entry.modified);
        self.contents.push(entry.content);
        if let Some(digests) = &mut self.digests {
            digests.push(entry.digest);
        }
        Ok(())
    }

    /// Says how long the stream of a deflated entry came to be.
    pub(crate) fn set_compressed(&mut self, at: usize, compressed: u64) {
        if let Some(packed) = self.packed.get_mut(at) {
            *packed = compressed | DEFLATED;
        }
    }

    /// Puts the entries into another order: first entry `order[0]` of the present one, and so on.
    pub(crate) fn reorder(&mut self, order: &[usize]) {
        let names = order.iter().map(|&at| self.name(at)).collect();
        let ends = order.iter().scan(0, |end, &at| {
            *end += self.name_len(at) as u32;
            Some(*end)
        });
        self.name_ends = ends.collect();
        self.names = names;
        self.sizes = pick(&self.sizes, order);
        if !self.packed.is_empty() {
            self.packed = pick(&self.packed, order);
        }
        self.crcs = pick(&self.crcs, order);
        self.times = pick(&self.times, order);
        self.contents = pick(&self.contents, order);
        if let Some(digests) = &mut self.digests {
            *digests = pick(digests, order);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    fn name_begin(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.name_ends[at - 1] as usize }
    }

    pub(crate) fn name(&self, at: usize) -> &str {
        &self.names[self.name_begin(at)..self.name_ends[at] as usize]
    }

    pub(crate) fn name_len(&self, at: usize) -> u64 {
        (self.name_ends[at] as usize - self.name_begin(at)) as u64
    }

    pub(crate) fn size(&self, at: usize) -> u64 {
        self.sizes[at]
    }

    pub(crate) fn compressed(&self, at: usize) -> u64 {
        if self.packed.is_empty() { self.sizes[at] } else { self.packed[at] & !DEFLATED }
    }

    pub(crate) fn method(&self, at: usize) -> Method {
        if !self.packed.is_empty() && self.packed[at] & DEFLATED != 0 {
            Method::Deflate
        } else {
            Method::Store
        }
    }

    pub(crate) fn crc32(&self, at: usize) -> u32 {
        self.crcs[at]
    }

    pub(crate) fn modified(&self, at: usize) -> i64 {
        self.times[at]
    }

    pub(crate) fn content(&self, at: usize) -> [u8; 16] {
        self.contents[at]
    }

    pub(crate) fn digest(&self, at: usize) -> Option<[u8; 32]> {
        self.digests.as_ref()?.get(at).copied()
    }

    /// What the headers of entry `at` say.
    pub(crate) fn record(&self, at: usize) -> Record<'_> {
        Record {
            name: self.name(at),
            size: self.size(at),
            compressed: self.compressed(at),
            crc32: self.crc32(at),
            method: self.method(at),
            modified: self.modified(at),
            described: false,
        }
    }
}

fn pick<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|&at| values[at]).collect()
}
