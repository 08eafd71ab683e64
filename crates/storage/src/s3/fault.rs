//! What can go wrong between us and S3, and what that means to who asked.

use carrack_domain::{Code, Error};

/// Why an operation did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    /// S3 said no.
    #[error("{status} {code}: {message}")]
    Refused {
        /// The status, also of an error that came inside a 200.
        status: u16,
        /// S3's name for it.
        code: String,
        /// Its words.
        message: String,
    },
    /// There is no connection.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// Nothing came for too long.
    #[error("no answer in time")]
    Silent,
    /// What came cannot be understood, or ended too early.
    #[error("a broken answer: {0}")]
    Broken(String),
    /// S3 says of bytes what is not so.
    #[error("a wrong checksum or size: {0}")]
    Lie(String),
}

impl Fault {
    /// Whether what was asked for is not there.
    pub(super) fn is_absent(&self) -> bool {
        let named = |code: &str| matches!(code, "NoSuchKey" | "NoSuchUpload" | "NotFound" | "");
        matches!(self, Fault::Refused { status: 404, code, .. } if named(code))
    }

    /// Whether the same may succeed soon: worth trying again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Fault::Refused { status, code, .. } => {
                (*status >= 500 && *status != 501 && *status != 507)
                    || *status == 429
                    || matches!(
                        code.as_str(),
                        "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable"
                    )
            }
            Fault::Unreachable(_) | Fault::Broken(_) => true,
            Fault::Silent | Fault::Lie(_) => false,
        }
    }

    fn is_full(&self) -> bool {
        let Fault::Refused { status, code, message } = self else { return false };
        *status == 507
            || matches!(
                code.as_str(),
                "InsufficientStorage"
                    | "QuotaExceeded"
                    | "XMinioStorageFull"
                    | "XMinioAdminBucketQuotaExceeded"
            )
            || message.contains("quota")
    }

    /// The value of the label `kind` in the metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            _ if self.is_full() => "full",
            Fault::Refused { status: 429 | 503, .. } => "throttle",
            Fault::Refused { .. } => "refused",
            Fault::Unreachable(_) => "unreachable",
            Fault::Silent => "timeout",
            Fault::Broken(_) => "broken",
            Fault::Lie(_) => "checksum",
        }
    }

    /// What an operator has to do about it; `None` for what passes by itself.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        let Fault::Refused { status, code, .. } = self else { return None };
        match code.as_str() {
            "NoSuchBucket" => Some("make the bucket, or name another as storage.s3.bucket"),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSignature" => {
                Some("check storage.s3.access_key_id and storage.s3.secret_access_key")
            }
            "RequestTimeTooSkewed" => Some("set the clock of this machine, or that of S3"),
            "AuthorizationHeaderMalformed" | "PermanentRedirect" => {
                Some("check storage.s3.region and storage.s3.endpoint")
            }
            _ if self.is_full() => Some("make room in the bucket, or raise its quota"),
            _ if *status == 403 => Some(
                "check the keys storage.s3.access_key_id and secret_access_key, what they may do in the bucket (deploy/s3), and \
                 the clocks of this machine and S3",
            ),
            _ => None,
        }
    }
}

/// The domain's word for a failure of the operation `op`.
pub(super) fn error(op: &'static str, fault: Fault) -> Error {
    ::metrics::counter!(crate::metrics::ERRORS, "op" => op, "kind" => fault.kind()).increment(1);
    if let Some(remedy) = fault.remedy() {
        tracing::error!(op, %fault, remedy, "S3 refuses to work");
    }
    if fault.is_full() {
        return Error::new(
            Code::StorageFull,
            "The server's storage is full. Nothing that was stored is lost; delete files or ask the operator for space, then send this again.",
        )
        .with_source(fault);
    }
    if fault.remedy().is_none() && !fault.is_passing() && !matches!(fault, Fault::Silent) {
        tracing::error!(op, %fault, "S3 does not do what it should");
        return Error::internal(op, fault);
    }
    Error::new(
        Code::StorageUnavailable,
        "The server's storage does not answer. Nothing that was stored is lost: send this again later.",
    )
    .with_source(fault)
}

/// Bytes that a record promises are not there: a message that a person has to see.
pub(super) fn lost(what: String) -> Error {
    tracing::error!(what, "stored bytes are missing or damaged");
    Error::new(
        Code::DataLost,
        "The stored bytes of this file are missing or damaged. The operator has been alarmed.",
    )
    .with_source(what)
}
