//! Places on the server as they are written on the command line: `BUCKET`, `BUCKET/`, `BUCKET/KEY`, `BUCKET/PREFIX/`.

use crate::failure::Failure;
use carrack_client::FileName;

/// A bucket and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    /// A key, a prefix, or nothing.
    pub(crate) rest: String,
    /// Whether there was a `/` behind the bucket.
    pub(crate) slash: bool,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Place, Failure> {
        let (bucket, rest, slash) = match text.split_once('/') {
            Some((bucket, rest)) => (bucket, rest, true),
            None => (text, "", false),
        };
        if bucket.is_empty() {
            return Err(Failure::Usage(format!("{text:?} names no bucket: write BUCKET or BUCKET/KEY")));
        }
        Ok(Place { bucket: bucket.to_owned(), rest: rest.to_owned(), slash })
    }

    /// Whether it names a folder or a bucket rather than a file.
    pub(crate) fn is_folder(&self) -> bool {
        self.rest.is_empty() || self.rest.ends_with('/')
    }

    /// As a prefix that ends at the end of a segment.
    pub(crate) fn folder(&self) -> String {
        if self.is_folder() { self.rest.clone() } else { format!("{}/", self.rest) }
    }

    /// The last segment, or the bucket.
    pub(crate) fn last(&self) -> &str {
        match self.rest.trim_end_matches('/').rsplit('/').next() {
            Some(last) if !last.is_empty() => last,
            _ => &self.bucket,
        }
    }

    /// As the name of a file.
    pub(crate) fn file(&self) -> Result<FileName, Failure> {
        FileName::new(&self.bucket, &self.rest).map_err(Failure::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let cases = [
            ("b", "", true, "", "b"),
            ("b/", "", true, "", "b"),
            ("b/k", "k", false, "k/", "k"),
            ("b/a/k", "a/k", false, "a/k/", "k"),
            ("b/a/", "a/", true, "a/", "a"),
        ];
        for (text, rest, is_folder, folder, last) in cases {
            let place = Place::parse(text).unwrap();
            let facts = (place.rest.as_str(), place.is_folder(), place.folder(), place.last());
            assert_eq!(facts, (rest, is_folder, folder.to_owned(), last), "{text}");
        }
        assert!(Place::parse("").is_err() && Place::parse("/a").is_err());
    }
}
