//! Archives as plain values.

use super::values::damaged;
use carrack_domain::access::{FileRef, PrefixRef};
use carrack_domain::archive::{Archive, Compression, Origin, RENAMED_MAX, Renamed};
use carrack_domain::{BucketName, Code, Error, Key, KeyPrefix, Result};
use serde_json::{Value, json};

/// The most blobs that are held by rows of their own.
pub(crate) const ROWS_MAX: usize = 1024;

/// Ids in one run.
pub(crate) const RUN_IDS: usize = 128;

pub(crate) fn not_found() -> Error {
    Error::new(Code::ArchiveNotFound, "There is no such archive.")
}

pub(crate) const fn compression_number(compression: Compression) -> i64 {
    match compression {
        Compression::Store => 0,
        Compression::Deflate => 1,
        Compression::Auto => 2,
    }
}

pub(crate) fn origins_text(origins: &[Origin]) -> String {
    let one = |origin: &Origin| match origin {
        Origin::File(file) => json!([file.bucket.as_str(), file.key.as_str()]),
        Origin::Below(place) => json!([place.bucket.as_str(), place.prefix.as_str(), "below"]),
    };
    Value::Array(origins.iter().map(one).collect()).to_string()
}

pub(crate) fn origins(text: &str) -> Result<Vec<Origin>> {
    let one = |place: &Value| {
        let bucket = BucketName::parse(place[0].as_str()?).ok()?;
        let within = place[1].as_str()?;
        Some(match place.get(2) {
            None => Origin::File(FileRef { bucket, key: Key::parse(within).ok()? }),
            Some(_) => Origin::Below(PrefixRef { bucket, prefix: KeyPrefix::parse(within).ok()? }),
        })
    };
    let value: Value = serde_json::from_str(text).map_err(|_| damaged("the origins of an archive"))?;
    let all: Option<Vec<Origin>> = value.as_array().and_then(|places| places.iter().map(one).collect());
    all.ok_or_else(|| damaged("the origins of an archive"))
}

pub(crate) fn renamed(text: &str) -> Result<Vec<Renamed>> {
    let value: Value = serde_json::from_str(text).map_err(|_| damaged("renamed entries"))?;
    let one = |pair: &Value| {
        Some(Renamed { key: pair[0].as_str()?.to_owned(), name: pair[1].as_str()?.to_owned() })
    };
    let all: Option<Vec<Renamed>> = value.as_array().and_then(|pairs| pairs.iter().map(one).collect());
    all.ok_or_else(|| damaged("renamed entries"))
}

/// The entries that were renamed, as JSON.
pub(crate) fn renamed_text(archive: &Archive) -> String {
    let shown = archive.renamed.iter().take(RENAMED_MAX);
    let renamed: Vec<[&str; 2]> = shown.map(|one| [one.key.as_str(), one.name.as_str()]).collect();
    json!(renamed).to_string()
}

pub(crate) fn compression(number: i64) -> Result<Compression> {
    let found = Compression::ALL.into_iter().find(|one| compression_number(*one) == number);
    found.ok_or_else(|| damaged("a compression"))
}
