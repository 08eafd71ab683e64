//! What the protocol asks of every answer, errors too.

use super::{VERSION, fields};
use crate::call::Call;
use crate::problem;
use crate::render::Response;
use carrack_api::headers::{TUS_RESUMABLE, TUS_VERSION};
use carrack_domain::{Code, Error, Result};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Method, StatusCode};

/// Whether a path is answered in the protocol's terms.
pub(crate) fn speaks(path: &str) -> bool {
    path.strip_prefix("/v1/tus").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The status of an error in the protocol's terms.
pub(crate) fn status(code: Code, method: &Method) -> StatusCode {
    let usual = problem::status(code);
    match code {
        Code::DigestMismatch => StatusCode::from_u16(460).unwrap_or(usual),
        // An upload that joins others takes no bytes.
        Code::UploadShape => StatusCode::FORBIDDEN,
        // Clients forget an upload whose HEAD fails in any other way than this, and begin again at 0.
        _ if *method == Method::HEAD && passes(usual) => StatusCode::LOCKED,
        _ => usual,
    }
}

/// Whether a status says that the same request may work later.
fn passes(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS
        )
}

/// Adds what every answer has.
pub(crate) fn finish(response: &mut Response) {
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(TUS_RESUMABLE), HeaderValue::from_static(VERSION));
    if status == StatusCode::PRECONDITION_FAILED {
        headers.insert(HeaderName::from_static(TUS_VERSION), HeaderValue::from_static(VERSION));
    }
    if status == StatusCode::LOCKED {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// `unsupported_version` unless the client speaks the version that there is. One that only looks need not say.
pub(super) fn check_version(call: &Call) -> Result<()> {
    let lenient = call.method == Method::HEAD;
    match fields::single(&call.headers, TUS_RESUMABLE)? {
        Some(VERSION) => Ok(()),
        None if lenient => Ok(()),
        _ => Err(Error::new(
            Code::UnsupportedVersion,
            format!("Tus-Resumable is missing or names another version: send 'Tus-Resumable: {VERSION}'."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert!(speaks("/v1/tus") && speaks("/v1/tus/") && speaks("/v1/tus/x"));
        assert!(!speaks("/v1/tusk") && !speaks("/v1/files/tus"));
    }

    #[test]
    fn statuses() {
        assert_eq!(status(Code::DigestMismatch, &Method::PATCH), 460);
        assert_eq!(status(Code::UploadShape, &Method::PATCH), 403);
        for (code, expected) in [
            (Code::UploadNotFound, 404),
            (Code::UploadExpired, 410),
            (Code::InvalidToken, 401),
            (Code::Internal, 423),
            (Code::Overloaded, 423),
            (Code::Superseded, 423),
            (Code::StorageFull, 423),
        ] {
            assert_eq!(status(code, &Method::HEAD), expected, "{code:?}");
        }
        assert_eq!(status(Code::Overloaded, &Method::PATCH), 503);
    }
}
