//! RabbitMQ.

use crate::{Engine, EngineError, Spec, free_port, program};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long it may take to start: some ten seconds, more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to greet.
const ANSWER: Duration = Duration::from_secs(2);
const REMEDY: &str = "apt-get install rabbitmq-server";
/// What a broker answers to a version of the protocol that there is not: the one that it speaks.
const GREETING: &[u8] = b"AMQP\x00\x00\x00\x00";

/// A RabbitMQ with a name service of its own, so that nothing of it stays.
pub struct RabbitMq {
    /// The program, to be stopped, killed, frozen and started again.
    pub engine: Engine,
    port: u16,
}

impl RabbitMq {
    /// Starts one that listens on a free port of this machine alone.
    ///
    /// # Errors
    /// It is not installed, or does not become ready.
    pub fn start(folder: &Path) -> Result<RabbitMq, EngineError> {
        let io = |source| EngineError::Io { name: "rabbitmq", source };
        let (port, dist, names) =
            (free_port().map_err(io)?, free_port().map_err(io)?, free_port().map_err(io)?);
        // Not the one on the path: that one insists on the user of the system's service.
        let server = program("rabbitmq-server", &[], REMEDY);
        let folders = ["/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/usr/local/sbin"];
        let own = folders
            .iter()
            .map(|folder| Path::new(folder).join("rabbitmq-server"))
            .find(|file| file.is_file());
        let server = own.map_or(server, Ok)?;
        let epmd = program("epmd", &["/usr/bin"], REMEDY)?;
        std::fs::write(folder.join("enabled_plugins"), "[].\n").map_err(io)?;
        let at = |name: &str| folder.join(name).into_os_string();
        let text = |text: String| OsString::from(text);
        let variables = [
            ("HOME", at("")),
            ("RABBITMQ_NODENAME", text(format!("carrack{port}@localhost"))),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", text(port.to_string())),
            ("RABBITMQ_DIST_PORT", text(dist.to_string())),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".into()),
            ("ERL_EPMD_PORT", text(names.to_string())),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_MNESIA_BASE", at("mnesia")),
            ("RABBITMQ_LOG_BASE", at("log")),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
            ("RABBITMQ_CONF_ENV_FILE", at("none")),
            ("RABBITMQ_CONFIG_FILE", at("none")),
            ("RABBITMQ_PID_FILE", at("pid")),
        ];
        let script = r#""$1" -port "$ERL_EPMD_PORT" & exec "$2""#;
        let mut command: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(OsString::from).to_vec();
        command.extend([epmd.into_os_string(), server.into_os_string()]);
        let engine = Engine::start(Spec {
            name: "rabbitmq",
            command,
            variables: variables.map(|(name, value)| (name.into(), value)).to_vec(),
            folder: folder.to_owned(),
            ready: Box::new(move || greets(port)),
            patience: PATIENCE,
        })?;
        Ok(RabbitMq { engine, port })
    }

    /// What a client is given.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn greets(port: u16) -> Result<(), String> {
    let greeting = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(GREETING)?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    match greeting() {
        Ok(answer) if answer.starts_with(b"AMQP") => Ok(()),
        Ok(answer) => Err(format!("it greets with {answer:?}")),
        Err(error) => Err(std::io::Error::to_string(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_and_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = RabbitMq::start(folder.path()).unwrap();
        broker.engine.kill();
        assert!(greets(broker.port()).is_err());
        broker.engine.start_again().unwrap();
        assert_eq!(greets(broker.port()), Ok(()));
    }
}
