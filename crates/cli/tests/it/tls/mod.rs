//! HTTPS through the real binary: with `openssl` as the judge of TLS, and `curl` as the client.

mod content;
mod endings;
mod handshakes;
mod settings;
pub(crate) mod slow;

use crate::server::{Server, Setup, TOKEN, tool};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// A certificate and its key.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

/// An authority of our own, made once, and a certificate for this machine.
pub(crate) struct Authority {
    folder: TempDir,
    pub(crate) cert: PathBuf,
    pair: Pair,
}

pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=Tests",
            &["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), cert.as_os_str()],
        );
        let pair = issue(folder.path(), "first", "-newkey ec -pkeyopt ec_paramgen_curve:P-256", "-days 30");
        Authority { folder, cert, pair }
    })
}

fn openssl(words: &str, more: &[&std::ffi::OsStr]) {
    let output = tool("openssl", "openssl").args(words.split(' ')).args(more).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate for this machine of the authority in `folder`, which holds `ca.pem` and `ca.key`. `NAME.pem` has the
/// chain.
fn issue(folder: &Path, name: &str, key_kind: &str, validity: &str) -> Pair {
    let at = |suffix: &str| folder.join(format!("{name}{suffix}"));
    let (request, leaf, extensions) = (at(".csr"), at(".leaf"), at(".ext"));
    let pair = Pair { cert: at(".pem"), key: at(".key") };
    openssl(
        &format!("req -new {key_kind} -nodes -subj /CN={name}"),
        &["-keyout".as_ref(), pair.key.as_os_str(), "-out".as_ref(), request.as_os_str()],
    );
    std::fs::write(&extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    let (ca, ca_key) = (folder.join("ca.pem"), folder.join("ca.key"));
    openssl(
        &format!("x509 -req {validity}"),
        &[
            "-in".as_ref(),
            request.as_os_str(),
            "-CA".as_ref(),
            ca.as_os_str(),
            "-CAkey".as_ref(),
            ca_key.as_os_str(),
            "-extfile".as_ref(),
            extensions.as_os_str(),
            "-out".as_ref(),
            leaf.as_os_str(),
        ],
    );
    let chain = std::fs::read_to_string(leaf).unwrap() + &std::fs::read_to_string(ca).unwrap();
    std::fs::write(&pair.cert, chain).unwrap();
    pair
}

/// Settings for HTTPS with the certificate of the tests.
pub(crate) fn https() -> Setup {
    let Authority { cert, pair, .. } = authority();
    Setup::new().tls(&pair.cert, &pair.key, cert)
}

/// `curl` with the administrator's token, for one protocol: `--http1.1` or `--http2`.
pub(crate) fn curl(protocol: &str) -> Command {
    let mut command = tool("curl", "curl");
    command.args(["-sS", protocol, "-H", &format!("Authorization: Bearer {TOKEN}"), "--cacert"]);
    command.arg(&authority().cert);
    command
}

const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2"];

/// What `openssl s_client` says of a connection it makes with these options; it sends nothing.
fn s_client(server: &Server, options: &[&str]) -> Output {
    tool("openssl", "openssl")
        .args(["s_client", "-connect", server.address(), "-servername", "localhost", "-CAfile"])
        .arg(&authority().cert)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
