//! Records as lines of JSON. They are written by hand, since every download writes one.

use crate::access::Role;
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{LinkId, TokenId, TraceId};
use serde::Deserialize;
use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

/// The longest text of a field; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1024;

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something was changed: the record is in the same transaction.
    Change,
    /// A long transfer has begun.
    Begin,
    /// A request has ended, one way or another.
    End,
    /// Refusals of the same kind that came after the first of them.
    Repeated,
    /// Something about the log or the server itself.
    Note,
}

impl Kind {
    /// Its name in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Change => "change",
            Kind::Begin => "begin",
            Kind::End => "end",
            Kind::Repeated => "repeated",
            Kind::Note => "note",
        }
    }
}

/// A record about to be written. `docs/audit.md` says what its fields mean.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When it was written: at the end of what it tells of.
    pub at: Timestamp,
    /// What it tells of.
    pub kind: Kind,
    /// What was done, such as `file.read`.
    pub action: &'static str,
    /// The method of the request.
    pub method: Option<&'static str>,
    /// Who did it.
    pub subject: Option<&'a str>,
    /// Their role.
    pub role: Option<Role>,
    /// How they showed who they are.
    pub auth: &'static str,
    /// The token they came with, or that what they came with was made with.
    pub token: Option<TokenId>,
    /// The key that signed what they came with.
    pub kid: Option<&'a str>,
    /// The link they came by.
    pub link: Option<LinkId>,
    /// From where.
    pub address: Option<IpAddr>,
    /// The bucket.
    pub bucket: Option<&'a str>,
    /// The key.
    pub key: Option<&'a str>,
    /// The upload, archive, link or token.
    pub id: Option<&'a str>,
    /// Which request.
    pub trace: Option<TraceId>,
    /// The answer's status.
    pub status: Option<u16>,
    /// Why it was refused or failed.
    pub code: Option<Code>,
    /// How a transfer ended.
    pub result: Option<&'static str>,
    /// Bytes of content that were sent.
    pub sent: Option<u64>,
    /// Bytes of content that were received.
    pub received: Option<u64>,
    /// The content: its ETag, or a hash.
    pub version: Option<&'a str>,
    /// Bytes that a change is about.
    pub bytes: Option<u64>,
    /// Milliseconds from the beginning to `at`.
    pub took_ms: Option<u64>,
    /// How many it stands for.
    pub count: Option<u64>,
    /// Anything else.
    pub detail: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// A record of the server's own doing that tells nothing else yet.
    pub fn new(kind: Kind, at: Timestamp, action: &'static str) -> Record<'a> {
        Record {
            at,
            kind,
            action,
            method: None,
            subject: None,
            role: None,
            auth: "system",
            token: None,
            kid: None,
            link: None,
            address: None,
            bucket: None,
            key: None,
            id: None,
            trace: None,
            status: None,
            code: None,
            result: None,
            sent: None,
            received: None,
            version: None,
            bytes: None,
            took_ms: None,
            count: None,
            detail: None,
        }
    }

    /// Appends its line, with the line's end.
    pub fn write(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"at\":\"");
        write_time(line, self.at);
        line.extend_from_slice(b"\",\"kind\":\"");
        line.extend_from_slice(self.kind.as_str().as_bytes());
        line.push(b'"');
        text(line, "action", Some(self.action));
        text(line, "method", self.method);
        text(line, "subject", self.subject);
        text(line, "role", self.role.map(Role::as_str));
        text(line, "auth", Some(self.auth));
        id(line, "token", self.token.as_ref().map(TokenId::as_bytes));
        text(line, "kid", self.kid);
        id(line, "link", self.link.as_ref().map(LinkId::as_bytes));
        if let Some(address) = self.address {
            name(line, "ip");
            // Writing into memory cannot fail.
            write!(line, "\"{address}\"").ok();
        }
        text(line, "bucket", self.bucket);
        text(line, "key", self.key);
        text(line, "id", self.id);
        id(line, "trace", self.trace.as_ref().map(TraceId::as_bytes));
        number(line, "status", self.status.map(u64::from));
        text(line, "code", self.code.map(Code::as_str));
        text(line, "result", self.result);
        number(line, "sent", self.sent);
        number(line, "received", self.received);
        text(line, "version", self.version);
        number(line, "bytes", self.bytes);
        number(line, "took_ms", self.took_ms);
        number(line, "count", self.count);
        text(line, "detail", self.detail);
        line.extend_from_slice(b"}\n");
    }
}

fn name(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

fn text(line: &mut Vec<u8>, field: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    name(line, field);
    line.push(b'"');
    let value = cut(value);
    if value.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        escape(line, value);
    } else {
        line.extend_from_slice(value.as_bytes());
    }
    line.push(b'"');
}

/// The beginning of a text, up to the last whole character that there is room for.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let mut end = TEXT_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn escape(line: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            // Writing into memory cannot fail.
            0..0x20 => write!(line, "\\u{byte:04x}").unwrap_or_default(),
            _ => line.push(byte),
        }
    }
}

fn number(line: &mut Vec<u8>, field: &str, value: Option<u64>) {
    let Some(mut value) = value else { return };
    name(line, field);
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

fn id(line: &mut Vec<u8>, field: &str, value: Option<&[u8; 16]>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let Some(value) = value else { return };
    name(line, field);
    let mut quoted = [b'"'; 34];
    for (at, byte) in value.iter().enumerate() {
        quoted[1 + 2 * at] = DIGITS[usize::from(byte >> 4)];
        quoted[2 + 2 * at] = DIGITS[usize::from(byte & 15)];
    }
    line.extend_from_slice(&quoted);
}

/// RFC 3339 in UTC with milliseconds, as [`Timestamp`] shows itself, in a tenth of the time. The calendar is that of Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn write_time(line: &mut Vec<u8>, time: Timestamp) {
    const DAY: i64 = 86_400_000;
    let (days, millis) = (time.as_millis().div_euclid(DAY), time.as_millis().rem_euclid(DAY));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        // Writing into memory cannot fail.
        return write!(line, "{time}").unwrap_or_default();
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fields: [(i64, usize, u8); 7] = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (minutes / 60, 2, b':'),
        (minutes % 60, 2, b':'),
        (rest / 1000, 2, b'.'),
        (rest % 1000, 3, b'Z'),
    ];
    for (value, width, then) in fields {
        let mut digits = [0; 4];
        let mut left = value;
        for digit in digits[..width].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        line.extend_from_slice(&digits[..width]);
        line.push(then);
    }
}

/// Lines in the order they came, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Each with its end.
    pub text: Vec<u8>,
    /// How many.
    pub count: u64,
    /// The latest time in them.
    pub at: Timestamp,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { text: Vec::new(), count: 0, at: Timestamp::from_millis(0) }
    }
}

impl Lines {
    /// One more.
    pub fn push(&mut self, record: &Record<'_>) {
        record.write(&mut self.text);
        self.count += 1;
        self.at = self.at.max(record.at);
    }

    /// One more that was written before.
    pub fn push_line(&mut self, line: &[u8], at: Timestamp) {
        self.text.extend_from_slice(line);
        self.count += 1;
        self.at = self.at.max(at);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What is looked for in a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fields<'a> {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// Who.
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    /// In which bucket.
    #[serde(borrow, default)]
    pub bucket: Option<Cow<'a, str>>,
    /// At which key.
    #[serde(borrow, default)]
    pub key: Option<Cow<'a, str>>,
    /// Which one.
    #[serde(default)]
    pub count: Option<u64>,
    /// What content.
    #[serde(borrow, default)]
    pub version: Option<Cow<'a, str>>,
}

impl Fields<'_> {
    /// What a line says; `None` when it is none of ours.
    pub fn parse(line: &[u8]) -> Option<Fields<'_>> {
        serde_json::from_slice(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn line(record: &Record<'_>) -> Value {
        let mut line = Vec::new();
        record.write(&mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'), "one record, one line");
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn everything_is_said() {
        let mut record = Record::new(Kind::End, Timestamp::from_millis(1_700_000_000_123), "file.read");
        record.method = Some("GET");
        record.subject = Some("al\"ice");
        record.role = Some(Role::User);
        record.auth = "token";
        record.token = Some(TokenId::from_bytes([0xab; 16]));
        record.address = "2001:db8::1".parse().ok();
        record.bucket = Some("default");
        record.key = Some("a/\u{e4}\n.txt");
        record.status = Some(206);
        record.code = Some(Code::DataLost);
        record.sent = Some(u64::MAX);
        record.received = Some(0);
        let expected = serde_json::json!({
            "at": "2023-11-14T22:13:20.123Z", "kind": "end", "action": "file.read", "method": "GET",
            "subject": "al\"ice", "role": "user", "auth": "token", "token": "ab".repeat(16), "ip": "2001:db8::1",
            "bucket": "default", "key": "a/\u{e4}\n.txt", "status": 206, "code": "data_lost",
            "sent": u64::MAX, "received": 0,
        });
        assert_eq!(line(&record), expected);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_and_comes_back(text in any::<String>(), number in any::<u64>()) {
            let mut record = Record::new(Kind::Note, Timestamp::from_millis(0), "x");
            record.key = Some(&text);
            record.count = Some(number);
            let line = line(&record);
            prop_assert_eq!(line["key"].as_str(), Some(text.as_str()));
            prop_assert_eq!(line["count"].as_u64(), Some(number));
        }

        #[test]
        fn times_are_those_of_the_calendar(millis in -80_000_000_000_000_i64..250_000_000_000_000) {
            let mut text = Vec::new();
            write_time(&mut text, Timestamp::from_millis(millis));
            prop_assert_eq!(String::from_utf8(text).unwrap(), Timestamp::from_millis(millis).to_string());
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let long = "\u{e4}".repeat(1000);
        let mut record = Record::new(Kind::Note, Timestamp::from_millis(0), "x");
        record.key = Some(&long);
        assert_eq!(line(&record)["key"].as_str().unwrap(), "\u{e4}".repeat(512));
    }
}
