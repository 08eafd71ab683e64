//! Two nodes behind nginx on PostgreSQL, Redis and Garage, each of which can be killed and started again.

use crate::server::{TOKEN, without_variables};
use carrack_engines::{Engine, Garage, Nginx, Postgres, Redis, Spec, free_port};
use reqwest::{Client, Method, RequestBuilder, Response, redirect};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long something may take that another node goes on with, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What ordinary clients wait before they try again.
const PAUSE: Duration = Duration::from_millis(100);
/// What balances between the nodes, as it is deployed.
const BALANCER: &str = include_str!("../../../../../../deploy/nginx/carrack.conf");

/// A node on a port of its own.
pub(super) struct Node {
    engine: Mutex<Engine>,
    pub(super) base: String,
}

impl Node {
    fn start(name: &'static str, folder: &Path, variables: &[(String, String)]) -> Node {
        let port = free_port().unwrap();
        let own = folder.join(name);
        std::fs::create_dir(&own).unwrap();
        let listen = format!("127.0.0.1:{port}");
        let mut command = vec![OsString::from("env")];
        // What whoever runs the tests has set is not the nodes'.
        for (variable, _) in without_variables("carrack").get_envs() {
            command.extend([OsString::from("-u"), variable.to_owned()]);
        }
        let own_name = ("CARRACK_CLUSTER__NODE_ID".to_owned(), name.to_owned());
        let set = variables.iter().chain([&own_name]).map(|(name, value)| format!("{name}={value}").into());
        command.extend(set);
        let words = [env!("CARGO_BIN_EXE_carrack"), "serve", "--listen", &listen, "--data", "data"];
        command.extend(words.map(OsString::from));
        let engine = Engine::start(Spec {
            name,
            command,
            variables: Vec::new(),
            folder: own,
            ready: Box::new(move || is_ready(port).map_err(|error| error.to_string())),
            patience: PATIENCE,
        });
        let engine = Mutex::new(engine.unwrap_or_else(|error| panic!("{error}")));
        Node { engine, base: format!("http://{listen}") }
    }

    /// kill -9.
    pub(super) fn kill(&self) {
        self.engine.lock().unwrap().kill();
    }

    /// SIGTERM; how long it took to end.
    pub(super) fn stop(&self) -> Duration {
        let begun = Instant::now();
        self.engine.lock().unwrap().stop();
        begun.elapsed()
    }

    /// Starts it again on its port, as whoever watches over processes does: until it runs. What was killed may take a moment
    /// to let go of its folder.
    pub(super) fn start_again(&self) {
        let begun = Instant::now();
        let mut engine = self.engine.lock().unwrap();
        while let Err(error) = engine.start_again() {
            let log = std::fs::read_to_string(engine.log()).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{error}: {log}");
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether the node on this port says so itself; that it takes connections it may do while it dies.
fn is_ready(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(answer)) }
}

/// Everything. Ends from top to bottom.
pub(super) struct Ground {
    _balancer: Nginx,
    pub(super) nodes: [Arc<Node>; 2],
    _redis: Redis,
    _garage: Garage,
    _postgres: Postgres,
    /// Where clients reach the nodes.
    pub(super) base: String,
    pub(super) client: Client,
    folder: TempDir,
}

fn balancer(listen: SocketAddr, nodes: &[Arc<Node>; 2]) -> String {
    let address = |index: usize| nodes[index].base.trim_start_matches("http://");
    let without_tls = BALANCER.lines().filter(|line| !line.trim_start().starts_with("ssl_"));
    let text = without_tls.collect::<Vec<_>>().join("\n");
    let replaced = [
        ("listen 443 ssl", format!("listen {listen}")),
        ("10.0.0.11:8080", address(0).to_owned()),
        ("10.0.0.12:8080", address(1).to_owned()),
    ];
    replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the configuration any more");
        text.replace(from, to)
    })
}

impl Ground {
    pub(super) fn start(more: &[(&str, &str)]) -> Ground {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL runs as a user of its own when root starts it, and has to get to its folder.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let own = |name: &str| {
            let own = folder.path().join(name);
            std::fs::create_dir(&own).unwrap();
            own
        };
        let postgres = Postgres::start(&own("postgres")).unwrap();
        let garage = Garage::start(&own("garage")).unwrap();
        let redis = Redis::start(&own("redis"), None).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let base = format!("http://{listen}");
        let settings = [
            ("ROOT_TOKEN", TOKEN),
            ("AUTH__KEYS", &format!("[{{kid=\"one\",secret=\"{}\"}}]", "5a".repeat(32))),
            ("SERVER__PUBLIC_URL", &base),
            ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
            ("CATALOG__URL", &postgres.database("carrack").unwrap()),
            ("STATE__URL", &redis.url()),
            ("STORAGE__KIND", "s3"),
            ("STORAGE__S3__ENDPOINT", &garage.endpoint(0)),
            ("STORAGE__S3__REGION", garage.region()),
            ("STORAGE__S3__BUCKET", garage.bucket()),
            ("STORAGE__S3__ACCESS_KEY_ID", garage.access_key_id()),
            ("STORAGE__S3__SECRET_ACCESS_KEY", garage.secret_access_key()),
            ("STORAGE__S3__PATH_STYLE", "true"),
        ];
        let variables: Vec<(String, String)> = settings
            .iter()
            .chain(more)
            .map(|(name, value)| (format!("CARRACK_{name}"), (*value).to_owned()))
            .collect();
        let nodes = ["node-1", "node-2"].map(|name| Arc::new(Node::start(name, folder.path(), &variables)));
        let balancer = Nginx::start(&own("nginx"), listen, &balancer(listen, &nodes));
        let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap();
        Ground {
            _balancer: balancer,
            nodes,
            _redis: redis,
            _garage: garage,
            _postgres: postgres,
            base,
            client,
            folder,
        }
    }

    /// A folder for clients.
    pub(super) fn folder(&self, name: &str) -> std::path::PathBuf {
        let own = self.folder.path().join(name);
        std::fs::create_dir(&own).unwrap();
        own
    }

    /// As the administrator, by the balancer.
    pub(super) fn root(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN)
    }

    /// As the administrator, at one of the nodes.
    pub(super) fn at(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.nodes[node].base)).bearer_auth(TOKEN)
    }
}

/// Asks until the answer is not the servers' fault, as an ordinary client does; and how often it had to be asked again.
pub(super) async fn ask(request: impl Fn() -> RequestBuilder) -> (Response, u64) {
    let begun = Instant::now();
    let mut again = 0;
    loop {
        let said = match request().timeout(PATIENCE).send().await {
            Ok(answer) if !answer.status().is_server_error() => return (answer, again),
            Ok(answer) => format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
            Err(error) => format!("{error:?}"),
        };
        assert!(begun.elapsed() < PATIENCE, "{said}");
        again += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
