//! Durability, start and stop, a full or damaged disk: what an operator lives with.

mod crash;
mod damage;
pub(crate) mod disk;
mod disk_full;
mod disk_model;
mod faults;
mod leaks;
mod ledger;
pub(crate) mod mount;
mod order;
mod power_cut;
mod refusals;
mod settings;
mod stopping;
mod strace;
pub(crate) mod wait;
pub(crate) mod wire;
mod writer;
