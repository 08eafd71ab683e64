//! Garage, an S3 server of one small program (<https://garagehq.deuxfleurs.fr>): one node, or several that keep copies of
//! each other's data.

use crate::engine::{Engine, EngineError, Spec, free_port, program};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How it is installed: there are no packages.
const REMEDY: &str = "cargo install garage --locked --version 2.5.0";
/// How long one has to start, and a cluster to find together.
const PATIENCE: Duration = Duration::from_secs(30);
/// The key that is made: whoever can reach the port, on this machine alone, is welcome.
const KEY_ID: &str = "GK31c2f218a2e44f485b94239e";
const SECRET: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";
const RPC_SECRET: &str = "1799bccfd7411eddcf9ebd316bc1f5287ad12a68094e1c6ac6abde7e6feae1ec";
const ADMIN_TOKEN: &str = "of-this-machine-alone";
/// The name of the bucket that is made.
const BUCKET: &str = "carrack";

/// Running nodes, with a bucket and a key for it. See [`Engine`] for what dropping does.
pub struct Garage {
    nodes: Vec<Node>,
}

struct Node {
    engine: Engine,
    program: PathBuf,
    config: PathBuf,
    s3_port: u16,
    rpc_port: u16,
    admin_port: u16,
}

impl Garage {
    /// Starts one node in `folder`, which must be there and empty.
    ///
    /// # Errors
    /// Garage is not installed, or does not start.
    pub fn start(folder: &Path) -> Result<Self, EngineError> {
        Ok(Self { nodes: vec![Node::start(folder, 1)?] })
    }

    /// Starts `count` nodes in folders of their own below `folder`: every byte is on as many of them as possible, three at
    /// most.
    ///
    /// # Errors
    /// As of [`Garage::start`]; the nodes do not find together.
    pub fn start_cluster(folder: &Path, count: usize) -> Result<Self, EngineError> {
        let copies = count.clamp(1, 3);
        let mut nodes = Vec::with_capacity(count);
        for number in 0..count {
            let own = folder.join(format!("node-{number}"));
            std::fs::create_dir(&own).map_err(io)?;
            nodes.push(Node::start_one_of_many(&own, copies)?);
        }
        let garage = Self { nodes };
        garage.assemble()?;
        Ok(garage)
    }

    /// Makes one cluster of the nodes, with the bucket and the key.
    fn assemble(&self) -> Result<(), EngineError> {
        let Some(first) = self.nodes.first() else { return Ok(()) };
        let mut ids = Vec::new();
        for node in &self.nodes {
            let id = node.run(&["node", "id", "-q"])?.trim().to_owned();
            if !ids.is_empty() {
                first.run(&["node", "connect", &id])?;
            }
            ids.push(id.split('@').next().unwrap_or_default().to_owned());
        }
        for id in &ids {
            first.run(&["layout", "assign", id, "-z", &format!("zone-{}", &id[..8]), "-c", "1G"])?;
        }
        first.run(&["layout", "apply", "--version", "1"])?;
        let begin = Instant::now();
        loop {
            // The layout takes a moment to be known everywhere.
            let made = first
                .run(&["key", "import", KEY_ID, SECRET, "--yes"])
                .and_then(|_| first.run(&["bucket", "create", BUCKET]))
                .and_then(|_| {
                    first.run(&["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", KEY_ID])
                });
            match made {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(250)),
            }
        }
    }

    /// Where a node speaks S3; of the first for 0.
    pub fn endpoint(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}", self.nodes[node].s3_port)
    }

    /// Where a node tells its metrics, as text, to whoever shows [`Garage::admin_token`].
    pub fn metrics_url(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}/metrics", self.nodes[node].admin_port)
    }

    /// The bearer token of the metrics.
    pub fn admin_token(&self) -> &'static str {
        ADMIN_TOKEN
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &'static str {
        "garage"
    }

    /// The bucket.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The access key.
    pub fn access_key_id(&self) -> &'static str {
        KEY_ID
    }

    /// Its secret.
    pub fn secret_access_key(&self) -> &'static str {
        SECRET
    }

    /// Runs a command of Garage's on the first node, such as `["bucket", "info", "carrack"]`; what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, EngineError> {
        self.nodes[0].run(arguments)
    }

    /// A node, to be stopped, killed or frozen.
    pub fn node(&mut self, node: usize) -> &mut Engine {
        &mut self.nodes[node].engine
    }
}

impl Node {
    fn start(folder: &Path, copies: usize) -> Result<Self, EngineError> {
        Self::start_as(folder, copies, &["server", "--single-node", "--default-bucket"])
    }

    fn start_one_of_many(folder: &Path, copies: usize) -> Result<Self, EngineError> {
        Self::start_as(folder, copies, &["server"])
    }

    fn start_as(folder: &Path, copies: usize, arguments: &[&str]) -> Result<Self, EngineError> {
        let program = program("garage", &[], REMEDY)?;
        let (s3_port, rpc_port, admin_port) =
            (free_port().map_err(io)?, free_port().map_err(io)?, free_port().map_err(io)?);
        let config = folder.join("garage.toml");
        let text = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"sqlite\"\n\
             replication_factor = {copies}\nrpc_bind_addr = \"127.0.0.1:{rpc_port}\"\n\
             rpc_public_addr = \"127.0.0.1:{rpc_port}\"\nrpc_secret = \"{RPC_SECRET}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3_port}\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin_port}\"\nadmin_token = \"{ADMIN_TOKEN}\"\n\
             metrics_token = \"{ADMIN_TOKEN}\"\n",
            folder = folder.display(),
        );
        std::fs::write(&config, text).map_err(io)?;
        let mut command: Vec<OsString> = vec![program.clone().into(), "-c".into(), config.clone().into()];
        command.extend(arguments.iter().map(OsString::from));
        let variables = [
            ("GARAGE_DEFAULT_ACCESS_KEY", KEY_ID),
            ("GARAGE_DEFAULT_SECRET_KEY", SECRET),
            ("GARAGE_DEFAULT_BUCKET", BUCKET),
            ("GARAGE_ALLOW_WORLD_READABLE_SECRETS", "true"),
            ("RUST_LOG", "warn"),
        ];
        let engine = Engine::start(Spec {
            name: "garage",
            command,
            variables: variables.map(|(name, value)| (name.into(), value.into())).to_vec(),
            folder: folder.to_owned(),
            ready: Box::new(move || answers(s3_port).and_then(|()| answers(admin_port))),
            patience: PATIENCE,
        })?;
        Ok(Self { engine, program, config, s3_port, rpc_port, admin_port })
    }

    fn run(&self, arguments: &[&str]) -> Result<String, EngineError> {
        let ran = Command::new(&self.program)
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .env("GARAGE_ALLOW_WORLD_READABLE_SECRETS", "true")
            .env("RUST_LOG", "warn")
            .output()
            .map_err(io)?;
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
        }
        let cause = format!(
            "{} of the node at port {}: {}",
            arguments.join(" "),
            self.rpc_port,
            String::from_utf8_lossy(&ran.stderr).trim()
        );
        Err(EngineError::Failed { name: "garage", cause, log: self.engine.log() })
    }
}

/// Whether HTTP is spoken at a port. Any answer will do: without credentials it is a refusal.
fn answers(port: u16) -> Result<(), String> {
    let asked = || -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    match asked() {
        Ok(head) if &head == b"HTTP" => Ok(()),
        Ok(_) => Err(format!("port {port} speaks no HTTP")),
        Err(error) => Err(format!("port {port}: {error}")),
    }
}

fn io(source: std::io::Error) -> EngineError {
    EngineError::Io { name: "garage", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_has_a_bucket_and_keeps_it_over_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let mut garage = Garage::start(folder.path()).unwrap();
        assert!(garage.run(&["bucket", "list"]).unwrap().contains(BUCKET));
        garage.node(0).kill();
        assert!(answers(garage.nodes[0].s3_port).is_err());
        garage.node(0).start_again().unwrap();
        assert!(garage.run(&["bucket", "list"]).unwrap().contains(BUCKET));
    }

    #[test]
    fn three_nodes_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let garage = Garage::start_cluster(folder.path(), 3).unwrap();
        let status = garage.run(&["status"]).unwrap();
        assert_eq!(status.matches("zone-").count(), 3, "{status}");
        assert!(garage.run(&["bucket", "list"]).unwrap().contains(BUCKET));
        assert_ne!(garage.endpoint(0), garage.endpoint(2));
    }
}
