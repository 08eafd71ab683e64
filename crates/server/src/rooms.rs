//! The rooms for bytes and facts, opened as the settings say, and refused when they do not belong together.

use crate::clock::CommonClock;
use crate::config::{CatalogUrl, Config, StorageKind};
use crate::data::{self, DataFolder};
use crate::system::{SystemClock, SystemEntropy};
use carrack_catalog::{
    CopyCatalog, CopyState, EventCatalog, PostgresCatalog, PostgresOptions, SqliteCatalog, SqliteOptions,
};
use carrack_domain::Clock;
use carrack_storage::{LocalOptions, LocalStore, S3Options, S3Store, Storage};
use std::path::Path;
use std::sync::Arc;

/// Commands that wait for the catalog's writer, at most; further ones wait at the door.
const CATALOG_QUEUE: usize = 1024;

/// What a catalog is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To be served: what is done goes into the audit log, and is told to others.
    Serve,
    /// To be copied, or filled by a copy: it is left as it is.
    Copy,
}

impl Use {
    /// A copy's sessions have a name of their own, so that those of servers can be told from them.
    fn url(self, url: &str) -> String {
        match self {
            Use::Serve => url.to_owned(),
            Use::Copy => {
                let sign = if url.contains('?') { '&' } else { '?' };
                format!("{url}{sign}application_name=carrack-copy")
            }
        }
    }
}

/// A catalog that is being filled is not whole.
pub(crate) async fn refuse_unfinished(catalog: &dyn CopyCatalog) -> Result<(), String> {
    let state = catalog
        .copy_state()
        .await
        .map_err(|error| format!("the catalog is not usable: {}", error.chain()))?;
    match state {
        CopyState::None | CopyState::Done(_) => Ok(()),
        CopyState::Begun(at) => Err(format!(
            "the catalog is the unfinished copy of another installation, begun at {at}: run carrack copy with the same --from \
             and --to until it says that everything is copied, or begin anew with an empty database and storage."
        )),
    }
}

/// Opens the storage.
pub(crate) async fn open_storage(config: &Config, folder: &DataFolder) -> Result<Arc<dyn Storage>, String> {
    match config.storage.kind {
        StorageKind::Disk => {
            let options = LocalOptions {
                folder: folder.path.clone(),
                durability: config.uploads.durability,
                reserve_bytes: config.storage.reserve,
                open_blobs_max: open_blobs_max(),
            };
            Ok(Arc::new(LocalStore::open(options).map_err(|error| error.to_string())?))
        }
        StorageKind::S3 => {
            let s3 = config.storage.s3.clone();
            let options = S3Options {
                endpoint: s3.endpoint,
                public_endpoint: s3.public_endpoint,
                region: s3.region,
                bucket: s3.bucket,
                prefix: s3.prefix,
                access_key_id: s3.access_key_id,
                secret_access_key: s3.secret_access_key,
                path_style: s3.path_style,
                memory_bytes: s3.memory,
                direct_parts: s3.direct_parts,
                direct_downloads: s3.direct_downloads,
            };
            Ok(Arc::new(S3Store::open(options, Arc::new(SystemClock), Arc::new(SystemEntropy)).await?))
        }
    }
}

/// The catalog, as what it is used for.
pub(crate) struct Opened {
    pub(crate) catalog: Arc<dyn CopyCatalog>,
    /// If events are kept.
    pub(crate) events: Option<Arc<dyn EventCatalog>>,
    /// Whose clock all nodes go by.
    pub(crate) timekeeper: Option<Arc<PostgresCatalog>>,
}

/// Opens the catalog, which must belong to the storage, and sets the clock by it.
pub(crate) async fn open_catalog(
    config: &Config,
    folder: &DataFolder,
    storage: &dyn Storage,
    used: Use,
    clock: &Arc<CommonClock>,
) -> Result<Opened, String> {
    let time = || clock.clone() as Arc<dyn Clock>;
    let audit = (used == Use::Serve && config.audit.enabled).then(time);
    let are_kept = used == Use::Serve && config.events.are_kept();
    let events = are_kept.then(time);
    match &config.catalog.url {
        CatalogUrl::Sqlite => {
            let path = folder.path.join("catalog.sqlite");
            if !path.exists() {
                refuse_bytes_without_catalog(config, folder, storage).await?;
                refuse_log_without_catalog(folder, &config.audit.file(&folder.path))?;
            }
            let readers = std::thread::available_parallelism().map_or(4, |n| n.get().max(2) * 2);
            let options = SqliteOptions { path, readers, queue: CATALOG_QUEUE, audit, events };
            let catalog = Arc::new(SqliteCatalog::open(options).map_err(|error| error.to_string())?);
            let events = are_kept.then(|| catalog.clone() as Arc<dyn EventCatalog>);
            Ok(Opened { catalog, events, timekeeper: None })
        }
        CatalogUrl::Postgres(url) => {
            let options = PostgresOptions {
                url: used.url(url),
                connections: config.catalog.connections,
                queue: CATALOG_QUEUE,
                audit,
                events,
                migrate: config.catalog.migrate,
            };
            let catalog = PostgresCatalog::open(options).await.map_err(|error| error.to_string())?;
            // Before anything is written, or judged to be over.
            clock
                .set(&catalog)
                .await
                .map_err(|error| format!("the database does not tell the time: {}", error.chain()))?;
            bind_store(&catalog, config, folder, storage).await?;
            let catalog = Arc::new(catalog);
            let events = are_kept.then(|| catalog.clone() as Arc<dyn EventCatalog>);
            Ok(Opened { catalog: catalog.clone(), events, timekeeper: Some(catalog) })
        }
    }
}

/// A catalog belongs to one store: with another, every file would count as lost, and every stored byte as left over.
async fn bind_store(
    catalog: &PostgresCatalog,
    config: &Config,
    folder: &DataFolder,
    storage: &dyn Storage,
) -> Result<(), String> {
    let id = match config.storage.kind {
        StorageKind::Disk => data::store_id(folder, &SystemEntropy)?,
        StorageKind::S3 => config.storage.s3.store_id(),
    };
    let failed = |error: carrack_domain::Error| format!("the catalog is not usable: {}", error.chain());
    match catalog.store().await.map_err(failed)? {
        None => {
            refuse_bytes_without_catalog(config, folder, storage).await?;
            refuse_log_without_catalog(folder, &config.audit.file(&folder.path))?;
        }
        Some(bound) if bound != id => {}
        Some(_) => return Ok(()),
    }
    if catalog.bind_store(id).await.map_err(failed)? == id {
        return Ok(());
    }
    Err(format!(
        "the catalog belongs to files that are stored elsewhere, not in the data folder {}. Several nodes need one folder, and \
         storage.shared = true; a catalog that is to be used anew needs an empty database.",
        folder.path.display()
    ))
}

/// A new catalog knows of no file: beside it, every stored byte would count as left over, and be deleted in time.
async fn refuse_bytes_without_catalog(
    config: &Config,
    folder: &DataFolder,
    storage: &dyn Storage,
) -> Result<(), String> {
    let path = folder.path.display();
    for shard in 0..=u8::MAX {
        let blobs = storage.blobs(shard).await.map_err(|error| error.chain())?;
        if !blobs.is_empty() {
            return Err(match config.storage.kind {
                StorageKind::Disk => format!(
                    "the data folder {path} holds stored files but no catalog.sqlite, or its catalog is empty: restore the catalog \
                     from a backup, or move the folder away to begin anew."
                ),
                StorageKind::S3 => format!(
                    "the bucket {} holds stored files but the data folder {path} no catalog.sqlite, or the catalog is empty: \
                     restore the catalog from a backup, or name another bucket or prefix to begin anew.",
                    config.storage.s3.bucket
                ),
            });
        }
    }
    Ok(())
}

/// Nor would anybody notice that small files are gone, which are in the catalog alone.
fn refuse_log_without_catalog(folder: &DataFolder, checkpoints: &Path) -> Result<(), String> {
    let begun = std::fs::metadata(checkpoints).is_ok_and(|facts| facts.len() > 0);
    if !begun {
        return Ok(());
    }
    Err(format!(
        "the data folder {} has no catalog.sqlite, but {} says that there was one: restore the catalog from a backup, or \
         move both away to begin anew.",
        folder.path.display(),
        checkpoints.display()
    ))
}

/// A quarter of the descriptors this process may have: the rest is for connections and uploads.
fn open_blobs_max() -> usize {
    const MOST: u64 = 4096;
    const FEWEST: u64 = 16;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(MOST * 4);
    (allowed / 4).clamp(FEWEST, MOST) as usize
}
