//! Starts that are refused: exit code 1 and one line that names the trouble and what to do about it.

use super::mount::Mount;
use crate::server::{Server, Setup, TOKEN, without_variables};
use std::path::Path;
use std::process::{Command, Output};

/// A server that is not expected to listen. Runs in `folder`, with `data` there as its data folder.
fn refused(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = without_variables("timeout")
        .args(["60", env!("CARGO_BIN_EXE_carrack"), "serve"])
        .args(args)
        .current_dir(folder)
        .env("CARRACK_LISTEN", "127.0.0.1:0")
        .env("CARRACK_DATA", "data")
        .env("CARRACK_ROOT_TOKEN", TOKEN)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(stdout.is_empty(), "nothing was announced");
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    text.lines().filter_map(|line| line.strip_prefix("carrack: ")).collect::<Vec<_>>().join("\n")
}

fn refused_with(args: &[&str], variables: &[(&str, &str)]) -> String {
    refused(tempfile::tempdir().unwrap().path(), args, variables)
}

/// One line that has all these words.
fn says(message: &str, words: &[&str]) {
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[test]
fn a_data_folder_that_is_in_use() {
    let server = Server::start();
    let data = server.data.to_str().unwrap();
    says(&refused_with(&["--data", data], &[]), &[data, "in use", "stop that one", "--data"]);
}

#[test]
fn a_data_folder_on_a_read_only_disk() {
    let mount = Mount::tmpfs(16);
    let data = mount.path().join("data");
    let mut server = Setup::new().data(&data).start();
    server.stop();
    mount.remount("ro");
    let path = data.to_str().unwrap();
    says(&refused_with(&["--data", path], &[]), &[path, "cannot be written to", "--data"]);
    let new = mount.path().join("new");
    let path = new.to_str().unwrap();
    says(&refused_with(&["--data", path], &[]), &[path, "Read-only", "--data"]);
}

#[test]
fn a_data_folder_that_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "x").unwrap();
    says(&refused(folder.path(), &[], &[]), &["data", "not a folder", "--data"]);
    says(&refused(folder.path(), &["--data", "data/below"], &[]), &["data/below", "not a folder", "--data"]);
    says(&refused_with(&[], &[("CARRACK_DATA", "")]), &["setting data", "the path of a folder"]);
}

#[tokio::test]
async fn stored_files_without_their_catalog() {
    let mut server = Server::start();
    let kept = "kept".repeat(20_000);
    let stored = server.put("/v1/files/default/kept").body(kept.clone()).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    server.stop();
    let catalog = server.data.join("catalog.sqlite");
    let aside = server.data.join("aside");
    std::fs::rename(&catalog, &aside).unwrap();
    let data = server.data.to_str().unwrap();
    for _ in 0..2 {
        says(&refused_with(&["--data", data], &[]), &[data, "no catalog.sqlite", "restore", "move"]);
    }
    std::fs::rename(&aside, &catalog).unwrap();
    let server = Setup::new().data(&server.data).start();
    assert_eq!(server.get("/v1/files/default/kept").send().await.unwrap().text().await.unwrap(), kept);
}

/// Small files are in the catalog. That there was one shows in the statements of where its log was.
#[tokio::test]
async fn a_log_without_its_catalog() {
    let mut server = Server::start();
    let stored = server.put("/v1/files/default/kept").body("kept").send().await.unwrap();
    assert_eq!(stored.status(), 201);
    server.stop();
    std::fs::rename(server.data.join("catalog.sqlite"), server.data.join("aside")).unwrap();
    let data = server.data.to_str().unwrap();
    says(&refused_with(&["--data", data], &[]), &[data, "no catalog.sqlite", "restore", "audit-checkpoints"]);
    std::fs::rename(server.data.join("aside"), server.data.join("catalog.sqlite")).unwrap();
    let server = Setup::new().data(&server.data).start();
    assert_eq!(server.get("/v1/files/default/kept").send().await.unwrap().text().await.unwrap(), "kept");
}

#[test]
fn a_catalog_of_a_newer_version() {
    let mut server = Server::start();
    server.stop();
    let catalog = server.data.join("catalog.sqlite");
    let edit = format!("import sqlite3; sqlite3.connect({catalog:?}).execute('PRAGMA user_version = 4711')");
    assert!(Command::new("python3").args(["-c", &edit]).status().unwrap().success());
    let message = refused_with(&["--data", server.data.to_str().unwrap()], &[]);
    says(&message, &[catalog.to_str().unwrap(), "4711", "newer"]);
}

#[test]
fn a_catalog_that_is_garbage() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("data/catalog.sqlite");
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for garbage in [b"hello".to_vec(), vec![0x5a; 100_000]] {
        std::fs::write(&catalog, &garbage).unwrap();
        says(&refused(folder.path(), &[], &[]), &["data/catalog.sqlite", "backup"]);
        assert_eq!(std::fs::read(&catalog).unwrap(), garbage, "what it does not know it does not touch");
    }
}

#[test]
fn a_catalog_whose_pages_are_damaged() {
    let mut server = Server::start();
    server.stop();
    let catalog = server.data.join("catalog.sqlite");
    let mut bytes = std::fs::read(&catalog).unwrap();
    bytes[4096..].fill(0x5a);
    std::fs::write(&catalog, &bytes).unwrap();
    let message = refused_with(&["--data", server.data.to_str().unwrap()], &[]);
    says(&message, &[catalog.to_str().unwrap(), "backup"]);
}

#[test]
fn a_port_in_use() {
    let server = Server::start();
    let address = server.address();
    let message = refused_with(&["--listen", address], &[]);
    says(&message, &[address, "in use", "--listen"]);
    says(&refused_with(&["--listen", "nowhere"], &[]), &["nowhere", "--listen"]);
}

#[test]
fn unknown_keys_and_bad_values_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carrack.toml");
    std::fs::write(&file, "[server]\nlistne = \"x\"\n").unwrap();
    let message = refused(folder.path(), &[], &[]);
    says(&message, &["server.listne", "carrack.toml", "`listen`"]);
    std::fs::write(&file, "[uploads]\npart_size = \"8 parsecs\"\n").unwrap();
    let message = refused(folder.path(), &[], &[]);
    says(&message, &["uploads.part_size", "8 parsecs", "8MiB", "carrack.toml"]);
    std::fs::write(&file, "[server\n").unwrap();
    says(&refused(folder.path(), &[], &[]), &["carrack.toml", "line 1"]);
    assert!(!folder.path().join("data").exists(), "nothing was made before the settings were read");
}

#[test]
fn unknown_keys_and_bad_values_in_the_environment() {
    let with = |name, value| refused_with(&[], &[(name, value)]);
    says(&with("CARRACK_LISTNE", "x"), &["listne", "CARRACK_LISTNE", "unknown"]);
    says(&with("CARRACK_SERVER__LISTNE", "x"), &["server.listne", "CARRACK_SERVER__LISTNE", "`listen`"]);
    says(&with("CARRACK_UPLOADS__TTL", "10"), &["uploads.ttl", "`10`", "24h", "CARRACK_UPLOADS__TTL"]);
    says(&with("CARRACK_STORAGE__KIND", "tape"), &["storage.kind", "tape", "disk"]);
    says(&with("CARRACK_SERVER__MAX_CONNECTIONS", "0"), &["server.max_connections", "0", "at least 1"]);
    says(&with("CARRACK_TELEMETRY__LOG", "loud"), &["telemetry.log", "loud", "info"]);
    says(&with("CARRACK_SERVER__PUBLIC_URL", "ftp://x"), &["server.public_url", "ftp://x", "https://"]);
    says(&with("CARRACK_LISTEN", "8080"), &["server.listen", "8080", "CARRACK_LISTEN"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("carrack.toml"), "lisen = 1\n[uploads]\nttl = \"soon\"\n").unwrap();
    let variables = [("CARRACK_STORAGE__KIND", "tape"), ("CARRACK_ARCHIVES__MAX_ENTRIES", "many")];
    let message = refused(folder.path(), &[], &variables);
    assert_eq!(message.lines().count(), 4, "{message}");
    for key in ["lisen", "uploads.ttl", "storage.kind", "archives.max_entries"] {
        assert!(message.contains(&format!("setting {key}:")), "{key} in {message}");
    }
}

#[test]
fn a_settings_file_that_is_not_there() {
    says(&refused_with(&["--config", "none.toml"], &[]), &["none.toml", "does not exist"]);
    says(&refused_with(&[], &[("CARRACK_CONFIG", "none.toml")]), &["none.toml", "does not exist"]);
}

#[test]
fn a_root_token_that_is_none() {
    says(&refused_with(&[], &[("CARRACK_ROOT_TOKEN", "")]), &["CARRACK_ROOT_TOKEN", "at least one"]);
    let secret = "two words";
    let message = refused_with(&[], &[("CARRACK_ROOT_TOKEN", secret)]);
    says(&message, &["CARRACK_ROOT_TOKEN", "spaces"]);
    assert!(!message.contains(secret));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/root-token"), "\n").unwrap();
    let message = without_token(folder.path());
    says(&message, &["data/root-token", "empty", "delete it"]);
}

/// Like [`refused`], with the token left to the file.
fn without_token(folder: &Path) -> String {
    let output = without_variables("timeout")
        .args(["60", env!("CARGO_BIN_EXE_carrack"), "serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.lines().filter_map(|line| line.strip_prefix("carrack: ")).collect::<Vec<_>>().join("\n")
}
