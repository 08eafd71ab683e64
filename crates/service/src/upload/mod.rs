//! What comes in: a whole body at once, numbered parts in any order, bytes in order over many requests, or uploads that
//! join others. All end in the same ledger arithmetic and the same way to finish.
//!
//! *Cancellation.* Bytes are received on tasks that outlive the connection, so every write under way is awaited and
//! every stage is either recorded or discarded, whatever the client does.

mod append;
mod appending;
mod claims;
mod digests;
mod direct;
pub(crate) mod finish;
mod instant;
mod join;
mod parts;
mod put;
mod receive;
mod segment;
mod session;
mod told;
mod watch;
mod whole;
pub mod writers;

pub use append::{Append, Checksum, NewAppend, Progress, Report};
pub use direct::DirectPart;
pub use parts::{NewUpload, PartStored, UploadStatus};
pub use put::Put;
pub use told::{End, NewTold, Told};

use crate::Core;
use crate::file::Files;
use crate::maintenance::Maintenance;
use claims::Claims;
use std::sync::Arc;

/// Takes uploads. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    core: Arc<Core>,
    maintenance: Arc<Maintenance>,
    /// Who is writing which part, and who is completing which upload.
    claims: Arc<Claims>,
    /// Who finds content that is there already.
    files: Arc<Files>,
}

impl Uploads {
    pub(crate) fn new(core: Arc<Core>, maintenance: Arc<Maintenance>, files: Arc<Files>) -> Uploads {
        Uploads { core, maintenance, claims: Arc::default(), files }
    }
}
