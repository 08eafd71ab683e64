//! The open internet: clients that are slow, rude or hostile.

mod heads;
mod http2;
mod slow;
