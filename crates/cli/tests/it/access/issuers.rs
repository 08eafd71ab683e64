//! Issuers whose keys are at a URL.

use super::Caller;
use super::jwt::{claims, jwk, openssl, rs256};
use crate::contract::answers::{json, refused};
use crate::server::{Server, Setup};
use serde_json::{Value, json as value};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Keys are asked for again no sooner than this, as the documentation says.
const PAUSE: Duration = Duration::from_secs(30);

/// Somebody who signs tokens, and a small web server with their keys.
pub(super) struct Issuer {
    folder: TempDir,
    address: String,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    /// The web server, which ends with this.
    _tasks: JoinSet<()>,
}

impl Issuer {
    pub(super) async fn start() -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (set, asked) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let (served, counted) = (set.clone(), asked.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                assert!(socket.read(&mut request).await.unwrap() > 0);
                counted.fetch_add(1, Ordering::SeqCst);
                let body = served.lock().unwrap().clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                socket.write_all(head.as_bytes()).await.unwrap();
                socket.write_all(body.as_bytes()).await.unwrap();
            }
        });
        Issuer { folder: tempfile::tempdir().unwrap(), address, set, asked, _tasks: tasks }
    }

    fn key(&self, kid: &str) -> PathBuf {
        self.folder.path().join(kid)
    }

    /// Makes a key, and publishes it and no other.
    pub(super) fn publish(&self, kid: &str) {
        let key = self.key(kid);
        openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"], b"");
        *self.set.lock().unwrap() = value!({"keys": [jwk(&key, kid)]}).to_string();
    }

    pub(super) fn sign(&self, kid: &str, more: Value) -> String {
        rs256(&self.key(kid), kid, &claims(more))
    }

    /// A server that believes them.
    pub(super) fn server(&self) -> Setup {
        let url = format!("http://{}/keys", self.address);
        let setting = format!("[{{issuer=\"https://id.example\",audience=\"carrack\",url={url:?}}}]");
        Setup::new().set("CARRACK_AUTH__JWKS", &setting)
    }
}

async fn status(server: &Server, token: &str) -> u16 {
    Caller::with(server, token).get("/v1/me").await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_at_a_url_are_kept_asked_for_rarely_and_followed_when_they_change() {
    let issuer = Issuer::start().await;
    issuer.publish("old");
    let server = issuer.server().start();
    let old = issuer.sign("old", value!({}));
    let asked = || issuer.asked.load(Ordering::SeqCst);
    let mut together = JoinSet::new();
    for number in 0..20 {
        let token = issuer.sign("old", value!({"sub": format!("user-{number}")}));
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request.get(server.url("/v1/me")).bearer_auth(token);
        together.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    let begun = Instant::now();
    assert_eq!(together.join_all().await, [200; 20]);
    assert_eq!(asked(), 1, "all of them waited for one answer");
    issuer.publish("new");
    let new = issuer.sign("new", value!({}));
    let mut refusals = 0;
    while status(&server, &new).await == 401 {
        refusals += 1;
        assert!(begun.elapsed() < 3 * PAUSE, "the new key is never asked for");
        assert!(asked() <= 1 + usize::from(begun.elapsed() >= PAUSE), "whatever tokens come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(refusals > 0 && begun.elapsed() >= PAUSE - Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(asked(), 2);
    refused(Caller::with(&server, &old).get("/v1/me").await, 401, "invalid_token").await;
    assert_eq!(json(Caller::with(&server, &new).get("/v1/me").await, 200).await["subject"], "alice");
}
