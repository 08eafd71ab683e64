//! The crate from outside: layout against an independent reader, ranges, ETags, names, and real unpackers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

mod etag;
mod judged;
mod layout;
mod names;
mod oracle;
mod ranges;
mod sample;
mod unpackers;
