//! How much one may have, from outside: requests, transfers, bytes per second, bytes kept.

mod bandwidth;
mod quotas;
mod requests;
mod transfers;
