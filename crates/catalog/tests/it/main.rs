//! The conformance suite on each database, and what only that has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests too")]

mod postgres;
mod sqlite;

use carrack_catalog::copies::{NOT_COPIED, TABLES};

/// Each of these `TABLE.COLUMN` is copied, or it is said why not; and nothing else is.
fn check_columns(found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    let copied: Vec<String> = TABLES
        .iter()
        .flat_map(|table| table.columns.iter().map(move |column| format!("{}.{}", table.name, column.name)))
        .collect();
    for column in &found {
        let table = column.split('.').next().unwrap();
        let is_left_out = NOT_COPIED.iter().any(|(name, _)| [table, column].contains(name));
        assert!(copied.contains(column) || is_left_out, "{column} is forgotten");
    }
    for column in copied.iter().filter(|column| *column != "blob.content") {
        assert!(found.contains(column), "there is no {column}");
    }
}
