//! How a caller stands with their requests, as header fields (draft-ietf-httpapi-ratelimit-headers-10).

use carrack_service::limit::Standing;
use http::{HeaderMap, HeaderName, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds what may be asked for: `q` requests in `w` seconds; and what is left: `r` requests, more in `t` seconds.
pub(crate) fn tell(standing: Standing, headers: &mut HeaderMap) {
    let Standing { quota, window, left, reset, .. } = standing;
    let fields = [
        (POLICY, format!("\"requests\";q={quota};w={window}")),
        (LIMIT, format!("\"requests\";r={left};t={reset}")),
    ];
    for (name, text) in fields {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}
