//! What a cluster leans on, and several nodes as one.

mod postgres;
