//! Names on the server, and where on the local disk they may lead.

use crate::error::{ClientError, Result};
use carrack_domain::{BucketName, Key};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::path::{Path, PathBuf};

/// What may stand in a path segment or a query value as it is (RFC 3986 §2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A file on the server: a bucket and a key in it, both checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: Key,
}

impl FileName {
    /// Checks bucket and key.
    pub fn new(bucket: &str, key: &str) -> Result<FileName> {
        Ok(FileName { bucket: bucket_name(bucket)?, key: Key::parse(key).map_err(invalid)? })
    }

    /// Reads `BUCKET/KEY`.
    pub fn parse(text: &str) -> Result<FileName> {
        let (bucket, key) = text
            .split_once('/')
            .ok_or_else(|| ClientError::Invalid(format!("{text}: name a file as BUCKET/KEY")))?;
        FileName::new(bucket, key)
    }

    /// The path of the file's resource.
    pub(crate) fn path(&self) -> String {
        let mut path = format!("/v1/files/{}", self.bucket);
        for segment in self.key.as_str().split('/') {
            path.push('/');
            path.extend(utf8_percent_encode(segment, ESCAPED));
        }
        path
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

pub(crate) fn bucket_name(text: &str) -> Result<BucketName> {
    BucketName::parse(text).map_err(invalid)
}

/// Appends `name=value` to a path with or without a query.
pub(crate) fn push_query(path: &mut String, name: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(name);
    path.push('=');
    path.extend(utf8_percent_encode(value, ESCAPED));
}

fn invalid(error: carrack_domain::Error) -> ClientError {
    ClientError::Invalid(error.to_string())
}

/// Where below `folder` the file `name` belongs. Names come from a server and are not trusted: whatever is not a
/// plain relative path, on this system or another, is refused, and so is a way through a symbolic link, since it may
/// lead out of the folder.
pub fn local_path(folder: &Path, name: &str) -> Result<PathBuf> {
    let refuse = |why: &str| ClientError::Invalid(format!("{name:?} is not a safe file name: it {why}"));
    if name.chars().any(char::is_control) {
        return Err(refuse("has a control character"));
    }
    let mut path = folder.to_owned();
    let mut segments = name.split('/').peekable();
    while let Some(segment) = segments.next() {
        let why = match segment {
            "" => "begins with '/' or has an empty segment",
            "." | ".." => "has a segment '.' or '..'",
            _ if segment.contains('\\') => "has a '\\', which separates folders on some systems",
            _ if is_drive(segment) => "has a drive",
            _ => "",
        };
        if !why.is_empty() {
            return Err(refuse(why));
        }
        path.push(segment);
        if segments.peek().is_some() && path.is_symlink() {
            return Err(refuse("leads through a symbolic link"));
        }
    }
    Ok(path)
}

/// `C:` alone.
fn is_drive(segment: &str) -> bool {
    matches!(segment.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        let name = FileName::parse("default/a b/ü?#%2e.txt").unwrap();
        assert_eq!(name.path(), "/v1/files/default/a%20b/%C3%BC%3F%23%252e.txt");
        assert_eq!(name.to_string(), "default/a b/ü?#%2e.txt");
        for bad in ["default", "default/", "default//a", "default/../a", "UP/a", "default/a\n"] {
            assert!(FileName::parse(bad).is_err(), "{bad:?}");
        }
        let mut path = "/v1/x".to_owned();
        push_query(&mut path, "prefix", "a&b=/");
        push_query(&mut path, "limit", "1");
        assert_eq!(path, "/v1/x?prefix=a%26b%3D%2F&limit=1");
    }

    #[test]
    fn hostile_names_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| local_path(folder.path(), name);
        for good in ["a", "a/b", "...", "..a/b..", "a b/c", ".hidden", "x:y/z", "日本/é"] {
            assert_eq!(inside(good).unwrap(), folder.path().join(good));
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "C:/x",
            "a/c:",
            "a\\..\\x",
            "..\\x",
            "a\0b",
            "a\nb",
            "a\u{1b}[2J",
        ] {
            assert!(matches!(inside(bad), Err(ClientError::Invalid(_))), "{bad:?}");
        }
        std::os::unix::fs::symlink("/tmp", folder.path().join("link")).unwrap();
        assert!(inside("link/x").is_err());
        assert!(inside("link").is_ok(), "a link in the last place is replaced, not followed");
    }
}
