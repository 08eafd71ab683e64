//! Failures: of PostgreSQL while it runs, and of opening it.

use carrack_domain::{Code, Error};
use thiserror::Error as ThisError;
use tokio_postgres::Error as PgError;

/// What a transaction comes to.
pub(super) type Done<T> = Result<T, Failed>;

/// Why a transaction failed: by a rule of the domain, or by PostgreSQL.
#[derive(Debug)]
pub(super) enum Failed {
    Rule(Error),
    Postgres(PgError),
    /// No answer in time: what it will be nobody knows.
    Silent,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Rule(error)
    }
}

impl From<PgError> for Failed {
    fn from(error: PgError) -> Failed {
        Failed::Postgres(error)
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The session is over, or its server may not be written to: another session may do better.
    Gone,
    /// The server took too long, or gave up for others' sake: the same again may succeed.
    Again,
    /// What was asked for cannot be done.
    Refused,
}

impl Failed {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Failed::Rule(_) => Kind::Refused,
            Failed::Silent => Kind::Gone,
            Failed::Postgres(error) => kind(error),
        }
    }

    /// What the caller and the log learn.
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        let kind = self.kind();
        let error = match self {
            Failed::Rule(error) => return error,
            Failed::Silent => return unavailable(format!("{operation}: no answer in time")),
            Failed::Postgres(error) => error,
        };
        match (kind, code(&error)) {
            (Kind::Gone | Kind::Again, _) => unavailable(said(&error)),
            (_, "53100") => Error::new(
                Code::StorageFull,
                "The disk with the server's catalog is full. Send the request again later.",
            )
            .with_source(said(&error)),
            // The one character that text in PostgreSQL cannot hold.
            (_, "22021" | "22P05") => {
                let detail = "A text in the request holds the character U+0000: remove it.";
                Error::new(Code::InvalidRequest, detail).with_source(said(&error))
            }
            _ => Error::internal(operation, said(&error)),
        }
    }
}

/// A passing fault: the database is down, or changes hands.
pub(super) fn unavailable(source: impl Into<String>) -> Error {
    let detail = "The server's catalog cannot be reached at this moment. Send the request again later.";
    Error::new(Code::Unavailable, detail).with_source(source.into())
}

/// The SQLSTATE; nothing when the failure is not the server's.
pub(super) fn code(error: &PgError) -> &str {
    error.code().map_or("", |state| state.code())
}

fn kind(error: &PgError) -> Kind {
    match code(error) {
        // The library's own failures: of the connection, or, which would be a bug, of a conversion.
        "" => {
            use std::error::Error as _;
            let io = error.source().is_some_and(|source| source.is::<std::io::Error>());
            if error.is_closed() || io { Kind::Gone } else { Kind::Refused }
        }
        // Shut down, crashed, starting, idle for too long within a transaction, too many connections, read only.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53300" | "25006" => Kind::Gone,
        // Serialization failure, deadlock, no lock in time, statement cancelled.
        "40001" | "40P01" | "55P03" | "57014" => Kind::Again,
        state if state.starts_with("08") => Kind::Gone,
        _ => Kind::Refused,
    }
}

/// The whole of what was said, without the statement and its values.
pub(super) fn said(error: &PgError) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        }
    }
}

/// Why the catalog could not be opened: each a sentence for the operator. None has the password in it.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum PostgresError {
    /// The URL is none.
    #[error("catalog.url cannot be read: {reason}. Write postgres://USER:PASSWORD@HOST:5432/DATABASE.")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The user, or the password.
    #[error(
        "PostgreSQL at {at} refuses these credentials ({reason}): correct user and password in catalog.url."
    )]
    Credentials {
        /// Host and port.
        at: String,
        /// What the server says.
        reason: String,
    },
    /// No such database.
    #[error(
        "PostgreSQL at {at} has no such database ({reason}): make it with CREATE DATABASE, or correct catalog.url."
    )]
    NoDatabase {
        /// Host and port.
        at: String,
        /// What the server says.
        reason: String,
    },
    /// The server is too old.
    #[error("PostgreSQL at {at} is version {found}, at least {least} is needed: upgrade the server.")]
    TooOld {
        /// Host and port.
        at: String,
        /// Its version.
        found: String,
        /// The oldest that is known to do.
        least: u32,
    },
    /// A standby, or a database that was made read-only.
    #[error(
        "PostgreSQL at {at} takes no changes (it is a standby, or read-only): name the primary in catalog.url, or all \
         hosts with target_session_attrs=read-write."
    )]
    ReadOnly {
        /// Host and port.
        at: String,
    },
    /// Text of other encodings cannot hold every key.
    #[error(
        "The database at {at} has the encoding {found}: make one with ENCODING 'UTF8' TEMPLATE template0."
    )]
    Encoding {
        /// Host and port.
        at: String,
        /// Its encoding.
        found: String,
    },
    /// A newer carrack wrote it.
    #[error(
        "The catalog at {at} has schema version {found}, which needs a carrack that knows version {needs}; this one knows \
         {known}: use the newer binary."
    )]
    Newer {
        /// Host and port.
        at: String,
        /// Its version.
        found: i64,
        /// The oldest that may use it.
        needs: i64,
        /// The newest this binary knows.
        known: i64,
    },
    /// Migrations are outstanding, and the settings say not to apply them at the start.
    #[error(
        "The catalog at {at} has schema version {found}, this carrack needs {known}: run 'carrack migrate', or set \
         catalog.migrate = true."
    )]
    Outdated {
        /// Host and port.
        at: String,
        /// Its version.
        found: i64,
        /// The version this binary needs.
        known: i64,
    },
    /// The tables cannot be made or changed.
    #[error("The catalog at {at} cannot be migrated ({reason}): {remedy}.")]
    Migration {
        /// Host and port.
        at: String,
        /// What the server says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It cannot be reached.
    #[error("PostgreSQL at {at} cannot be reached ({reason}): start it, or correct catalog.url.")]
    Unreachable {
        /// Host and port.
        at: String,
        /// What was reported.
        reason: String,
    },
}

impl PostgresError {
    /// Whether waiting may help.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, PostgresError::Unreachable { .. })
    }
}
