//! A ZIP archive as arithmetic: a [`Manifest`] of names, sizes and CRCs yields the archive's exact length, a strong
//! ETag and the bytes at any offset, without building the archive and without touching the files in it.
//!
//! [`Deflater`] makes the deflated form of contents, the same bytes for the same content everywhere.
//!
//! The one layout written here ("layout A") has sizes and CRC-32 in the local header and bit 3 clear, because every
//! reader accepts it, streaming readers included. Numbers in documentation such as "4.3.7" are sections of PKWARE's
//! APPNOTE 6.3.10.
//!
//! Everything is a function of its arguments: no clock, locale, host or hash-map order reaches a byte.
//!
//! ```
//! use carrack_zip::{ManifestBuilder, Method, NewEntry, Piece};
//!
//! let mut builder = ManifestBuilder::new();
//! builder.push(NewEntry {
//!     name: "hello.txt",
//!     size: 5,
//!     compressed: 5,
//!     crc32: 0x3610_a686,
//!     method: Method::Store,
//!     modified: 1_700_000_000,
//!     content: [7; 16],
//!     stream: [0; 16],
//!     digest: [9; 32],
//! })?;
//! let manifest = builder.finish()?;
//! let mut at = 0;
//! while let Some(piece) = manifest.piece_at(at) {
//!     at += match piece {
//!         Piece::Bytes(bytes) => bytes.len() as u64,
//!         Piece::Data { len, .. } => len,
//!     };
//! }
//! assert_eq!(at, manifest.len());
//! # Ok::<(), carrack_zip::ZipError>(())
//! ```

mod builder;
mod deflate;
mod entry;
mod etag;
mod manifest;
mod names;
mod record;
mod stream;
mod tally;
mod time;

pub use builder::ManifestBuilder;
pub use deflate::{BLOCK_BYTES, CODEC, Deflater, is_smaller};
pub use entry::{Method, NewEntry, ZipError};
pub use manifest::{Manifest, Piece};
pub use names::{Assigned, EntryNames, safe_name};
pub use stream::ZipStream;

/// Version of the header bytes. It is part of every ETag and must grow with any change of a byte this crate emits,
/// or a resumed download would splice two different archives.
pub const LAYOUT_VERSION: u32 = 1;
