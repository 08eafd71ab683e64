//! Under which number this process writes to the stage of an upload. Other processes have other ones, so that what one of
//! them had under way when it was displaced cannot get among the bytes of another.

use crate::Core;
use carrack_domain::{Result, UploadId};
use quick_cache::sync::Cache;

/// Uploads whose number is remembered. For one that was forgotten another is taken, which costs a line in the catalog.
const REMEMBERED_MAX: usize = 16_384;

/// See the module's documentation.
pub struct Writers(Cache<UploadId, u32>);

impl Default for Writers {
    fn default() -> Writers {
        Writers(Cache::new(REMEMBERED_MAX))
    }
}

impl Writers {
    /// This process has just begun the upload: nobody else has written to it.
    pub(super) fn begin(&self, upload: UploadId) {
        self.0.insert(upload, 0);
    }

    /// What was written under the number may still be under way: the next writer takes another.
    pub(super) fn forget(&self, upload: UploadId) {
        self.0.remove(&upload);
    }
}

impl Core {
    /// The number under which this process writes to the stage of an upload.
    pub(super) async fn writer(&self, upload: UploadId) -> Result<u32> {
        if let Some(writer) = self.writers.0.get(&upload) {
            return Ok(writer);
        }
        let writer = self.catalog.new_writer(&upload).await?;
        self.writers.0.insert(upload, writer);
        Ok(writer)
    }
}
