use crate::server::{Setup, TOKEN, tool};
use serde_json::Value;
use std::path::Path;

/// The suite that anyone can run against any server, against ours: whatever can be checked passes.
#[test]
fn every_statement_of_the_protocol_holds() {
    let server = Setup::new().set("CARRACK_UPLOADS__TTL", "15s").start();
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/tus");
    let output = tool("python3", "python3")
        .arg("-B")
        .arg(suite)
        .args(["--json", "--expires-within", "16", "--url", &server.url("/v1/tus")])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--fetch", &server.url("/v1/files/default/{filename}")])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let results = report["results"].as_array().unwrap();
    let not_passed: Vec<&Value> = results.iter().filter(|result| result["result"] != "pass").collect();
    // There is one administrator and nobody else yet: whose uploads could be foreign?
    let names: Vec<&str> = not_passed.iter().map(|result| result["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["N9"], "{not_passed:#?}\n{}", server.log());
    assert!(results.len() > 60, "the whole suite ran");
}
