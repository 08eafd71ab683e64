//! What every catalog has in common, however its rows are kept: plain values, the rules that refuse, the audit log's chain.

pub(crate) mod accounts;
pub(crate) mod archives;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod links;
pub(crate) mod listing;
pub(crate) mod recorded;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod values;
