//! The one domain error: a stable [`Code`], a sentence for the caller, and a cause for the operator.

use std::fmt;

/// Shorthand for results that fail with the domain [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does next. Every [`Code`] belongs to exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Change the request, then send it again.
    Amend,
    /// Bring other credentials, or do without.
    Refused,
    /// The thing is not there (any more).
    Absent,
    /// Look at the present state first: somebody or something was faster.
    Conflict,
    /// Make room, or ask the operator for more.
    Capacity,
    /// Send the same request again, later.
    Retry,
    /// Nothing the caller can do: the operator has to look.
    Fault,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident;)*) => {
        /// The stable name of an error on the wire (`code` in a problem document) and its [`Class`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is, for documents and tests.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code in `snake_case`, as it appears on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// What the caller does next.
            pub const fn class(self) -> Class {
                match self { $(Code::$name => Class::$class,)* }
            }
        }
    };
}

codes! {
    /// A parameter, header or JSON body is malformed.
    InvalidRequest = "invalid_request", Amend;
    /// A file key breaks the rules of [`crate::Key`].
    InvalidKey = "invalid_key", Amend;
    /// A bucket name breaks the rules of [`crate::BucketName`].
    InvalidBucket = "invalid_bucket", Amend;
    /// A policy of a bucket that cannot be read, or breaks its bounds.
    InvalidPolicy = "invalid_policy", Amend;
    /// A digest header or field cannot be read.
    InvalidDigest = "invalid_digest", Amend;
    /// A protocol version that the server does not speak.
    UnsupportedVersion = "unsupported_version", Amend;
    /// A list of partial uploads that cannot be joined.
    InvalidConcatenation = "invalid_concatenation", Amend;
    /// A part number is outside `1..=part_count`.
    InvalidPart = "invalid_part", Amend;
    /// A body is longer or shorter than what was announced.
    LengthMismatch = "length_mismatch", Amend;
    /// Bytes beyond the announced length of an upload.
    LengthExceeded = "length_exceeded", Amend;
    /// The body stopped before its end.
    BodyIncomplete = "body_incomplete", Amend;
    /// A `Content-Encoding` or media type that this resource does not take.
    UnsupportedMediaType = "unsupported_media_type", Amend;
    /// The bytes that arrived do not have the digest that was announced.
    DigestMismatch = "digest_mismatch", Amend;
    /// An archive would have no entry.
    EmptySelection = "empty_selection", Amend;
    /// The resource exists, the method does not.
    MethodNotAllowed = "method_not_allowed", Amend;
    /// No byte of the requested range exists.
    RangeNotSatisfiable = "range_not_satisfiable", Amend;
    /// No credentials where some are needed.
    Unauthenticated = "unauthenticated", Refused;
    /// Credentials that are not (or no longer) valid.
    InvalidToken = "invalid_token", Refused;
    /// Valid credentials that do not suffice.
    Forbidden = "forbidden", Refused;
    /// A signature that is not ours, or was made for another request.
    InvalidSignature = "invalid_signature", Refused;
    /// A URL or link that is not good from the caller's address.
    WrongAddress = "wrong_address", Refused;
    /// A link that is good from a later moment on.
    LinkNotYet = "link_not_yet", Refused;
    /// A link whose password has to be given first.
    PasswordRequired = "password_required", Refused;
    /// A password that is not the link's.
    WrongPassword = "wrong_password", Refused;
    /// No route has this path.
    RouteNotFound = "not_found", Absent;
    /// There is no such bucket.
    BucketNotFound = "bucket_not_found", Absent;
    /// There is no such file.
    FileNotFound = "file_not_found", Absent;
    /// There is no such upload, or the caller may not know of it.
    UploadNotFound = "upload_not_found", Absent;
    /// There is no such access token.
    TokenNotFound = "token_not_found", Absent;
    /// There is no such link, or the caller may not know of it.
    LinkNotFound = "link_not_found", Absent;
    /// A link that was good and is not any more.
    LinkExpired = "link_expired", Absent;
    /// A link that was taken back.
    LinkRevoked = "link_revoked", Absent;
    /// A link whose uses are used up, or a use that is over.
    LinkUsed = "link_used", Absent;
    /// What a link was to is not stored any more.
    ContentGone = "content_gone", Absent;
    /// A signed URL that was good and is not any more.
    UrlExpired = "url_expired", Absent;
    /// There is no such archive, or the caller may not know of it.
    ArchiveNotFound = "archive_not_found", Absent;
    /// The upload existed and ran out of time.
    UploadExpired = "upload_expired", Absent;
    /// The bucket still holds files or open uploads.
    BucketNotEmpty = "bucket_not_empty", Conflict;
    /// The upload takes no more bytes: it is complete or being completed.
    UploadFinished = "upload_finished", Conflict;
    /// The bytes do not begin where the upload ends.
    OffsetMismatch = "offset_mismatch", Conflict;
    /// The upload takes its bytes in another way, or has none of its own.
    UploadShape = "upload_shape", Conflict;
    /// A newer request for the same extent took over.
    Superseded = "superseded", Conflict;
    /// The part is stored already, with other bytes.
    PartConflict = "part_conflict", Conflict;
    /// Not every part is stored yet.
    PartsMissing = "parts_missing", Conflict;
    /// An archive's bytes are not known yet, or never will be.
    ArchiveNotReady = "archive_not_ready", Conflict;
    /// What is wished for cannot be had from the state it is in.
    InvalidTransition = "invalid_transition", Conflict;
    /// `If-Match`, `If-None-Match` or their kin did not hold.
    PreconditionFailed = "precondition_failed", Conflict;
    /// The file or part is larger than this server takes.
    TooLarge = "too_large", Amend;
    /// The bucket's or the owner's quota would be exceeded.
    QuotaExceeded = "quota_exceeded", Capacity;
    /// The selection has more entries or bytes than an archive may have.
    ArchiveTooLarge = "archive_too_large", Amend;
    /// The disk is full.
    StorageFull = "storage_full", Capacity;
    /// The body came to a standstill.
    RequestTimeout = "request_timeout", Retry;
    /// More requests than the caller may make in so short a time.
    RateLimited = "rate_limited", Retry;
    /// More transfers at once than the caller may have.
    TooManyTransfers = "too_many_transfers", Retry;
    /// More work is waiting than the server will queue.
    Overloaded = "overloaded", Retry;
    /// The storage does not answer, or refuses to work for the moment.
    StorageUnavailable = "storage_unavailable", Retry;
    /// Nothing can be written into the audit log, without which nothing is done.
    AuditUnavailable = "audit_unavailable", Retry;
    /// The catalog cannot be reached, for a while. Whether what was asked for was done nobody knows.
    Unavailable = "unavailable", Retry;
    /// The server is stopping.
    ShuttingDown = "shutting_down", Retry;
    /// Stored bytes are missing or damaged.
    DataLost = "data_lost", Fault;
    /// Anything else that went wrong on our side.
    Internal = "internal", Fault;
}

/// Facts about an error that a program can act on, rendered as members of the problem document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The parts that are not stored yet, as ranges: `2-4,7`.
    MissingParts(String),
    /// The whole length, for `Content-Range: bytes */N`.
    CompleteLength(u64),
    /// Where bytes do not fit to an upload.
    Offset {
        /// Where it really ends, for `Upload-Offset`.
        expected: u64,
        /// Where the request began.
        given: u64,
    },
    /// After how many seconds to come again, for `Retry-After`.
    RetryAfter(u64),
    /// The methods that a resource has, for `Allow`.
    Allowed(String),
    /// What was expected and what came, both as text.
    Expected {
        /// What the server has computed or was told before.
        expected: String,
        /// What the request said or carried.
        actual: String,
    },
}

struct Inner {
    code: Code,
    detail: String,
    fact: Option<Fact>,
    is_final: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The domain error. `detail` is written for the caller; the `source` chain is for the log alone, so a
/// renderer that prints an `Error` never shows internals.
pub struct Error(Box<Inner>);

impl Error {
    /// An error with a sentence for the caller that says what to change.
    pub fn new(code: Code, detail: impl Into<String>) -> Error {
        Error(Box::new(Inner { code, detail: detail.into(), fact: None, is_final: false, source: None }))
    }

    /// A failure on our side: the caller learns only that it happened, the log has `source`.
    pub fn internal(
        context: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::new(Code::Internal, "The server could not finish this request. Its log names the cause.")
            .with_source(Context { context, source: source.into() })
    }

    /// A broken rule of our own, without an underlying error.
    pub fn broken(what: impl Into<String>) -> Error {
        let text: String = what.into();
        Error::internal("invariant broken", text)
    }

    /// Adds a fact a program can act on.
    pub fn with_fact(mut self, fact: Fact) -> Error {
        self.0.fact = Some(fact);
        self
    }

    /// Says that what the request was about ended with this error: there is nothing left to go on with.
    pub fn finally(mut self) -> Error {
        self.0.is_final = true;
        self
    }

    /// Whether what the request was about ended with this error.
    pub fn is_final(&self) -> bool {
        self.0.is_final
    }

    /// Adds the cause, for the log.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The fact for programs, if there is one.
    pub fn fact(&self) -> Option<&Fact> {
        self.0.fact.as_ref()
    }

    /// The whole chain of causes on one line, for the log.
    pub fn chain(&self) -> String {
        let mut text = format!("{}: {}", self.0.code.as_str(), self.0.detail);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

/// A cause with a word about what was being done.
#[derive(Debug)]
struct Context {
    context: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.context)
    }
}

impl std::error::Error for Context {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            assert!(code.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        }
    }

    #[test]
    fn display_hides_what_the_log_shows() {
        let error = Error::internal("write extent", std::io::Error::other("/secret/path: EIO"));
        assert!(!error.to_string().contains("secret"));
        assert!(error.chain().contains("write extent: /secret/path: EIO"));
    }
}
