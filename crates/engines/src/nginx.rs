//! nginx, as the balancer in front of Carrack's nodes.

use crate::{Engine, EngineError, Spec, program};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// How it is installed where it is not.
const REMEDY: &str = "apt-get install nginx-light";
/// What nginx keeps bodies in, by the kind of what is behind it.
const TEMPORARY: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// A running nginx. See [`Engine`] for what dropping does.
pub struct Nginx {
    /// The program, to be stopped, killed, frozen and started again.
    pub engine: Engine,
}

impl Nginx {
    /// Starts one in `folder` with `http`, the text of its http block, in which something listens on `listen`.
    ///
    /// # Errors
    /// It is not installed, or does not become ready, for instance as it does not understand the text.
    pub fn start(folder: &Path, listen: SocketAddr, http: &str) -> Result<Nginx, EngineError> {
        let io = |source| EngineError::Io { name: "nginx", source };
        let nginx = program("nginx", &["/usr/sbin"], REMEDY)?;
        let at = folder.display();
        let temporary = TEMPORARY.map(|kind| format!("{kind}_temp_path {at}/{kind};")).concat();
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr warn; events {{}}\n\
             http {{ access_log off; {temporary}\n{http}\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), text).map_err(io)?;
        let words = ["-e", "stderr", "-p", &at.to_string(), "-c", "nginx.conf"].map(OsString::from);
        let engine = Engine::start(Spec {
            name: "nginx",
            command: [vec![nginx.into_os_string()], words.to_vec()].concat(),
            variables: Vec::new(),
            folder: folder.to_owned(),
            ready: Box::new(move || TcpStream::connect(listen).map(drop).map_err(|error| error.to_string())),
            patience: PATIENCE,
        })?;
        Ok(Nginx { engine })
    }
}
