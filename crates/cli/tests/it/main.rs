//! Black-box tests: the real binary, real clients, real disks. One binary, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::let_underscore_must_use,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

mod access;
mod archives;
mod audit;
mod cluster;
mod contract;
mod copy;
mod deploy;
mod edge;
mod faults;
mod limits;
mod operations;
mod resumable;
mod server;
mod smoke;
mod tls;
mod tus;
mod writer;
mod zip;
