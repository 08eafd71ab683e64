//! Failures: of SQLite while it runs, and of opening it.

use carrack_domain::{Code, Error};
use rusqlite::ErrorCode;
use std::path::PathBuf;
use thiserror::Error as ThisError;

/// What a transaction comes to.
pub(super) type Done<T> = Result<T, Failed>;

/// Why a transaction failed: by a rule of the domain, or by SQLite.
#[derive(Debug)]
pub(super) enum Failed {
    Rule(Error),
    Sqlite(rusqlite::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Rule(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed::Sqlite(error)
    }
}

impl Failed {
    /// What the caller and the log learn.
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        match self {
            Failed::Rule(error) => error,
            Failed::Sqlite(error) => sqlite_error(operation, error),
        }
    }
}

pub(super) fn sqlite_error(operation: &'static str, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::new(
            Code::StorageFull,
            "The disk with the server's catalog is full. Send the request again later.",
        )
        .with_source(error),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(Code::Overloaded, "The server's catalog is busy. Send the request again later.")
                .with_source(error)
        }
        _ => Error::internal(operation, error),
    }
}

/// Why the catalog could not be opened: each a sentence for the operator.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer carrack wrote it.
    #[error(
        "The catalog {} has schema version {found}, this carrack knows {known}: use the newer binary that wrote it.",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this binary knows.
        known: i64,
    },
    /// It is not a database, belongs to something else, or is damaged.
    #[error("The catalog {} cannot be used ({reason}): restore it from a backup, or move it away to begin anew.", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It, or its directory, cannot be written.
    #[error("The catalog {} cannot be written: give this user write access to the file and its directory.", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// Somebody else holds it.
    #[error("The catalog {} is locked by another process: stop that one first.", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The SQLite in this binary has a bug that damages databases (WAL reset race, fixed in 3.51.3).
    #[error("This binary was built with SQLite {found}, at least 3.51.3 is needed: use the bundled SQLite.")]
    SqliteTooOld {
        /// The version in this binary.
        found: String,
    },
    /// Anything else the system or SQLite reported.
    #[error("The catalog {} cannot be opened: {reason}.", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// What was reported.
        reason: String,
    },
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        Error::new(Code::Internal, error.to_string()).with_source(error)
    }
}

impl OpenError {
    pub(super) fn sqlite(path: &std::path::Path, error: &rusqlite::Error) -> OpenError {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                OpenError::Damaged { path, reason: error.to_string() }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => OpenError::ReadOnly { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
            _ => OpenError::Io { path, reason: error.to_string() },
        }
    }

    pub(super) fn io(path: &std::path::Path, error: &std::io::Error) -> OpenError {
        use std::io::ErrorKind;
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
            _ => OpenError::Io { path, reason: error.to_string() },
        }
    }
}
