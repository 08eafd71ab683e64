//! What `carrack migrate` does.

use crate::config::CatalogUrl;
use carrack_catalog::{Migrated, PostgresCatalog};

/// Applies outstanding migrations; what was done, or why not, as a sentence.
pub(crate) fn run(url: &CatalogUrl) -> Result<String, String> {
    let url = match url {
        CatalogUrl::Sqlite => {
            return Ok("a catalog in SQLite is brought up to date when the server starts".to_owned());
        }
        CatalogUrl::Postgres(url) => url,
    };
    let done = runtime()?.block_on(PostgresCatalog::migrate(url)).map_err(|error| error.to_string())?;
    let Migrated { from, to, applied } = done;
    Ok(if applied.is_empty() {
        format!("schema version {to}: nothing to do")
    } else {
        format!("schema version {from} -> {to}: {}", applied.join(", "))
    })
}

/// For a command that needs no more.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| format!("cannot start: {error}"))
}
