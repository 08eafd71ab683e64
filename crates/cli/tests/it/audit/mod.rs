//! The audit log from outside: everything that is done leaves its record, and no later change of it goes unnoticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

mod full;
mod recorded;
mod refused;
mod tampered;

use crate::contract::answers::json;
use crate::server::{Server, without_variables};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// All records that a query selects, page by page.
async fn records(server: &Server, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = json(server.get(&format!("/v1/audit?{query}{cursor}")).send().await.unwrap(), 200).await;
        all.extend(page["records"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Those of one kind.
fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

/// `carrack audit ...` on a data folder.
fn audit(command: &str, data: &Path, more: &[&str]) -> Output {
    let mut carrack = without_variables(env!("CARGO_BIN_EXE_carrack"));
    carrack.args(["audit", command, "--data"]).arg(data).args(more).output().unwrap()
}

/// What `carrack audit verify` says when the log is whole.
fn whole(data: &Path, more: &[&str]) -> String {
    let output = audit("verify", data, more);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("whole: "), "{said}");
    said
}

/// What it complains of when the log is not.
fn not_whole(data: &Path, more: &[&str]) -> String {
    let output = audit("verify", data, more);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.starts_with(b"NOT WHOLE: "));
    String::from_utf8(output.stderr).unwrap()
}
