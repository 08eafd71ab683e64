//! Ropes, slices and sockets that a fuzzer makes up, through the writer and against a plain reference.

#![no_main]

use carrack_transport::check::Case;
use libfuzzer_sys::fuzz_target;
use std::cell::LazyCell;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(runtime);
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // `sendfile` to a client that has gone raises it. Rust's own start of a program, which a fuzzer replaces, has it
    // ignored; a handler, which stays when this value goes, is as good.
    runtime.block_on(async { signal(SignalKind::pipe()).unwrap() });
    runtime
}

fuzz_target!(|bytes: &[u8]| {
    let case = Case::of(bytes);
    RUNTIME.with(|runtime| {
        if let Err(fault) = runtime.block_on(case.run()) {
            panic!("{fault}: {case:?}");
        }
    });
});
