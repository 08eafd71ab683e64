//! Black-box tests of the HTTP contract while they are written.

#[path = "../it/server.rs"]
mod server;
