//! One file for each command.

pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod copy;
pub(crate) mod get;
pub(crate) mod link;
pub(crate) mod ls;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod zip;
