//! What the protocol asks of every answer, errors too.

use super::fields::Draft;
use crate::App;
use crate::pipeline::Request;
use crate::problem::{self, Kind};
use crate::render::Response;
use carrack_domain::Code;
use http::{Method, StatusCode};

/// In whose terms a request is answered: it is about an upload, or begins one.
pub(crate) fn spoken(request: &Request) -> Option<Draft> {
    let (path, draft) = (request.uri().path(), Draft::of(request.headers()));
    let creates = matches!(*request.method(), Method::PUT | Method::POST) && path.starts_with("/v1/files/");
    let is_spoken =
        path.starts_with("/v1/resumable/") || (creates && draft.completes(request.headers()).is_some());
    is_spoken.then_some(draft)
}

impl Draft {
    /// The status of an error.
    pub(crate) fn status(self, code: Code) -> StatusCode {
        match code {
            Code::LengthExceeded => StatusCode::BAD_REQUEST,
            // The older drafts know of no upload that is not there any more.
            Code::UploadExpired if self.is_old() => StatusCode::NOT_FOUND,
            _ => problem::status(code),
        }
    }

    /// What the protocol calls an error.
    pub(crate) fn kind(self, code: Code) -> Option<Kind> {
        let (uri, title) = match code {
            Code::OffsetMismatch => (
                "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
                "Mismatching Upload Offset",
            ),
            Code::LengthMismatch | Code::LengthExceeded => (
                "https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
                "Inconsistent Upload Length Values",
            ),
            Code::UploadFinished => {
                ("https://iana.org/assignments/http-problem-types#completed-upload", "Upload Is Completed")
            }
            _ => return None,
        };
        Some(Kind { uri, title })
    }

    /// Adds to an error whether there is still an upload to go on with, and to one of size how large it may be.
    pub(crate) fn finish_error(self, app: &App, is_final: bool, response: &mut Response) {
        let too_large = response.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let headers = response.headers_mut();
        self.set_complete(headers, is_final);
        if too_large {
            self.set_limit(headers, app.service.uploads.size_max(), None);
        }
    }
}
