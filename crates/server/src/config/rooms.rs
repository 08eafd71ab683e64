//! `[catalog]` and `[storage]`: where facts and bytes are kept.

use super::{Config, units};
use carrack_storage::MEMORY_BYTES_MIN;
use serde::Deserialize;
use serde::de::Error as _;
use std::fmt;

/// `[catalog]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[serde(deserialize_with = "catalog_url")]
    pub url: CatalogUrl,
    pub connections: usize,
    pub migrate: bool,
}

/// Which catalog.
#[derive(Clone, PartialEq, Eq)]
pub enum CatalogUrl {
    /// SQLite in the data folder.
    Sqlite,
    /// PostgreSQL at this URL, which has a password in it.
    Postgres(String),
}

impl fmt::Debug for CatalogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CatalogUrl::Sqlite => "sqlite",
            CatalogUrl::Postgres(_) => "postgres://...",
        })
    }
}

impl Config {
    /// Whether other nodes may use the same catalog and the same storage.
    pub fn has_other_nodes(&self) -> bool {
        let both = self.storage.kind == StorageKind::S3 && self.catalog.url != CatalogUrl::Sqlite;
        self.storage.shared || both
    }
}

/// `[storage]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub kind: StorageKind,
    #[serde(deserialize_with = "units::bytes")]
    pub reserve: u64,
    pub shared: bool,
    pub s3: S3,
}

/// `[storage.s3]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub endpoint: String,
    pub public_endpoint: String,
    pub region: String,
    pub bucket: String,
    pub prefix: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub path_style: bool,
    #[serde(deserialize_with = "units::bytes")]
    pub memory: u64,
    pub direct_parts: bool,
    pub direct_downloads: bool,
}

impl S3 {
    /// What all that is stored there is called together: whoever has the same bucket and prefix has the same.
    pub fn store_id(&self) -> [u8; 16] {
        let name = format!("s3\0{}\0{}", self.bucket, self.prefix);
        let hash = blake3::hash(name.as_bytes());
        std::array::from_fn(|at| hash.as_bytes()[at])
    }

    /// What is wrong with them, if they are used.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let public = Some(("public_endpoint", &self.public_endpoint)).filter(|(_, found)| !found.is_empty());
        for (name, found) in [("endpoint", &self.endpoint)].into_iter().chain(public) {
            let host = ["http://", "https://"].iter().find_map(|scheme| found.strip_prefix(scheme));
            if host.is_none_or(|host| host.is_empty() || host.trim_end_matches('/').contains('/')) {
                wrong.push(format!(
                    "setting storage.s3.{name}: found {found:?}, expected such as \"https://s3.example.org\", without a path"
                ));
            }
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        for (name, value) in [("region", &self.region), ("bucket", &self.bucket)] {
            if value.is_empty() || !plain(value) {
                wrong.push(format!("setting storage.s3.{name}: found {value:?}, expected its name"));
            }
        }
        let folders = self.prefix.is_empty() || (self.prefix.ends_with('/') && !self.prefix.starts_with('/'));
        if !folders || !plain(&self.prefix.replace('/', "")) || self.prefix.contains("//") {
            let found = &self.prefix;
            wrong.push(format!(
                "setting storage.s3.prefix: found {found:?}, expected \"\" or such as \"carrack/\""
            ));
        }
        for (name, value) in
            [("access_key_id", &self.access_key_id), ("secret_access_key", &self.secret_access_key)]
        {
            if value.is_empty() {
                wrong.push(format!(
                    "setting storage.s3.{name}: found \"\", expected that of a key of the bucket"
                ));
            }
        }
        if self.memory < MEMORY_BYTES_MIN {
            let found = self.memory;
            wrong.push(format!(
                "setting storage.s3.memory: found {found} bytes, expected at least {} MiB",
                MEMORY_BYTES_MIN >> 20
            ));
        }
        wrong
    }
}

/// Which storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// A local disk.
    Disk,
    /// A bucket.
    S3,
}

/// What is wrong is said without the URL: it has a password in it.
fn catalog_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CatalogUrl, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "sqlite" {
        return Ok(CatalogUrl::Sqlite);
    }
    if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(CatalogUrl::Postgres(text));
    }
    Err(D::Error::custom("expected \"sqlite\" or \"postgres://USER:PASSWORD@HOST/DATABASE\""))
}

/// What is wrong about where facts and bytes are kept.
pub(super) fn wrong_about_rooms(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    if config.storage.kind == StorageKind::S3 {
        wrong.extend(config.storage.s3.check());
    }
    if config.catalog.connections == 0 {
        wrong.push("setting catalog.connections: found 0, expected at least 1".to_owned());
    }
    if config.storage.shared && config.catalog.url == CatalogUrl::Sqlite {
        wrong.push(
            "setting storage.shared: found true, which takes a catalog that nodes can share: set catalog.url to a PostgreSQL"
                .to_owned(),
        );
    }
    if config.has_other_nodes() && config.storage.kind == StorageKind::S3 && config.auth.keys.is_empty() {
        wrong.push(
            "setting auth.keys: none, which with a catalog in PostgreSQL and files in S3 would leave each node with its own: set \
             the same keys for all of them"
                .to_owned(),
        );
    }
    wrong
}
