//! The protocol's header fields (structured fields, RFC 9651) and its versions.

use carrack_api::headers::{
    UPLOAD_COMPLETE, UPLOAD_DRAFT_INTEROP_VERSION, UPLOAD_INCOMPLETE, UPLOAD_LENGTH, UPLOAD_LIMIT,
    UPLOAD_OFFSET,
};
use carrack_domain::{Code, Error, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// The media type of bytes at an offset.
pub(super) const PARTIAL_TYPE: &str = "application/partial-upload";
/// The newest version, in whose terms a client is answered that names none.
const NEWEST: u8 = 8;
const OLDEST: u8 = 3;
/// The first in which bytes at an offset have a media type of their own, and uploads limits.
const WITH_MEDIA_TYPE: u8 = 6;
/// The first that made do without `Upload-Offset` in answers, and demands `Upload-Complete` of every append.
const RELAXED: u8 = 7;

/// The iteration of the draft that a client speaks: interop versions 3 (draft-01), 4, 5 (-03), 6 (-04, -05), 7 and
/// 8 (-09 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draft {
    version: u8,
    /// Whether the client said so. It gets no 104 otherwise.
    is_named: bool,
}

impl Draft {
    pub(crate) fn of(headers: &HeaderMap) -> Draft {
        let named =
            integer(headers, UPLOAD_DRAFT_INTEROP_VERSION).and_then(|version| u8::try_from(version).ok());
        match named.filter(|version| (OLDEST..=NEWEST).contains(version)) {
            Some(version) => Draft { version, is_named: true },
            None => Draft { version: NEWEST, is_named: false },
        }
    }

    pub(super) fn is_named(self) -> bool {
        self.is_named
    }

    /// The version as a header value.
    pub(super) fn version(self) -> HeaderValue {
        HeaderValue::from(u16::from(self.version))
    }

    /// Whether the upload ends with this request, as far as it says.
    pub(crate) fn completes(self, headers: &HeaderMap) -> Option<bool> {
        match self.version {
            3 => boolean(headers, UPLOAD_INCOMPLETE).map(|incomplete| !incomplete),
            _ => boolean(headers, UPLOAD_COMPLETE),
        }
    }

    /// The same of an append, where older versions need not say.
    pub(super) fn append_completes(self, headers: &HeaderMap) -> Result<bool> {
        match (self.completes(headers), self.version) {
            (Some(completes), _) => Ok(completes),
            (None, 3) => Ok(true),
            (None, ..RELAXED) => Ok(false),
            (None, _) => Err(Error::new(
                Code::InvalidRequest,
                "Upload-Complete is missing: send '?1' with the last bytes, '?0' with others.",
            )),
        }
    }

    /// Whether an append has to be [`PARTIAL_TYPE`].
    pub(super) fn has_media_type(self) -> bool {
        self.version >= WITH_MEDIA_TYPE
    }

    /// Whether the URL of the upload stands in `Location` to its end, and an append is answered by 201.
    pub(super) fn is_old(self) -> bool {
        self.version < RELAXED
    }

    /// Says whether the upload has ended.
    pub(super) fn set_complete(self, headers: &mut HeaderMap, complete: bool) {
        let (name, value) = match self.version {
            3 => (UPLOAD_INCOMPLETE, !complete),
            _ => (UPLOAD_COMPLETE, complete),
        };
        let value = HeaderValue::from_static(if value { "?1" } else { "?0" });
        headers.insert(HeaderName::from_static(name), value);
    }

    /// Says how large an upload may become, in bytes, and how long it lives.
    pub(super) fn set_limit(self, headers: &mut HeaderMap, size_max: u64, lives: Option<Duration>) {
        if !self.has_media_type() {
            return;
        }
        let age = if self.version < RELAXED { "expires" } else { "max-age" };
        let mut limit = format!("max-size={}, min-size=0", size_max.min(INTEGER_MAX));
        if let Some(lives) = lives {
            limit.push_str(&format!(", {age}={}", lives.as_secs()));
        }
        if let Ok(value) = HeaderValue::try_from(limit) {
            headers.insert(HeaderName::from_static(UPLOAD_LIMIT), value);
        }
    }

    /// Looking at an upload, or giving it up, says nothing about it: the older drafts have that refused.
    pub(super) fn refuse_state(self, headers: &HeaderMap) -> Result<()> {
        let state = [UPLOAD_OFFSET, UPLOAD_COMPLETE, UPLOAD_INCOMPLETE, UPLOAD_LENGTH];
        match state.into_iter().find(|name| headers.contains_key(*name)) {
            Some(name) if self.is_old() => {
                Err(Error::new(Code::InvalidRequest, format!("{name} does not belong here: leave it out.")))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes of the whole, as a request says whose bytes begin at `offset`: by `Upload-Length`, by `Content-Length` when
/// they are the last, or by both. `length_mismatch` when these contradict each other.
pub(super) fn length(
    headers: &HeaderMap,
    offset: u64,
    announced: Option<u64>,
    last: bool,
) -> Result<Option<u64>> {
    let said = integer(headers, UPLOAD_LENGTH);
    let end = announced.map(|announced| offset.saturating_add(announced));
    match (said, end) {
        (Some(said), Some(end)) if end > said || (last && end != said) => Err(Error::new(
            Code::LengthMismatch,
            format!("Upload-Length says {said} bytes, but the content of this request ends at {end}."),
        )),
        (None, Some(end)) if last => Ok(Some(end)),
        (said, _) => Ok(said),
    }
}

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// A non-negative integer; anything else is as good as absent.
pub(super) fn integer(headers: &HeaderMap, name: &str) -> Option<u64> {
    let text = item(headers, name)?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= INTEGER_MAX && text.len() <= 15)
}

pub(super) fn boolean(headers: &HeaderMap, name: &str) -> Option<bool> {
    match item(headers, name)? {
        "?1" => Some(true),
        "?0" => Some(false),
        _ => None,
    }
}

/// The one item of a field, without its parameters, of which none is known.
fn item<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let text = value.to_str().ok()?.trim_matches(' ');
    Some(text.split_once(';').map_or(text, |(item, _)| item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn integers() {
        let of = |text: &str| integer(&headers(&[("upload-offset", text)]), "upload-offset");
        assert_eq!((of("0"), of("007"), of(" 5 ")), (Some(0), Some(7), Some(5)));
        assert_eq!((of("999999999999999"), of("7;a=b")), (Some(999_999_999_999_999), Some(7)));
        for bad in ["", "-1", "+1", "1.0", "1e3", "?1", "\"1\"", "1, 2", "1000000000000000", "a", ";a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(integer(&headers(&[("a", "1"), ("a", "1")]), "a"), None, "a list is no item");
    }

    #[test]
    fn versions() {
        let of = |text: &str| Draft::of(&headers(&[("upload-draft-interop-version", text)]));
        for version in 3..=8 {
            assert_eq!(of(&version.to_string()), Draft { version, is_named: true });
        }
        for other in ["2", "9", "8.0", "?1", "264", "six"] {
            assert_eq!(of(other), Draft { version: NEWEST, is_named: false }, "{other}");
        }
    }

    #[test]
    fn completeness() {
        let of = |version: &str, pairs: &[(&'static str, &str)]| {
            let mut all = headers(pairs);
            all.insert("upload-draft-interop-version", version.parse().unwrap());
            (Draft::of(&all).completes(&all), Draft::of(&all).append_completes(&all).ok())
        };
        assert_eq!(of("8", &[("upload-complete", "?1")]), (Some(true), Some(true)));
        assert_eq!(of("8", &[("upload-complete", "?0")]), (Some(false), Some(false)));
        assert_eq!(of("8", &[("upload-complete", "true")]), (None, None), "no boolean");
        assert_eq!(of("8", &[("upload-incomplete", "?1")]), (None, None));
        assert_eq!(of("6", &[]), (None, Some(false)));
        assert_eq!(of("3", &[("upload-incomplete", "?1")]), (Some(false), Some(false)));
        assert_eq!(of("3", &[("upload-incomplete", "?0")]), (Some(true), Some(true)));
        assert_eq!(of("3", &[("upload-complete", "?0")]), (None, Some(true)));
    }

    #[test]
    fn lengths() {
        let of = |said: Option<&str>, offset, announced, last| {
            let pairs = said.map(|said| ("upload-length", said));
            length(&headers(pairs.as_slice()), offset, announced, last).map_err(|error| error.code())
        };
        assert_eq!(of(None, 5, Some(3), true), Ok(Some(8)));
        assert_eq!(of(None, 5, Some(3), false), Ok(None));
        assert_eq!(of(None, 5, None, true), Ok(None));
        assert_eq!(of(Some("8"), 5, Some(3), true), Ok(Some(8)));
        assert_eq!(of(Some("9"), 5, Some(3), false), Ok(Some(9)));
        assert_eq!(of(Some("9"), 5, None, true), Ok(Some(9)));
        for (said, last) in [("9", true), ("7", true), ("7", false)] {
            assert_eq!(of(Some(said), 5, Some(3), last), Err(Code::LengthMismatch), "{said} {last}");
        }
    }
}
