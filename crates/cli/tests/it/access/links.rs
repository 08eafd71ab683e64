//! Links: what one says is what it does.

use super::Caller;
use crate::contract::answers::{PATIENCE, blobs, eventually, header, json, refused, store, until};
use crate::contract::wire::{Wire, ask};
use crate::server::{Server, Setup, content, tool};
use reqwest::{Method, Response};
use serde_json::{Value, json as value};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Makes a link to `default/dir/f.bin`; its facts.
async fn make(server: &Server, more: Value) -> Value {
    let mut wish = value!({"bucket": "default", "key": "dir/f.bin", "expires_in": 3600});
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json(server.post("/v1/links").json(&wish).send().await.unwrap(), 201).await
}

fn url(link: &Value) -> &str {
    link["url"].as_str().unwrap()
}

async fn with_file(bytes: &[u8]) -> Server {
    let server = Server::start();
    store(&server, "/v1/files/default/dir/f.bin", bytes).await;
    server
}

/// The URL of the use that a redirect leads to.
fn claimed(server: &Server, answer: &Response, status: u16) -> String {
    assert_eq!(answer.status(), status);
    assert_eq!(header(answer, "cache-control"), "private, no-store");
    server.url(header(answer, "location"))
}

async fn uses(server: &Server, link: &Value) -> u64 {
    let path = format!("/v1/links/{}", link["id"].as_str().unwrap());
    json(server.get(&path).send().await.unwrap(), 200).await["uses"].as_u64().unwrap()
}

async fn range(nobody: &Caller<'_>, url: &str, range: &str) -> Response {
    nobody.request(Method::GET, url).header("range", range).send().await.unwrap()
}

#[tokio::test]
async fn a_link_without_a_count_serves_at_once() {
    let bytes = content(100_000, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"filename": "other name.bin"})).await;
    assert!(url(&link).starts_with(&server.url("/d/cs1.")), "{link}");
    assert_eq!(
        (&link["size"], &link["uses"], &link["password"]),
        (&value!(100_000), &value!(0), &value!(false))
    );
    let nobody = Caller::nobody(&server);
    let got = nobody.get(url(&link)).await;
    assert_eq!(
        (header(&got, "cache-control"), header(&got, "referrer-policy")),
        ("private, no-store", "no-referrer")
    );
    assert!(header(&got, "content-disposition").starts_with("attachment; filename=\"other name.bin\""));
    assert_eq!(header(&got, "etag"), link["etag"].as_str().unwrap());
    assert!(got.bytes().await.unwrap() == bytes);
    let part = range(&nobody, url(&link), "bytes=5-9").await;
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &bytes[5..10]));
    let head = nobody.request(Method::HEAD, url(&link)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "100000"));
    assert_eq!(uses(&server, &link).await, 1, "neither HEAD nor a range further on is a use");
    let page =
        nobody.request(Method::GET, url(&link)).header("accept", "text/html,*/*").send().await.unwrap();
    assert!(page.bytes().await.unwrap() == bytes, "no page stands before what is not counted");
    let listed = json(server.get("/v1/links").send().await.unwrap(), 200).await;
    assert_eq!((&listed["links"][0]["id"], &listed["links"][0]["uses"]), (&link["id"], &value!(2)));
    assert!(listed["links"][0]["last_used_at"].is_string());
    let same = listed["links"][0]["url"].as_str().unwrap();
    assert_eq!(nobody.get(same).await.status(), 200);
}

#[tokio::test]
async fn one_download_is_one_download_however_it_is_resumed() {
    let bytes = content(1_000_000, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let head = nobody.request(Method::HEAD, url(&link)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "1000000"));
    assert_eq!(uses(&server, &link).await, 0, "HEAD never claims");
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    assert!(claim.starts_with(&format!("{}/c/", url(&link))), "{claim}");
    assert_eq!(uses(&server, &link).await, 1);
    refused(nobody.get(url(&link)).await, 410, "link_used").await;
    assert_eq!(nobody.request(Method::HEAD, url(&link)).send().await.unwrap().status(), 410);
    let head = nobody.request(Method::HEAD, &claim).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "1000000"));
    for from in (0..1_000_000).step_by(100_000) {
        let again = range(&nobody, url(&link), &format!("bytes={from}-")).await;
        if from > 0 {
            assert_eq!(claimed(&server, &again, 307), claim, "a download that goes on");
        }
        let to = from + 99_999;
        let part = range(&nobody, &claim, &format!("bytes={from}-{to}")).await;
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await.unwrap() == bytes[from..=to]);
    }
    let once_more = range(&nobody, &claim, "bytes=900000-").await;
    assert_eq!(once_more.status(), 206, "for a minute what was lost may be asked for again");
    once_more.bytes().await.unwrap();
    refused(nobody.get(&claim).await, 410, "link_used").await;
    refused(nobody.get(url(&link)).await, 410, "link_used").await;
    assert_eq!(uses(&server, &link).await, 1);
}

#[tokio::test]
async fn no_more_than_one_and_a_half_times_the_bytes_are_sent() {
    let bytes = content(8_000_000, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    let mut received = 0;
    for _ in 0..5 {
        // The first byte is left out, so that the use is never complete.
        let mut answer = range(&nobody, &claim, "bytes=1-").await;
        if answer.status() != 206 {
            refused(answer, 410, "link_used").await;
            continue;
        }
        while let Ok(Some(bytes)) = answer.chunk().await {
            received += bytes.len();
        }
    }
    assert!((8_000_000..=12_000_000).contains(&received), "{received}");
}

#[tokio::test]
async fn several_ranges_are_answered_with_the_whole() {
    let bytes = content(1000, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    let got = range(&nobody, &claim, "bytes=0-1,5-6").await;
    assert_eq!(got.status(), 200);
    assert!(got.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn of_two_hundred_that_come_at_once_one_gets_the_one_use() {
    let rounds: usize = std::env::var("CARRACK_CLAIM_RACES").map_or(5, |text| text.parse().unwrap());
    let server = with_file(b"bytes").await;
    // One for each: nobody waits for another's connection.
    let client = || reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    let clients: Vec<reqwest::Client> = (0..200).map(|_| client().unwrap()).collect();
    for _ in 0..rounds {
        let link = make(&server, value!({"max_downloads": 1})).await;
        let mut tasks = tokio::task::JoinSet::new();
        for client in &clients {
            let request = client.get(url(&link));
            tasks.spawn(async move { request.send().await.unwrap().status().as_u16() });
        }
        let answers = tasks.join_all().await;
        let claims = answers.iter().filter(|status| **status == 307).count();
        let gone = answers.iter().filter(|status| **status == 410).count();
        assert_eq!((claims, gone), (1, 199));
        assert_eq!(uses(&server, &link).await, 1);
    }
    println!("{rounds} links of one use, each asked for by 200 at once: {rounds} claims");
}

#[tokio::test]
async fn a_use_goes_on_after_a_crash_and_is_not_given_back() {
    let bytes = content(1_000_000, 1);
    let mut first = with_file(&bytes).await;
    let link = make(&first, value!({"max_downloads": 1})).await;
    let claim = claimed(&first, &Caller::nobody(&first).get(url(&link)).await, 307);
    let part = range(&Caller::nobody(&first), &claim, "bytes=0-499999").await;
    assert_eq!(part.bytes().await.unwrap().len(), 500_000);
    first.kill();
    let server = Setup::new().data(&first.data).start();
    let nobody = Caller::nobody(&server);
    let here = |url: &str| url.replace(&first.base, &server.base);
    refused(nobody.get(&here(url(&link))).await, 410, "link_used").await;
    let rest = range(&nobody, &here(&claim), "bytes=500000-").await;
    assert_eq!(rest.status(), 206);
    assert!(rest.bytes().await.unwrap() == bytes[500_000..]);
}

#[tokio::test]
async fn a_browser_is_shown_a_page_whose_button_claims() {
    let server = with_file(b"bytes").await;
    let wish = value!({"max_downloads": 1, "filename": "<b>&\"x\".txt"});
    let link = make(&server, wish).await;
    let nobody = Caller::nobody(&server);
    let browse = async |url: &str| {
        nobody
            .request(Method::GET, url)
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .send()
            .await
            .unwrap()
    };
    for _ in 0..3 {
        let page = browse(url(&link)).await;
        assert_eq!(
            (page.status().as_u16(), header(&page, "content-type")),
            (200, "text/html; charset=utf-8")
        );
        assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
        let html = page.text().await.unwrap();
        assert!(
            html.contains("&lt;b&gt;&amp;&quot;x&quot;.txt")
                && !html.contains("<b>")
                && !html.contains("<script"),
            "{html}"
        );
        assert!(html.contains("method=\"post\"") && html.contains("lang=\"en\""), "{html}");
    }
    assert_eq!(uses(&server, &link).await, 0, "a preview burns nothing");
    let pressed =
        nobody.request(Method::POST, url(&link)).header("accept", "text/html").send().await.unwrap();
    let claim = claimed(&server, &pressed, 303);
    assert_eq!(browse(&claim).await.bytes().await.unwrap().as_ref(), b"bytes");
    refused(nobody.request(Method::POST, url(&link)).send().await.unwrap(), 410, "link_used").await;
    let skipped = make(&server, value!({"max_downloads": 1})).await;
    claimed(&server, &browse(&format!("{}?dl=1", url(&skipped))).await, 307);
}

#[tokio::test]
async fn a_password_is_asked_for_and_shown_to_have_been_given() {
    let server = with_file(b"bytes").await;
    let other = make(&server, value!({"password": "open sesame", "filename": "secret-name"})).await;
    for more in [value!({}), value!({"max_downloads": 1})] {
        let mut wish = value!({"password": "open sesame", "filename": "secret-name"});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let link = make(&server, wish).await;
        assert!(link["password"] == true && !link.to_string().contains("sesame"), "{link}");
        let nobody = Caller::nobody(&server);
        refused(nobody.get(url(&link)).await, 403, "password_required").await;
        let page =
            nobody.request(Method::GET, url(&link)).header("accept", "text/html").send().await.unwrap();
        let html = page.text().await.unwrap();
        assert!(
            html.contains("type=\"password\"") && html.contains("<label") && !html.contains("secret-name"),
            "{html}"
        );
        let give = async |url: &str, form: &str| {
            let request =
                nobody.request(Method::POST, url).header("content-type", "application/x-www-form-urlencoded");
            request.body(form.to_owned()).send().await.unwrap()
        };
        let long = format!("password={}", "x".repeat(300));
        for wrong in ["password=", "password=open", "password=OPEN+SESAME", &long] {
            refused(give(url(&link), wrong).await, 403, "wrong_password").await;
        }
        refused(give(url(&link), "").await, 403, "password_required").await;
        refused(give(url(&link), &"x".repeat(100_000)).await, 413, "too_large").await;
        let right = give(url(&link), "password=open+sesame").await;
        assert_eq!(right.status(), 303);
        assert_eq!(server.url(header(&right, "location")), url(&link));
        let set = header(&right, "set-cookie").to_owned();
        let path = url(&link).strip_prefix(&server.base).unwrap();
        assert!(
            set.contains("HttpOnly")
                && set.contains("SameSite=Lax")
                && set.contains(&format!("Path={path};")),
            "{set}"
        );
        let cookie = set.split(';').next().unwrap().to_owned();
        let with_cookie = async |url: &str| {
            nobody.request(Method::GET, url).header("cookie", &cookie).send().await.unwrap()
        };
        refused(with_cookie(url(&other)).await, 403, "password_required").await;
        let got = with_cookie(url(&link)).await;
        if link["max_downloads"].is_null() {
            assert_eq!(got.bytes().await.unwrap().as_ref(), b"bytes");
        } else {
            let claim = claimed(&server, &got, 307);
            assert_eq!(nobody.get(&claim).await.bytes().await.unwrap().as_ref(), b"bytes");
        }
    }
    for name in ["catalog.sqlite", "catalog.sqlite-wal"] {
        let kept = std::fs::read(server.data.join(name)).unwrap_or_default();
        assert!(!kept.windows(11).any(|found| found == b"open sesame"), "{name}");
    }
    assert!(!server.log().contains("sesame"));
}

#[tokio::test]
async fn links_end_and_are_revoked_at_once() {
    let bytes = content(1000, 1);
    let server = with_file(&bytes).await;
    let nobody = Caller::nobody(&server);
    let brief = make(&server, value!({"expires_in": 1, "max_downloads": 9})).await;
    let brief_free = make(&server, value!({"expires_in": 1})).await;
    let claim = claimed(&server, &nobody.get(url(&brief)).await, 307);
    eventually("the link ends", async || nobody.get(url(&brief_free)).await.status() == 410).await;
    refused(nobody.get(url(&brief)).await, 410, "link_expired").await;
    refused(nobody.get(url(&brief_free)).await, 410, "link_expired").await;
    assert!(nobody.get(&claim).await.bytes().await.unwrap() == bytes, "what was begun in time goes on");
    let link = make(&server, value!({"max_downloads": 9})).await;
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    let path = format!("/v1/links/{}", link["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).send().await.unwrap().status(), 204);
    refused(nobody.get(url(&link)).await, 410, "link_revoked").await;
    refused(nobody.get(&claim).await, 410, "link_revoked").await;
    refused(range(&nobody, url(&link), "bytes=5-").await, 410, "link_revoked").await;
    assert_eq!(server.delete(&path).send().await.unwrap().status(), 204, "again is fine");
    assert!(json(server.get(&path).send().await.unwrap(), 200).await["revoked_at"].is_string());
    let later = make(&server, value!({"not_before": "2099-01-01T00:00:00Z"})).await;
    refused(nobody.get(url(&later)).await, 403, "link_not_yet").await;
    let begun = make(&server, value!({"not_before": "2020-01-01T00:00:00+02:00"})).await;
    assert_eq!(nobody.get(url(&begun)).await.status(), 200);
    let elsewhere = make(&server, value!({"ip": "10.0.0.0/8"})).await;
    refused(nobody.get(url(&elsewhere)).await, 403, "wrong_address").await;
    let here = make(&server, value!({"ip": "127.0.0.1"})).await;
    assert_eq!(nobody.get(url(&here)).await.status(), 200);
}

#[tokio::test]
async fn a_link_is_to_the_content_as_it_was() {
    let server = with_file(b"old").await;
    let nobody = Caller::nobody(&server);
    let link = make(&server, value!({})).await;
    let counted = make(&server, value!({"max_downloads": 1})).await;
    store(&server, "/v1/files/default/dir/f.bin", b"new, and not what was shared").await;
    until("the old bytes are gone", || blobs(&server).len() == 1).await;
    refused(nobody.get(url(&link)).await, 410, "content_gone").await;
    refused(nobody.get(url(&counted)).await, 410, "content_gone").await;
    assert_eq!(
        (uses(&server, &link).await, uses(&server, &counted).await),
        (0, 0),
        "nothing is taken for nothing"
    );
    let deleted = make(&server, value!({})).await;
    server.delete("/v1/files/default/dir/f.bin").send().await.unwrap();
    until("its bytes are gone", || blobs(&server).is_empty()).await;
    refused(nobody.get(url(&deleted)).await, 410, "content_gone").await;
}

#[tokio::test]
async fn who_may_not_share_any_more_shares_no_more() {
    let server = with_file(b"bytes").await;
    let alice = Caller::user(&server, "alice").await;
    let wish = value!({"bucket": "default", "key": "dir/f.bin", "expires_in": 60, "max_downloads": 3});
    let link = json(alice.post("/v1/links", wish.clone()).await, 201).await;
    let nobody = Caller::nobody(&server);
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    let rules = |actions: Value| value!({"policy": {"rules": [{"effect": "allow", "actions": actions, "to": ["role:user"]}]}});
    let set = async |actions: Value| {
        let put = server.put("/v1/buckets/default").json(&rules(actions));
        assert!(put.send().await.unwrap().status().is_success());
    };
    set(value!(["read"])).await;
    refused(nobody.get(url(&link)).await, 410, "link_revoked").await;
    refused(nobody.get(&claim).await, 410, "link_revoked").await;
    refused(alice.post("/v1/links", wish.clone()).await, 403, "forbidden").await;
    set(value!(["share"])).await;
    refused(alice.post("/v1/links", wish).await, 403, "forbidden").await;
    set(value!(["share", "read"])).await;
    assert_eq!(nobody.get(&claim).await.status(), 200);
}

#[tokio::test]
async fn links_belong_to_who_made_them() {
    let server = with_file(b"bytes").await;
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let wish = value!({"bucket": "default", "key": "dir/f.bin", "expires_in": 60});
    let link = json(alice.post("/v1/links", wish).await, 201).await;
    let path = format!("/v1/links/{}", link["id"].as_str().unwrap());
    assert_eq!(json(bob.get("/v1/links").await, 200).await, value!({"links": []}));
    refused(bob.get(&path).await, 404, "link_not_found").await;
    refused(bob.delete(&path).await, 404, "link_not_found").await;
    refused(Caller::nobody(&server).get(&path).await, 401, "unauthenticated").await;
    refused(alice.get("/v1/links/x").await, 404, "link_not_found").await;
    json(alice.get(&path).await, 200).await;
    assert_eq!(server.delete(&path).send().await.unwrap().status(), 204, "administrators may");
}

#[tokio::test]
async fn every_altered_byte_of_a_link_is_noticed() {
    let server = with_file(b"bytes").await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let from = server.base.len() + 3;
    let mut tried = 0;
    for at in from..url(&link).len() {
        for flip in [1, 2, 4, 8, 16, 32] {
            let mut bytes = url(&link).as_bytes().to_vec();
            bytes[at] ^= flip;
            if bytes[at].is_ascii_alphanumeric() || b"-_.~".contains(&bytes[at]) {
                let bad = String::from_utf8(bytes).unwrap();
                refused(nobody.get(&bad).await, 403, "invalid_signature").await;
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
    for bad in [
        format!("{}x", url(&link)),
        format!("{}.x", url(&link)),
        url(&link)[..url(&link).len() - 1].to_owned(),
        server.url("/d/x"),
        server.url("/d/cs1..."),
    ] {
        refused(nobody.get(&bad).await, 403, "invalid_signature").await;
    }
    assert_eq!(uses(&server, &link).await, 0);
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    for bad in [
        format!("{claim}0"),
        claim.to_uppercase().replace(&server.base.to_uppercase(), &server.base),
        format!("{}/c/{}", url(&link), "0".repeat(32)),
        format!("{}/c/x", url(&link)),
    ] {
        let status = nobody.get(&bad).await.status().as_u16();
        assert!(matches!(status, 403 | 404 | 410), "{status} {bad}");
    }
    let other = make(&server, value!({"max_downloads": 1})).await;
    let foreign = claim.replace(url(&link), url(&other));
    refused(nobody.get(&foreign).await, 410, "link_used").await;
    let sign = value!({"method": "GET", "path": "/v1/files/default/dir/f.bin"});
    let signed = json(server.post("/v1/sign").json(&sign).send().await.unwrap(), 200).await;
    let sealed = signed["url"].as_str().unwrap().split_once("sig=").unwrap().1.to_owned();
    refused(nobody.get(&format!("/d/{sealed}")).await, 403, "invalid_signature").await;
    let token = url(&other).rsplit('/').next().unwrap();
    refused(nobody.get(&format!("/v1/files/default/dir/f.bin?sig={token}")).await, 403, "invalid_signature")
        .await;
}

#[tokio::test]
async fn wishes_that_make_no_sense_make_no_link() {
    let server = with_file(b"bytes").await;
    let good = value!({"bucket": "default", "key": "dir/f.bin", "expires_in": 60});
    for (change, status, code) in [
        (value!({"expires_in": 0}), 400, "invalid_request"),
        (value!({"expires_in": u64::MAX}), 400, "invalid_request"),
        (value!({"expires_in": null}), 400, "invalid_request"),
        (value!({"max_downloads": 0}), 400, "invalid_request"),
        (value!({"max_downloads": -1}), 400, "invalid_request"),
        (value!({"max_downloads": u64::MAX}), 400, "invalid_request"),
        (value!({"not_before": "soon"}), 400, "invalid_request"),
        (value!({"ip": "nowhere"}), 400, "invalid_request"),
        (value!({"password": ""}), 400, "invalid_request"),
        (value!({"password": "x".repeat(257)}), 400, "invalid_request"),
        (value!({"filename": "a\nb"}), 400, "invalid_request"),
        (value!({"unknown": 1}), 400, "invalid_request"),
        (value!({"key": "../x"}), 400, "invalid_key"),
        (value!({"key": "none"}), 404, "file_not_found"),
        (value!({"bucket": "nowhere"}), 404, "bucket_not_found"),
    ] {
        let mut wish = good.clone();
        wish.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        refused(server.post("/v1/links").json(&wish).send().await.unwrap(), status, code).await;
    }
    assert_eq!(json(server.get("/v1/links").send().await.unwrap(), 200).await, value!({"links": []}));
}

#[tokio::test]
async fn links_are_in_no_log() {
    let server = Setup::new().set("CARRACK_TELEMETRY__LOG", "trace").start();
    store(&server, "/v1/files/default/dir/f.bin", b"bytes").await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let path = url(&link).strip_prefix(&server.base).unwrap().to_owned();
    ask(&server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    ask(&server, format!("GET {path}x HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let mac = path.rsplit('.').next().unwrap();
    assert!(!server.log().contains(mac), "the log has a link");
}

#[tokio::test]
async fn a_client_that_is_gone_in_the_middle_has_not_been_given_the_file() {
    let bytes = content(64 << 20, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let nobody = Caller::nobody(&server);
    let claim = claimed(&server, &nobody.get(url(&link)).await, 307);
    let path = claim.strip_prefix(&server.base).unwrap();
    for _ in 0..9 {
        let mut wire = Wire::with(&server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(wire.some().await > 0);
        drop(wire);
    }
    let got = nobody.get(&claim).await;
    assert_eq!(got.status(), 200);
    assert!(got.bytes().await.unwrap() == bytes, "nine cuts later the file is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_connections_of_one_client_are_one_download() {
    let bytes = content(32 << 20, 1);
    let server = with_file(&bytes).await;
    let link = make(&server, value!({"max_downloads": 1})).await;
    let mut command = tool("aria2c", "aria2");
    command.args(["-q", "-x16", "-s16", "-k1M", "-o", "got", url(&link)]).current_dir(server.folder());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    assert!(command.status().unwrap().success());
    assert!(std::fs::read(server.folder().join("got")).unwrap() == bytes);
    assert_eq!(uses(&server, &link).await, 1);
}

/// Cuts a program's download again and again; what it has in the end.
async fn resumed(server: &Server, program: &str, package: &str, args: &[&str], url: &str) -> Vec<u8> {
    let out = server.folder().join(program);
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |facts| facts.len());
    let run = |cut: bool| {
        let before = size(&out);
        let mut command = tool(program, package);
        command.args(args).current_dir(server.folder()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let slow: &[&str] = match (program, cut) {
            (_, false) => &[],
            ("curl", true) => &["--limit-rate", "4M"],
            ("wget", true) => &["--limit-rate=4m"],
            _ => &["--max-overall-download-limit=4M"],
        };
        let mut child = command.args(slow).arg(url).spawn().unwrap();
        if cut {
            // Until it has something of this run; aria2c makes the whole file first, and notes beside it what it has.
            let notes = server.folder().join("aria2c.aria2");
            let deadline = Instant::now() + PATIENCE;
            while size(&out) <= before && !(program == "aria2c" && size(&notes) > 0) {
                assert!(Instant::now() < deadline, "{program} gets nothing");
                std::thread::sleep(Duration::from_millis(20));
            }
            // As by Ctrl-C: aria2c writes down what it has.
            let _ = tool("kill", "procps").args(["-s", "INT", &child.id().to_string()]).status();
        }
        child.wait().unwrap().success()
    };
    for _ in 0..3 {
        run(true);
    }
    assert!(run(false), "{program} could not finish");
    std::fs::read(out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_resume_a_counted_download_and_it_stays_one() {
    let bytes = content(32 << 20, 1);
    let server = with_file(&bytes).await;
    let cases: [(&str, &str, &[&str]); 3] = [
        ("curl", "curl", &["-sSfL", "--noproxy", "*", "-C", "-", "-o", "curl"]),
        ("wget", "wget", &["--no-proxy", "-q", "-c", "-O", "wget"]),
        ("aria2c", "aria2", &["-q", "-x16", "-s16", "-k1M", "-c", "--allow-overwrite=true", "-o", "aria2c"]),
    ];
    for (program, package, args) in cases {
        let link = make(&server, value!({"max_downloads": 1})).await;
        let mut target = url(&link).to_owned();
        if program == "aria2c" {
            // It begins again with a request for the whole, which the link itself has no use left for.
            target = claimed(&server, &Caller::nobody(&server).get(&target).await, 307);
        }
        let got = resumed(&server, program, package, args, &target).await;
        assert!(got == bytes, "{program}");
        assert_eq!(uses(&server, &link).await, 1, "{program}");
        refused(Caller::nobody(&server).get(url(&link)).await, 410, "link_used").await;
    }
}
