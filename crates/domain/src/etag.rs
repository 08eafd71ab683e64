//! Strong entity tags.

use crate::id::hex;
use std::fmt;

/// A strong entity tag in quotes, as it stands in the `ETag` header (RFC 9110 §8.8.3). The bytes behind a URL with a
/// given tag never change (invariant 4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Box<str>);

impl ETag {
    /// The tag of stored content: the first half of its BLAKE3 hash, so that equal content has equal tags everywhere.
    pub fn of_content(blake3: &[u8; 32]) -> ETag {
        let mut text = String::with_capacity(34);
        text.push('"');
        text.push_str(&hex(&blake3[..16]));
        text.push('"');
        ETag(text.into())
    }

    /// A tag made of `text`: visible ASCII without quotes, or `None`.
    pub fn new(text: &str) -> Option<ETag> {
        let visible = |b: u8| (0x21..=0x7e).contains(&b) && b != b'"';
        (!text.is_empty() && text.bytes().all(visible)).then(|| ETag(format!("\"{text}\"").into()))
    }

    /// The tag with its quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
