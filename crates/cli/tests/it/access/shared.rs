//! Links to archives, and things that belong to others.

use super::{Caller, make_token};
use crate::contract::answers::{eventually, header, json, refused, store};
use crate::server::{Server, content};
use reqwest::{Method, Response};
use serde_json::{Value, json as value};

const FILES: u64 = 9;

async fn with_files() -> Server {
    let server = Server::start();
    for number in 0..FILES {
        store(&server, &format!("/v1/files/default/a/{number}"), &content(300_000, number)).await;
    }
    server
}

/// An archive of everything below `a/`, as whoever calls asks for it, once it is completed.
async fn archive(caller: &Caller<'_>, compression: &str) -> Value {
    let wish = value!({"name": "all of it", "bucket": "default", "prefix": "a/", "compression": compression});
    let asked: Value = caller.post("/v1/archives", wish).await.json().await.unwrap();
    let path = format!("/v1/archives/{}", asked["id"].as_str().unwrap());
    let completed = async || json(caller.get(&path).await, 200).await["state"] == "completed";
    eventually("it is completed", completed).await;
    json(caller.get(&path).await, 200).await
}

fn wish(archive: &Value, more: Value) -> Value {
    let mut wish = value!({"archive": archive["id"], "expires_in": 3600});
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wish
}

async fn link(caller: &Caller<'_>, archive: &Value, more: Value) -> Value {
    json(caller.post("/v1/links", wish(archive, more)).await, 201).await
}

fn url(link: &Value) -> &str {
    link["url"].as_str().unwrap()
}

fn id(thing: &Value) -> &str {
    thing["id"].as_str().unwrap()
}

async fn range(caller: &Caller<'_>, url: &str, range: &str) -> Response {
    caller.request(Method::GET, url).header("range", range).send().await.unwrap()
}

#[tokio::test]
async fn a_link_to_an_archive_is_a_link_to_a_file_of_its_bytes() {
    let server = with_files().await;
    let alice = Caller::user(&server, "alice").await;
    let nobody = Caller::nobody(&server);
    for compression in ["store", "deflate"] {
        let archive = archive(&alice, compression).await;
        let own = alice.get(&format!("/v1/archives/{}/content", id(&archive))).await;
        let bytes = own.bytes().await.unwrap();
        let link = link(&alice, &archive, value!({})).await;
        assert_eq!((&link["archive"], &link["key"]), (&archive["id"], &Value::Null));
        assert_eq!((&link["size"], &link["etag"]), (&value!(bytes.len()), &archive["etag"]));
        let got = nobody.get(url(&link)).await;
        assert_eq!(header(&got, "content-type"), "application/zip");
        assert_eq!(header(&got, "etag"), archive["etag"].as_str().unwrap());
        assert_eq!(header(&got, "accept-ranges"), "bytes");
        assert!(header(&got, "content-disposition").starts_with("attachment; filename=\"all of it.zip\""));
        assert_eq!(header(&got, "cache-control"), "private, no-store");
        assert!(got.bytes().await.unwrap() == bytes);
        let part = range(&nobody, url(&link), "bytes=1000-1999").await;
        assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &bytes[1000..2000]));
        let same = nobody.request(Method::GET, url(&link)).header("if-none-match", header_of(&link)).send();
        assert_eq!(same.await.unwrap().status(), 304);
        let head = nobody.request(Method::HEAD, url(&link)).send().await.unwrap();
        assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    }
}

fn header_of(link: &Value) -> String {
    link["etag"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_counted_download_of_an_archive_is_one_however_it_is_resumed() {
    let server = with_files().await;
    let alice = Caller::user(&server, "alice").await;
    let nobody = Caller::nobody(&server);
    let archive = archive(&alice, "deflate").await;
    let size = archive["size"].as_u64().unwrap();
    let link = link(&alice, &archive, value!({"max_downloads": 1, "filename": "other.zip"})).await;
    let page = nobody.request(Method::GET, url(&link)).header("accept", "text/html").send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("other.zip") && page.contains("<form method=\"post\">"), "{page}");
    let claimed = nobody.get(url(&link)).await;
    assert_eq!(claimed.status(), 307);
    let claim = server.url(header(&claimed, "location"));
    let mut got = Vec::new();
    for from in (0..size).step_by(500_000) {
        let to = size.min(from + 500_000) - 1;
        let part = range(&nobody, &claim, &format!("bytes={from}-{to}")).await;
        assert_eq!(part.status(), 206);
        got.extend(part.bytes().await.unwrap());
    }
    let whole = alice.get(&format!("/v1/archives/{}/content", id(&archive))).await.bytes().await.unwrap();
    assert!(got == whole);
    refused(nobody.get(&claim).await, 410, "link_used").await;
    refused(nobody.get(url(&link)).await, 410, "link_used").await;
    let facts = json(alice.get(&format!("/v1/links/{}", id(&link))).await, 200).await;
    assert_eq!(facts["uses"], 1);
}

#[tokio::test]
async fn an_archive_that_goes_takes_its_links_along() {
    let server = with_files().await;
    let alice = Caller::user(&server, "alice").await;
    let nobody = Caller::nobody(&server);
    let archive = archive(&alice, "store").await;
    let free = link(&alice, &archive, value!({})).await;
    let counted = link(&alice, &archive, value!({"max_downloads": 2})).await;
    let claimed = nobody.get(url(&counted)).await;
    let claim = server.url(header(&claimed, "location"));
    for number in 0..FILES {
        alice.delete(&format!("/v1/files/default/a/{number}")).await;
    }
    let kept = nobody.get(url(&free)).await;
    assert_eq!(kept.status(), 200, "files that are deleted change nothing in it");
    assert!(kept.bytes().await.unwrap().len() as u64 == archive["size"].as_u64().unwrap());
    alice.delete(&format!("/v1/archives/{}", id(&archive))).await;
    for url in [url(&free), url(&counted), &claim] {
        refused(nobody.get(url).await, 410, "content_gone").await;
    }
}

#[tokio::test]
async fn a_link_does_not_outlive_its_archive() {
    let server = with_files().await;
    let alice = Caller::user(&server, "alice").await;
    let wish = value!({"name": "brief", "bucket": "default", "prefix": "a/", "expires_in": 2});
    let brief = json(alice.post("/v1/archives", wish).await, 201).await;
    let link = link(&alice, &brief, value!({"expires_in": 3600})).await;
    assert_eq!(link["expires_at"], brief["expires_at"]);
    let nobody = Caller::nobody(&server);
    assert_eq!(nobody.get(url(&link)).await.status(), 200);
    eventually("it ends", async || nobody.get(url(&link)).await.status() == 410).await;
}

#[tokio::test]
async fn who_may_not_share_what_is_in_it_may_not_share_an_archive() {
    let server = with_files().await;
    store(&server, "/v1/files/default/b/secret", b"not to be shared").await;
    let policy = |deny: Value| {
        let all = value!({"effect": "allow", "actions": ["*"], "prefix": "", "to": ["role:user"]});
        value!({"policy": {"rules": [all, deny]}})
    };
    let no_sharing = |prefix: &str| {
        policy(value!({"effect": "deny", "actions": ["share"], "prefix": prefix, "to": ["everyone"]}))
    };
    let set = async |policy: Value| {
        assert!(server.put("/v1/buckets/default").json(&policy).send().await.unwrap().status().is_success());
    };
    set(no_sharing("b/")).await;
    let alice = Caller::user(&server, "alice").await;
    let with = async |selection: Value| {
        let mut wish = value!({"name": "x", "bucket": "default"});
        wish.as_object_mut().unwrap().extend(selection.as_object().unwrap().clone());
        json(alice.post("/v1/archives", wish).await, 201).await
    };
    for selection in [value!({"prefix": ""}), value!({"prefix": "b/"}), value!({"keys": ["a/1", "b/secret"]})]
    {
        let archive = with(selection).await;
        refused(alice.post("/v1/links", wish(&archive, value!({}))).await, 403, "forbidden").await;
    }
    let entries = with(value!({"entries": [{"key": "a/1"}, {"key": "a/2", "name": "b/secret"}]})).await;
    let link = link(&alice, &entries, value!({})).await;
    let nobody = Caller::nobody(&server);
    assert_eq!(nobody.get(url(&link)).await.status(), 200);
    set(no_sharing("a/2")).await;
    refused(nobody.get(url(&link)).await, 410, "link_revoked").await;
    set(no_sharing("c/")).await;
    assert_eq!(nobody.get(url(&link)).await.status(), 200, "rights are those of the moment");
}

#[tokio::test]
async fn wishes_for_links_that_make_no_sense() {
    let server = with_files().await;
    let root = Caller::with(&server, crate::server::TOKEN);
    let archive = archive(&root, "store").await;
    for both in [
        value!({"archive": archive["id"], "bucket": "default", "key": "a/1", "expires_in": 9}),
        value!({"archive": archive["id"], "key": "a/1", "expires_in": 9}),
        value!({"bucket": "default", "expires_in": 9}),
        value!({"expires_in": 9}),
    ] {
        refused(root.post("/v1/links", both).await, 400, "invalid_request").await;
    }
    for none in ["0".repeat(32), "x".to_owned(), String::new()] {
        let wish = value!({"archive": none, "expires_in": 9});
        refused(root.post("/v1/links", wish).await, 404, "archive_not_found").await;
    }
    let cancelled = value!({"name": "x", "bucket": "default", "prefix": "a/", "compression": "deflate"});
    let paused = root.post("/v1/archives", cancelled).await.json::<Value>().await.unwrap();
    let path = format!("/v1/archives/{}", id(&paused));
    root.post(&format!("{path}/cancel"), value!({})).await;
    let now = json(root.get(&path).await, 200).await;
    if now["state"] == "cancelled" {
        refused(root.post("/v1/links", wish(&now, value!({}))).await, 409, "archive_not_ready").await;
    }
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let server = with_files().await;
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let root = Caller::with(&server, crate::server::TOKEN);
    let archive = archive(&alice, "deflate").await;
    let link = link(&alice, &archive, value!({})).await;
    let upload = value!({"bucket": "default", "key": "u", "size": 10});
    let upload = json(alice.post("/v1/uploads", upload).await, 201).await;
    let own = format!("/v1/archives/{}", id(&archive));
    let (of_link, of_upload) = (
        format!("/v1/links/{}", id(&link)),
        format!("/v1/uploads/{}", upload["upload_id"].as_str().unwrap()),
    );
    let content = format!("{own}/content");
    for action in ["pause", "resume", "cancel"] {
        refused(bob.post(&format!("{own}/{action}"), value!({})).await, 404, "archive_not_found").await;
    }
    for path in [&own, &content, &format!("{own}/events")] {
        refused(bob.get(path).await, 404, "archive_not_found").await;
    }
    refused(bob.delete(&own).await, 404, "archive_not_found").await;
    refused(bob.post("/v1/links", wish(&archive, value!({}))).await, 404, "archive_not_found").await;
    refused(bob.get(&of_link).await, 404, "link_not_found").await;
    refused(bob.delete(&of_link).await, 404, "link_not_found").await;
    refused(bob.get(&of_upload).await, 404, "upload_not_found").await;
    refused(bob.delete(&of_upload).await, 404, "upload_not_found").await;
    refused(bob.put(&format!("{of_upload}/parts/1"), b"0123456789").await, 404, "upload_not_found").await;
    for (list, name) in [("/v1/archives", "archives"), ("/v1/links", "links"), ("/v1/uploads", "uploads")] {
        assert_eq!(json(bob.get(list).await, 200).await[name], value!([]), "{list}");
        assert_eq!(json(alice.get(list).await, 200).await[name].as_array().unwrap().len(), 1, "{list}");
    }
    for path in [&own, &of_link, &of_upload] {
        assert_eq!(root.get(path).await.status(), 200, "an administrator sees {path}");
    }
    assert_eq!(root.get(&content).await.status(), 200);
    let elsewhere = value!({"subject": "alice", "role": "user", "buckets": ["elsewhere"]});
    let narrow = make_token(&server, elsewhere).await.0;
    let narrow = Caller::with(&server, &narrow);
    refused(narrow.get(&content).await, 404, "archive_not_found").await;
    assert_eq!(root.delete(&own).await.status(), 204);
    assert_eq!(alice.get(&own).await.status(), 404);
}
