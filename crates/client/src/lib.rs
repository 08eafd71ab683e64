//! Resumable, parallel, verified transfers to and from a Carrack server.
//!
//! A [`Client`] knows one server. [`Client::upload_file`] sends a file in parts and continues where an earlier run was
//! cut off; [`Client::download_file`] fetches pieces side by side and publishes the file only when its BLAKE3 is the one
//! the server announced. Every wait, queue and buffer has a bound: a transfer of any size holds a few buffers of
//! [`BUFFER_BYTES`] for each of [`ClientOptions::parallel`] connections, however many transfers run at once.
//!
//! Dropping a future stops the transfer; what was sent or fetched until then is continued by the next run.

mod archive;
mod blocking;
mod body;
mod client;
mod download;
mod error;
mod fetch;
mod folder;
mod journal;
mod listing;
mod part_file;
mod progress;
mod remote;
mod retry;
mod sharing;
mod sink;
mod source;
mod upload;
mod upload_parts;
mod whole;

pub use archive::ArchiveRequest;
pub use body::BUFFER_BYTES;
pub use client::{Client, ClientOptions, Token, is_loopback};
pub use download::Downloaded;
pub use error::{ClientError, Refusal, Result};
pub use listing::Listing;
pub use part_file::part_path;
pub use progress::{NoProgress, Progress};
pub use remote::{FileName, local_path};
pub use retry::Wait;
pub use upload::{UploadOptions, Uploaded};
