//! The configurations in `deploy/` under the real nginx and the real HAProxy, with nothing changed but addresses and paths.

use crate::contract::answers::eventually;
use crate::server::{Server, Setup, TOKEN, content, tool};
use carrack_engines::{Engine, Nginx, Spec, free_port, program};
use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method, RequestBuilder};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// A proxy in front of nodes.
struct Proxy {
    port: u16,
    client: Client,
    _engine: Engine,
    _folder: TempDir,
}

/// A certificate that signed itself, and its key.
fn certificate(folder: &Path) {
    let made = tool("openssl", "openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=files.example.org", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let both =
        [std::fs::read(folder.join("cert.pem")).unwrap(), std::fs::read(folder.join("key.pem")).unwrap()];
    std::fs::write(folder.join("both.pem"), both.concat()).unwrap();
}

/// The text with each of these replaced, all of which have to be in it.
fn with(text: String, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the configuration any more");
        text.replace(from, to)
    })
}

impl Proxy {
    fn of(engine: Engine, folder: TempDir, port: u16) -> Proxy {
        let client = Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        Proxy { port, client, _engine: engine, _folder: folder }
    }

    fn start(name: &'static str, folder: TempDir, port: u16, command: Vec<OsString>) -> Proxy {
        let engine = Engine::start(Spec {
            name,
            command,
            variables: Vec::new(),
            folder: folder.path().to_owned(),
            ready: Box::new(move || {
                TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
            }),
            patience: Duration::from_secs(30),
        });
        Proxy::of(engine.unwrap_or_else(|error| panic!("{error}")), folder, port)
    }

    fn nginx(port: u16, nodes: [&str; 2]) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let at = folder.path().display().to_string();
        let text = std::fs::read_to_string(format!("{DEPLOY}/nginx/carrack.conf")).unwrap();
        let text = with(
            text,
            &[
                ("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl")),
                ("10.0.0.11:8080", nodes[0]),
                ("10.0.0.12:8080", nodes[1]),
                ("/etc/nginx/files.example.org.pem", &format!("{at}/cert.pem")),
                ("/etc/nginx/files.example.org.key", &format!("{at}/key.pem")),
            ],
        );
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let nginx = Nginx::start(folder.path(), listen, &text).unwrap_or_else(|error| panic!("{error}"));
        Proxy::of(nginx.engine, folder, port)
    }

    fn haproxy(port: u16, nodes: [&str; 2]) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let text = std::fs::read_to_string(format!("{DEPLOY}/haproxy/haproxy.cfg")).unwrap();
        let text = with(
            text,
            &[
                ("bind :443", &format!("bind 127.0.0.1:{port}")),
                ("10.0.0.11:8080", nodes[0]),
                ("10.0.0.12:8080", nodes[1]),
                ("/etc/haproxy/files.example.org.pem", folder.path().join("both.pem").to_str().unwrap()),
                // As many as a test may have.
                ("maxconn 20000", "maxconn 200"),
            ],
        );
        std::fs::write(folder.path().join("haproxy.cfg"), text).unwrap();
        let haproxy = program("haproxy", &["/usr/sbin"], "apt-get install haproxy").unwrap();
        let words = ["-db", "-f", "haproxy.cfg"].map(OsString::from);
        Proxy::start("haproxy", folder, port, [vec![haproxy.into_os_string()], words.to_vec()].concat())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("https://127.0.0.1:{}{path}", self.port)).bearer_auth(TOKEN)
    }
}

/// A node that clients reach by the proxy on this port.
fn node(port: u16) -> Server {
    let url = format!("https://127.0.0.1:{port}");
    let setup = Setup::new().set("CARRACK_SERVER__PUBLIC_URL", &url);
    setup.set("CARRACK_SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]").start()
}

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

/// Whole files, ranges, resumable uploads and WebSockets get through, although one of the two nodes is not there.
async fn everything_gets_through(proxy: &Proxy) {
    let body = content(5_000_000, 1);
    let key = "/v1/files/default/a%20b/%C3%BC.bin";
    for _ in 0..4 {
        // Not known beforehand how long it is: nobody has it whole before the node does.
        let pieces = futures_util::stream::iter(body.chunks(100_000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        let stream = reqwest::Body::wrap_stream(pieces.map(Ok::<_, std::io::Error>));
        let answer = proxy.request(Method::PUT, key).body(stream).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    for (range, expected) in [("bytes=0-", &body[..]), ("bytes=1000000-1000099", &body[1_000_000..1_000_100])]
    {
        let answer = proxy.request(Method::GET, key).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert!(answer.bytes().await.unwrap() == expected, "{range}");
    }
    let created = proxy.request(Method::POST, "/v1/tus").header("tus-resumable", "1.0.0");
    let created = created.header("upload-length", "3").send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("https://"), "it knows how clients reach it: {location}");
    let path = format!("/{}", location.splitn(4, '/').nth(3).unwrap());
    let patch =
        proxy.request(Method::PATCH, &path).header("tus-resumable", "1.0.0").header("upload-offset", "0");
    let patch =
        patch.header("content-type", "application/offset+octet-stream").body("abc").send().await.unwrap();
    assert_eq!((patch.status().as_u16(), &patch.headers()["upload-offset"]), (204, &"3".parse().unwrap()));
    socket_gets_through(proxy).await;
}

async fn socket_gets_through(proxy: &Proxy) {
    // Over TLS that reqwest has made: a WebSocket is a connection that was upgraded.
    let client =
        Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).http1_only().build().unwrap();
    let request = "ws://127.0.0.1/v1/ws".into_client_request().unwrap();
    let mut upgrade = client.get(format!("https://127.0.0.1:{}/v1/ws", proxy.port)).bearer_auth(TOKEN);
    for name in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
        upgrade = upgrade.header(name, &request.headers()[name]);
    }
    let answer = upgrade.send().await.unwrap();
    assert_eq!(answer.status(), 101);
    let io = answer.upgrade().await.unwrap();
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(io, role, None).await;
    socket.send(Message::text(r#"{"subscribe": ["transfers"]}"#)).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap().unwrap().unwrap();
    assert!(told.to_text().unwrap().contains("\"topic\":\"transfers\""), "{told:?}");
}

/// A node is stopped under small requests: none of them fails.
async fn nobody_notices_that_a_node_stops(proxy: &Proxy, mut first: Server) {
    let stopping = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_secs(2));
        first.stop();
    });
    let mut asked = 0;
    while !stopping.is_finished() || asked % 200 != 0 {
        let answer = proxy.request(Method::GET, "/v1/me").send().await.unwrap();
        assert_eq!(answer.status(), 200, "the {asked}th request");
        asked += 1;
    }
    stopping.await.unwrap();
}

#[tokio::test]
async fn nginx_brings_everything_and_skips_a_node_that_is_not_there() {
    let port = free_port().unwrap();
    let server = node(port);
    everything_gets_through(&Proxy::nginx(port, [server.address(), &nobody()])).await;
}

#[tokio::test]
async fn haproxy_brings_everything_and_skips_a_node_that_is_not_there() {
    let port = free_port().unwrap();
    let server = node(port);
    let proxy = Proxy::haproxy(port, [server.address(), &nobody()]);
    eventually("it knows who is there", async || {
        proxy.request(Method::GET, "/readyz").send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    everything_gets_through(&proxy).await;
}

/// Whoever asks where to go on while no node is there is told to ask again, in the one way in which tus-js-client
/// understands it; everybody else, that nobody is there.
async fn an_upload_waits_for_nodes(proxy: &Proxy) {
    let head = |path: &str| proxy.request(Method::HEAD, path).header("tus-resumable", "1.0.0").send();
    let upload = format!("/v1/tus/{}", "0".repeat(32));
    eventually("nobody is there", async || head("/v1/me").await.unwrap().status().is_server_error()).await;
    for _ in 0..5 {
        assert_eq!(head(&upload).await.unwrap().status(), 423);
        assert!(head("/v1/me").await.unwrap().status().is_server_error());
        let patch = proxy.request(Method::PATCH, &upload).send().await.unwrap();
        assert!(patch.status().is_server_error());
    }
}

#[tokio::test]
async fn an_upload_waits_while_nginx_finds_no_node() {
    an_upload_waits_for_nodes(&Proxy::nginx(free_port().unwrap(), [&nobody(), &nobody()])).await;
}

#[tokio::test]
async fn an_upload_waits_while_haproxy_finds_no_node() {
    an_upload_waits_for_nodes(&Proxy::haproxy(free_port().unwrap(), [&nobody(), &nobody()])).await;
}

#[tokio::test]
async fn nginx_hides_that_a_node_stops() {
    let port = free_port().unwrap();
    let (first, second) = (node(port), node(port));
    let proxy = Proxy::nginx(port, [first.address(), second.address()]);
    nobody_notices_that_a_node_stops(&proxy, first).await;
}

#[tokio::test]
async fn haproxy_hides_that_a_node_stops() {
    let port = free_port().unwrap();
    let (first, second) = (node(port), node(port));
    let proxy = Proxy::haproxy(port, [first.address(), second.address()]);
    nobody_notices_that_a_node_stops(&proxy, first).await;
}
