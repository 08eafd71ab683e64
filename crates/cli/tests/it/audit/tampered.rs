//! Whoever changes the log is found out.

use super::{audit, not_whole, records, whole};
use crate::server::{Server, Setup, tool};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A data folder with a log of some blocks and checkpoints, of a server that was stopped.
async fn stopped() -> Server {
    let mut server = Setup::new().set("CARRACK_AUDIT__CHECKPOINT_EVERY", "200ms").start();
    for number in 0..12 {
        let put = server.put(&format!("/v1/files/default/file-{number}")).body("x").send().await.unwrap();
        assert_eq!(put.status(), 201);
        if number % 4 == 3 {
            let before = checkpoints(&server.data).len();
            crate::operations::wait::until("a checkpoint", || checkpoints(&server.data).len() > before);
        }
    }
    server.stop();
    whole(&server.data, &[]);
    server
}

fn checkpoints(data: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data.join("audit-checkpoints")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A copy of what a log needs, to be changed.
struct Copy {
    _folder: TempDir,
    data: PathBuf,
}

impl Copy {
    fn of(server: &Server) -> Copy {
        let folder = tempfile::tempdir().unwrap();
        for name in ["catalog.sqlite", "audit-checkpoints", "signing-keys"] {
            std::fs::copy(server.data.join(name), folder.path().join(name)).unwrap();
        }
        Copy { data: folder.path().to_owned(), _folder: folder }
    }

    fn sql(&self, script: &str) {
        let python =
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()";
        let path = self.data.join("catalog.sqlite");
        let done = tool("python3", "python3").args(["-c", python]).arg(path).arg(script).status().unwrap();
        assert!(done.success(), "{script}");
    }
}

#[tokio::test]
async fn any_change_of_the_database_is_found() {
    let server = stopped().await;
    let changes = [
        (
            "UPDATE audit_block SET body = CAST(replace(CAST(body AS TEXT), 'file-3', 'file-9') AS BLOB) WHERE zstd = 0",
            "altered",
        ),
        (
            "UPDATE audit_block SET body = CAST(CAST(body AS TEXT) || char(10) AS BLOB), zstd = 0 WHERE seq = 4",
            "block 4: its records were altered",
        ),
        ("UPDATE audit_block SET body = x'00', zstd = 1 WHERE seq = 4", "block 4: its records were altered"),
        ("UPDATE audit_block SET at = at + 1 WHERE seq = 4", "block 4: its header was altered"),
        ("UPDATE audit_block SET records = records + 1 WHERE seq = 4", "block 4: its header was altered"),
        ("DELETE FROM audit_block WHERE seq = 4", "blocks 4 to 4: missing"),
        ("DELETE FROM audit_block WHERE seq < 4", "block 4: the log begins here"),
        (
            "UPDATE audit_block SET seq = -4 WHERE seq = 4; UPDATE audit_block SET seq = 4 WHERE seq = 5; \
             UPDATE audit_block SET seq = 5 WHERE seq = -4",
            "block 4: it does not follow",
        ),
        (
            "INSERT INTO audit_block SELECT max(seq) + 1, at, records, prev, content, hash, size, zstd, body FROM audit_block",
            "it does not follow",
        ),
        ("DELETE FROM audit_block WHERE seq > (SELECT max(seq) - 3 FROM audit_block)", "the log ends here"),
        ("DELETE FROM audit_block", "the log ends here"),
        ("UPDATE audit_chain SET id = randomblob(16)", "altered"),
    ];
    for (change, expected) in changes {
        let copy = Copy::of(&server);
        // The bounds on the table are those of an honest writer.
        copy.sql(&format!("PRAGMA ignore_check_constraints = ON; {change}"));
        let said = not_whole(&copy.data, &[]);
        assert!(said.contains(expected), "{change}: {said}");
    }
    whole(&Copy::of(&server).data, &[]);
}

#[tokio::test]
async fn any_change_of_the_checkpoints_is_found() {
    let server = stopped().await;
    let lines = checkpoints(&server.data);
    assert!(lines.len() >= 3);
    let change = |lines: &[String]| {
        let copy = Copy::of(&server);
        std::fs::write(copy.data.join("audit-checkpoints"), lines.join("\n") + "\n").unwrap();
        not_whole(&copy.data, &[])
    };
    assert!(change(&lines[..lines.len() - 1]).contains("the file does not have it"));
    assert!(change(&[]).contains("the file does not have it"));
    assert!(change(&lines[1..]).contains("checkpoint 1: the log names it"));
    let without: Vec<String> =
        lines.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, l)| l.clone()).collect();
    assert!(change(&without).contains("it does not follow on the line before it"));
    let mut forged = lines.clone();
    forged[1] = forged[1].replace("\"start\":false", "\"start\":true");
    assert!(change(&forged).contains("checkpoint 2: its signature is not good"));
    let other = Copy::of(&server);
    std::fs::write(other.data.join("signing-keys"), format!("k {}\n", "y".repeat(64))).unwrap();
    assert!(not_whole(&other.data, &[]).contains("is not known: give it with --key"));
    let keys = String::from_utf8(audit("keys", &server.data, &[]).stdout).unwrap();
    whole(&other.data, &["--key", keys.trim()]);
}

#[tokio::test]
async fn an_export_is_verified_with_nothing_but_a_public_key() {
    let server = stopped().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (export, empty) = (elsewhere.path().join("export"), elsewhere.path().join("no-data"));
    let out = audit("export", &server.data, &["--out", export.to_str().unwrap()]);
    assert!(out.status.success());
    let keys = String::from_utf8(audit("keys", &server.data, &[]).stdout).unwrap();
    let checkpoints = server.data.join("audit-checkpoints");
    let more = [
        "--export",
        export.to_str().unwrap(),
        "--checkpoints",
        checkpoints.to_str().unwrap(),
        "--key",
        keys.trim(),
    ];
    whole(&empty, &more);
    let text = std::fs::read_to_string(&export).unwrap();
    let at = text.find("file-7").unwrap();
    for (altered, expected) in [
        (text.replacen("file-7", "file-8", 1), "its records were altered"),
        (text[..at].rsplit_once('\n').unwrap().0.to_owned() + "\n", "altered"),
    ] {
        std::fs::write(&export, altered).unwrap();
        assert!(not_whole(&empty, &more).contains(expected));
    }
    let part = audit("export", &server.data, &["--key", "file-7", "--action", "file.put"]);
    let lines: Vec<Value> = part
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line["key"] == "file-7"), "{lines:?}");
}

#[tokio::test]
async fn after_a_kill_the_log_is_whole_and_has_every_change_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for round in 0..3 {
        let mut server = Setup::new().data(&data).set("CARRACK_AUDIT__CHECKPOINT_EVERY", "100ms").start();
        let mut puts = tokio::task::JoinSet::new();
        for number in 0..40 {
            puts.spawn(server.put(&format!("/v1/files/default/{round}-{number}")).body("x").send());
        }
        let mut acknowledged = 0;
        while let Some(done) = puts.join_next().await {
            acknowledged += usize::from(done.unwrap().is_ok_and(|answer| answer.status() == 201));
            if acknowledged == 30 {
                server.kill();
            }
        }
        whole(&data, &[]);
        let text = String::from_utf8(audit("export", &data, &["--action", "file.put"]).stdout).unwrap();
        let of_this = format!("\"key\":\"{round}-");
        let changes =
            text.lines().filter(|line| line.contains("\"kind\":\"change\"") && line.contains(&of_this));
        assert!(changes.count() >= acknowledged);
    }
}

#[tokio::test]
async fn old_blocks_go_and_the_rest_is_still_whole() {
    let mut server =
        Setup::new().set("CARRACK_AUDIT__CHECKPOINT_EVERY", "200ms").set("CARRACK_AUDIT__KEEP", "1s").start();
    server.put("/v1/files/default/first").body("x").send().await.unwrap();
    assert!(!records(&server, "key=first").await.is_empty());
    crate::operations::wait::until_async("old records go", async || {
        server.get("/v1/files/default/first").send().await.unwrap();
        records(&server, "key=first&action=file.put").await.is_empty()
    })
    .await;
    server.stop();
    let said = whole(&server.data, &[]);
    assert!(!said.contains("blocks 1 to"), "{said}");
    assert!(checkpoints(&server.data).iter().any(|line| line.contains("\"start\":true")));
    let copy = Copy::of(&server);
    copy.sql("DELETE FROM audit_block WHERE seq = (SELECT min(seq) FROM audit_block)");
    assert!(not_whole(&copy.data, &[]).contains("no checkpoint allows that"));
}
