//! The conformance suite on SQLite, and what only SQLite has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests too")]

mod sqlite;
