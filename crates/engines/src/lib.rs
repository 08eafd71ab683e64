//! Starts the engines that a cluster leans on - from what is installed on this machine, in a folder of their own, on free
//! loopback ports - and sees to it that none outlives who started it. Tests use it, and so does whoever wants to try a
//! cluster on one machine.
//!
//! One file per engine; what they share is [`Engine`]: a program that was started, became ready, and can be stopped,
//! killed, frozen and started again, which is how their failing is tried.

mod engine;
mod garage;
mod nginx;
mod postgres;
mod rabbitmq;
mod redis;

pub use engine::{Engine, EngineError, Spec, free_port, program};
pub use garage::Garage;
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
