//! What goes into an archive, and what is refused.

/// How the bytes of an entry lie in the archive (4.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Method 0: the content as it is.
    Store,
    /// Method 8: a ready raw deflate stream (RFC 1951) of known length, spliced in.
    Deflate,
}

/// One entry, as handed to [`crate::ManifestBuilder::push`].
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Full name with `/` between folders, 1 to 65,535 bytes, taken as given; a trailing `/` makes it a folder.
    /// Names from users belong through [`crate::EntryNames`] first.
    pub name: &'a str,
    /// Length of the content in bytes, uncompressed.
    pub size: u64,
    /// Bytes the entry occupies in the archive; equal to `size` for [`Method::Store`].
    pub compressed: u64,
    /// CRC-32 (IEEE 802.3, as in 4.4.7) of the uncompressed content.
    pub crc32: u32,
    /// How the bytes lie in the archive.
    pub method: Method,
    /// Last modification in seconds since the Unix epoch, UTC.
    pub modified: i64,
    /// Where the bytes that are spliced in lie, in words of the caller; no part of the ETag.
    pub content: [u8; 16],
    /// For [`Method::Deflate`] the name of the compressed form, which is part of the ETag, because two compressors may
    /// turn one content into different streams. Of no meaning for stored entries.
    pub stream: [u8; 16],
    /// BLAKE3 of the uncompressed content. It goes into the ETag and is not kept.
    pub digest: [u8; 32],
}

/// Why an archive cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// No entries: readers warn about a bare end record, so there is no such archive.
    #[error("an archive needs at least one entry")]
    Empty,
    /// The name is empty.
    #[error("an entry has no name")]
    NoName,
    /// The name does not fit the 16-bit length field (4.4.10).
    #[error("an entry name has {0} bytes, more than 65,535")]
    NameTooLong(usize),
    /// All names together exceed 4 GiB - 1.
    #[error("the names of the archive exceed 4 GiB")]
    NamesTooLong,
    /// A folder with content.
    #[error("folder {0:?} must be stored with size 0 and CRC 0")]
    FolderWithContent(String),
    /// Sizes, CRC and method contradict each other.
    #[error("entry {0:?}: sizes, CRC and method contradict each other")]
    Contradiction(String),
    /// The archive would be longer than `i64::MAX` bytes.
    #[error("the archive would exceed 2^63 - 1 bytes")]
    TooLarge,
    /// The compressor broke its own promises.
    #[error("a content could not be deflated: {0}")]
    Deflate(String),
    /// Kept bytes are no manifest, or damaged.
    #[error("these bytes are no manifest of this version, or damaged")]
    Unreadable,
}

impl NewEntry<'_> {
    /// Refuses what would make an archive that readers reject.
    pub(crate) fn check(&self) -> Result<(), ZipError> {
        if self.name.is_empty() {
            return Err(ZipError::NoName);
        }
        if self.name.len() > usize::from(u16::MAX) {
            return Err(ZipError::NameTooLong(self.name.len()));
        }
        let blank = self.size == 0 && self.compressed == 0 && self.crc32 == 0 && self.method == Method::Store;
        if self.name.ends_with('/') && !blank {
            return Err(ZipError::FolderWithContent(self.name.to_owned()));
        }
        let sound = match self.method {
            Method::Store => self.size == self.compressed,
            // Even the empty stream takes two bytes.
            Method::Deflate => self.compressed >= 2,
        };
        // The CRC of nothing is 0; another value is a sign of a mixed-up record.
        if !sound || (self.size == 0 && self.crc32 != 0) {
            return Err(ZipError::Contradiction(self.name.to_owned()));
        }
        if self.size.max(self.compressed) > i64::MAX as u64 {
            return Err(ZipError::TooLarge);
        }
        Ok(())
    }
}
