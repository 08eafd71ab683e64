//! `carrack cluster`: several nodes with all that they lean on, on this machine, for trying and for tests. Nothing of it outlives
//! the command.

use carrack_engines::{Engine, EngineError, Garage, Nginx, Postgres, RabbitMq, Redis, Spec, free_port};
use clap::Args;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What balances between the nodes, as it is deployed.
const BALANCER: &str = include_str!("../../../../deploy/nginx/carrack.conf");
/// How long a node may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to say that it is ready.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of what is random in the tokens that are made.
const SECRET_BYTES: usize = 24;
const NODES_MAX: u8 = 9;

/// What to start.
#[derive(Args)]
pub(crate) struct ClusterArgs {
    /// Where clients reach the nodes.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    nodes: u8,
    /// An empty folder for everything; it stays. Otherwise a temporary one, which goes.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Everything that runs. Ends from top to bottom.
struct Cluster {
    balancer: Nginx,
    nodes: Vec<Engine>,
    rabbit: RabbitMq,
    redis: Redis,
    garage: Garage,
    postgres: Postgres,
}

pub(crate) fn run(args: ClusterArgs) -> ExitCode {
    match start_and_wait(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to say that it cannot be said.
            let _unsaid = writeln!(io::stderr(), "carrack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_and_wait(args: &ClusterArgs) -> Result<(), Box<dyn std::error::Error>> {
    let (folder, _goes) = folder(args.folder.as_deref())?;
    let token = secret()?;
    writeln!(io::stderr(), "starting PostgreSQL, Redis, RabbitMQ and Garage in {} ...", folder.display())?;
    let mut cluster = Cluster::start(args, &folder, &token)?;
    cluster.describe(args, &token)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut asked, mut stopped) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! { _ = asked.recv() => {}, _ = stopped.recv() => {} }
        io::Result::Ok(())
    })?;
    writeln!(io::stderr(), "stopping")?;
    cluster.balancer.engine.stop();
    for node in &mut cluster.nodes {
        node.stop();
    }
    Ok(())
}

/// The folder, and what removes it at the end if it is to go.
fn folder(wished: Option<&Path>) -> io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let Some(wished) = wished else {
        let temporary = tempfile::Builder::new().prefix("carrack-cluster-").tempdir()?;
        // PostgreSQL runs as a user of its own when root starts it, and has to get to its folder.
        std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o711))?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    std::fs::create_dir_all(wished)?;
    if std::fs::read_dir(wished)?.next().is_some() {
        let text = format!("{} is not empty: name a folder that is, or none", wished.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    Ok((std::fs::canonicalize(wished)?, None))
}

/// Something that nobody can guess, in hexadecimal.
fn secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Cluster {
    fn start(args: &ClusterArgs, folder: &Path, token: &str) -> Result<Cluster, Box<dyn std::error::Error>> {
        let own = |name: &str| -> io::Result<PathBuf> {
            let own = folder.join(name);
            std::fs::create_dir(&own)?;
            Ok(own)
        };
        let (at_postgres, at_redis) = (own("postgres")?, own("redis")?);
        let (at_rabbit, at_garage) = (own("rabbitmq")?, own("garage")?);
        // The slowest one takes some seconds: all at once.
        let (postgres, redis, rabbit, garage) = std::thread::scope(|scope| {
            let postgres = scope.spawn(|| Postgres::start(&at_postgres));
            let rabbit = scope.spawn(|| RabbitMq::start(&at_rabbit));
            let garage = scope.spawn(|| Garage::start_cluster(&at_garage, 3));
            let redis = Redis::start(&at_redis, None);
            (joined(postgres), redis, joined(rabbit), joined(garage))
        });
        let (postgres, redis, rabbit, garage) = (postgres?, redis?, rabbit?, garage?);
        let shared = shared(args, token, &postgres, &redis, &rabbit, &garage)?;
        let mut nodes = Vec::new();
        let mut ports = Vec::new();
        for number in 1..=args.nodes {
            let port = free_port()?;
            let more = [
                ("CARRACK_CLUSTER__NODE_ID".to_owned(), format!("node-{number}")),
                // Any of Garage's nodes has everything.
                ("CARRACK_STORAGE__S3__ENDPOINT".to_owned(), garage.endpoint(usize::from(number) % 3)),
            ];
            let variables = shared.iter().cloned().chain(more);
            nodes.push(Engine::start(Spec {
                name: NAMES[usize::from(number - 1)],
                command: node_command(port)?,
                variables: variables.map(|(name, value)| (name.into(), value.into())).collect(),
                folder: own(&format!("node-{number}"))?,
                ready: Box::new(move || is_ready(port)),
                patience: PATIENCE,
            })?);
            ports.push(port);
        }
        let balancer = Nginx::start(&own("nginx")?, args.listen, &balancer(args.listen, &ports)?)?;
        Ok(Cluster { balancer, nodes, rabbit, redis, garage, postgres })
    }

    /// What is where.
    fn describe(&self, args: &ClusterArgs, token: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "url         http://{}", args.listen)?;
        writeln!(out, "token       {token}")?;
        writeln!(out, "PostgreSQL  {}", self.postgres.url("carrack"))?;
        writeln!(out, "Redis       {}", self.redis.url())?;
        writeln!(out, "RabbitMQ    {}", self.rabbit.url())?;
        writeln!(out, "Garage      {}", self.garage.endpoint(0))?;
        for node in &self.nodes {
            let group = node.group().map(|group| format!("kill -9 -- -{group}")).unwrap_or_default();
            writeln!(out, "node        {}   (a crash: {group})", node.folder().display())?;
        }
        writeln!(
            out,
            "\nCARRACK_URL=http://{} CARRACK_TOKEN={token} carrack put FILE default/",
            args.listen
        )?;
        out.flush()
    }
}

/// Names of nodes in messages and of their logs.
const NAMES: [&str; NODES_MAX as usize] =
    ["node-1", "node-2", "node-3", "node-4", "node-5", "node-6", "node-7", "node-8", "node-9"];

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, EngineError>>) -> Result<T, EngineError> {
    // A panic there is one of ours, and goes on here.
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn node_command(port: u16) -> io::Result<Vec<OsString>> {
    let own = std::env::current_exe()?.into_os_string();
    let words = ["serve", "--listen", &format!("127.0.0.1:{port}"), "--data", "data"].map(OsString::from);
    Ok([vec![own], words.to_vec()].concat())
}

/// The settings that all nodes have.
fn shared(
    args: &ClusterArgs,
    token: &str,
    postgres: &Postgres,
    redis: &Redis,
    rabbit: &RabbitMq,
    garage: &Garage,
) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
    let keys = format!("[{{kid=\"cluster\",secret=\"{}\"}}]", secret()?);
    let settings = [
        ("ROOT_TOKEN", token.to_owned()),
        ("AUTH__KEYS", keys),
        ("SERVER__PUBLIC_URL", format!("http://{}", args.listen)),
        ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]".to_owned()),
        ("CATALOG__URL", postgres.database("carrack")?),
        ("STATE__URL", redis.url()),
        ("EVENTS__AMQP_URL", rabbit.url()),
        ("STORAGE__KIND", "s3".to_owned()),
        ("STORAGE__S3__REGION", garage.region().to_owned()),
        ("STORAGE__S3__BUCKET", garage.bucket().to_owned()),
        ("STORAGE__S3__ACCESS_KEY_ID", garage.access_key_id().to_owned()),
        ("STORAGE__S3__SECRET_ACCESS_KEY", garage.secret_access_key().to_owned()),
        ("STORAGE__S3__PATH_STYLE", "true".to_owned()),
    ];
    Ok(settings.map(|(name, value)| (format!("CARRACK_{name}"), value)).to_vec())
}

/// Whether the node on this port says that it is ready.
fn is_ready(port: u16) -> Result<(), String> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(answer.lines().next().unwrap_or("").to_owned())
    }
}

/// The deployed configuration, without TLS and with these nodes.
fn balancer(listen: SocketAddr, ports: &[u16]) -> Result<String, String> {
    let mut text = String::new();
    let mut places = 0;
    for line in BALANCER.lines() {
        let words = line.trim_start();
        if words.starts_with("listen ") {
            text.push_str(&format!("listen {listen};\n"));
            places += 1;
        } else if words.starts_with("server 10.0.0.11") {
            for port in ports {
                text.push_str(&format!("server 127.0.0.1:{port} max_fails=1 fail_timeout=5s;\n"));
            }
            places += 1;
        } else if !words.starts_with("server 10.") && !words.starts_with("ssl_") {
            text.push_str(line);
            text.push('\n');
        }
    }
    if places == 2 { Ok(text) } else { Err("deploy/nginx/carrack.conf is not as it was".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployed_configuration_is_taken_with_other_addresses() {
        let text = balancer("127.0.0.1:9".parse().unwrap(), &[1, 2, 3]).unwrap();
        assert!(text.contains("listen 127.0.0.1:9;") && !text.contains("ssl_"));
        assert!(!text.contains("10.0.0.") && text.matches("server 127.0.0.1:").count() == 3);
    }

    #[test]
    fn a_folder_that_is_in_use_is_left_alone() {
        let taken = tempfile::tempdir().unwrap();
        std::fs::write(taken.path().join("x"), "x").unwrap();
        assert!(folder(Some(taken.path())).is_err());
        let (fresh, goes) = folder(Some(&taken.path().join("new"))).unwrap();
        assert!(goes.is_none() && fresh.is_dir());
    }
}
