//! What several nodes lean on: the real binary with real engines, also when those fail.

mod agree;
mod consul;
mod dying;
mod events;
mod liar;
mod postgres;
mod proxies;
mod s3;
mod state;
mod whole;
