//! Header fields of requests: conditions, tus metadata, structured items. The first byte says which.

#![no_main]

use carrack_http::check::{conditions, metadata, structured};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let judge = [conditions, metadata, structured][usize::from(*which) % 3];
    judge(data).unwrap();
});
