//! What several nodes lean on: the real binary with real engines, also when those fail.

mod consul;
mod events;
mod postgres;
mod proxies;
mod state;
