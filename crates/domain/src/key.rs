//! Names of buckets and files. Untrusted text becomes one of these types at the edge, once.

use crate::error::{Code, Error, Result};
use std::fmt;

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;

/// Key of a file: 1 to 1024 bytes of UTF-8; `/` separates segments; no segment is empty, `.` or `..`;
/// no control character. It is never a path on disk, so nothing else needs to be forbidden.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// Checks the rules above; `invalid_key` says which one was broken.
    pub fn parse(text: &str) -> Result<Key> {
        check(text, KEY_BYTES_MAX)?;
        for segment in text.split('/') {
            let problem = match segment {
                "" => "has an empty segment: remove the leading, trailing or doubled '/'",
                "." | ".." => "has a segment '.' or '..': use the plain path",
                _ => continue,
            };
            return Err(Error::new(Code::InvalidKey, format!("The key {problem}.")));
        }
        Ok(Key(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment: what a browser would save the file as.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// What keys may begin with: like a [`Key`], but it may be empty or end in the middle of a segment.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct KeyPrefix(Box<str>);

impl KeyPrefix {
    /// Checks length and control characters; a prefix that no key can begin with is not an error.
    pub fn parse(text: &str) -> Result<KeyPrefix> {
        if !text.is_empty() {
            check(text, KEY_BYTES_MAX)?;
        }
        Ok(KeyPrefix(text.into()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length of the part up to and including the last `/`: what archives cut from entry names.
    pub fn folder_len(&self) -> usize {
        self.0.rfind('/').map_or(0, |at| at + 1)
    }
}

fn check(text: &str, bytes_max: usize) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty: give the file a name".to_owned()
    } else if text.len() > bytes_max {
        format!("has {} bytes: at most {bytes_max} are allowed", text.len())
    } else if let Some(bad) = text.chars().find(|c| c.is_control()) {
        format!("has the control character U+{:04X}: remove it", u32::from(bad))
    } else {
        return Ok(());
    };
    Err(Error::new(Code::InvalidKey, format!("The key {problem}.")))
}

/// Name of a bucket: 3 to 63 characters of `a-z`, `0-9`, `-`, `.`, `_`, beginning and ending with a letter or digit,
/// so that it is also a valid S3 bucket, folder and host name part.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(Box<str>);

impl BucketName {
    /// Checks the rules above; `invalid_bucket` says what is allowed.
    pub fn parse(text: &str) -> Result<BucketName> {
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inside = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        let fits = (3..=63).contains(&bytes.len());
        if fits
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(inside)
            && !text.contains("..")
        {
            return Ok(BucketName(text.into()));
        }
        Err(Error::new(
            Code::InvalidBucket,
            "A bucket's name has 3 to 63 characters of a-z, 0-9, '-', '_' and single '.', and begins and ends with a letter or digit.",
        ))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
text!(Key, KeyPrefix, BucketName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_corpus() {
        for good in
            ["a", "a/b", "...", "a..b", ".hidden", "ü/日本.txt", "a b", "con", "C:\\x", &"k".repeat(1024)]
        {
            assert_eq!(Key::parse(good).unwrap().as_str(), good);
        }
        let long = "k".repeat(1025);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/./b", "a\0b", "a\nb", "a\u{7f}",
            "\u{85}", &long,
        ] {
            assert_eq!(Key::parse(bad).unwrap_err().code(), Code::InvalidKey, "{bad:?}");
        }
    }

    #[test]
    fn bucket_corpus() {
        for good in ["abc", "default", "a.b-c_9", &"b".repeat(63)] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "ABC", "-ab", "ab-", "a..b", "a/b", "a b", "ümlaut", "../x", &"b".repeat(64)] {
            assert_eq!(BucketName::parse(bad).unwrap_err().code(), Code::InvalidBucket, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_have_no_segment_that_climbs(text in "\\PC{0,40}|[./a]{0,12}") {
            if let Ok(key) = Key::parse(&text) {
                prop_assert!(key.as_str().split('/').all(|s| !s.is_empty() && s != "." && s != ".."));
            }
        }
    }
}
