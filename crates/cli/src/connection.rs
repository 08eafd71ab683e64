//! Which server, as whom, and how: options that all client commands share.

use crate::bars::Bars;
use crate::failure::Failure;
use carrack_client::{Client, ClientError, ClientOptions, Token, is_loopback};
use clap::Args;
use std::env;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a server on this machine leaves the first token, seen from where it was started.
const ROOT_TOKEN: &str = "./carrack-data/root-token";

/// The token comes from `CARRACK_TOKEN` or a file: as an option it would show in the list of processes.
#[derive(Args)]
#[command(next_help_heading = "Connection (client commands)")]
pub(crate) struct Connection {
    /// The server's address.
    #[arg(
        long,
        global = true,
        env = "CARRACK_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// A file with the token, instead of the variable CARRACK_TOKEN. Without either, ./carrack-data/root-token is
    /// used for a server on this machine.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file of certificates to trust beside those of the system.
    #[arg(long, global = true, env = "CARRACK_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Requests with content at once; of carrack copy, contents.
    #[arg(long, global = true, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) parallel: u8,
    /// Tries of each request before it is given up.
    #[arg(long, global = true, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tries: u32,
    /// Say only what goes wrong.
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// A client and what watches it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) bars: Arc<Bars>,
    /// Transfers at once.
    pub(crate) parallel: usize,
}

impl Connection {
    /// A client as the options say; nothing is sent yet.
    pub(crate) fn open(&self) -> Result<Session, Failure> {
        let bars = Bars::new(self.quiet);
        let watching = Arc::clone(&bars);
        let mut options = ClientOptions::new(&self.server);
        options.token = self.token()?;
        options.ca_certs = self.ca_cert.as_deref().map(read_local).transpose()?;
        options.parallel = usize::from(self.parallel);
        options.attempts = self.tries;
        options.state_dir = state_dir();
        options.seed = RandomState::new().hash_one(std::process::id());
        options.on_wait = Some(Arc::new(move |wait| watching.waiting(wait)));
        let client = Client::new(options)?;
        Ok(Session { client, bars, parallel: usize::from(self.parallel) })
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        if let Some(file) = &self.token_file {
            return read_token(file).map(Some);
        }
        if let Ok(text) = env::var("CARRACK_TOKEN") {
            return Ok(Some(Token::new(&text)?));
        }
        let local = Path::new(ROOT_TOKEN);
        if is_loopback(&self.server) && local.exists() {
            return read_token(local).map(Some);
        }
        Ok(None)
    }
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    let text =
        fs::read_to_string(file).map_err(|source| ClientError::Local { path: file.to_owned(), source })?;
    Ok(Token::new(&text)?)
}

fn read_local(file: &Path) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(file).map_err(|source| ClientError::Local { path: file.to_owned(), source })?)
}

/// Where programs of this user keep what outlives a run (XDG base directories).
fn state_dir() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("carrack"))
}
