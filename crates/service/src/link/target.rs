//! What links are to, and whether who made one may still share it.

use super::Links;
use crate::archive::Archive;
use crate::download::{Form, OpenFile};
use carrack_domain::access::{
    ArchiveFile, ArchivePrefix, FileRef, ReadFile, ShareFile, SharePrefix, UseArchives, authorize,
};
use carrack_domain::archive::{self, Origin};
use carrack_domain::link::{Link, Target};
use carrack_domain::policy::Circumstances;
use carrack_domain::{Code, Error, Identity, Principal, Result};
use std::sync::Arc;

/// What a link is to, opened: everything that can fail before the first byte has not failed.
pub enum Content {
    /// A file's.
    File(OpenFile),
    /// An archive's.
    Archive(Archive),
}

impl Links {
    /// What a link is to, opened. `link_revoked` when who made it may not share it any more; `content_gone` when it is not
    /// there any more.
    pub async fn content(&self, link: &Link, form: Form, of: &Circumstances) -> Result<Content> {
        // Rights are those of the moment.
        let owner = self.access.principal(Arc::new(Identity::new(link.owner.clone(), link.role)), *of);
        let revoked =
            |_| Error::new(Code::LinkRevoked, "Who made this link may not share what it is to any more.");
        match &link.target {
            Target::File(file) => {
                let place = FileRef { bucket: file.bucket.clone(), key: file.key.clone() };
                authorize::<ReadFile>(&owner, place.clone()).map_err(revoked)?;
                authorize::<ShareFile>(&owner, place).map_err(revoked)?;
                Ok(Content::File(self.downloads.open_content(file, form).await?))
            }
            Target::Archive(linked) => {
                let (archive, content) = self.archives.linked(linked.id, form).await?;
                may_be_shared(&owner, &archive).map_err(revoked)?;
                Ok(Content::Archive(content))
            }
        }
    }
}

/// Whether somebody may let others have all that is in an archive; `forbidden`.
pub(super) fn may_be_shared(who: &Principal, archive: &archive::Archive) -> Result<()> {
    authorize::<UseArchives>(who, ())?;
    if archive.origins.is_empty() {
        let detail = "Where this archive's files come from was not noted yet when it was made: make it anew.";
        return Err(Error::new(Code::Forbidden, detail));
    }
    for origin in &archive.origins {
        match origin {
            Origin::File(file) => {
                authorize::<ArchiveFile>(who, file.clone())?;
                authorize::<ShareFile>(who, file.clone())?;
            }
            Origin::Below(place) => {
                authorize::<ArchivePrefix>(who, place.clone())?;
                authorize::<SharePrefix>(who, place.clone())?;
            }
        }
    }
    Ok(())
}
