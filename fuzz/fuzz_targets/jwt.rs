//! Tokens that others sign, against a plain statement of which are taken.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| carrack_service::jwt::check(data).unwrap());
