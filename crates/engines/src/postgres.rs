//! PostgreSQL.

use crate::engine::{Engine, EngineError, Spec, free_port, program};
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const NAME: &str = "postgres";
const REMEDY: &str = "apt-get install postgresql";
/// Where Debian keeps the programs of each version, which are on nobody's `PATH`.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Whom the server runs as when we are root, whom it refuses.
const ACCOUNT: &str = "postgres";
/// The superuser of the database.
const USER: &str = "carrack";
const PASSWORD: &str = "engine";
/// How long `psql` may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A PostgreSQL of our own: one server, as many databases as are asked for.
pub struct Postgres {
    engine: Engine,
    port: u16,
    data: PathBuf,
    programs: Programs,
}

struct Programs {
    folder: PathBuf,
    /// User and group to become, when we are root.
    account: Option<(u32, u32)>,
}

impl Postgres {
    /// Makes a cluster in `folder`, which must be there and empty, and starts it on a free loopback port. Passwords are
    /// asked for, syncs are real.
    ///
    /// # Errors
    /// It is not installed, or did not start.
    pub fn start(folder: &Path) -> Result<Postgres, EngineError> {
        Postgres::start_with(folder, &[])
    }

    /// As [`Postgres::start`], with settings of the server, such as `max_connections=20`.
    ///
    /// # Errors
    /// As of [`Postgres::start`].
    pub fn start_with(folder: &Path, settings: &[&str]) -> Result<Postgres, EngineError> {
        let programs = Programs::find()?;
        let data = folder.join("data");
        programs.make(folder, &data)?;
        let port = free_port().map_err(io_error)?;
        let mut command = programs.command("postgres");
        let own = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        command.extend(["-D".into(), data.clone().into_os_string()]);
        for setting in own.iter().map(String::as_str).chain(settings.iter().copied()) {
            command.extend(["-c".into(), setting.into()]);
        }
        let engine = Engine::start(Spec {
            name: NAME,
            command,
            variables: vec![("LC_ALL".into(), "C".into())],
            folder: folder.to_owned(),
            ready: Box::new(move || ready(port)),
            patience: Duration::from_secs(60),
        })?;
        Ok(Postgres { engine, port, data, programs })
    }

    /// Asks it to end, breaking off what is under way, and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::INT);
        self.engine.stop();
    }

    /// Ends it at once, as a crash would, with all its sessions.
    pub fn kill(&mut self) {
        let killed = self.signal(Signal::KILL);
        self.engine.kill();
        // The next start finds their memory in use until the last of them is gone.
        let begin = Instant::now();
        while killed.iter().any(|process| is_alive(*process)) && begin.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
        // Where nobody collects the dead, the file would keep the next start from happening.
        let _gone = fs::remove_file(self.data.join("postmaster.pid"));
    }

    /// Freezes it with all its sessions: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it after it was stopped or killed, on the same port and with the same data.
    ///
    /// # Errors
    /// It did not become ready.
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        self.engine.start_again()
    }

    /// To the server and to its sessions, each of which is a process group of its own.
    fn signal(&self, signal: Signal) -> Vec<i32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let Some(server) = text.lines().next().and_then(|line| line.parse().ok()) else { return Vec::new() };
        let mut all = children(server);
        all.insert(0, server);
        for process in all.iter().copied().filter_map(Pid::from_raw) {
            // One that has ended by itself needs no signal any more.
            let _ended = kill_process(process, signal);
        }
        all
    }

    /// The loopback port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database and returns its URL, with the password in it.
    ///
    /// # Errors
    /// The server refused.
    pub fn database(&self, name: &str) -> Result<String, EngineError> {
        self.run("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'"))?;
        Ok(self.url(name))
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL in a database; what it answers, a row on each line, columns divided by `|`.
    ///
    /// # Errors
    /// The server refused; the text says why.
    pub fn run(&self, database: &str, sql: &str) -> Result<String, EngineError> {
        let output = Command::new(self.programs.folder.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .arg(self.url(database))
            .env("PGCONNECT_TIMEOUT", PATIENCE.as_secs().to_string())
            .stdin(Stdio::null())
            .output()
            .map_err(io_error)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(EngineError::Failed { name: NAME, cause, log: self.engine.log() })
    }
}

fn io_error(source: io::Error) -> EngineError {
    EngineError::Io { name: NAME, source }
}

/// A server that starts takes connections before it takes sessions: only `pg_isready` tells one from the other.
fn ready(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).map_err(|error| error.to_string())?;
    let folder = newest().ok_or("no programs")?;
    let status = Command::new(folder.join("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err("it takes no sessions yet".to_owned()) }
}

/// The folder of programs of the newest version.
fn newest() -> Option<PathBuf> {
    let versions =
        fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let newest = versions
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    match newest {
        Some(version) => Some(version.join("bin")),
        // The others lie where a link to one leads.
        None => fs::canonicalize(program("initdb", &[], REMEDY).ok()?).ok()?.parent().map(Path::to_owned),
    }
}

/// The processes that this one has started, and that still run.
fn children(of: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let one = |entry: fs::DirEntry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may hold anything; state and parent follow.
        let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (parent == of).then_some(id)
    };
    processes.filter_map(one).collect()
}

impl Programs {
    fn find() -> Result<Programs, EngineError> {
        let missing = || EngineError::Missing { program: "PostgreSQL".to_owned(), remedy: REMEDY.to_owned() };
        let folder = newest().ok_or_else(missing)?;
        let account = if getuid().is_root() { Some(account().ok_or_else(missing)?) } else { None };
        Ok(Programs { folder, account })
    }

    /// A program, run as who may run it.
    fn command(&self, name: &str) -> Vec<OsString> {
        let program = self.folder.join(name).into_os_string();
        let Some((user, group)) = self.account else { return vec![program] };
        let become_account = [
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
        ];
        become_account.into_iter().map(OsString::from).chain([program]).collect()
    }

    /// Makes a cluster.
    fn make(&self, folder: &Path, data: &Path) -> Result<(), EngineError> {
        let password = folder.join("password");
        fs::write(&password, PASSWORD).map_err(io_error)?;
        if let Some((user, group)) = self.account {
            for path in [folder, &password] {
                chown(path, Some(user), Some(group)).map_err(io_error)?;
            }
        }
        // Others must find the way to the folder.
        fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(io_error)?;
        let command = self.command("initdb");
        let output = Command::new(&command[0])
            .args(&command[1..])
            .args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-instructions", "-U", USER])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(data)
            .current_dir(folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(io_error)?;
        let log = folder.join(format!("{NAME}.log"));
        fs::write(&log, [&output.stdout[..], &output.stderr[..]].concat()).map_err(io_error)?;
        if output.status.success() {
            return Ok(());
        }
        Err(EngineError::Failed { name: NAME, cause: format!("initdb ended with {}", output.status), log })
    }
}

/// Whether it runs: the dead whom nobody collects do not.
fn is_alive(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// User and group of the account that the package has made.
fn account() -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields =
        accounts.lines().find(|line| line.split(':').next() == Some(ACCOUNT))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_it_acknowledged_when_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres = Postgres::start(folder.path()).unwrap();
        let url = postgres.database("one").unwrap();
        assert!(url.ends_with("/one"), "{url}");
        postgres.run("one", "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)").unwrap();
        postgres.kill();
        assert!(postgres.run("one", "SELECT 1").is_err());
        postgres.start_again().unwrap();
        assert_eq!(postgres.run("one", "SELECT n FROM t ORDER BY n").unwrap(), "1\n2");
        postgres.stop();
        postgres.start_again().unwrap();
        let error = postgres.run("one", "SELECT * FROM nowhere").unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
