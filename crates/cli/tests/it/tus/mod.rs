//! tus 1.0 against the real binary: the conformance suite, clients in the field over a bad network, and what only shows
//! beside the protocol.

mod clients;
mod conformance;
mod crash;
mod pieces;
pub(crate) mod proxy;
mod takeover;

use crate::server::Server;
use reqwest::{Method, RequestBuilder, Response};

/// `Upload-Metadata` that names a key.
pub(crate) fn key(key: &str) -> String {
    format!("key {}", base64(key.as_bytes()))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, place: u32| char::from(DIGITS[(group >> (18 - 6 * place) & 63) as usize]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let digits = chunk.len() as u32 + 1;
        text.extend((0..4).map(|place| if place < digits { digit(group, place) } else { '=' }));
    }
    text
}

/// A request in the protocol's terms; `url` is absolute or a path.
pub(crate) fn tus(server: &Server, method: Method, url: &str) -> RequestBuilder {
    let path = url.strip_prefix(&server.base).unwrap_or(url);
    server.request(method, path).header("Tus-Resumable", "1.0.0")
}

/// Begins an upload; its URL.
pub(crate) async fn create(server: &Server, fields: &[(&str, &str)]) -> String {
    let mut request = tus(server, Method::POST, "/v1/tus");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    location(request.send().await.unwrap()).await
}

pub(crate) async fn location(answer: Response) -> String {
    let status = answer.status();
    let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(status, 201, "{}", answer.text().await.unwrap());
    location.unwrap()
}

pub(crate) fn patch(server: &Server, url: &str, offset: usize, bytes: &[u8]) -> RequestBuilder {
    tus(server, Method::PATCH, url)
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream")
        .body(bytes.to_vec())
}

/// `Upload-Offset` of HEAD; `None` when there is none, the status when it fails.
pub(crate) async fn offset(server: &Server, url: &str) -> Result<Option<usize>, u16> {
    let answer = tus(server, Method::HEAD, url).send().await.unwrap();
    if !answer.status().is_success() {
        return Err(answer.status().as_u16());
    }
    Ok(answer.headers().get("upload-offset").map(|value| value.to_str().unwrap().parse().unwrap()))
}

/// A partial upload with all its bytes.
pub(crate) async fn partial(server: &Server, bytes: &[u8]) -> String {
    let length = bytes.len().to_string();
    let url = create(server, &[("Upload-Concat", "partial"), ("Upload-Length", &length)]).await;
    assert_eq!(patch(server, &url, 0, bytes).send().await.unwrap().status(), 204);
    url
}

/// Asks for partial uploads to be joined under a key.
pub(crate) fn join(server: &Server, urls: &[String], name: &str) -> RequestBuilder {
    tus(server, Method::POST, "/v1/tus")
        .header("Upload-Concat", format!("final;{}", urls.join(" ")))
        .header("Upload-Metadata", key(name))
}

#[test]
fn base64_is_padded() {
    for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}
