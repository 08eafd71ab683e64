//! The HTTP contract, statement by statement, against the real binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

pub(crate) mod answers;
mod auth;
mod bodies;
mod buckets;
mod chunks;
mod cli;
mod completion;
mod compression;
mod conditions;
mod describing;
mod edges;
mod expiry;
mod files;
mod keys;
mod listing;
mod parts;
mod ranges;
mod refusals;
mod system;
pub(crate) mod uploads;
pub(crate) mod wire;
