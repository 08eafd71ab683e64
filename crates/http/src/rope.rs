//! A rope as an answer: preconditions, ranges and the body, for files and archives alike.

use crate::body::ResponseBody;
use crate::call::Call;
use crate::conditional::{self, Dating, Verdict};
use crate::render::{self, Response};
use bytes::Bytes;
use carrack_domain::error::Fact;
use carrack_domain::id::hex;
use carrack_domain::range::{ByteRange, Selection, select};
use carrack_domain::rope::Slice;
use carrack_domain::{Code, Error, Result, Rope};
use carrack_service::download::{Kind, Transfer};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// A rope about to be sent.
pub(crate) struct Outgoing<'a> {
    pub(crate) rope: &'a Rope,
    pub(crate) content_type: &'a str,
    /// What the whole of it counts as in the metrics; a range of a file is [`Kind::Range`].
    pub(crate) kind: Kind,
    /// Headers of the whole of it, see [`representation`].
    pub(crate) headers: HeaderMap,
}

/// Adds what every answer about this rope says: validators, and what it is.
pub(crate) fn representation(mut headers: HeaderMap, rope: &Rope, content_type: &str) -> Result<HeaderMap> {
    headers.insert(ETAG, header(rope.etag().as_str())?);
    headers.insert(LAST_MODIFIED, header(&conditional::http_date(rope.modified()))?);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Kept by the client alone, and asked about each time: a file may be replaced.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(CONTENT_TYPE, header(content_type)?);
    Ok(headers)
}

/// What has to be sent, once preconditions and ranges are settled.
pub(crate) enum Answer {
    /// All there is to it: 304, or the answer to HEAD.
    Head(Response),
    /// The head of an answer, and the bytes that follow.
    Content(Response, Slice, Kind),
}

/// Settles preconditions and ranges. `precondition_failed` and `range_not_satisfiable` are errors.
pub(crate) fn answer(call: &Call, out: Outgoing<'_>) -> Result<Answer> {
    let rope = out.rope;
    let mut response = render::empty(StatusCode::OK);
    *response.headers_mut() = out.headers;
    let dating = if out.kind == Kind::Zip { Dating::NewestMember } else { Dating::Sound };
    match conditional::evaluate(&call.headers, rope.etag(), rope.modified(), dating) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().remove(CONTENT_LENGTH);
            return Ok(Answer::Head(response));
        }
        Verdict::Failed => {
            return Err(Error::new(
                Code::PreconditionFailed,
                "The content is not the one that If-Match or If-Unmodified-Since names: fetch it anew.",
            ));
        }
    }
    if call.method == Method::HEAD {
        // RFC 9110 §14.2: a range is for GET alone.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(rope.len()));
        return Ok(Answer::Head(response));
    }
    let selection = match call.headers.get(RANGE).and_then(|value| value.to_str().ok()) {
        Some(range) if conditional::range_applies(&call.headers, rope.etag(), rope.modified(), dating) => {
            select(range, rope.len())
        }
        _ => Selection::Whole,
    };
    let (slice, partial) = match selection {
        Selection::Whole => (rope.all(), false),
        Selection::One(range) => {
            response.headers_mut().insert(CONTENT_RANGE, content_range(range, rope.len())?);
            (rope.slice(range), true)
        }
        Selection::Many(ranges) => (many(&mut response, rope, &ranges, out.content_type)?, true),
        Selection::Unsatisfiable => {
            return Err(Error::new(
                Code::RangeNotSatisfiable,
                format!("The content has {} bytes; no byte of the range exists.", rope.len()),
            )
            .with_fact(Fact::CompleteLength(rope.len())));
        }
    };
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(slice.len()));
    let kind = if partial && out.kind == Kind::Full { Kind::Range } else { out.kind };
    Ok(Answer::Content(response, slice, kind))
}

/// The answer with the bytes of a transfer that was made ready, `length` of them.
pub(crate) fn with_transfer(response: Response, transfer: Transfer, length: u64) -> Response {
    response.map(|_| ResponseBody::transfer(transfer, length))
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|error| Error::internal("make a header", error))
}

fn content_range(range: ByteRange, length: u64) -> Result<HeaderValue> {
    header(&format!("bytes {}-{}/{length}", range.offset(), range.end() - 1))
}

/// Several ranges as `multipart/byteranges` (RFC 9110 §14.6): a rope of part headers and slices, so memory does not
/// grow with what is asked.
fn many(response: &mut Response, rope: &Rope, ranges: &[ByteRange], content_type: &str) -> Result<Slice> {
    // No content can hold this text: it would have to contain a hash of itself.
    let boundary = hex(&blake3::hash(rope.etag().as_str().as_bytes()).as_bytes()[..12]);
    let mut slices = Vec::with_capacity(ranges.len() * 2 + 1);
    for (index, range) in ranges.iter().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{line}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            range.offset(),
            range.end() - 1,
            rope.len()
        );
        slices.push(Slice::of_bytes(Bytes::from(head)));
        slices.push(rope.slice(*range));
    }
    slices.push(Slice::of_bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let kind = header(&format!("multipart/byteranges; boundary={boundary}"))?;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(Slice::sequence(slices))
}
