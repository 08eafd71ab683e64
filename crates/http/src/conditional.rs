//! Preconditions of requests (RFC 9110 §13).

use carrack_domain::file::Precondition;
use carrack_domain::{Code, ETag, Error, Result, Timestamp};
use http::HeaderMap;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use std::time::{Duration, UNIX_EPOCH};

/// What the preconditions of a GET or HEAD come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer the request.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
}

/// How far the date of the last change can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dating {
    /// Whatever changes, changes the date.
    Sound,
    /// It is the newest member's: an older one may be gone or renamed and the date the same. What is the same date then
    /// proves nothing, what is a later one still does.
    NewestMember,
}

/// Evaluates in the order of RFC 9110 §13.2.2: If-Match or else If-Unmodified-Since, then If-None-Match or else
/// If-Modified-Since.
pub(crate) fn evaluate(headers: &HeaderMap, etag: &ETag, modified: Timestamp, dating: Dating) -> Verdict {
    if let Some(tags) = Tags::of(headers, IF_MATCH) {
        if !tags.match_strongly(etag) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, IF_UNMODIFIED_SINCE)
        && modified.as_secs() > since
    {
        return Verdict::Failed;
    }
    if let Some(tags) = Tags::of(headers, IF_NONE_MATCH) {
        if tags.match_weakly(etag) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, IF_MODIFIED_SINCE)
        && dating == Dating::Sound
        && modified.as_secs() <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether `Range` may be honoured (RFC 9110 §13.1.5): without `If-Range`, or with the very tag or date we would send.
/// A weak tag never matches.
pub(crate) fn range_applies(headers: &HeaderMap, etag: &ETag, modified: Timestamp, dating: Dating) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    let text = text.trim();
    if text.starts_with('"') || text.starts_with("W/") {
        return text == etag.as_str();
    }
    dating == Dating::Sound && parse_date(text) == Some(modified.as_secs())
}

/// The precondition of a PUT or DELETE: `If-Match` or `If-None-Match`, not both.
pub(crate) fn of_write(headers: &HeaderMap) -> Result<Precondition> {
    let matches = Tags::of(headers, IF_MATCH);
    let none_match = Tags::of(headers, IF_NONE_MATCH);
    match (matches, none_match) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Present),
        (Some(Tags::List(tags)), None) => Ok(Precondition::Match(strong(tags))),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::List(tags))) => {
            Ok(Precondition::NoneMatch(tags.into_iter().map(|t| opaque(&t)).collect()))
        }
        (Some(_), Some(_)) => Err(Error::new(
            Code::InvalidRequest,
            "If-Match and If-None-Match contradict each other here: send one of them.",
        )),
    }
}

/// Seconds since the epoch as an HTTP date.
pub(crate) fn http_date(time: Timestamp) -> String {
    let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn strong(tags: Vec<String>) -> Vec<String> {
    tags.into_iter().filter(|tag| !tag.starts_with("W/")).collect()
}

fn opaque(tag: &str) -> String {
    tag.strip_prefix("W/").unwrap_or(tag).to_owned()
}

enum Tags {
    Any,
    List(Vec<String>),
}

impl Tags {
    /// All tags of a header that may come several times; `None` when it is absent.
    fn of(headers: &HeaderMap, name: http::HeaderName) -> Option<Tags> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let mut list = Vec::new();
        for value in values {
            let text = value.to_str().unwrap_or("");
            if text.trim() == "*" {
                return Some(Tags::Any);
            }
            list.extend(split(text));
        }
        Some(Tags::List(list))
    }

    fn match_strongly(&self, etag: &ETag) -> bool {
        match self {
            Tags::Any => true,
            Tags::List(tags) => tags.iter().any(|tag| tag == etag.as_str()),
        }
    }

    fn match_weakly(&self, etag: &ETag) -> bool {
        match self {
            Tags::Any => true,
            Tags::List(tags) => tags.iter().any(|tag| opaque(tag) == etag.as_str()),
        }
    }
}

/// Splits a list of entity tags; commas may stand inside the quotes.
fn split(text: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        // What is no tag matches nothing, and neither does what follows.
        let Some(tail) = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"') else { break };
        let Some(len) = tail.find('"') else { break };
        let end = rest.len() - tail.len() + len + 1;
        tags.push(rest[..end].to_owned());
        rest = rest[end..].trim_start_matches([' ', '\t', ',']);
    }
    tags
}

fn date(headers: &HeaderMap, name: http::HeaderName) -> Option<i64> {
    parse_date(headers.get(name)?.to_str().ok()?)
}

/// Seconds since the epoch; a date that is none is ignored (RFC 9110 §13.1.3).
fn parse_date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const LATER: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
    const EARLIER: &str = "Tue, 14 Nov 2023 22:13:19 GMT";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn order_of_rfc_9110() {
        use Verdict::{Failed, NotModified, Proceed};
        let etag = ETag::new("a").unwrap();
        let modified = Timestamp::from_millis(1_700_000_000_999);
        let cases: &[(&[(&'static str, &'static str)], Verdict)] = &[
            (&[], Proceed),
            (&[("if-match", "\"a\"")], Proceed),
            (&[("if-match", "\"b\", \"a\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "\"b\"")], Failed),
            (&[("if-match", "W/\"a\"")], Failed),
            (&[("if-match", "a")], Failed),
            (&[("if-match", "Wx\"\"a\"")], Failed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", EARLIER)], Proceed),
            (&[("if-unmodified-since", EARLIER)], Failed),
            (&[("if-unmodified-since", DATE)], Proceed),
            (&[("if-unmodified-since", "yesterday")], Proceed),
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"b,\", \"a\"")], NotModified),
            (&[("if-none-match", "\"b\"")], Proceed),
            (&[("if-none-match", "\"b\""), ("if-modified-since", LATER)], Proceed),
            (&[("if-modified-since", DATE)], NotModified),
            (&[("if-modified-since", EARLIER)], Proceed),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed),
        ];
        for (pairs, expected) in cases {
            assert_eq!(evaluate(&headers(pairs), &etag, modified, Dating::Sound), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn if_range() {
        let etag = ETag::new("a").unwrap();
        let modified = Timestamp::from_millis(1_700_000_000_999);
        for (value, expected) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            (DATE, true),
            (LATER, false),
            (EARLIER, false),
            ("x", false),
        ] {
            let headers = headers(&[("if-range", value)]);
            assert_eq!(range_applies(&headers, &etag, modified, Dating::Sound), expected, "{value}");
        }
        assert!(range_applies(&headers(&[]), &etag, modified, Dating::Sound));
    }

    /// An archive that lost an older member has its old date.
    #[test]
    fn the_newest_members_date_proves_no_sameness() {
        let etag = ETag::new("a").unwrap();
        let modified = Timestamp::from_millis(1_700_000_000_999);
        let verdict = |pairs| evaluate(&headers(pairs), &etag, modified, Dating::NewestMember);
        assert_eq!(verdict(&[("if-modified-since", DATE)]), Verdict::Proceed);
        assert_eq!(verdict(&[("if-none-match", "\"a\"")]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-unmodified-since", EARLIER)]), Verdict::Failed);
        let applies =
            |value| range_applies(&headers(&[("if-range", value)]), &etag, modified, Dating::NewestMember);
        assert!(applies("\"a\"") && !applies(DATE));
    }
}
