//! The real binary as a child process, with its own data folder and a free port.

use reqwest::{Client, Method, RequestBuilder};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The administrator's token of every test server.
pub(crate) const TOKEN: &str = "test-root-token";
/// How long a server may take to listen: generous, the machine may be busy.
const START_MAX: Duration = Duration::from_secs(30);

/// How a server is started.
pub(crate) struct Setup {
    data: Option<PathBuf>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
    authority: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        Setup { data: None, variables: Vec::new(), wrapper: Vec::new(), authority: None }
    }

    /// Uses this data folder instead of one that goes with the server.
    pub(crate) fn data(mut self, path: &Path) -> Setup {
        self.data = Some(path.to_owned());
        self
    }

    /// Sets an environment variable, such as `CARRACK_UPLOADS__TTL`.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Speaks HTTPS with this certificate and key; clients trust what `authority` signed.
    pub(crate) fn tls(self, cert: &Path, key: &Path, authority: &Path) -> Setup {
        let setup = self.set("CARRACK_TLS__CERT", cert.to_str().unwrap());
        let setup = setup.set("CARRACK_TLS__KEY", key.to_str().unwrap());
        Setup { authority: Some(authority.to_owned()), ..setup }
    }

    /// Runs the server under another program, such as `strace -f`.
    pub(crate) fn under(mut self, words: &[&str]) -> Setup {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn start(self) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data = self.data.unwrap_or_else(|| folder.path().join("data"));
        let log = folder.path().join("log");
        let mut words = self.wrapper;
        words.push(env!("CARGO_BIN_EXE_carrack").to_owned());
        let mut child = without_variables(&words[0])
            .args(&words[1..])
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .current_dir(folder.path())
            .env("CARRACK_ROOT_TOKEN", TOKEN)
            .envs(self.variables)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let base =
            first_line(&mut child).and_then(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        let Some(base) = base else {
            panic!("the server did not start: {}", std::fs::read_to_string(&log).unwrap());
        };
        // Less than the server waits for a next request, so that no request meets a connection that is being closed.
        let mut client = Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(20));
        if let Some(authority) = &self.authority {
            let pem = std::fs::read(authority).unwrap();
            client = client.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
        }
        let client = client.build().unwrap();
        Server { child, base, data, log, folder, client, authority: self.authority }
    }
}

impl Setup {
    /// Starts the server, which must refuse to; what it says.
    pub(crate) fn refused(self) -> String {
        let folder = tempfile::tempdir().unwrap();
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data.unwrap_or_else(|| folder.path().join("data")))
            .current_dir(folder.path())
            .env("CARRACK_ROOT_TOKEN", TOKEN)
            .envs(self.variables)
            .output()
            .unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "it started: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A command that inherits none of our variables: what whoever runs the tests has set is not the test's.
pub(crate) fn without_variables(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARRACK_") {
            command.env_remove(name);
        }
    }
    command
}

/// The first line of standard output, once it is there.
fn first_line(child: &mut Child) -> Option<String> {
    let out = child.stdout.take().unwrap();
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(out).lines();
        let line = lines.next().and_then(Result::ok);
        let _ = sender.send(line);
        // Kept open and drained, so that the server never writes to a closed pipe.
        for _ in lines {}
    });
    receiver.recv_timeout(START_MAX).ok().flatten()
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`, or `https`.
    pub(crate) base: String,
    /// Its data folder.
    pub(crate) data: PathBuf,
    log: PathBuf,
    folder: TempDir,
    client: Client,
    authority: Option<PathBuf>,
}

impl Server {
    /// A server with default settings.
    pub(crate) fn start() -> Server {
        Setup::new().start()
    }

    /// The absolute URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `127.0.0.1:PORT`, for raw sockets.
    pub(crate) fn address(&self) -> &str {
        self.base.split_once("://").unwrap().1
    }

    /// A request with the administrator's token. Set a body and headers, then `.send().await`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(TOKEN)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn head(&self, path: &str) -> RequestBuilder {
        self.request(Method::HEAD, path)
    }

    pub(crate) fn put(&self, path: &str) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// A folder that goes with the server, for a test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the server to end.
    pub(crate) fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server did not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the server in an orderly way and asserts that it went well; the data folder stays as long as `self`.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(40));
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the client commands of the binary against a server.
pub(crate) fn carrack(server: &Server, args: &[&str]) -> std::process::Output {
    let mut command = without_variables(env!("CARGO_BIN_EXE_carrack"));
    if let Some(authority) = &server.authority {
        command.env("CARRACK_CA_CERT", authority);
    }
    command
        .args(args)
        .current_dir(server.folder())
        .env("CARRACK_URL", &server.base)
        .env("CARRACK_TOKEN", TOKEN)
        .env("XDG_STATE_HOME", server.folder().join("state"))
        .output()
        .unwrap()
}

/// Bytes that do not repeat, the same for the same seed.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

/// Runs an external program that a test needs; names its Debian package when it is missing.
pub(crate) fn tool(program: &str, package: &str) -> Command {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    assert!(found.status.success(), "{program} is missing: apt-get install {package}");
    Command::new(program)
}
