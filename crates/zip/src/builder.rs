//! From a list of entries to a [`Manifest`].

use crate::etag::TagHasher;
use crate::manifest::{Columns, Manifest};
use crate::record::{MARK32, local_zip64};
use crate::{LAYOUT_VERSION, NewEntry, ZipError};

/// Collects the entries of an archive in the order they shall have in it.
pub struct ManifestBuilder {
    columns: Columns,
    tag: TagHasher,
    modified: i64,
}

impl Default for ManifestBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestBuilder {
    /// An archive without entries so far.
    pub fn new() -> Self {
        Self::with_layout_version(LAYOUT_VERSION)
    }

    /// The same, with room for `entries` entries whose names have `name_bytes` bytes together.
    pub fn with_capacity(entries: usize, name_bytes: usize) -> Self {
        let mut builder = Self::new();
        builder.columns.reserve(entries, name_bytes);
        builder
    }

    /// Keeps the digests of entries, for who lays the same entries out again in another way: 32 bytes each.
    pub fn keep_digests(&mut self) {
        self.columns.keep_digests();
    }

    fn with_layout_version(layout_version: u32) -> Self {
        Self { columns: Columns::default(), tag: TagHasher::new(layout_version), modified: i64::MIN }
    }

    /// Adds an entry at the end. The name is taken as given: neither its safety nor its uniqueness is looked at.
    ///
    /// # Errors
    /// [`ZipError::NoName`], [`ZipError::NameTooLong`], [`ZipError::NamesTooLong`], [`ZipError::FolderWithContent`],
    /// [`ZipError::Contradiction`] or [`ZipError::TooLarge`] (a single size above `i64::MAX`); the builder is then
    /// unchanged.
    pub fn push(&mut self, entry: NewEntry<'_>) -> Result<(), ZipError> {
        entry.check()?;
        self.columns.push(&entry)?;
        self.tag.push(&entry);
        self.modified = self.modified.max(entry.modified);
        Ok(())
    }

    /// Lays the archive out.
    ///
    /// The order is that of the pushes, with two exceptions. If the first entry needs Zip64 and another does not, the
    /// first that does not moves to the front, because Safari's unpacker loses all others when the first is Zip64.
    /// Entries with a size of exactly 4,294,967,295 bytes move to the end, because Info-ZIP takes that size for the
    /// mark of a Zip64 field and then misreads the central header that follows.
    ///
    /// # Errors
    /// [`ZipError::Empty`] without entries, [`ZipError::TooLarge`] if the archive exceeds `i64::MAX` bytes.
    pub fn finish(mut self) -> Result<Manifest, ZipError> {
        if self.columns.len() == 0 {
            return Err(ZipError::Empty);
        }
        self.settle_order();
        self.columns.shrink();
        Manifest::laid_out(self.columns, self.tag.finish(), self.modified)
    }

    /// Moves the entries that readers want first and last, as told at [`finish`](Self::finish).
    fn settle_order(&mut self) {
        let columns = &self.columns;
        let all = || 0..columns.len();
        let is_mark = |at: usize| columns.size(at) == MARK32 || columns.compressed(at) == MARK32;
        let first = all().find(|&at| !local_zip64(columns.size(at), columns.compressed(at)));
        if first.unwrap_or(0) == 0 && !all().any(is_mark) {
            return;
        }
        let middle = all().filter(|&at| Some(at) != first && !is_mark(at));
        let order: Vec<usize> =
            first.into_iter().chain(middle).chain(all().filter(|&at| is_mark(at))).collect();
        self.columns.reorder(&order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    fn tag_of(layout_version: u32) -> String {
        let mut builder = ManifestBuilder::with_layout_version(layout_version);
        builder
            .push(NewEntry {
                name: "a",
                size: 0,
                compressed: 0,
                crc32: 0,
                method: Method::Store,
                modified: 0,
                content: [0; 16],
                stream: [0; 16],
                digest: [0; 32],
            })
            .unwrap();
        builder.finish().unwrap().etag().to_owned()
    }

    /// T16.
    #[test]
    fn layout_version_changes_the_etag() {
        assert_eq!(tag_of(LAYOUT_VERSION), tag_of(LAYOUT_VERSION));
        assert_ne!(tag_of(LAYOUT_VERSION), tag_of(LAYOUT_VERSION + 1));
    }
}
