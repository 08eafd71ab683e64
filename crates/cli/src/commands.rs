//! One file for each command.

pub(crate) mod audit;
pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod zip;
