//! A server with some of everything, and what it answers.

use crate::contract::answers::json;
use crate::server::{Server, content};
use crate::tus;
use reqwest::{Client, Method, Response, redirect};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was made that is found by no name.
pub(super) struct Made {
    archives: Vec<String>,
    link: String,
    link_id: String,
    token: String,
    upload: String,
    signed: String,
}

/// An answer: its status, what it says of itself, and its body.
type Answer = (u16, Vec<String>, Vec<u8>);

async fn ok(answer: Response) -> Response {
    let status = answer.status();
    if status.is_success() { answer } else { panic!("{status}: {}", answer.text().await.unwrap()) }
}

fn browser() -> Client {
    Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap()
}

/// Fills it.
pub(super) async fn fill(server: &Server) -> Made {
    for (name, len) in [
        ("empty", 0),
        ("small", 4 << 10),
        ("docs/at the edge", 32 << 10),
        ("docs/beyond", (32 << 10) + 1),
        ("docs/large", 5 << 20),
        ("docs/gr\u{f6}\u{df}e", 100),
    ] {
        let bytes = content(len, len as u64);
        let put = server.put(&format!("/v1/files/default/{name}")).header("content-type", "text/x-some");
        ok(put.header("carrack-meta-colour", "dark blue").body(bytes).send().await.unwrap()).await;
    }
    ok(server.put("/v1/files/default/small").body(content(4 << 10, 99)).send().await.unwrap()).await;
    let policy = value!({"policy": {"rules": [
        {"effect": "allow", "actions": ["read", "list"], "to": ["role:user"]},
        {"effect": "deny", "actions": ["read"], "prefix": "secret/", "to": ["everyone"]}]},
        "quota_bytes": 1 << 30, "retention_seconds": 86400});
    ok(server.put("/v1/buckets/reports").json(&policy).send().await.unwrap()).await;
    for name in ["open", "secret/closed"] {
        ok(server.put(&format!("/v1/files/reports/{name}")).body(name).send().await.unwrap()).await;
    }
    let parts = [content(700_000, 1), content(300_001, 2)];
    let urls = [tus::partial(server, &parts[0]).await, tus::partial(server, &parts[1]).await];
    let urls = [urls[0].clone(), urls[1].clone(), urls[0].clone()];
    let upload = tus::location(tus::join(server, &urls, "joined").send().await.unwrap()).await;
    let upload = upload.strip_prefix(&server.base).unwrap_or(&upload).to_owned();
    let mut archives = Vec::new();
    for compression in ["store", "deflate"] {
        let wish = value!({"bucket": "default", "prefix": "docs/", "compression": compression});
        let made: Value =
            ok(server.post("/v1/archives").json(&wish).send().await.unwrap()).await.json().await.unwrap();
        archives.push(format!("/v1/archives/{}", made["id"].as_str().unwrap()));
    }
    for archive in &archives {
        let begun = Instant::now();
        while json(server.get(archive).send().await.unwrap(), 200).await["state"] != "completed" {
            assert!(begun.elapsed() < Duration::from_secs(60), "{archive} is not made");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Held by the archives alone.
    ok(server.delete("/v1/files/default/docs/beyond").send().await.unwrap()).await;
    let wish = value!({"subject": "alice", "role": "user", "expires_in": 86400});
    let token = json(server.post("/v1/tokens").json(&wish).send().await.unwrap(), 201).await;
    let wish = value!({"bucket": "default", "key": "docs/large", "expires_in": 86400, "max_downloads": 2});
    let link = json(server.post("/v1/links").json(&wish).send().await.unwrap(), 201).await;
    let url = link["url"].as_str().unwrap();
    assert_eq!(browser().get(url).send().await.unwrap().status(), 307, "one of two uses is claimed");
    let wish = value!({"method": "GET", "path": "/v1/files/default/small"});
    let signed = json(server.post("/v1/sign").json(&wish).send().await.unwrap(), 200).await;
    let relative = |url: &str| url.strip_prefix(&server.base).unwrap_or(url).to_owned();
    Made {
        archives,
        link: relative(url),
        link_id: link["id"].as_str().unwrap().to_owned(),
        token: token["token"].as_str().unwrap().to_owned(),
        upload,
        signed: relative(signed["url"].as_str().unwrap()),
    }
}

async fn answer(answer: Response) -> Answer {
    let facts =
        ["etag", "last-modified", "content-type", "content-length", "carrack-meta-colour", "upload-offset"];
    let facts = facts
        .iter()
        .filter_map(|name| Some(format!("{name}: {}", answer.headers().get(*name)?.to_str().unwrap())));
    (answer.status().as_u16(), facts.collect(), answer.bytes().await.unwrap().to_vec())
}

/// All that can be asked without changing anything.
pub(super) async fn answers(server: &Server, made: &Made) -> BTreeMap<String, Answer> {
    let mut paths: Vec<String> =
        ["empty", "small", "docs/at the edge", "docs/beyond", "docs/large", "docs/gr\u{f6}\u{df}e", "joined"]
            .iter()
            .flat_map(|name| [format!("/v1/files/default/{name}"), format!("/v1/files/default/{name}?meta")])
            .collect();
    paths.extend(
        [
            "/v1/files/reports/open",
            "/v1/files/default?prefix=",
            "/v1/buckets",
            "/v1/buckets/reports",
            "/v1/buckets/default",
        ]
        .map(str::to_owned),
    );
    paths.extend(["/v1/tokens", "/v1/links", "/v1/zip/default?prefix=docs/"].map(str::to_owned));
    paths.push(format!("/v1/links/{}", made.link_id));
    paths.extend(made.archives.iter().flat_map(|path| [path.clone(), format!("{path}/content")]));
    let mut answers = BTreeMap::new();
    for path in paths {
        let found = answer(server.get(&path).send().await.unwrap()).await;
        // What is named by where it is asked for.
        let body = String::from_utf8(found.2.clone());
        let body = body.map_or(found.2, |text| text.replace(&server.base, "").into_bytes());
        // A refusal names the request.
        let (facts, body) = if found.0 < 400 { (found.1, body) } else { (Vec::new(), Vec::new()) };
        answers.insert(path, (found.0, facts, body));
    }
    let alice = |path: &str| browser().get(server.url(path)).bearer_auth(&made.token);
    for path in ["/v1/files/reports/open", "/v1/files/reports/secret/closed", "/v1/files/default/small"] {
        let (status, facts, _) = answer(alice(path).send().await.unwrap()).await;
        answers.insert(format!("alice {path}"), (status, facts, Vec::new()));
    }
    let head = tus::tus(server, Method::HEAD, &made.upload).send().await.unwrap();
    answers.insert("upload".to_owned(), answer(head).await);
    let signed = browser().get(server.url(&made.signed)).send().await.unwrap();
    answers.insert("signed".to_owned(), answer(signed).await);
    answers
}

/// Of two uses one is left.
pub(super) async fn use_link(server: &Server, made: &Made) {
    let get = async || browser().get(server.url(&made.link)).send().await.unwrap();
    let claim = get().await;
    assert_eq!(claim.status(), 307, "the second use");
    let path = claim.headers()["location"].to_str().unwrap().to_owned();
    let path = path.strip_prefix(&server.base).unwrap_or(&path).to_owned();
    let bytes = ok(browser().get(server.url(&path)).send().await.unwrap()).await.bytes().await.unwrap();
    assert!(bytes == content(5 << 20, 5 << 20));
    assert_eq!(get().await.status(), 410, "there were two");
}

/// What differs, by name: bodies are long.
pub(super) fn assert_same(before: &BTreeMap<String, Answer>, after: &BTreeMap<String, Answer>) {
    for (path, (status, facts, body)) in before {
        let (other_status, other_facts, other_body) = &after[path];
        let text = |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned();
        assert_eq!((status, facts), (other_status, other_facts), "{path}: {}", text(other_body));
        assert!(body == other_body, "{path}: {} is {}", text(body), text(other_body));
    }
}

/// Records of the audit log, by action, oldest first.
pub(super) async fn records(server: &Server) -> Vec<Value> {
    let page = json(server.get("/v1/audit?limit=1000").send().await.unwrap(), 200).await;
    page["records"].as_array().unwrap().clone()
}
