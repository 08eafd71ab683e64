//! What is in `deploy/` for Kubernetes and Docker, held against the real binary: it starts with exactly those settings, with
//! nothing changed but where the engines are and their passwords, and answers what the probes ask.

use crate::server::{Server, Setup, TOKEN, content, tool};
use carrack_engines::{Engine, Nginx, Postgres, RabbitMq, Redis, Spec, free_port, program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

fn text(path: &str) -> String {
    std::fs::read_to_string(format!("{DEPLOY}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    let convert = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = tool("/usr/bin/python3", "python3-yaml")
        .args(["-c", convert])
        .arg(format!("{DEPLOY}/{path}"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "apt-get install python3-yaml? {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn only(path: &str) -> Value {
    let mut all = yaml(path);
    assert_eq!(all.len(), 1, "{path}");
    all.remove(0)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A map of texts.
fn texts(value: &Value) -> BTreeMap<String, String> {
    value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), string(value))).collect()
}

/// All that a node leans on; the S3 server as the Compose file has it, with the secrets of [`secrets`].
struct Engines {
    postgres: Postgres,
    redis: Redis,
    rabbit: RabbitMq,
    s3_port: u16,
    _garage: Engine,
    _folder: TempDir,
}

impl Engines {
    /// With an empty database of this name.
    fn start(database: &str) -> Engines {
        let folder = TempDir::new().unwrap();
        // Whoever the engines run as must find their way.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let postgres = Postgres::start(&make("postgres")).unwrap();
        postgres.database(database).unwrap();
        let redis = Redis::start(&make("redis"), None).unwrap();
        let rabbit = RabbitMq::start(&make("rabbitmq")).unwrap();
        let (s3_port, garage) = garage(&make("garage"));
        Engines { postgres, redis, rabbit, s3_port, _garage: garage, _folder: folder }
    }

    /// Puts in where they are; each of these has to be among the variables, or in the settings file.
    fn place(&self, database: &str, variables: &mut BTreeMap<String, String>, settings: Option<&mut String>) {
        for (name, value) in [
            ("CARRACK_CATALOG__URL", self.postgres.url(database)),
            ("CARRACK_STATE__URL", self.redis.url()),
            ("CARRACK_EVENTS__AMQP_URL", self.rabbit.url()),
        ] {
            let found = variables.get_mut(name).unwrap_or_else(|| panic!("{name} is set nowhere"));
            *found = value;
        }
        let (there, here) = ("http://garage:3900", format!("http://127.0.0.1:{}", self.s3_port));
        let text = settings.unwrap_or_else(|| variables.get_mut("CARRACK_STORAGE__S3__ENDPOINT").unwrap());
        assert!(text.contains(there), "{text}");
        *text = text.replace(there, &here);
    }
}

/// Garage by the command, the variables and the file of the Compose file; its port.
fn garage(folder: &Path) -> (u16, Engine) {
    let service = &only("compose/compose.yaml")["services"]["garage"];
    let words: Vec<String> = service["command"].as_array().unwrap().iter().map(string).collect();
    assert_eq!(words[0], "/garage");
    let (s3, rpc) = (free_port().unwrap(), free_port().unwrap());
    let mut config = text("compose/garage.toml");
    for (from, to) in [
        ("/var/lib/garage", folder.display().to_string()),
        ("[::]:3900", format!("127.0.0.1:{s3}")),
        ("[::]:3901", format!("127.0.0.1:{rpc}")),
    ] {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, &to);
    }
    std::fs::write(folder.join("garage.toml"), config).unwrap();
    let program = program("garage", &["/usr/local/bin"], "cargo install garage --locked").unwrap();
    let mut command = vec![program.into_os_string(), "-c".into(), "garage.toml".into()];
    command.extend(words[1..].iter().map(OsString::from));
    let variables = texts(&service["environment"]);
    let variables =
        variables.into_iter().map(|(name, value)| (name.into(), filled_in(&value, &secrets()).into()));
    let engine = Engine::start(Spec {
        name: "garage",
        command,
        variables: variables.collect(),
        folder: folder.to_owned(),
        ready: Box::new(move || {
            TcpStream::connect(("127.0.0.1", s3)).map(drop).map_err(|error| error.to_string())
        }),
        patience: Duration::from_secs(30),
    });
    (s3, engine.unwrap_or_else(|error| panic!("{error}")))
}

/// The variables of `example.env`, filled in as it says.
fn secrets() -> BTreeMap<String, String> {
    let example = text("compose/example.env");
    let lines = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let hex = "0123456789abcdef".repeat(4);
    let fill = |line: &str| {
        let name = line.strip_suffix('=').unwrap_or_else(|| panic!("{line} has a value"));
        let value = match name {
            "CARRACK_ROOT_TOKEN" => TOKEN.to_owned(),
            "GARAGE_ACCESS_KEY_ID" => format!("GK{}", &hex[..24]),
            _ => hex.clone(),
        };
        (name.to_owned(), value)
    };
    lines.map(fill).collect()
}

async fn assert_serves(server: &Server, probes: &[String]) {
    for path in probes {
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(server.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    let bytes = content(300_000, 1);
    let put = server.put("/v1/files/default/f").body(bytes.clone()).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    let got = server.get("/v1/files/default/f").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == bytes);
}

fn start(setup: Setup, variables: &BTreeMap<String, String>) -> Server {
    variables
        .iter()
        .filter(|(name, _)| *name != "CARRACK_ROOT_TOKEN")
        .fold(setup, |setup, (name, value)| setup.set(name, value))
        .start()
}

fn seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().unwrap()
}

/// A setting that stands in a line of its own.
fn line_of<'t>(settings: &'t str, name: &str) -> &'t str {
    let lines = settings.lines().map(str::trim);
    let found = lines.filter_map(|line| line.strip_prefix(name)?.trim().strip_prefix('=')).next();
    found.unwrap_or_else(|| panic!("{name} is not set")).trim().trim_matches('"')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_kubernetes_starts_with_its_settings() {
    let deployment = only("kubernetes/deployment.yaml");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["args"], serde_json::json!(["serve"]));
    let mut variables = texts(&only("kubernetes/secret.yaml")["stringData"]);
    assert_eq!(container["envFrom"], serde_json::json!([{"secretRef": {"name": "carrack"}}]));
    let config = only("kubernetes/configmap.yaml");
    let mut settings = string(&config["data"]["carrack.toml"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("carrack.toml");
    for variable in container["env"].as_array().unwrap() {
        let name = string(&variable["name"]);
        let value = match variable["value"].as_str() {
            // Where the ConfigMap is mounted.
            Some("/etc/carrack/carrack.toml") => file.to_str().unwrap().to_owned(),
            Some(value) => value.to_owned(),
            None => {
                assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
                "carrack-7c9d5b8f6-x2x7p".to_owned()
            }
        };
        variables.insert(name, value);
    }
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/etc/carrack"));
    assert!(mounts.iter().any(|mount| mount["mountPath"] == line_of(&settings, "data")));

    let engines = Engines::start("carrack");
    engines.place("carrack", &mut variables, Some(&mut settings));
    for (name, secret) in [
        ("CARRACK_STORAGE__S3__ACCESS_KEY_ID", "GARAGE_ACCESS_KEY_ID"),
        ("CARRACK_STORAGE__S3__SECRET_ACCESS_KEY", "GARAGE_SECRET_ACCESS_KEY"),
    ] {
        assert!(variables.insert(name.to_owned(), secrets()[secret].clone()).is_some(), "{name}");
    }
    std::fs::write(&file, &settings).unwrap();
    let server = start(Setup::new(), &variables);
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
    let paths: Vec<String> =
        probes.iter().map(|probe| string(&container[probe]["httpGet"]["path"])).collect();
    assert_eq!(paths, ["/livez", "/livez", "/readyz"]);
    assert_serves(&server, &paths).await;
    let metrics = &deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"];
    assert_eq!(server.get(metrics.as_str().unwrap()).send().await.unwrap().status(), 200);
}

#[test]
fn a_pod_of_kubernetes_ends_in_order_and_is_found() {
    let deployment = only("kubernetes/deployment.yaml");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // Before SIGTERM comes a pause, by a program of the image's base; then the server drains, and tidies up for ten seconds.
    let pause = &container["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(pause[0], "sleep");
    let started = std::time::Instant::now();
    let slept = tool("sleep", "coreutils").arg(string(&pause[1])).status().unwrap();
    assert!(slept.success() && started.elapsed() >= Duration::from_secs(2));
    let settings = string(&only("kubernetes/configmap.yaml")["data"]["carrack.toml"]);
    let drain = seconds(line_of(&settings, "shutdown_grace"));
    let all = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(all >= seconds(pause[1].as_str().unwrap()) + drain + 10, "{all} s are too short");
    // The Service would add variables that are no settings.
    assert_eq!(pod["enableServiceLinks"], false);
    let refused = Setup::new().set("CARRACK_PORT", "tcp://10.0.0.1:80").refused();
    assert!(refused.contains("port"), "{refused}");

    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&only("kubernetes/service.yaml")["spec"]["selector"], labels);
    for path in ["deployment", "pdb"] {
        assert_eq!(
            &only(&format!("kubernetes/{path}.yaml"))["spec"]["selector"]["matchLabels"],
            labels,
            "{path}"
        );
    }
    assert_eq!(&only("kubernetes/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(only("kubernetes/hpa.yaml")["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    assert!(deployment["spec"].get("replicas").is_none(), "the autoscaler's");
    let listed = only("kubernetes/kustomization.yaml");
    let mut listed: Vec<String> = listed["resources"].as_array().unwrap().iter().map(string).collect();
    listed.push("kustomization.yaml".to_owned());
    listed.sort();
    let folder = std::fs::read_dir(format!("{DEPLOY}/kubernetes")).unwrap();
    let mut there: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(listed, there);
}

/// `${NAME}`, `${NAME:?why}` and `${NAME:-else}`, as Compose fills them in.
fn filled_in(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        let (name, otherwise) = name.split_once(':').unwrap_or((name, "?"));
        let value = match (variables.get(name), otherwise.strip_prefix('-')) {
            (Some(value), _) => value.clone(),
            (None, Some(otherwise)) => otherwise.to_owned(),
            (None, None) => panic!("example.env has no {name}"),
        };
        filled += &value;
        filled += rest;
    }
    filled.replace("$$", "$")
}

/// What `HEALTHCHECK` of the image runs.
fn health_check() -> Vec<String> {
    let dockerfile = text("docker/Dockerfile");
    let words = dockerfile.lines().find_map(|line| line.trim().strip_prefix("CMD [\"bash\"")).unwrap();
    serde_json::from_str(&format!("[\"bash\"{words}")).unwrap()
}

fn is_healthy(address: &str) -> bool {
    let words = health_check();
    assert!(words[2].contains("127.0.0.1/8080"), "{words:?}");
    let script = words[2].replace("127.0.0.1/8080", &address.replace(':', "/"));
    tool(&words[0], "bash")
        .args([&words[1], &script])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_compose_start_with_their_settings_behind_its_nginx() {
    let compose = only("compose/compose.yaml");
    let secrets = secrets();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        // Every variable that is named has to be one of the example's.
        filled_in(&service.to_string(), &secrets);
        for needed in service["depends_on"].as_object().into_iter().flat_map(|needed| needed.keys()) {
            assert!(services.contains_key(needed), "{name} needs {needed}");
        }
    }
    let engines = Engines::start("carrack");
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2"] {
        let mut variables = texts(&services[name]["environment"]);
        for value in variables.values_mut() {
            *value = filled_in(value, &secrets);
        }
        engines.place("carrack", &mut variables, None);
        nodes.push(start(Setup::new(), &variables));
    }
    assert_serves(&nodes[0], &["/livez".to_owned(), "/readyz".to_owned()]).await;
    assert!(is_healthy(nodes[0].address()));

    let port = free_port().unwrap();
    let mut config = text("compose/nginx.conf");
    for (from, to) in [
        ("listen 80;", format!("listen 127.0.0.1:{port};")),
        ("node-1:8080", nodes[0].address().to_owned()),
        ("node-2:8080", nodes[1].address().to_owned()),
    ] {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, &to);
    }
    let folder = TempDir::new().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let _nginx = Nginx::start(folder.path(), listen, &config).unwrap_or_else(|error| panic!("{error}"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..4 {
        let got = client.get(format!("http://127.0.0.1:{port}/v1/files/default/f")).bearer_auth(TOKEN);
        assert!(got.send().await.unwrap().bytes().await.unwrap() == content(300_000, 1));
    }
    let address = nodes[0].address().to_owned();
    nodes[0].stop();
    assert!(!is_healthy(&address), "a node that has ended is not healthy");
}

/// The image is built as the workspace is, and runs as nobody.
#[test]
fn the_image_is_of_this_workspace() {
    let dockerfile = text("docker/Dockerfile");
    let manifest = std::fs::read_to_string(Path::new(DEPLOY).join("../Cargo.toml")).unwrap();
    let version = line_of(&manifest, "rust-version");
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "Rust {version}");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let pod = &only("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(user, format!("{}:{}", pod["runAsUser"], pod["runAsGroup"]));
    assert!(user != "0:0");
}
