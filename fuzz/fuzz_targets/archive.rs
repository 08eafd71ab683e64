//! Lists of entries that a fuzzer makes up, through the manifest -> bytes functions, with a reader of its own as the judge.

#![no_main]

#[path = "../../crates/zip/tests/it/judged.rs"]
mod judged;
#[expect(dead_code, reason = "the tests of the layout look at every field it finds, the judge at some")]
#[path = "../../crates/zip/tests/it/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| judged::judge(data));
