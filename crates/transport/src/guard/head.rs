//! One head of a request, judged whole.

use super::is_text;

/// The most bytes of a head.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most field lines of a head: as many as hyper takes.
const FIELDS_MAX: usize = 100;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// Why a head is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Something in it has no or more than one meaning; the sentence says what.
    Malformed(&'static str),
    /// It has too many bytes or fields.
    TooLarge,
}

impl Refusal {
    /// The whole answer. Nothing of the request is known for certain, so it is the same for all.
    pub(crate) fn answer(self) -> Vec<u8> {
        let (status, title, code, detail) = match self {
            Refusal::Malformed(detail) => (400, "Bad Request", "malformed_head", detail),
            Refusal::TooLarge => (
                431,
                "Request Header Fields Too Large",
                "head_too_large",
                "A request's head has 64 KiB and 100 fields at most: send less.",
            ),
        };
        let body = format!(
            "{{\"type\":\"urn:carrack:problem:{code}\",\"title\":\"{title}\",\"status\":{status},\
             \"detail\":\"{detail}\",\"code\":\"{code}\",\"trace_id\":\"\"}}\n"
        );
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

const BARE_LF: Refusal =
    Refusal::Malformed("A line of the request's head ends with LF alone: end it with CR LF.");
const FOLDED: Refusal =
    Refusal::Malformed("A header field goes on in a second line, which is obsolete: write it in one.");
const REQUEST_LINE: Refusal =
    Refusal::Malformed("The first line is no request of HTTP/1.1 or HTTP/1.0: METHOD TARGET HTTP/1.1.");
const FIELD: Refusal =
    Refusal::Malformed("A header field is none: send NAME: VALUE, without a space before the colon.");
const LENGTH: Refusal = Refusal::Malformed("Content-Length is not one number: send it once.");
const CODING: Refusal = Refusal::Malformed("Transfer-Encoding is not chunked, in HTTP/1.1, once.");
const BOTH: Refusal =
    Refusal::Malformed("The request has Content-Length and Transfer-Encoding: send one of them.");
const HOST: Refusal = Refusal::Malformed("A request of HTTP/1.1 has one Host field.");

/// Where a head ends that these bytes begin with; `None` while it has not come.
pub(super) fn end(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    // Empty lines before a request are no part of it (RFC 9112 §2.2).
    let begin = bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
    let mut at = begin;
    while let Some(line) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let end = at + line;
        if end == at || bytes[end - 1] != b'\r' {
            return Err(BARE_LF);
        }
        if end - 1 == at && at > begin {
            return Ok(Some(end + 1));
        }
        at = end + 1;
    }
    Ok(None)
}

/// How the body behind a whole head ends, unless the head means more than one thing to somebody.
pub(super) fn judge(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.by_ref().find(|line| !line.is_empty()).ok_or(REQUEST_LINE)?;
    let is_new = request_line(first)?;
    let (mut length, mut chunked, mut hosts, mut fields) = (None, false, 0, 0);
    for line in lines.filter(|line| !line.is_empty()) {
        fields += 1;
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(number(value)?).is_some() {
                return Err(LENGTH);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !is_new || chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(CODING);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        }
    }
    if fields > FIELDS_MAX || head.len() > HEAD_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    if hosts > 1 || (is_new && hosts == 0) {
        return Err(HOST);
    }
    match (length, chunked) {
        (Some(_), true) => Err(BOTH),
        (Some(length), false) => Ok(Framing::Length(length)),
        (None, true) => Ok(Framing::Chunked),
        (None, false) => Ok(Framing::None),
    }
}

/// Whether it is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next()) else {
        return Err(REQUEST_LINE);
    };
    let is_target = !target.is_empty() && target.iter().all(|byte| *byte > 0x20 && *byte != 0x7f);
    let is_method = !method.is_empty() && method.iter().copied().all(is_name);
    if !is_method || !is_target || hyper::Uri::try_from(target).is_err() {
        return Err(REQUEST_LINE);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(REQUEST_LINE),
    }
}

fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if line[0] == b' ' || line[0] == b'\t' {
        return Err(FOLDED);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(FIELD)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let is_field =
        !name.is_empty() && name.iter().copied().all(is_name) && value.iter().copied().all(is_text);
    if is_field { Ok((name, value)) } else { Err(FIELD) }
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn number(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.filter(|_| digits).ok_or(LENGTH)
}
