//! The conformance suite on each database, and what only that has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests too")]

mod postgres;
mod sqlite;
