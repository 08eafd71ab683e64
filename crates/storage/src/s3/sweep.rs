//! What there is in the bucket, below our prefix alone: for those who compare it with the records.

use super::client::Call;
use super::fault::{Fault, error};
use super::{Inner, xml};
use carrack_domain::id::hex;
use carrack_domain::{BlobId, Result, Timestamp, UploadId};
use reqwest::Method;
use std::collections::HashMap;

/// A multipart upload that no session names may belong to a request under way somewhere: it is left alone for so long.
const REQUEST_AGE_SECS: u64 = 3 * 24 * 3600;

/// How much clocks may differ: nothing is taken for older than it is.
const SKEW_SECS: i64 = 3600;

impl Inner {
    /// All keys that begin like this, without our prefix, and when they were last written.
    pub(super) async fn list(&self, op: &'static str, prefix: &str) -> Result<Vec<(String, Timestamp)>> {
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let page = self.page(op, prefix, next).await?;
            found.extend(page.contents.into_iter().filter_map(|object| {
                let key = object.key.strip_prefix(self.client.prefix())?.to_owned();
                Some((key, Timestamp::parse(&object.last_modified)?))
            }));
            next = page.next_continuation_token.filter(|_| page.is_truncated);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    async fn page(&self, op: &'static str, prefix: &str, next: Option<String>) -> Result<xml::Objects> {
        let mut call = Call::new(op, Method::GET, "")
            .query("list-type", 2)
            .query("prefix", format!("{}{prefix}", self.client.prefix()));
        if let Some(next) = next {
            call = call.query("continuation-token", next);
        }
        let page: std::result::Result<xml::Objects, Fault> = self.client.say(&call).await;
        page.map_err(|fault| error(op, fault))
    }

    /// Sessions, and loose objects whose session is gone.
    pub(super) async fn stages(&self) -> Result<Vec<(UploadId, u64)>> {
        let mut found: HashMap<UploadId, u64> = HashMap::new();
        for (key, at) in self.list("list_stages", "sessions/").await? {
            if let Some(id) = key.strip_prefix("sessions/").and_then(UploadId::parse) {
                found.insert(id, self.age_secs(at));
            }
        }
        for (key, at) in self.list("list_stages", "loose/").await? {
            let id = key.strip_prefix("loose/").and_then(|rest| UploadId::parse(rest.split('/').next()?));
            if let Some(id) = id {
                found.entry(id).or_insert_with(|| self.age_secs(at));
            }
        }
        self.leftover_uploads(&mut found).await?;
        let brief = self.brief();
        found.retain(|id, _| !brief.contains_key(id));
        Ok(found.into_iter().collect())
    }

    /// Ends multipart uploads that no session names and that are older than any request.
    async fn leftover_uploads(&self, sessions: &mut HashMap<UploadId, u64>) -> Result<()> {
        let mut markers = None;
        loop {
            let mut call = Call::new("list_uploads", Method::GET, "")
                .query("uploads", "")
                .query("prefix", format!("{}blobs/", self.client.prefix()));
            if let Some((key, upload)) = markers {
                call = call.query("key-marker", key).query("upload-id-marker", upload);
            }
            let page: std::result::Result<xml::Uploads, Fault> = self.client.say(&call).await;
            let page = page.map_err(|fault| error("list_uploads", fault))?;
            for upload in page.uploads {
                let Some(key) = upload.key.strip_prefix(self.client.prefix()) else { continue };
                let id = key.rsplit('/').next().and_then(UploadId::parse);
                let age = Timestamp::parse(&upload.initiated).map_or(0, |at| self.age_secs(at));
                let Some(id) = id.filter(|id| age >= REQUEST_AGE_SECS && !sessions.contains_key(id)) else {
                    continue;
                };
                if self.find(id).await?.is_none() {
                    tracing::info!(stage = %id, "a multipart upload that nobody goes on with is ended");
                    self.abort(key.to_owned(), &upload.upload_id).await?;
                }
            }
            markers = page.next_key_marker.zip(page.next_upload_id_marker).filter(|_| page.is_truncated);
            if markers.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) async fn blobs(&self, shard: u8) -> Result<Vec<(BlobId, u64)>> {
        let prefix = format!("blobs/{}/", hex(&[shard]));
        let listed = self.list("list_blobs", &prefix).await?;
        let blobs = listed
            .into_iter()
            .filter_map(|(key, at)| Some((BlobId::parse(key.strip_prefix(&prefix)?)?, self.age_secs(at))));
        let readings = self.readings();
        Ok(blobs.filter(|(blob, _)| !readings.get(blob).is_some_and(|readers| readers.is_deleted)).collect())
    }

    /// How old something is for certain: the clocks of S3 and this machine may differ.
    fn age_secs(&self, at: Timestamp) -> u64 {
        u64::try_from(self.clock.now().as_secs() - at.as_secs() - SKEW_SECS).unwrap_or(0)
    }
}
