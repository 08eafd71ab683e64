//! The nouns and rules of Carrack: no I/O, no async, no clock of its own.
//!
//! Two nouns carry the product. What comes in is an upload: a target, a length that may not be known
//! yet, and a ledger of stored [`upload::StoredExtent`]s. What goes out is a [`rope::Rope`]: a length,
//! a strong ETag and extents that can be sliced at any byte.

pub mod access;
pub mod archive;
pub mod audit;
pub mod clock;
pub mod digest;
pub mod error;
pub mod etag;
pub mod file;
pub mod id;
pub mod job;
pub mod key;
pub mod link;
pub mod policy;
pub mod range;
pub mod rope;
pub mod token;
pub mod tree;
pub mod upload;

pub use access::{Action, Grant, Identity, Policies, Principal, Role};
pub use clock::{Clock, Entropy, Timestamp};
pub use error::{Code, Error, Result};
pub use etag::ETag;
pub use id::{ArchiveId, BlobId, ClaimId, EncodingId, ForeignTokenId, LinkId, TokenId, TraceId, UploadId};
pub use key::{BucketName, Key, KeyPrefix};
pub use policy::{Circumstances, Policy};
pub use range::ByteRange;
pub use rope::Rope;
