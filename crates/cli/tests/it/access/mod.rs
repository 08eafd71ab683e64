//! Who may do what, from outside: signed URLs, tokens, sessions, policies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, which clippy does not see in an integration test"
)]

mod denied;
mod instant;
mod issuers;
pub(crate) mod jwt;
mod keys;
mod links;
mod policies;
mod sessions;
mod shared;
mod signed;
mod tokens;

use crate::contract::answers::json;
use crate::server::Server;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json as value};

/// Somebody who calls with their own credentials, or none.
pub(crate) struct Caller<'a> {
    server: &'a Server,
    client: Client,
    token: Option<String>,
}

impl<'a> Caller<'a> {
    /// Nobody in particular.
    pub(crate) fn nobody(server: &'a Server) -> Caller<'a> {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Caller { server, client: client.build().unwrap(), token: None }
    }

    /// Somebody with this token.
    pub(crate) fn with(server: &'a Server, token: &str) -> Caller<'a> {
        Caller { token: Some(token.to_owned()), ..Caller::nobody(server) }
    }

    /// A user of this name, whom the administrator gave a token.
    pub(crate) async fn user(server: &'a Server, name: &str) -> Caller<'a> {
        Caller::with(server, &make_token(server, value!({"subject": name, "role": "user"})).await.0)
    }

    /// Whom they call.
    pub(crate) fn server(&self) -> &'a Server {
        self.server
    }

    /// A request to a path, or to a URL.
    pub(crate) fn request(&self, method: Method, target: &str) -> RequestBuilder {
        let url = if target.starts_with('/') { self.server.url(target) } else { target.to_owned() };
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Response {
        self.request(Method::GET, target).send().await.unwrap()
    }

    pub(crate) async fn put(&self, target: &str, body: &[u8]) -> Response {
        self.request(Method::PUT, target).body(body.to_vec()).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, target: &str) -> Response {
        self.request(Method::DELETE, target).send().await.unwrap()
    }

    pub(crate) async fn post(&self, target: &str, body: Value) -> Response {
        self.request(Method::POST, target).json(&body).send().await.unwrap()
    }
}

/// Makes a token; it and its id.
pub(crate) async fn make_token(server: &Server, wish: Value) -> (String, String) {
    let made = json(server.post("/v1/tokens").json(&wish).send().await.unwrap(), 201).await;
    (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

/// A URL with one byte changed, at each place but those of scheme and host.
pub(crate) fn altered(server: &Server, url: &str) -> Vec<String> {
    let from = server.base.len() + 1;
    let mut all = Vec::new();
    for at in from..url.len() {
        for flip in [1, 2, 4, 8, 16, 32] {
            let mut bytes = url.as_bytes().to_vec();
            bytes[at] ^= flip;
            // What no client would send, or would not send as it is, proves nothing.
            if bytes[at].is_ascii_alphanumeric() || b"-_.=&~".contains(&bytes[at]) {
                all.push(String::from_utf8(bytes).unwrap());
            }
        }
    }
    all
}
