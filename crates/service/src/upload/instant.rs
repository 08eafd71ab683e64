//! Uploads whose content is there already: nothing is sent, the file points at the stored bytes.

use super::Uploads;
use super::parts::NewUpload;
use carrack_catalog::{NewFile, Origin};
use carrack_domain::access::{FileRef, WriteFile};
use carrack_domain::digest::Algorithm;
use carrack_domain::file::{File, Precondition};
use carrack_domain::upload::Target;
use carrack_domain::{Code, Grant, Result};

impl Uploads {
    /// The file at once, where `new` names by its SHA-256 content that the caller may read; `None` where it has to be
    /// sent. Limits, quota and precondition are those of any upload.
    pub async fn instant(&self, grant: &Grant<WriteFile>, new: &NewUpload) -> Result<Option<File>> {
        let Some(sha256) = new.digests.iter().find(|digest| digest.algorithm() == Algorithm::Sha256) else {
            return Ok(None);
        };
        let Ok(sha256) = <[u8; 32]>::try_from(sha256.value()) else { return Ok(None) };
        let precondition = if new.only_create { Precondition::Absent } else { Precondition::None };
        self.core.admit(grant.principal().subject(), grant.resource(), Some(new.size), &precondition).await?;
        let principal = grant.principal();
        let Some(source) = self.files.with_content(principal, new.size, sha256).await? else {
            return Ok(None);
        };
        let agrees = new.digests.iter().all(|digest| match digest.algorithm() {
            Algorithm::Sha256 => true,
            Algorithm::Crc32 => digest.value() == source.blob.digest.crc32.to_be_bytes(),
            Algorithm::Blake3 => source.blob.blake3().is_some_and(|known| digest.value() == known),
            // Not kept: what cannot be compared has to be sent.
            Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha512 => false,
        });
        if !agrees {
            return Ok(None);
        }
        let place = grant.resource().clone();
        let file = NewFile {
            target: Target {
                bucket: place.bucket,
                key: place.key,
                content_type: new.content_type.clone(),
                metadata: new.metadata.clone(),
            },
            blob: source.blob.clone(),
            content: None,
            precondition,
            created_at: self.core.clock.now(),
            created_by: principal.subject().to_owned(),
            origin: Origin::Copy(FileRef { bucket: source.bucket.clone(), key: source.key.clone() }),
        };
        let (core, maintenance) = (self.core.clone(), self.maintenance.clone());
        let work = async move {
            let committed = match core.facts.commit_file(file).await {
                Ok(committed) => committed,
                // Deleted or replaced just now: it has to be sent after all.
                Err(error) if error.code() == Code::FileNotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(orphan) = committed.orphan {
                maintenance.collect(orphan).await;
            }
            Ok(Some(committed.file))
        };
        self.core.to_the_end(work).await
    }
}
