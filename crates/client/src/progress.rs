//! How far a transfer is: told while it runs, from whichever task does the work.

/// Hears how a transfer goes. Calls come from several tasks at once and must return at once.
pub trait Progress: Send + Sync {
    /// A transfer begins; `total` where its size is known.
    fn started(&self, total: Option<u64>);

    /// So many bytes are there already, from an earlier run.
    fn kept(&self, _bytes: u64) {}

    /// So many more bytes went over the wire.
    fn advanced(&self, bytes: u64);

    /// So many bytes that were counted have to be sent again.
    fn went_back(&self, _bytes: u64) {}

    /// The transfer is complete and verified.
    fn finished(&self);
}

/// Nobody is watching.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn started(&self, _total: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self) {}
}
