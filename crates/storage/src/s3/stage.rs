//! What a stage is: its plan and its multipart upload. Of a session it is written down in an object, so that every node knows;
//! of a request in memory alone.

use super::client::{Body, Call};
use super::fault::{Fault, error, lost};
use super::plan::Plan;
use super::{Inner, xml};
use crate::StageKind;
use bytes::Bytes;
use carrack_domain::{BlobId, Error, Result, UploadId};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) id: UploadId,
    pub(super) plan: Plan,
    /// Whether it lives for one request.
    pub(super) brief: bool,
    /// S3's name of the multipart upload, of a brief one once there is a part.
    pub(super) upload: OnceCell<String>,
}

/// The object that says what a session's stage is.
#[derive(Serialize, Deserialize)]
struct Written {
    part: u64,
    size: Option<u64>,
    lanes: u32,
    #[serde(default)]
    direct: bool,
    upload: Option<String>,
}

pub(super) fn session_key(stage: UploadId) -> String {
    format!("sessions/{stage}")
}

/// What the names of a stage's loose objects begin with.
pub(super) fn loose_prefix(stage: UploadId) -> String {
    format!("loose/{stage}/")
}

pub(super) fn loose_key(stage: UploadId, from: u64, name: u64) -> String {
    format!("loose/{stage}/{from:016x}-{name:016x}")
}

pub(super) fn blob_key(blob: BlobId) -> String {
    format!("blobs/{}/{blob}", carrack_domain::id::hex(&blob.as_bytes()[..1]))
}

impl Inner {
    pub(super) async fn create(&self, id: UploadId, size: Option<u64>, kind: StageKind) -> Result<()> {
        let extent = match kind {
            StageKind::Parts(extent) => Some(extent.get()),
            StageKind::Session | StageKind::Request => None,
        };
        if size.is_some_and(|size| size > self.size_max()) {
            return Err(super::too_much());
        }
        let plan = Plan::new(size, extent, self.part_max)?;
        // Without checksums nobody could say what came past us.
        let plan = match extent.filter(|_| self.direct_parts && self.checksums) {
            Some(extent) => plan.with_direct(extent),
            None => plan,
        };
        let brief = kind == StageKind::Request;
        let stage = Stage { id, plan, brief, upload: OnceCell::new() };
        if brief {
            let taken = self.brief().insert(id, Arc::new(stage)).is_some();
            return if taken { Err(Error::broken("a stage of a name that is taken")) } else { Ok(()) };
        }
        if self.written(id).await?.is_some() {
            return Err(Error::broken("a stage of a name that is taken"));
        }
        if plan.lanes > 0 {
            self.upload_of(&stage).await?;
        }
        let written = Written {
            part: plan.part,
            size: plan.size,
            lanes: plan.lanes,
            direct: plan.direct,
            upload: stage.upload.get().cloned(),
        };
        let text = serde_json::to_vec(&written).map_err(|error| Error::internal("write a stage", error))?;
        self.put("create_stage", session_key(id), Bytes::from(text)).await?;
        self.stages.insert(id, Arc::new(stage));
        Ok(())
    }

    /// A stage that there is; `data_lost` otherwise.
    pub(super) async fn stage(&self, id: UploadId) -> Result<Arc<Stage>> {
        match self.find(id).await? {
            Some(stage) => Ok(stage),
            None => Err(lost(format!("stage {id} is gone"))),
        }
    }

    pub(super) async fn find(&self, id: UploadId) -> Result<Option<Arc<Stage>>> {
        let brief = self.brief().get(&id).cloned();
        if let Some(stage) = brief.or_else(|| self.stages.get(&id)) {
            return Ok(Some(stage));
        }
        let Some(written) = self.written(id).await? else { return Ok(None) };
        let Written { part, size, lanes, direct, .. } = written;
        let plan = Plan { part, size, lanes, direct };
        let stage = Arc::new(Stage { id, plan, brief: false, upload: OnceCell::new_with(written.upload) });
        self.stages.insert(id, stage.clone());
        Ok(Some(stage))
    }

    async fn written(&self, id: UploadId) -> Result<Option<Written>> {
        match self.client.call(&Call::new("open_stage", Method::GET, session_key(id))).await {
            Ok(answer) => match serde_json::from_str(&answer.text) {
                Ok(written) => Ok(Some(written)),
                Err(error) => Err(Error::internal("read a stage", error)),
            },
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(error("open_stage", fault)),
        }
    }

    /// The multipart upload of a stage, begun if there is none yet.
    pub(super) async fn upload_of(&self, stage: &Stage) -> Result<String> {
        let begin = async || -> Result<String> {
            let mut call = Call::new("create_upload", Method::POST, blob_key(stage.id.blob()))
                .query("uploads", "")
                .header("content-type", "application/octet-stream");
            if self.checksums {
                call = call.header("x-amz-checksum-algorithm", "CRC32");
            }
            if self.full_object {
                call = call.header("x-amz-checksum-type", "FULL_OBJECT");
            }
            let begun: std::result::Result<xml::Initiated, Fault> = self.client.say(&call).await;
            Ok(begun.map_err(|fault| error("create_upload", fault))?.upload_id)
        };
        stage.upload.get_or_try_init(begin).await.cloned()
    }

    /// Deletes what there is of a stage: its multipart upload, loose objects, the object that says what it is. A blob that it
    /// became stays, unless it was for a request that has not published it.
    pub(super) async fn discard(&self, id: UploadId) -> Result<()> {
        let brief = self.brief().remove(&id);
        let stage = match &brief {
            Some(stage) => Some(stage.clone()),
            None => self.find(id).await?,
        };
        self.stages.remove(&id);
        if let Some(stage) = stage {
            if let Some(upload) = stage.upload.get() {
                self.abort(blob_key(id.blob()), upload).await?;
            }
            if stage.brief {
                self.remove("discard_stage", blob_key(id.blob())).await?;
                self.forget(id.blob());
            }
        }
        self.remove_loose(id).await?;
        if brief.is_none() { self.remove("discard_stage", session_key(id)).await } else { Ok(()) }
    }

    pub(super) async fn abort(&self, key: String, upload: &str) -> Result<()> {
        let call = Call::new("abort_upload", Method::DELETE, key).query("uploadId", upload);
        match self.client.call(&call).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_absent() => Ok(()),
            Err(fault) => Err(error("abort_upload", fault)),
        }
    }

    pub(super) async fn remove_loose(&self, stage: UploadId) -> Result<()> {
        for (key, _) in self.list("list_loose", &loose_prefix(stage)).await? {
            self.remove("delete_loose", key).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, op: &'static str, key: String) -> Result<()> {
        match self.client.call(&Call::new(op, Method::DELETE, key)).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_absent() => Ok(()),
            Err(fault) => Err(error(op, fault)),
        }
    }

    /// Puts bytes in memory as an object.
    pub(super) async fn put(&self, op: &'static str, key: String, bytes: Bytes) -> Result<()> {
        let crc32 = crc32fast::hash(&bytes);
        let body = if bytes.is_empty() { Body::empty() } else { Body::blocks(vec![bytes]) };
        self.put_body(op, key, body, crc32).await
    }

    /// Puts an object whose CRC-32 is known.
    pub(super) async fn put_body(&self, op: &'static str, key: String, body: Body, crc32: u32) -> Result<()> {
        let call = Call::new(op, Method::PUT, key)
            .header("x-amz-checksum-crc32", base64(crc32))
            .header("content-type", "application/octet-stream")
            .body(body);
        let answer = self.client.call(&call).await.map_err(|fault| error(op, fault))?;
        agree(answer.header("x-amz-checksum-crc32"), crc32).map_err(|fault| error(op, fault))
    }
}

/// A CRC-32 as S3 writes it.
pub(super) fn base64(crc32: u32) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(crc32.to_be_bytes())
}

/// A lie unless S3 says nothing of the checksum, or the right one.
pub(super) fn agree(said: Option<&str>, crc32: u32) -> std::result::Result<(), Fault> {
    match said {
        Some(said) if said != base64(crc32) => {
            Err(Fault::Lie(format!("S3 has stored other bytes than it was sent: CRC-32 {said}")))
        }
        Some(_) | None => Ok(()),
    }
}
