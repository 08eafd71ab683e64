//! Which web pages may talk to the server from a browser (Fetch standard §3.2). Credentials are bearer tokens that a
//! page has to bring itself, never cookies, so any origin may be let in without lending it anything.

use crate::render::{self, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// What a page may send. A list, as '*' would not stand for Authorization.
const SENT: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Content-Digest, Content-MD5, Repr-Digest, Want-Repr-Digest, If-Match, If-None-Match, \
     If-Modified-Since, If-Unmodified-Since, If-Range, Range, Idempotency-Key, Tus-Resumable, Upload-Length, Upload-Offset, \
     Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, Upload-Complete, Upload-Incomplete, \
     Upload-Draft-Interop-Version, X-HTTP-Method-Override, X-Request-ID, X-Requested-With",
);
/// What a page may see.
const SEEN: HeaderValue = HeaderValue::from_static(
    "Location, ETag, Content-Length, Content-Range, Content-Disposition, Accept-Ranges, Last-Modified, Retry-After, \
     RateLimit, RateLimit-Policy, Repr-Digest, X-Request-Id, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, \
     Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, Upload-Limit, \
     Upload-Complete, Upload-Incomplete, Upload-Draft-Interop-Version, Content-Location, Accept-Patch",
);
/// Seconds for which a browser need not ask again; browsers cut it to a day or less.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// The origins that are let in.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<String>,
}

impl Cors {
    /// These, such as `https://app.example.org`; `*` is any.
    pub fn new(origins: Vec<String>) -> Cors {
        Cors { origins }
    }

    /// Whose page a request comes from, when it comes from one and concerns the API.
    pub(crate) fn origin(&self, path: &str, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(ORIGIN).filter(|_| path.starts_with("/v1/")).cloned()
    }

    /// The answer to a preflight, which needs no credentials; `None` when the request is none.
    pub(crate) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
        if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = render::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page see the answer, an error as well as any other: it would learn nothing of one otherwise.
    pub(crate) fn finish(&self, origin: HeaderValue, response: &mut Response) {
        let headers = response.headers_mut();
        let any = self.origins.iter().any(|allowed| allowed == "*");
        if !any {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let allowed = if any {
            HeaderValue::from_static("*")
        } else if self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            origin
        } else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, SEEN);
    }
}
