//! Everything below a prefix, into a local folder. Keys come from a server and are not trusted.

use crate::blocking::blocking;
use crate::client::Client;
use crate::download::Downloaded;
use crate::error::{ClientError, Result};
use crate::progress::Progress;
use crate::remote::{FileName, local_path};
use futures_util::stream::{self, StreamExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Client {
    /// Downloads the files of `bucket` whose keys begin with `prefix` to `folder`, each at what follows the prefix.
    /// `each` hears how every file went; one that cannot be had, or whose key would lead out of the folder, does not
    /// keep the others back. Returns the number of files that were downloaded.
    pub async fn download_folder(
        &self,
        bucket: &str,
        prefix: &str,
        folder: &Path,
        progress: Arc<dyn Progress>,
        mut each: impl FnMut(&str, Result<(PathBuf, Downloaded)>),
    ) -> Result<u64> {
        let mut listing = self.list(bucket, prefix, None)?;
        let mut downloaded = 0;
        while let Some(page) = listing.next_page().await? {
            let mut files = stream::iter(page.files)
                .map(|file| {
                    let progress = Arc::clone(&progress);
                    async move {
                        let outcome = self.download_below(bucket, prefix, &file.key, folder, progress).await;
                        (file.key, outcome)
                    }
                })
                .buffer_unordered(self.options().parallel);
            while let Some((key, outcome)) = files.next().await {
                downloaded += u64::from(outcome.is_ok());
                each(&key, outcome);
            }
        }
        Ok(downloaded)
    }

    async fn download_below(
        &self,
        bucket: &str,
        prefix: &str,
        key: &str,
        folder: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<(PathBuf, Downloaded)> {
        let relative = key.strip_prefix(prefix).ok_or_else(|| {
            ClientError::Unexpected(format!("the key {key:?} in a listing of the prefix {prefix:?}"))
        })?;
        let name = FileName::new(bucket, key)?;
        let (below, relative) = (folder.to_owned(), relative.to_owned());
        let path = blocking(move || {
            let path = local_path(&below, &relative)?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| ClientError::local(parent, error))?;
            }
            Ok(path)
        })
        .await?;
        let downloaded = self.download_file(&name, &path, progress).await?;
        Ok((path, downloaded))
    }
}
