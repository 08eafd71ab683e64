//! What is done leaves its record.

use super::{audit, of_kind, records, whole};
use crate::access::{Caller, make_token};
use crate::contract::answers::{header, json};
use crate::operations::wire::Wire;
use crate::server::{Server, Setup, TOKEN, content};
use reqwest::Method;
use serde_json::{Value, json as value};
use std::collections::BTreeSet;

fn changed(records: &[Value]) -> BTreeSet<&str> {
    of_kind(records, "change").into_iter().map(|record| record["action"].as_str().unwrap()).collect()
}

async fn status(response: impl Future<Output = reqwest::Response>, expected: u16) -> reqwest::Response {
    let response = response.await;
    assert_eq!(response.status().as_u16(), expected, "{response:?}");
    response
}

/// Uploads, archives and links of alice, each through its life; the secrets that came up.
async fn a_day_of(alice: &Caller<'_>) -> Vec<String> {
    status(alice.put("/v1/files/default/a.txt", b"hello"), 201).await;
    status(alice.put("/v1/files/default/a.txt", b"hello again"), 200).await;
    let new = value!({"bucket": "default", "key": "parts", "size": 3, "part_size": 5 << 20});
    let upload = json(alice.post("/v1/uploads", new.clone()).await, 201).await;
    let id = upload["upload_id"].as_str().unwrap();
    status(alice.put(&format!("/v1/uploads/{id}/parts/1"), b"abc"), 200).await;
    status(alice.post(&format!("/v1/uploads/{id}/complete"), value!({})), 201).await;
    let upload = json(alice.post("/v1/uploads", new).await, 201).await;
    status(alice.delete(&format!("/v1/uploads/{}", upload["upload_id"].as_str().unwrap())), 204).await;
    let tus = alice.request(Method::POST, "/v1/tus").header("tus-resumable", "1.0.0");
    let tus =
        tus.header("upload-length", "4").header("upload-metadata", "key dHVzLWtleQ==").send().await.unwrap();
    assert_eq!(tus.status(), 201);
    let location = header(&tus, "location").to_owned();
    let patch = alice.request(Method::PATCH, &location).header("tus-resumable", "1.0.0");
    let patch = patch.header("content-type", "application/offset+octet-stream").header("upload-offset", "0");
    assert_eq!(patch.body("tus!").send().await.unwrap().status(), 204);
    let archive = value!({"bucket": "default", "keys": ["a.txt"], "compression": "deflate"});
    let archive = json(alice.post("/v1/archives", archive).await, 202).await;
    let archive = archive["id"].as_str().unwrap();
    status(alice.delete(&format!("/v1/archives/{archive}")), 204).await;
    let link =
        value!({"bucket": "default", "key": "a.txt", "expires_in": 60, "password": "open-sesame-canary"});
    let link = json(alice.post("/v1/links", link).await, 201).await;
    let url = link["url"].as_str().unwrap().to_owned();
    let nobody = Caller::nobody(alice.server());
    let form = nobody.request(Method::POST, &url).header("content-type", "application/x-www-form-urlencoded");
    let unlocked = form.body("password=open-sesame-canary").send().await.unwrap();
    assert_eq!(unlocked.status(), 303);
    let cookie = header(&unlocked, "set-cookie").split(';').next().unwrap().to_owned();
    let got = nobody.request(Method::GET, &url).header("cookie", &cookie).send().await.unwrap();
    assert_eq!((got.status().as_u16(), got.text().await.unwrap().as_str()), (200, "hello again"));
    status(alice.delete(&format!("/v1/links/{}", link["id"].as_str().unwrap())), 204).await;
    let signed = value!({"method": "GET", "path": "/v1/files/default/a.txt"});
    let signed = json(alice.post("/v1/sign", signed).await, 200).await["url"].as_str().unwrap().to_owned();
    status(nobody.get(&signed), 200).await;
    status(alice.delete("/v1/files/default/a.txt"), 204).await;
    let secret = |text: &str, after: &str| text.split_once(after).unwrap().1.to_owned();
    vec!["open-sesame-canary".into(), secret(&url, "/d/"), secret(&signed, "sig="), secret(&cookie, "=")]
}

/// What was set of the bucket "other".
fn settings_are_recorded(all: &[Value], rules: &Value) {
    let bucket =
        all.iter().find(|r| r["action"] == "bucket.put" && r["bucket"] == "other" && r["kind"] == "change");
    let bucket = bucket.unwrap();
    let (detail, policy) = bucket["detail"].as_str().unwrap().split_once(" policy=").unwrap();
    assert_eq!(detail, "created quota_bytes=5");
    assert_eq!(serde_json::from_str::<Value>(policy).unwrap(), value!({"rules": rules}));
    assert_eq!(bucket["version"], blake3::hash(policy.as_bytes()).to_hex().as_str());
}

#[tokio::test]
async fn each_change_leaves_its_record_and_no_secret_is_among_them() {
    let mut server = Setup::new().set("CARRACK_AUDIT__CHECKPOINT_EVERY", "1s").start();
    let (token, id) = make_token(&server, value!({"subject": "alice", "role": "user"})).await;
    let mut secrets = a_day_of(&Caller::with(&server, &token)).await;
    let session = Caller::nobody(&server).post("/v1/session", value!({"token": token})).await;
    assert_eq!(session.status(), 204);
    secrets.extend([token, TOKEN.to_owned(), header(&session, "set-cookie")[8..40].to_owned()]);
    let rules = value!([{"effect": "deny", "actions": ["write"], "prefix": "", "to": ["user:bob"]}]);
    let settings = value!({"quota_bytes": 5, "policy": {"rules": rules}});
    status(async { server.put("/v1/buckets/other").json(&settings).send().await.unwrap() }, 201).await;
    status(async { server.delete("/v1/buckets/other").send().await.unwrap() }, 204).await;
    status(async { server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap() }, 204).await;
    let all = records(&server, "limit=50").await;
    let expected = [
        "archive.create",
        "archive.delete",
        "bucket.delete",
        "bucket.put",
        "file.delete",
        "file.put",
        "link.create",
        "link.revoke",
        "link.use",
        "session.create",
        "session.delete",
        "token.create",
        "token.delete",
        "upload.append",
        "upload.create",
        "upload.delete",
        "upload.part",
    ];
    let found = changed(&all);
    let missing: Vec<_> = expected.iter().filter(|action| !found.contains(**action)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {found:?}");
    for record in of_kind(&all, "change") {
        if record["auth"] == "system" {
            continue;
        }
        let ends = of_kind(&all, "end").into_iter().filter(|end| end["trace"] == record["trace"]).count();
        assert_eq!(ends, 1, "the request of {record} has ended");
        assert_eq!(record["ip"], "127.0.0.1", "{record}");
    }
    let by_alice = |action: &str| {
        let mut found = all.iter().filter(|r| r["action"] == action && r["kind"] == "change");
        found.find(|record| record["subject"] == "alice").unwrap_or_else(|| panic!("{action}")).clone()
    };
    let put = by_alice("file.put");
    assert_eq!(
        [&put["bucket"], &put["key"], &put["auth"], &put["token"]],
        ["default", "a.txt", "token", &id]
    );
    assert_eq!((put["bytes"].as_u64(), put["detail"].as_str()), (Some(5), Some("created")));
    settings_are_recorded(&all, &rules);
    let used = all.iter().find(|r| r["action"] == "link.use" && r["kind"] == "change").unwrap();
    assert_eq!((used["auth"].as_str(), used["link"].as_str()), (Some("link"), used["id"].as_str()));
    let signed = all.iter().find(|record| record["auth"] == "signed").unwrap();
    assert_eq!((signed["subject"].as_str(), signed["token"].as_str()), (Some("alice"), Some(id.as_str())));
    let keys = std::fs::read_to_string(server.data.join("signing-keys")).unwrap();
    let (kid, key) = keys.trim().split_once(' ').unwrap();
    assert_eq!(signed["kid"], kid);
    secrets.push(key.to_owned());
    server.stop();
    whole(&server.data, &[]);
    let mut text = String::from_utf8(audit("export", &server.data, &[]).stdout).unwrap();
    text.push_str(&std::fs::read_to_string(server.data.join("audit-checkpoints")).unwrap());
    text.push_str(&server.log());
    assert!(text.contains("alice") && text.contains("\"action\":\"server.stop\""));
    for secret in secrets {
        assert!(!text.contains(&secret), "a secret is in the log: {secret}");
    }
}

#[tokio::test]
async fn a_transfer_is_recorded_however_it_ends() {
    let server = Server::start();
    let body = content(64 << 20, 1);
    assert_eq!(server.put("/v1/files/default/big").body(body.clone()).send().await.unwrap().status(), 201);
    let whole = server.get("/v1/files/default/big").send().await.unwrap();
    let trace = header(&whole, "x-request-id").to_owned();
    assert!(whole.bytes().await.unwrap() == body);
    let mut wire = Wire::connect(&server);
    wire.request("GET /v1/files/default/big", &[]);
    assert_eq!(wire.head().status, 200);
    drop(wire);
    let mut wire = Wire::connect(&server);
    wire.request("PUT /v1/files/default/cut", &["content-length: 50000000"]);
    wire.send(&body[..3_000_000]).unwrap();
    drop(wire);
    let ended = async |key: &str, result: &str| {
        let mut found = Vec::new();
        crate::operations::wait::until_async(&format!("{key} {result}"), async || {
            found = records(&server, &format!("bucket=default&key={key}")).await;
            found.iter().any(|record| record["result"] == result)
        })
        .await;
        let end = found.iter().find(|record| record["result"] == result).unwrap().clone();
        let begins =
            of_kind(&found, "begin").into_iter().filter(|begin| begin["trace"] == end["trace"]).count();
        assert_eq!(begins, 1, "a long transfer has a begin, too: {end}");
        end
    };
    let end = ended("big", "cut").await;
    let sent = end["sent"].as_u64().unwrap();
    assert!(end["status"] == 200 && sent < body.len() as u64, "{end}");
    let end = ended("cut", "cut").await;
    let received = end["received"].as_u64().unwrap();
    assert!((1..=3_000_000).contains(&received), "{end}");
    let all = records(&server, "action=file.read&key=big").await;
    let end = all.iter().find(|record| record["trace"] == trace.as_str() && record["kind"] == "end").unwrap();
    assert_eq!((end["sent"].as_u64(), end["result"].as_str()), (Some(body.len() as u64), Some("complete")));
    assert!(end["took_ms"].is_u64() && end["auth"] == "root", "{end}");
}

#[tokio::test]
async fn a_transfer_that_the_server_breaks_off_is_recorded_as_stopped() {
    let mut server = Setup::new().set("CARRACK_SERVER__SHUTDOWN_GRACE", "1s").start();
    let body = content(64 << 20, 1);
    assert_eq!(server.put("/v1/files/default/big").body(body).send().await.unwrap().status(), 201);
    let mut wire = Wire::connect(&server);
    wire.request("GET /v1/files/default/big", &[]);
    assert_eq!(wire.head().status, 200);
    server.stop();
    drop(wire);
    let text = String::from_utf8(audit("export", &server.data, &["--action", "file.read"]).stdout).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> =
        records.iter().map(|record| (record["kind"].as_str().unwrap(), record["result"].as_str())).collect();
    assert_eq!(kinds, [("begin", None), ("end", Some("stopped"))]);
}

#[tokio::test]
async fn records_are_selected_and_paged() {
    let server = Server::start();
    for key in ["a", "b", "c"] {
        for _ in 0..3 {
            server.put(&format!("/v1/files/default/{key}")).body(key).send().await.unwrap();
            server.get(&format!("/v1/files/default/{key}")).send().await.unwrap().bytes().await.unwrap();
        }
    }
    let all = records(&server, "bucket=default&action=file&limit=1000").await;
    assert_eq!(all.len(), 3 * 3 * 3, "a change, its request's end, and that of the download");
    for limit in [1, 2, 7] {
        assert_eq!(records(&server, &format!("bucket=default&action=file&limit={limit}")).await, all);
    }
    assert_eq!(records(&server, "bucket=default&key=b").await.len(), 9);
    assert_eq!(records(&server, "key=b&action=file.read").await.len(), 3);
    assert_eq!(records(&server, "key=b&action=file").await.len(), 9);
    assert_eq!(records(&server, "subject=nobody-of-that-name").await.len(), 0);
    let middle = all[13]["at"].as_str().unwrap();
    let since = records(&server, &format!("bucket=default&action=file&since={middle}")).await;
    let until = records(&server, &format!("bucket=default&action=file&until={middle}")).await;
    // A request's end is written a moment after it, so records are in order of their times but for that moment.
    let (younger, older): (Vec<Value>, Vec<Value>) =
        all.iter().cloned().partition(|record| record["at"].as_str() >= Some(middle));
    assert_eq!((since, until), (younger, older));
    for bad in ["limit=0", "limit=1001", "since=yesterday", "cursor=!", "cursor=YQ"] {
        let refused = json(server.get(&format!("/v1/audit?{bad}")).send().await.unwrap(), 400).await;
        assert_eq!(refused["code"], "invalid_request", "{bad}");
    }
    let user = Caller::user(&server, "alice").await;
    assert_eq!(user.get("/v1/audit").await.status(), 403);
    assert_eq!(Caller::nobody(&server).get("/v1/audit").await.status(), 401);
}

#[tokio::test]
async fn nothing_is_recorded_when_it_is_switched_off() {
    let mut server = Setup::new().set("CARRACK_AUDIT__ENABLED", "false").start();
    server.put("/v1/files/default/a").body("a").send().await.unwrap();
    assert_eq!(records(&server, "").await, Vec::<Value>::new());
    server.stop();
    assert_eq!(whole(&server.data, &[]), "whole: the log is empty\n");
}
