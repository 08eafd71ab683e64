//! What can go wrong, by what the caller does next.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of anything a client does.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a transfer did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The call itself makes no sense: change the arguments.
    #[error("{0}")]
    Invalid(String),
    /// The server said no, and will again: do what it says.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The server could not do it now, in none of the tries: try later. Nothing that was transferred is lost.
    #[error("{refusal}")]
    Unavailable {
        /// What it said last.
        refusal: Box<Refusal>,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// No whole answer came, in none of the tries: check the address and the network, then try again.
    #[error("no answer from {server}: {reason}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The content behind the name became another in the middle of a download: start again for the new one.
    #[error(
        "{name} was replaced on the server while it was downloaded; nothing was mixed: run it again for the new content"
    )]
    Replaced {
        /// What was downloaded.
        name: String,
    },
    /// The local file became another in the middle of an upload: let it come to rest, then start again.
    #[error("{} changed while it was sent: run it again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not the announced ones: start again; should it stay, a disk or a memory module is failing.
    #[error("{name} is damaged: BLAKE3 should be {expected} and is {actual}")]
    Corrupt {
        /// What was transferred.
        name: String,
        /// The announced digest.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// The local disk refused: repair what the path and the reason name.
    #[error("{}: {source}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The answer is not one that Carrack gives: check that the address is a Carrack server's.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl ClientError {
    /// Whether trying the same again, a little later, may help.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Unavailable { .. } | ClientError::Unreachable { .. } => true,
            ClientError::Invalid(_)
            | ClientError::Refused(_)
            | ClientError::Replaced { .. }
            | ClientError::Changed { .. }
            | ClientError::Corrupt { .. }
            | ClientError::Local { .. }
            | ClientError::Unexpected(_) => false,
        }
    }

    /// The HTTP status of the server's no, when there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Refused(refusal) | ClientError::Unavailable { refusal, .. } => Some(refusal.status),
            _ => None,
        }
    }

    pub(crate) fn local(path: &Path, source: std::io::Error) -> ClientError {
        ClientError::Local { path: path.to_owned(), source }
    }

    /// How long the server asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The named thing, here an upload of an earlier run, is no more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.status(), Some(404 | 410))
    }
}

/// What the server said when it said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, `snake_case`; empty where something else than Carrack answered.
    pub code: String,
    /// What to change.
    pub detail: String,
    /// Ties the answer to the server's log.
    pub trace_id: String,
    /// `parts_missing`: the parts that are not stored.
    pub missing: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match self.code.as_str() {
            "" => write!(f, " (HTTP {})", self.status),
            code => write!(f, " ({code}, HTTP {})", self.status),
        }
    }
}
