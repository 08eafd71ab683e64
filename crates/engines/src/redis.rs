//! Redis.

use crate::{Engine, EngineError, Spec, free_port, program};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(1);
const REMEDY: &str = "apt-get install redis-server";

/// A Redis that keeps nothing on the disk, as what Carrack keeps in it may be lost.
pub struct Redis {
    /// The program, to be stopped, killed, frozen and started again.
    pub engine: Engine,
    port: u16,
    password: Option<String>,
}

impl Redis {
    /// Starts one that listens on a free port of this machine alone, and wants this password if there is one.
    ///
    /// # Errors
    /// It is not installed, or does not become ready.
    pub fn start(folder: &Path, password: Option<&str>) -> Result<Redis, EngineError> {
        let io = |source| EngineError::Io { name: "redis", source };
        let port = free_port().map_err(io)?;
        let server = program("redis-server", &["/usr/bin", "/usr/local/bin"], REMEDY)?;
        let port_text = port.to_string();
        let mut command: Vec<OsString> = vec![server.into()];
        for (name, value) in [
            ("--port", port_text.as_str()),
            ("--bind", "127.0.0.1"),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--daemonize", "no"),
        ] {
            command.extend([name, value].map(OsString::from));
        }
        if let Some(password) = password {
            command.extend(["--requirepass", password].map(OsString::from));
        }
        let engine = Engine::start(Spec {
            name: "redis",
            command,
            variables: Vec::new(),
            folder: folder.to_owned(),
            ready: Box::new(move || says(port, "PING").map(drop).map_err(|error| error.to_string())),
            patience: PATIENCE,
        })?;
        Ok(Redis { engine, port, password: password.map(str::to_owned) })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client is given.
    pub fn url(&self) -> String {
        let login = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{login}127.0.0.1:{}", self.port)
    }

    /// Says one line to a Redis without a password; the first line of its answer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn say(&self, line: &str) -> io::Result<String> {
        says(self.port, line)
    }
}

fn says(port: u16, line: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("{line}\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 512]);
    while !answer.contains(&b'\n') {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_and_comes_again_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut redis = Redis::start(folder.path(), None).unwrap();
        assert_eq!(redis.say("SET a 1").unwrap(), "+OK");
        redis.engine.kill();
        assert!(redis.say("PING").is_err());
        redis.engine.start_again().unwrap();
        assert_eq!(redis.say("EXISTS a").unwrap(), ":0");
    }

    #[test]
    fn it_wants_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), Some("geheim")).unwrap();
        assert!(redis.say("GET a").unwrap().starts_with("-NOAUTH"));
        assert!(redis.url().contains(":geheim@"));
    }
}
