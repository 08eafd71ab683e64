//! What several nodes lean on: the real binary with real engines, also when those fail.

mod agree;
pub(crate) mod consul;
mod direct;
mod dying;
pub(crate) mod events;
mod liar;
mod postgres;
mod proxies;
pub(crate) mod s3;
mod state;
mod whole;
