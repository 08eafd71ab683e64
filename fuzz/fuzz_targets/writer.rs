//! Ropes, slices and sockets that a fuzzer makes up, through the writer and against a plain reference.

#![no_main]

use carrack_transport::check::Case;
use libfuzzer_sys::fuzz_target;
use std::cell::LazyCell;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        LazyCell::new(|| Builder::new_current_thread().enable_all().build().unwrap());
}

fuzz_target!(|bytes: &[u8]| {
    let case = Case::of(bytes);
    RUNTIME.with(|runtime| {
        if let Err(fault) = runtime.block_on(case.run()) {
            panic!("{fault}: {case:?}");
        }
    });
});
