//! The domain error as an answer: one exhaustive match from code to status, and a problem document (RFC 9457).

use crate::render::{self, Response};
use carrack_api::Problem;
use carrack_domain::error::Fact;
use carrack_domain::{Code, Error, TraceId};
use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

/// Seconds after which a request that failed for a passing reason may be sent again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// The status that goes with a code. No `_` arm: a new code is a decision to be made here.
pub(crate) const fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest
        | Code::InvalidKey
        | Code::InvalidBucket
        | Code::InvalidPolicy
        | Code::InvalidDigest
        | Code::InvalidPart
        | Code::InvalidConcatenation
        | Code::LengthMismatch
        | Code::BodyIncomplete => StatusCode::BAD_REQUEST,
        Code::Unauthenticated | Code::InvalidToken => StatusCode::UNAUTHORIZED,
        Code::Forbidden
        | Code::InvalidSignature
        | Code::WrongAddress
        | Code::LinkNotYet
        | Code::PasswordRequired
        | Code::WrongPassword => StatusCode::FORBIDDEN,
        Code::RouteNotFound
        | Code::BucketNotFound
        | Code::FileNotFound
        | Code::UploadNotFound
        | Code::TokenNotFound
        | Code::LinkNotFound
        | Code::ArchiveNotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::BucketNotEmpty
        | Code::UploadFinished
        | Code::Superseded
        | Code::OffsetMismatch
        | Code::UploadShape
        | Code::PartConflict
        | Code::PartsMissing
        | Code::ArchiveNotReady
        | Code::InvalidTransition => StatusCode::CONFLICT,
        Code::UploadExpired
        | Code::UrlExpired
        | Code::LinkExpired
        | Code::LinkRevoked
        | Code::LinkUsed
        | Code::ContentGone => StatusCode::GONE,
        Code::PreconditionFailed | Code::UnsupportedVersion => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge | Code::LengthExceeded | Code::QuotaExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::DigestMismatch | Code::EmptySelection | Code::ArchiveTooLarge => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::DataLost | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::RateLimited | Code::TooManyTransfers => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded
        | Code::StorageUnavailable
        | Code::AuditUnavailable
        | Code::Unavailable
        | Code::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// What a registry calls a problem.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// `type`.
    pub(crate) uri: &'static str,
    /// `title`.
    pub(crate) title: &'static str,
}

/// Renders an error under its [`status`], or the one that a client's protocol has for it, and the kind that this has.
/// The cause stays in the log.
pub(crate) fn render(error: &Error, status: StatusCode, kind: Option<Kind>, trace: TraceId) -> Response {
    let mut problem = Problem {
        kind: match kind {
            Some(kind) => kind.uri.to_owned(),
            None => format!("urn:carrack:problem:{}", error.code().as_str()),
        },
        title: kind.map_or(title(status), |kind| kind.title).to_owned(),
        status: status.as_u16(),
        detail: error.detail().to_owned(),
        code: error.code().as_str().to_owned(),
        trace_id: trace.to_string(),
        missing: None,
        expected: None,
        actual: None,
        expected_offset: None,
        provided_offset: None,
    };
    match error.fact() {
        Some(Fact::MissingParts(parts)) => problem.missing = Some(parts.clone()),
        Some(Fact::Expected { expected, actual }) => {
            problem.expected = Some(expected.clone());
            problem.actual = Some(actual.clone());
        }
        Some(Fact::Offset { expected, given }) if kind.is_some() => {
            problem.expected_offset = Some(*expected);
            problem.provided_offset = Some(*given);
        }
        Some(Fact::CompleteLength(_) | Fact::Allowed(_) | Fact::Offset { .. } | Fact::RetryAfter(_))
        | None => {}
    }
    let mut response = render::json(status, &problem);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        _ => {}
    }
    let fact = match error.fact() {
        Some(Fact::CompleteLength(length)) => Some((CONTENT_RANGE, format!("bytes */{length}"))),
        Some(Fact::Allowed(methods)) => Some((ALLOW, methods.clone())),
        Some(Fact::RetryAfter(seconds)) => Some((RETRY_AFTER, seconds.to_string())),
        Some(Fact::Offset { expected, .. }) => {
            Some((HeaderName::from_static(carrack_api::headers::UPLOAD_OFFSET), expected.to_string()))
        }
        Some(Fact::MissingParts(_) | Fact::Expected { .. }) | None => None,
    };
    if let Some((name, text)) = fact
        && let Ok(value) = HeaderValue::try_from(text)
    {
        headers.insert(name, value);
    }
    response
}

/// A status's name; tus' own is in no registry.
fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        460 => "Checksum Mismatch",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_domain::error::Class;

    #[test]
    fn statuses_agree_with_classes() {
        for code in Code::ALL {
            let status = status(*code);
            match code.class() {
                Class::Fault => assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{code:?}"),
                Class::Retry => assert!(matches!(status.as_u16(), 408 | 429 | 503), "{code:?}"),
                Class::Absent => assert!(matches!(status.as_u16(), 404 | 410), "{code:?}"),
                Class::Refused => assert!(matches!(status.as_u16(), 401 | 403), "{code:?}"),
                Class::Conflict => assert!(matches!(status.as_u16(), 409 | 412), "{code:?}"),
                Class::Capacity => assert!(matches!(status.as_u16(), 413 | 507), "{code:?}"),
                Class::Amend => assert!(status.is_client_error(), "{code:?}"),
            }
        }
    }

    #[test]
    fn internals_stay_inside() {
        let error = Error::internal("open blob", std::io::Error::other("/var/secret"));
        let response = render(&error, status(error.code()), None, TraceId::from_bytes([0; 16]));
        assert_eq!(response.status(), 500);
    }
}
