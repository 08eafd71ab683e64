//! Header fields that a fuzzer makes up, against readers of their own that go byte by byte.
//!
//! Each function takes any bytes, and says what is wrong with how we read the fields they make.

use crate::conditional::{self, Dating, Verdict};
use crate::{resumable, tus};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrack_domain::{ETag, Timestamp};
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The content's tag and date in [`conditions`].
const TAG: &str = "ab";
const DATE: i64 = 784_111_777;
const DATES: [&str; 4] = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:36 GMT",
    "Sunday, 06-Nov-94 08:49:38 GMT",
    "yesterday",
];

type Judged = Result<(), String>;

/// Conditions of a request (RFC 9110 §13): a byte says which there are and of what kind, the rest is their text, cut at zeros.
pub fn conditions(data: &[u8]) -> Judged {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let mut texts = rest.split(|byte| *byte == 0);
    let mut headers = HeaderMap::new();
    let mut tags = |bit: u8, name: HeaderName, headers: &mut HeaderMap| {
        let value = HeaderValue::from_bytes(texts.next().unwrap_or_default()).ok();
        let value = value.filter(|_| first & bit != 0)?;
        headers.append(name, value.clone());
        Some(value.to_str().unwrap_or("").to_owned())
    };
    let matches = tags(1, IF_MATCH, &mut headers);
    let none_match = tags(2, IF_NONE_MATCH, &mut headers);
    let if_range = tags(4, IF_RANGE, &mut headers);
    let dates = |wanted: bool, at: u8| wanted.then(|| usize::from(at) % DATES.len());
    let unmodified = dates(first & 8 != 0, first >> 6);
    let modified = dates(first & 16 != 0, first >> 5);
    for (name, at) in [(IF_UNMODIFIED_SINCE, unmodified), (IF_MODIFIED_SINCE, modified)] {
        if let Some(at) = at {
            headers.insert(name, HeaderValue::from_static(DATES[at]));
        }
    }
    let etag = ETag::new(TAG).ok_or("the tag is none")?;
    let date = Timestamp::from_millis(DATE * 1000);
    let dating = if first & 32 == 0 { Dating::Sound } else { Dating::NewestMember };
    let found = conditional::evaluate(&headers, &etag, date, dating);
    // What the dates of the list say of content that changed at DATE: None is a date that is none.
    let not_since = |at: usize| [Some(true), Some(false), Some(true), None][at];
    let failed = match &matches {
        Some(text) => !names(text, false),
        None => unmodified.and_then(not_since) == Some(false),
    };
    let expected = if failed {
        Verdict::Failed
    } else if let Some(text) = &none_match {
        if names(text, true) { Verdict::NotModified } else { Verdict::Proceed }
    } else if dating == Dating::Sound && modified.and_then(not_since) == Some(true) {
        Verdict::NotModified
    } else {
        Verdict::Proceed
    };
    if found != expected {
        return Err(format!("{found:?} instead of {expected:?} for {headers:?}, {dating:?}"));
    }
    let ranges = conditional::range_applies(&headers, &etag, date, dating);
    let same_date = |text: &str| text == DATES[0] && dating == Dating::Sound;
    let tag = format!("\"{TAG}\"");
    let sure = if_range.as_deref().map(str::trim).map(|text| (text == tag || same_date(text), text));
    match sure {
        None if !ranges && if_range.is_none() => Err("a range without a condition does not count".to_owned()),
        Some((true, text)) if !ranges => Err(format!("If-Range: {text} is the content's and does not count")),
        Some((_, text)) if ranges && (text.starts_with("W/") || text.starts_with('"') && text != tag) => {
            Err(format!("If-Range: {text} counts, and is not the content's"))
        }
        _ => Ok(()),
    }
}

/// Whether a list of entity tags (RFC 9110 §8.8.3) names [`TAG`]; of what follows something that is no tag nothing counts.
fn names(text: &str, weakly: bool) -> bool {
    if text.trim() == "*" {
        return true;
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if matches!(bytes[at], b' ' | b'\t' | b',') {
            at += 1;
            continue;
        }
        let weak = bytes[at..].starts_with(b"W/");
        let open = if weak { at + 2 } else { at };
        if bytes.get(open) != Some(&b'"') {
            return false;
        }
        let mut close = open + 1;
        while bytes.get(close).is_some_and(|byte| *byte != b'"') {
            close += 1;
        }
        if close >= bytes.len() {
            return false;
        }
        if (weakly || !weak) && &bytes[open + 1..close] == TAG.as_bytes() {
            return true;
        }
        at = close + 1;
    }
    false
}

/// `Upload-Metadata` of tus: pairs that these bytes make come back as they were; of any text that is read, what was read can be
/// written and read again.
pub fn metadata(data: &[u8]) -> Judged {
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    for value in data.split(|byte| *byte == 0) {
        pairs.push((format!("n{}", pairs.len()), value.to_vec()));
    }
    let written = |pairs: &[(String, Vec<u8>)]| {
        let pair = |(name, value): &(String, Vec<u8>)| format!("{name} {}", STANDARD.encode(value));
        pairs.iter().map(pair).collect::<Vec<_>>().join(",")
    };
    let text = written(&pairs);
    if text.len() < 8 << 10 && tus::metadata_pairs(&text).as_ref() != Some(&pairs) {
        return Err(format!("{pairs:?} do not come back"));
    }
    let Some((text, read)) =
        std::str::from_utf8(data).ok().and_then(|text| Some((text, tus::metadata_pairs(text)?)))
    else {
        return Ok(());
    };
    let separate = |text: &str| text.split(',').filter(|_| !text.trim().is_empty()).count();
    let sound = read.iter().enumerate().all(|(at, (name, _))| {
        !name.is_empty() && !name.contains([',', ' ']) && read[..at].iter().all(|(other, _)| other != name)
    });
    if !sound || read.len() != separate(text) {
        return Err(format!("{text:?} is read as {read:?}"));
    }
    let again = written(&read);
    if again.len() < 8 << 10 && tus::metadata_pairs(&again).as_ref() != Some(&read) {
        return Err(format!("{read:?} does not come back"));
    }
    Ok(())
}

/// Items of structured fields (RFC 9651 §4.2.3): what is one says what it says; what says something begins as one.
pub fn structured(data: &[u8]) -> Judged {
    let Ok(value) = HeaderValue::from_bytes(data) else { return Ok(()) };
    let name = HeaderName::from_static("x-item");
    let mut headers = HeaderMap::new();
    headers.insert(name.clone(), value.clone());
    let (integer, boolean) = resumable::items(&headers, name.as_str());
    let text = value.to_str().unwrap_or("");
    let expected = item(text.as_bytes());
    let agrees = match expected {
        Some((Bare::Integer(number), true)) => (integer, boolean) == (Some(number), None),
        Some((Bare::Boolean(is), true)) => (integer, boolean) == (None, Some(is)),
        // Parameters are not looked at: badly written ones may be passed over.
        Some((Bare::Integer(number), false)) => {
            integer.is_none_or(|found| found == number) && boolean.is_none()
        }
        Some((Bare::Boolean(is), false)) => boolean.is_none_or(|found| found == is) && integer.is_none(),
        None => (integer, boolean) == (None, None),
    };
    if agrees { Ok(()) } else { Err(format!("{text:?} is read as {integer:?} and {boolean:?}")) }
}

#[derive(Clone, Copy)]
enum Bare {
    /// One that is not negative.
    Integer(u64),
    Boolean(bool),
}

/// The bare item that a field begins with, and whether all of it is an item.
fn item(bytes: &[u8]) -> Option<(Bare, bool)> {
    let start = bytes.iter().position(|byte| *byte != b' ')?;
    let rest = &bytes[start..];
    let (bare, used) = match rest {
        [b'?', b'0', ..] => (Bare::Boolean(false), 2),
        [b'?', b'1', ..] => (Bare::Boolean(true), 2),
        _ => {
            let used = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if used == 0 || used > 15 {
                return None;
            }
            let number = rest[..used].iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
            (Bare::Integer(number), used)
        }
    };
    let rest = &rest[used..];
    match rest.iter().find(|byte| **byte != b' ') {
        None => Some((bare, true)),
        Some(b';') if rest[0] == b';' => Some((bare, parameters(rest))),
        // "1.5", "12a", "?1x", "1 ;a" are other items or none.
        Some(_) => None,
    }
}

/// Whether these are parameters with bare items that are simple enough to be told here: keys alone, integers, booleans, tokens.
fn parameters(mut rest: &[u8]) -> bool {
    while let [b';', after @ ..] = rest {
        let spaces = after.iter().take_while(|byte| **byte == b' ').count();
        let key = &after[spaces..];
        let is_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte);
        let used = key.iter().take_while(|byte| is_key(byte)).count();
        if used == 0 || !(key[0].is_ascii_lowercase() || key[0] == b'*') {
            return false;
        }
        rest = &key[used..];
        if let [b'=', value @ ..] = rest {
            let used = value.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            if used == 0
                || value[0].is_ascii_digit() && value[..used].iter().any(|byte| !byte.is_ascii_digit())
            {
                return false;
            }
            rest = &value[used..];
        }
    }
    rest.iter().all(|byte| *byte == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn conditions_are_read_as_stated(first in any::<u8>(), rest in "([\"abW/*, \u{0}]|\"ab\"){0,12}") {
            let data: Vec<u8> = std::iter::once(first).chain(rest.into_bytes()).collect();
            prop_assert_eq!(conditions(&data), Ok(()));
        }

        #[test]
        fn metadata_comes_back(data in prop::collection::vec(any::<u8>(), 0..60), text in "([a-c ,=]|YQ==){0,12}") {
            prop_assert_eq!(metadata(&data), Ok(()));
            prop_assert_eq!(metadata(text.as_bytes()), Ok(()));
        }

        #[test]
        fn items_are_read_as_stated(text in "[ ?0-9;=a.-]{0,18}") {
            prop_assert_eq!(structured(text.as_bytes()), Ok(()));
        }
    }
}
