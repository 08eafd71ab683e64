//! How a command fails: what is said, and the exit code.

use crate::text;
use carrack_client::ClientError;
use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense: exit code 2.
    Usage(String),
    /// A transfer failed.
    Transfer(ClientError),
    /// The answer could not be written, or the machine refused otherwise.
    Output(io::Error),
    /// There is nothing below the named place.
    Nothing(String),
    /// So many of several failed; each was reported when it happened.
    Several(u64),
}

impl Failure {
    /// Says what happened on standard error.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::Usage(message) | Failure::Transfer(ClientError::Invalid(message)) => {
                text::complain(&message);
                return ExitCode::from(2);
            }
            Failure::Transfer(error) => text::complain(&error.to_string()),
            // Whoever read it has seen enough.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Failure::Output(error) => text::complain(&error.to_string()),
            Failure::Nothing(place) => text::complain(&format!("there is no file below {place}")),
            Failure::Several(failed) => text::complain(&format!("{failed} failed")),
        }
        ExitCode::FAILURE
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Local { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                Failure::Output(source)
            }
            error => Failure::Transfer(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}
