//! The client commands of the binary against the server.

use super::answers::{eventually, fetch, json, keys, names_below, status_of, store};
use crate::server::{Server, TOKEN, carrack, content};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// A client command with the server's address and token, not yet run.
fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carrack"));
    command
        .args(args)
        .current_dir(server.folder())
        .env("CARRACK_URL", &server.base)
        .env("CARRACK_TOKEN", TOKEN)
        .env("XDG_STATE_HOME", server.folder().join("state"));
    command
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that has to succeed, and returns its standard output.
fn done(server: &Server, args: &[&str]) -> Vec<u8> {
    let output = carrack(server, args);
    assert!(output.status.success(), "{args:?}: {}", error(&output));
    output.stdout
}

/// Runs a command that has to fail with this code, and returns what it says.
fn failed(server: &Server, args: &[&str], code: i32) -> String {
    let output = carrack(server, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", error(&output));
    assert!(output.stdout.is_empty(), "{args:?}");
    error(&output)
}

async fn open_uploads(server: &Server) -> Vec<Value> {
    let list = json(server.get("/v1/uploads").send().await.unwrap(), 200).await;
    list["uploads"].as_array().unwrap().clone()
}

#[tokio::test]
async fn files_small_and_large_go_there_and_back() {
    let server = Server::start();
    for (name, len) in [("empty", 0), ("small.txt", 10_000), ("large.bin", 40 << 20)] {
        let bytes = content(len, len as u64);
        let local = server.folder().join(name);
        fs::write(&local, &bytes).unwrap();
        done(&server, &["put", name, &format!("default/x/{name}")]);
        assert!(fetch(&server, &format!("/v1/files/default/x/{name}")).await == bytes);
        fs::remove_file(&local).unwrap();
        done(&server, &["get", &format!("default/x/{name}")]);
        assert!(fs::read(&local).unwrap() == bytes, "{name}");
        done(&server, &["get", &format!("default/x/{name}"), "-o", "copy"]);
        assert!(fs::read(server.folder().join("copy")).unwrap() == bytes, "{name}");
    }
    assert!(open_uploads(&server).await.is_empty());
    let left = names_below(&server.folder().join("state"));
    assert!(left.is_empty(), "no journal stays: {left:?}");
}

#[tokio::test]
async fn what_is_said_of_a_file_reaches_the_server() {
    let server = Server::start();
    fs::write(server.folder().join("a"), "one").unwrap();
    done(&server, &["put", "--content-type", "text/x-one", "a", "default/"]);
    let meta = json(server.get("/v1/files/default/a?meta").send().await.unwrap(), 200).await;
    assert_eq!(meta["content_type"], "text/x-one");
    fs::write(server.folder().join("a"), "two").unwrap();
    let said = failed(&server, &["put", "--no-clobber", "a", "default/"], 1);
    assert!(said.contains("precondition_failed"), "{said}");
    assert_eq!(fetch(&server, "/v1/files/default/a").await, b"one");
    done(&server, &["put", "a", "default/"]);
    assert_eq!(fetch(&server, "/v1/files/default/a").await, b"two");
}

#[tokio::test]
async fn folders_go_there_and_back_whole() {
    let server = Server::start();
    let tree = server.folder().join("tree");
    let names = ["1.txt", "sub/2.txt", "sub/deep/3 with space.txt", "sub/Grüße/日本.txt", "sub/100%.txt"];
    for name in names {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    done(&server, &["put", "tree", "default/"]);
    let mut expected: Vec<String> = names.iter().map(|name| format!("tree/{name}")).collect();
    expected.sort();
    assert_eq!(keys(&server, "default").await, expected);
    done(&server, &["get", "-r", "default/tree/", "-o", "back"]);
    for name in names {
        assert_eq!(fs::read_to_string(server.folder().join("back").join(name)).unwrap(), name);
    }
    assert_eq!(names_below(&server.folder().join("back")).len(), names.len());
    let listed = String::from_utf8(done(&server, &["ls", "-r", "default"])).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        String::from_utf8(done(&server, &["ls", "default/tree/"])).unwrap(),
        "tree/sub/\ntree/1.txt\n"
    );
    assert_eq!(String::from_utf8(done(&server, &["ls"])).unwrap(), "default\n");
    let whole: Value = serde_json::from_slice(&done(&server, &["ls", "-r", "--json", "default"])).unwrap();
    assert_eq!(whole["files"].as_array().unwrap().len(), names.len());
    done(&server, &["rm", "default/tree/1.txt"]);
    assert_eq!(status_of(&server, "/v1/files/default/tree/1.txt").await, 404);
    done(&server, &["rm", "-r", "default/tree/"]);
    assert_eq!(keys(&server, "default").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_archive_is_the_one_the_server_makes() {
    let server = Server::start();
    for index in 0..20 {
        store(&server, &format!("/v1/files/default/dir/{index}"), &content(index * 1000, index as u64)).await;
    }
    let expected = fetch(&server, "/v1/zip/default?prefix=dir/").await;
    assert!(expected.starts_with(b"PK\x03\x04"));
    done(&server, &["zip", "default/dir/"]);
    assert!(fs::read(server.folder().join("dir.zip")).unwrap() == expected);
    done(&server, &["zip", "default/dir/", "-o", "named.zip"]);
    assert!(fs::read(server.folder().join("named.zip")).unwrap() == expected);
    assert!(done(&server, &["zip", "default/dir/", "-o", "-"]) == expected);
    let said = failed(&server, &["zip", "default/none/"], 1);
    assert!(said.contains("empty_selection"), "{said}");
    assert!(!server.folder().join("none.zip").exists());
}

fn line(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

#[tokio::test]
async fn links_are_made_listed_and_revoked() {
    let server = Server::start();
    let bytes = content(100_000, 1);
    store(&server, "/v1/files/default/dir/a", &bytes).await;
    let nobody = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |url: &str| nobody.get(url).send().await.unwrap();
    let file = line(done(&server, &["link", "new", "default/dir/a", "--downloads", "2", "--name", "b.bin"]));
    let got = get(&file).await;
    assert_eq!(got.headers()["content-disposition"], "attachment; filename=\"b.bin\"");
    assert!(got.bytes().await.unwrap() == bytes);
    let folder = line(done(&server, &["link", "new", "default/dir/", "-e", "1h"]));
    let zip = fetch(&server, "/v1/zip/default?prefix=dir/").await;
    assert!(get(&folder).await.bytes().await.unwrap() == zip);
    fs::write(server.folder().join("password"), "open sesame\n").unwrap();
    let locked = line(done(&server, &["link", "new", "default/dir/a", "--password-file", "password"]));
    assert_eq!(get(&locked).await.status(), 403);
    let listed = String::from_utf8(done(&server, &["link", "ls"])).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("1/2  until") && listed.contains("archive "), "{listed}");
    let all: Value = serde_json::from_slice(&done(&server, &["link", "ls", "--json"])).unwrap();
    let first = all.as_array().unwrap().iter().find(|link| link["url"] == file.as_str()).unwrap();
    done(&server, &["link", "rm", first["id"].as_str().unwrap()]);
    assert_eq!(get(&file).await.status(), 410);
    let said = failed(&server, &["link", "rm", "0123456789abcdef0123456789abcdef"], 1);
    assert!(said.contains("link_not_found"), "{said}");
    failed(&server, &["link", "rm", "../tokens/x"], 2);
    failed(&server, &["link", "new", "default/dir/a", "-e", "soon"], 2);
    failed(&server, &["link", "new", "default/none"], 1);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let server = Server::start();
    let made = line(done(&server, &["token", "new", "alice", "-e", "12h", "--bucket", "default"]));
    let me = reqwest::Client::builder().no_proxy().build().unwrap();
    let me = || me.get(server.url("/v1/me")).bearer_auth(&made).send();
    let facts = json(me().await.unwrap(), 200).await;
    assert_eq!((&facts["subject"], &facts["role"]), (&Value::from("alice"), &Value::from("user")));
    let listed = String::from_utf8(done(&server, &["token", "ls"])).unwrap();
    assert!(listed.trim_end().ends_with("alice  default") && !listed.contains(&made), "{listed}");
    let all: Value = serde_json::from_slice(&done(&server, &["token", "ls", "--json"])).unwrap();
    done(&server, &["token", "rm", all[0]["id"].as_str().unwrap()]);
    assert_eq!(me().await.unwrap().status(), 401);
    let said = failed(&server, &["token", "new", "root"], 1);
    assert!(said.contains("invalid_request"), "{said}");
    failed(&server, &["token", "new", "bob", "--role", "king"], 2);
}

#[tokio::test]
async fn standard_streams_carry_a_file() {
    let server = Server::start();
    let bytes = content(5_000_000, 3);
    let mut put = command(&server, &["put", "-", "default/piped"]).stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(put.wait().unwrap().success());
    assert!(fetch(&server, "/v1/files/default/piped").await == bytes);
    assert!(done(&server, &["get", "default/piped", "-o", "-"]) == bytes);
    let said = failed(&server, &["put", "-", "default/"], 2);
    assert!(said.contains("standard input"), "{said}");
}

/// Starts a put and kills it once a part is stored; the upload as the server lists it once it is quiet.
async fn interrupted(server: &Server, name: &str) -> Value {
    let mut put =
        command(server, &["put", "--parallel", "1", name, "default/"]).stderr(Stdio::null()).spawn().unwrap();
    while open_uploads(server).await.first().is_none_or(|upload| upload["received_bytes"] == 0) {
        assert!(put.try_wait().unwrap().is_none(), "it was too fast to be interrupted");
    }
    put.kill().unwrap();
    put.wait().unwrap();
    eventually("the server has seen the end of it", async || {
        metric(server, "carrack_uploads_in_progress").await == 0
    })
    .await;
    open_uploads(server).await.remove(0)
}

async fn metric(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn an_interrupted_put_sends_only_what_is_missing() {
    const REQUEST_BYTES: &str = "carrack_http_server_request_body_bytes_total";
    let server = Server::start();
    let bytes = content(96 << 20, 4);
    fs::write(server.folder().join("big"), &bytes).unwrap();
    let upload = interrupted(&server, "big").await;
    assert_eq!(status_of(&server, "/v1/files/default/big").await, 404);
    let kept = upload["received_bytes"].as_u64().unwrap();
    assert!(kept > 0 && kept < bytes.len() as u64, "{upload}");
    let before = metric(&server, REQUEST_BYTES).await;
    let output = carrack(&server, &["put", "big", "default/"]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(error(&output).contains("were there from an earlier run"), "{}", error(&output));
    let sent = metric(&server, REQUEST_BYTES).await - before;
    let missing = bytes.len() as u64 - kept;
    assert!(sent >= missing && sent < missing + 4096, "{sent} bytes for {missing}");
    // The upload it began with is the one that became the file.
    let id = upload["upload_id"].as_str().unwrap();
    let status = json(server.get(&format!("/v1/uploads/{id}")).send().await.unwrap(), 200).await;
    assert_eq!(status["state"], "complete");
    assert!(open_uploads(&server).await.is_empty());
    assert!(fetch(&server, "/v1/files/default/big").await == bytes);
}

#[tokio::test]
async fn a_file_that_changed_since_is_sent_anew() {
    let server = Server::start();
    fs::write(server.folder().join("big"), content(96 << 20, 4)).unwrap();
    interrupted(&server, "big").await;
    let other = content(20 << 20, 5);
    fs::write(server.folder().join("big"), &other).unwrap();
    done(&server, &["put", "big", "default/"]);
    assert!(fetch(&server, "/v1/files/default/big").await == other);
}

#[tokio::test]
async fn failures_say_what_and_leave_nothing() {
    let server = Server::start();
    fs::write(server.folder().join("there"), "x").unwrap();
    let said = failed(&server, &["get", "default/none"], 1);
    assert!(said.contains("file_not_found") && said.contains("404"), "{said}");
    let said = failed(&server, &["get", "nowhere/none", "-o", "none"], 1);
    assert!(said.contains("bucket_not_found"), "{said}");
    let said = failed(&server, &["get", "-r", "default/none/"], 1);
    assert!(said.contains("default/none/"), "{said}");
    let said = failed(&server, &["rm", "default/none"], 1);
    assert!(said.contains("file_not_found"), "{said}");
    let said = failed(&server, &["put", "missing", "default/"], 1);
    assert!(said.contains("missing") && said.contains("No such file"), "{said}");
    let said = failed(&server, &["put", "there", "missing", "default/"], 1);
    assert!(said.contains("1 failed"), "{said}");
    assert_eq!(keys(&server, "default").await, ["there"], "one failure does not stop the others");
    let mut names = names_below(server.folder());
    names.retain(|name| name.starts_with("none"));
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_wrong_command_line_has_code_2() {
    let server = Server::start();
    for args in [
        &["put"][..],
        &["put", "only-a-target"],
        &["get", "default"],
        &["get", "default/dir/"],
        &["rm", "default"],
        &["rm", "-r", "default"],
        &["frobnicate"],
    ] {
        let said = failed(&server, args, 2);
        assert!(!said.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_wrong_token_is_said_and_not_shown() {
    let server = Server::start();
    fs::write(server.folder().join("a"), "x").unwrap();
    for args in [&["ls"][..], &["get", "default/a"], &["rm", "default/a"], &["zip", "default/a"]] {
        let output = command(&server, args).env("CARRACK_TOKEN", "wrong-secret").output().unwrap();
        let said = error(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains("invalid_token") && said.contains("401") && !said.contains("wrong-secret"),
            "{said}"
        );
    }
    let output =
        command(&server, &["put", "a", "default/"]).env("CARRACK_TOKEN", "wrong-secret").output().unwrap();
    assert!(!output.status.success() && error(&output).contains("invalid_token"), "{}", error(&output));
    let output = command(&server, &["ls"]).env_remove("CARRACK_TOKEN").output().unwrap();
    assert!(!output.status.success() && error(&output).contains("unauthenticated"), "{}", error(&output));
    let file = server.folder().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let token_file = file.to_str().unwrap();
    let output =
        command(&server, &["ls", "--token-file", token_file]).env_remove("CARRACK_TOKEN").output().unwrap();
    assert_eq!(output.stdout, b"default\n", "{}", error(&output));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut server = Server::start();
    server.stop();
    let said = failed(&server, &["ls", "--tries", "1"], 1);
    assert!(said.contains(&server.base), "{said}");
}
