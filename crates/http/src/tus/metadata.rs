//! `Upload-Metadata`: pairs of a name and a base64 value, the value may be absent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrack_domain::{Code, Error, Result, file};

/// The most bytes of the field: it is kept with the upload, and every HEAD sends it.
const BYTES_MAX: usize = 16 << 10;
/// Names that say where the file goes, and are no facts of it.
const PLACE: [&str; 2] = ["bucket", "key"];
/// Names of the media type.
const TYPE: [&str; 2] = ["filetype", "type"];

/// What it says, in order.
pub(super) struct Metadata(Vec<(String, Vec<u8>)>);

impl Metadata {
    pub(super) fn parse(text: &str) -> Result<Metadata> {
        if text.len() > BYTES_MAX {
            return Err(invalid(format!("has {} bytes, at most {BYTES_MAX} are kept", text.len())));
        }
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        if text.trim().is_empty() {
            return Ok(Metadata(pairs));
        }
        for pair in text.split(',') {
            let pair = pair.trim_matches(' ');
            let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if name.is_empty() {
                return Err(invalid("has a pair without a name"));
            }
            if pairs.iter().any(|(known, _)| known == name) {
                return Err(invalid(format!("has '{}' more than once", name.escape_default())));
            }
            let value = STANDARD.decode(value).map_err(|_| {
                invalid(format!("has a value of '{}' that is not base64", name.escape_default()))
            })?;
            pairs.push((name.to_owned(), value));
        }
        Ok(Metadata(pairs))
    }

    /// The pairs.
    pub(super) fn into_pairs(self) -> Vec<(String, Vec<u8>)> {
        self.0
    }

    /// A value as text; one that is not UTF-8 is refused.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| known == name) else { return Ok(None) };
        std::str::from_utf8(value)
            .map(Some)
            .map_err(|_| invalid(format!("has a value of '{name}' that is not UTF-8")))
    }

    /// The media type; bytes of no known kind when it names none that is one.
    pub(super) fn content_type(&self) -> String {
        let named = TYPE.iter().filter_map(|name| self.text(name).ok().flatten());
        let known = named.filter_map(|text| crate::call::check_content_type(Some(text)).ok()).next();
        known.unwrap_or_else(|| "application/octet-stream".to_owned())
    }

    /// What is said besides, for the file: text only, as that is what a file's facts are.
    pub(super) fn into_facts(self) -> file::Metadata {
        let text = |(name, value): (String, Vec<u8>)| Some((name, String::from_utf8(value).ok()?));
        let facts = self.into_pairs().into_iter().filter(|(name, _)| !PLACE.contains(&name.as_str()));
        facts.filter_map(text).collect()
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(
        Code::InvalidRequest,
        format!("Upload-Metadata {what}: write 'name base64,name base64', each name once."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let metadata =
            Metadata::parse("filename d29ybGQudHh0,is_confidential,empty ,bucket YWJj, raw /w==").unwrap();
        assert_eq!(metadata.text("filename").unwrap(), Some("world.txt"));
        assert_eq!(metadata.text("is_confidential").unwrap(), Some(""));
        assert_eq!(metadata.text("absent").unwrap(), None);
        assert!(metadata.text("raw").is_err(), "not UTF-8");
        assert_eq!(metadata.content_type(), "application/octet-stream");
        let facts = metadata.into_facts();
        assert_eq!(facts.keys().collect::<Vec<_>>(), ["empty", "filename", "is_confidential"]);
        assert_eq!(Metadata::parse("filetype aW1hZ2UvcG5n").unwrap().content_type(), "image/png");
        assert_eq!(
            Metadata::parse("filetype bnVsbA==,type dGV4dC9wbGFpbg==").unwrap().content_type(),
            "text/plain"
        );
        for bad in [
            "a !",
            "a YQ=",
            "a YQ, a YQ==",
            "a YQ==,a YQ==",
            ",",
            "a YQ==,",
            "a b c",
            "my key dmFs",
            &"x".repeat(20_000),
        ] {
            assert!(Metadata::parse(bad).is_err(), "{bad}");
        }
    }
}
