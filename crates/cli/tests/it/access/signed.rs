//! URLs that need no credentials.

use super::{Caller, altered, make_token};
use crate::contract::answers::{fetch, header, json, refused, store};
use crate::contract::uploads::Upload;
use crate::contract::wire::{Wire, ask};
use crate::server::{Server, Setup, TOKEN, content};
use reqwest::Method;
use serde_json::{Value, json as value};
use std::time::Duration;

/// The URL of a part.
async fn part_url(upload: &Upload<'_>, number: u64, query: &str) -> Value {
    let answer =
        upload.server.get(&format!("{}/parts/{number}/url{query}", upload.path)).send().await.unwrap();
    json(answer, 200).await
}

/// A signed URL for a file.
async fn sign(server: &Server, wish: Value) -> String {
    let signed = json(server.post("/v1/sign").json(&wish).send().await.unwrap(), 200).await;
    signed["url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_part_is_sent_by_whoever_has_its_url() {
    let server = Server::start();
    let whole = content(10, 1);
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 4})).await;
    let nobody = Caller::nobody(&server);
    let one = part_url(&upload, 1, "").await;
    assert_eq!((&one["method"], &one["part"], &one["size"]), (&value!("PUT"), &value!(1), &value!(4)));
    assert_eq!(one["headers"], value!({}));
    assert!(one["expires_at"].as_str().unwrap().ends_with('Z'));
    let url = one["url"].as_str().unwrap();
    assert!(url.starts_with(&server.url(&format!("{}/parts/1?sig=", upload.path))), "{url}");
    let stored = json(nobody.put(url, &whole[..4]).await, 200).await;
    assert_eq!(stored["part"], 1);
    json(nobody.put(url, &whole[..4]).await, 200).await;
    refused(nobody.put(url, &whole[..3]).await, 400, "length_mismatch").await;
    refused(nobody.put(url, b"else").await, 409, "part_conflict").await;
    let batch = server.post(&format!("{}/part-urls", upload.path)).json(&value!({"parts": "2-3"}));
    let batch = json(batch.send().await.unwrap(), 200).await;
    let urls = batch["urls"].as_array().unwrap();
    assert_eq!(urls.iter().map(|url| url["part"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    for (url, piece) in urls.iter().zip([&whole[4..8], &whole[8..]]) {
        assert_eq!(url["size"], piece.len());
        json(nobody.put(url["url"].as_str().unwrap(), piece).await, 200).await;
    }
    upload.completed().await;
    assert_eq!(fetch(&server, "/v1/files/default/k").await, whole);
    refused(nobody.put(url, &whole[..4]).await, 409, "upload_finished").await;
}

#[tokio::test]
async fn a_part_url_is_good_for_nothing_else() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 4})).await;
    let other = Upload::begin(&server, "l", 10, value!({"part_size": 4})).await;
    let nobody = Caller::nobody(&server);
    let url = part_url(&upload, 1, "").await["url"].as_str().unwrap().to_owned();
    let (_, signature) = url.split_once('?').unwrap();
    for (method, path) in [
        (Method::PUT, format!("{}/parts/2", upload.path)),
        (Method::PUT, format!("{}/parts/01", upload.path)),
        (Method::PUT, format!("{}/parts/1", other.path)),
        (Method::PUT, "/v1/files/default/k".to_owned()),
        (Method::GET, "/v1/files/default/k".to_owned()),
    ] {
        let answer = nobody.request(method, &format!("{path}?{signature}")).body("x").send().await.unwrap();
        refused(answer, 403, "invalid_signature").await;
    }
    for (method, path) in [
        (Method::GET, upload.path.clone()),
        (Method::DELETE, upload.path.clone()),
        (Method::POST, format!("{}/complete", upload.path)),
        (Method::GET, format!("{}/parts/1/url", upload.path)),
        (Method::GET, "/v1/me".to_owned()),
    ] {
        let answer = nobody.request(method, &format!("{path}?{signature}")).send().await.unwrap();
        refused(answer, 401, "unauthenticated").await;
    }
    assert_eq!(upload.status().await["received"], "");
    assert_eq!(other.status().await["received"], "");
}

#[tokio::test]
async fn every_altered_byte_of_a_part_url_is_noticed() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 4, value!({})).await;
    let nobody = Caller::nobody(&server);
    let url = part_url(&upload, 1, "").await["url"].as_str().unwrap().to_owned();
    let query_at = url.find('?').unwrap();
    let all = altered(&server, &url);
    assert!(all.len() > 600, "{}", all.len());
    for bad in all {
        let answer = nobody.put(&bad, b"1234").await;
        let status = answer.status().as_u16();
        if bad[..=query_at] == url[..=query_at] {
            refused(answer, 403, "invalid_signature").await;
        } else {
            // Another path: another part or upload, or nothing that is there.
            assert!(matches!(status, 401 | 403 | 404 | 405), "{status} {bad}");
        }
    }
    for bad in [
        format!("{url}&download"),
        format!("{url}&"),
        format!("{url}="),
        format!("{url}A"),
        format!("{url}%41"),
        format!("{url}&{}", url.split_once('?').unwrap().1),
        url.replace("?sig=", "?x=1&sig="),
        url.replace('?', "?&"),
        url[..url.len() - 1].to_owned(),
        url[..url.rfind('.').unwrap()].to_owned(),
        format!("{}?sig=", &url[..query_at]),
        format!("{}?sig=cs1...", &url[..query_at]),
    ] {
        if bad != url {
            refused(nobody.put(&bad, b"1234").await, 403, "invalid_signature").await;
        }
    }
    assert_eq!(upload.status().await["received"], "");
    json(nobody.put(&url, b"1234").await, 200).await;
}

#[tokio::test]
async fn signed_urls_end() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let upload = Upload::begin(&server, "k", 4, value!({})).await;
    let nobody = Caller::nobody(&server);
    let part = part_url(&upload, 1, "?expires_in=1").await["url"].as_str().unwrap().to_owned();
    let file = sign(&server, value!({"method": "GET", "path": "/v1/files/default/f", "expires_in": 1})).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    refused(nobody.put(&part, b"1234").await, 410, "url_expired").await;
    refused(nobody.get(&file).await, 410, "url_expired").await;
    for bad in ["0", "-1", "604801", "x", "", "1e3"] {
        let path = format!("{}/parts/1/url?expires_in={bad}", upload.path);
        refused(server.get(&path).send().await.unwrap(), 400, "invalid_request").await;
    }
    json(server.get(&format!("{}/parts/1/url?expires_in=604800", upload.path)).send().await.unwrap(), 200)
        .await;
}

#[tokio::test]
async fn parts_to_be_signed_are_of_the_upload() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 10, value!({"part_size": 4})).await;
    for number in ["0", "4", "99999999999999999999", "x", "-1"] {
        let answer = server.get(&format!("{}/parts/{number}/url", upload.path)).send().await.unwrap();
        refused(answer, 400, "invalid_part").await;
    }
    let path = format!("{}/part-urls", upload.path);
    for parts in ["", "0", "4", "1-4", "3-1", "1,,2", "1-2-3", "x", "1-99999999999999999999"] {
        let answer = server.post(&path).json(&value!({ "parts": parts })).send().await.unwrap();
        refused(answer, 400, "invalid_part").await;
    }
    for body in [
        "",
        "{}",
        "[]",
        "{\"parts\": 1}",
        "{\"parts\": \"1\", \"more\": 1}",
        "{\"parts\": \"1\", \"expires_in\": 0}",
    ] {
        refused(server.post(&path).body(body).send().await.unwrap(), 400, "invalid_request").await;
    }
    let unknown = format!("/v1/uploads/{}", "0".repeat(32));
    refused(server.get(&format!("{unknown}/parts/1/url")).send().await.unwrap(), 404, "upload_not_found")
        .await;
    let answer = server.post(&format!("{unknown}/part-urls")).json(&value!({"parts": "1"}));
    refused(answer.send().await.unwrap(), 404, "upload_not_found").await;
    let alice = Caller::user(&server, "alice").await;
    refused(alice.get(&format!("{}/parts/1/url", upload.path)).await, 404, "upload_not_found").await;
    refused(alice.post(&path, value!({"parts": "1"})).await, 404, "upload_not_found").await;
    upload.send_all(&content(10, 1)).await;
    upload.completed().await;
    let answer = server.get(&format!("{}/parts/1/url", upload.path)).send().await.unwrap();
    refused(answer, 409, "upload_finished").await;
}

#[tokio::test]
async fn ten_thousand_parts_are_signed_at_once() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 10_000, value!({"part_size": 1})).await;
    let batch = server.post(&format!("{}/part-urls", upload.path)).json(&value!({"parts": "1-10000"}));
    let batch = json(batch.send().await.unwrap(), 200).await;
    assert_eq!(batch["urls"].as_array().unwrap().len(), 10_000);
    let last = batch["urls"][9_999]["url"].as_str().unwrap();
    json(Caller::nobody(&server).put(last, b"x").await, 200).await;
}

#[tokio::test]
async fn a_file_is_read_and_written_by_whoever_has_its_url() {
    let server = Server::start();
    let key = "dir/\u{e4} b+c%#?{}[]'.txt";
    let path = "/v1/files/default/dir/%C3%A4%20b+c%25%23%3F%7B%7D[]'.txt";
    let nobody = Caller::nobody(&server);
    let put = sign(&server, value!({"method": "PUT", "path": path})).await;
    let stored = json(nobody.put(&put, b"some bytes").await, 201).await;
    assert_eq!((&stored["key"], &stored["created_by"]), (&value!(key), &value!("root")));
    let get = sign(&server, value!({"method": "GET", "path": path, "filename": "other name.txt"})).await;
    let got = nobody.get(&get).await;
    assert_eq!(header(&got, "referrer-policy"), "no-referrer");
    assert_eq!(header(&got, "cache-control"), "private, no-store");
    assert!(header(&got, "content-disposition").starts_with("attachment; filename=\"other name.txt\""));
    assert_eq!(got.bytes().await.unwrap().as_ref(), b"some bytes");
    let part = nobody.request(Method::GET, &get).header("range", "bytes=5-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, b"bytes".as_slice()));
    let head = nobody.request(Method::HEAD, &get).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10"));
    for (method, url) in
        [(Method::PUT, &get), (Method::DELETE, &get), (Method::GET, &put), (Method::DELETE, &put)]
    {
        let answer = nobody.request(method, url).body("x").send().await.unwrap();
        refused(answer, 403, "invalid_signature").await;
    }
    let only_head = sign(&server, value!({"method": "HEAD", "path": path})).await;
    assert_eq!(nobody.request(Method::HEAD, &only_head).send().await.unwrap().status(), 200);
    refused(nobody.get(&only_head).await, 403, "invalid_signature").await;
    for more in ["&download", "&meta", "&chunks", "&filename=x", "&response-content-type=text/html"] {
        refused(nobody.get(&format!("{get}{more}")).await, 403, "invalid_signature").await;
    }
    let overridden = nobody.request(Method::GET, &get).header("x-http-method-override", "DELETE");
    assert_eq!(overridden.send().await.unwrap().status(), 200, "the method is that of the request");
    assert_eq!(fetch(&server, path).await, b"some bytes");
}

#[tokio::test]
async fn every_altered_byte_of_a_file_url_is_noticed() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let url = sign(&server, value!({"method": "GET", "path": "/v1/files/default/f"})).await;
    let nobody = Caller::nobody(&server);
    let query_at = url.find('?').unwrap();
    for bad in altered(&server, &url) {
        let answer = nobody.get(&bad).await;
        let status = answer.status().as_u16();
        if bad[..=query_at] == url[..=query_at] {
            refused(answer, 403, "invalid_signature").await;
        } else {
            assert!(matches!(status, 401 | 403 | 404 | 405), "{status} {bad}");
        }
    }
    let (path, query) = url.split_once('?').unwrap();
    for bad in [
        format!("{path}/?{query}"),
        format!("{path}%66?{query}"),
        path.replace("default/f", "default/%66") + "?" + query,
    ] {
        let status = nobody.get(&bad).await.status().as_u16();
        assert_eq!(status, 403, "another spelling of the path: {bad}");
    }
}

#[tokio::test]
async fn one_kind_of_signature_is_no_other() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let upload = Upload::begin(&server, "k", 4, value!({})).await;
    let nobody = Caller::nobody(&server);
    let part = part_url(&upload, 1, "").await["url"].as_str().unwrap().to_owned();
    let file = sign(&server, value!({"method": "PUT", "path": "/v1/files/default/f"})).await;
    let signature = |url: &str| url.split_once("?sig=").unwrap().1.to_owned();
    let swapped = format!("{}?sig={}", part.split_once('?').unwrap().0, signature(&file));
    refused(nobody.put(&swapped, b"1234").await, 403, "invalid_signature").await;
    for sealed in [signature(&part), signature(&file)] {
        let bearer = Caller::with(&server, &sealed);
        refused(bearer.get("/v1/files/default/f").await, 401, "invalid_token").await;
        let cookie =
            nobody.request(Method::GET, "/v1/files/default/f").header("cookie", format!("carrack={sealed}"));
        refused(cookie.send().await.unwrap(), 401, "invalid_token").await;
    }
}

#[tokio::test]
async fn two_kinds_of_credentials_at_once_are_refused() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let url = sign(&server, value!({"method": "GET", "path": "/v1/files/default/f"})).await;
    let answer = Caller::with(&server, TOKEN).get(&url).await;
    refused(answer, 400, "invalid_request").await;
}

#[tokio::test]
async fn what_can_be_signed_is_what_the_caller_may_do() {
    let server = Server::start();
    json(server.put("/v1/buckets/other").send().await.unwrap(), 201).await;
    store(&server, "/v1/files/other/f", b"bytes").await;
    let alice = Caller::user(&server, "alice").await;
    let wish = |method: &str, path: &str| value!({"method": method, "path": path});
    json(alice.post("/v1/sign", wish("GET", "/v1/files/default/none")).await, 200).await;
    refused(alice.post("/v1/sign", wish("GET", "/v1/files/other/f")).await, 404, "bucket_not_found").await;
    for bad in [
        "/v1/buckets/default",
        "/v1/files/default",
        "/v1/files/default/f?meta",
        "http://x/v1/files/default/f",
        "/v1/files/default/f#x",
        "/v1/files/default/%ff",
    ] {
        refused(
            server.post("/v1/sign").json(&wish("GET", bad)).send().await.unwrap(),
            400,
            "invalid_request",
        )
        .await;
    }
    for bad in [
        "/v1/files/default/",
        "/v1/files/default/a//b",
        "/v1/files/default/../x",
        "/v1/files/default/a%2F%2e%2e",
    ] {
        refused(server.post("/v1/sign").json(&wish("GET", bad)).send().await.unwrap(), 400, "invalid_key")
            .await;
    }
    for method in ["DELETE", "POST", "get", ""] {
        let answer = server.post("/v1/sign").json(&wish(method, "/v1/files/default/f")).send().await.unwrap();
        refused(answer, 400, "invalid_request").await;
    }
    for more in [
        value!({"ip": "x"}),
        value!({"filename": ""}),
        value!({"filename": "a\r\nb"}),
        value!({"expires_in": 0}),
        value!({"unknown": 1}),
    ] {
        let mut wish = wish("GET", "/v1/files/default/f");
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(server.post("/v1/sign").json(&wish).send().await.unwrap(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_url_may_be_good_from_some_addresses_only() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let nobody = Caller::nobody(&server);
    let of = async |ip: &str| {
        sign(&server, value!({"method": "GET", "path": "/v1/files/default/f", "ip": ip})).await
    };
    assert_eq!(nobody.get(&of("127.0.0.0/8").await).await.status(), 200);
    assert_eq!(nobody.get(&of("127.0.0.1").await).await.status(), 200);
    let elsewhere = of("10.0.0.0/8").await;
    refused(nobody.get(&elsewhere).await, 403, "wrong_address").await;
    let claimed = nobody.request(Method::GET, &elsewhere).header("x-forwarded-for", "10.0.0.1");
    refused(claimed.send().await.unwrap(), 403, "wrong_address").await;
    let behind = Setup::new().set("CARRACK_SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]").start();
    store(&behind, "/v1/files/default/f", b"bytes").await;
    let wish = value!({"method": "GET", "path": "/v1/files/default/f", "ip": "10.0.0.0/8"});
    let url = sign(&behind, wish).await;
    let nobody = Caller::nobody(&behind);
    let from = async |chain: &str| {
        nobody
            .request(Method::GET, &url)
            .header("x-forwarded-for", chain)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(from("10.0.0.1").await, 200);
    assert_eq!(from("10.0.0.1, 8.8.8.8").await, 403, "what the client wrote itself does not count");
    assert_eq!(from("nonsense").await, 403);
    assert_eq!(nobody.get(&url).await.status(), 403);
}

#[tokio::test]
async fn what_a_revoked_token_has_signed_ends_with_it() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let (token, id) =
        make_token(&server, value!({"subject": "alice", "role": "user", "expires_in": 60})).await;
    let alice = Caller::with(&server, &token);
    let wish = value!({"method": "GET", "path": "/v1/files/default/f", "expires_in": 604_800});
    let signed = json(alice.post("/v1/sign", wish).await, 200).await;
    let me = json(alice.get("/v1/me").await, 200).await;
    let seconds = |time: &Value| time.as_str().unwrap()[..19].to_owned();
    assert_eq!(seconds(&signed["expires_at"]), seconds(&me["expires_at"]), "no longer than the token");
    let url = signed["url"].as_str().unwrap();
    let nobody = Caller::nobody(&server);
    assert_eq!(nobody.get(url).await.status(), 200);
    assert_eq!(server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap().status(), 204);
    refused(nobody.get(url).await, 401, "invalid_token").await;
}

#[tokio::test]
async fn signatures_are_in_no_log() {
    let server = Setup::new().set("CARRACK_TELEMETRY__LOG", "trace").start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let url = sign(&server, value!({"method": "GET", "path": "/v1/files/default/f"})).await;
    let (path, query) = url.strip_prefix(&server.base).unwrap().split_once('?').unwrap();
    for query in [query.to_owned(), format!("{query}x")] {
        ask(&server, format!("GET {path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    }
    let mac = query.rsplit('.').next().unwrap();
    assert!(!server.log().contains(mac), "the log has a signature");
}

#[tokio::test]
async fn a_part_that_cannot_be_taken_is_refused_before_it_is_sent() {
    let server = Server::start();
    let upload = Upload::begin(&server, "k", 4, value!({})).await;
    let url = part_url(&upload, 1, "").await["url"].as_str().unwrap().to_owned();
    let target = url.strip_prefix(&server.base).unwrap().to_owned();
    let head = |target: &str, length: u64| {
        format!(
            "PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    ask(&server, head(&target, 5_000_000_000)).await.refused(400, "length_mismatch");
    ask(&server, head(&format!("{target}x"), 4)).await.refused(403, "invalid_signature");
    let mut wire = Wire::with(&server, head(&target, 4)).await;
    assert_eq!(wire.answer().await.unwrap().status, 100, "leave is given when nothing stands against it");
    wire.send("1234").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_rate_is_shared_by_all_connections_of_a_url() {
    let server = Server::start();
    let bytes = content(400_000, 1);
    store(&server, "/v1/files/default/f", &bytes).await;
    let wish =
        |method: &str| value!({"method": method, "path": "/v1/files/default/f", "rate_limit": 400_000});
    let url = sign(&server, wish("GET")).await;
    let link = value!({"bucket": "default", "key": "f", "expires_in": 60, "rate_limit": 400_000});
    let link = json(server.post("/v1/links").json(&link).send().await.unwrap(), 201).await;
    assert_eq!(link["rate_limit"], 400_000);
    for url in [url.as_str(), link["url"].as_str().unwrap()] {
        let nobody = Caller::nobody(&server);
        let begun = std::time::Instant::now();
        let get = async || nobody.get(url).await.bytes().await.unwrap();
        let (one, two, three, four) = tokio::join!(get(), get(), get(), get());
        assert!([one, two, three, four].iter().all(|got| *got == bytes));
        // 1.6 MB at 0.4 MB/s. How long at most is the machine's affair.
        assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let put = sign(&server, wish("PUT")).await;
    let begun = std::time::Instant::now();
    assert!(Caller::nobody(&server).put(&put, &content(1_200_000, 2)).await.status().is_success());
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    for bad in [0, 1023, u64::MAX] {
        let mut wish = wish("GET");
        wish["rate_limit"] = value!(bad);
        refused(server.post("/v1/sign").json(&wish).send().await.unwrap(), 400, "invalid_request").await;
    }
}
