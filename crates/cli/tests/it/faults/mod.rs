//! What happens when an engine is away: every cell of the table of failures in docs/cluster.md. Each engine fails in four ways
//! (nobody listens, nobody answers, answers come late, connections are reset in the middle), before a request and during
//! transfers. Whatever was acknowledged is there afterwards, every request is answered within a bounded time, what cannot be
//! done is said so, and all is well within ten seconds of the healing, without a restart.

mod cells;
mod clocks;
mod consul;
mod events;
mod postgres;
mod proxy;
mod redis;
mod s3;
mod traffic;
