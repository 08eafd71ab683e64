//! Black-box tests: the real binary, real clients, real disks. One binary, so that it is linked once.

mod contract;
mod server;
mod smoke;
