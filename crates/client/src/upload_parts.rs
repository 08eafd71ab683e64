//! An upload in parts: several at once, each checked against the server's answer, continued by the next run.

use crate::blocking::blocking;
use crate::body::{self, Sent};
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::journal::{UploadJournal, flags};
use crate::progress::Progress;
use crate::remote::FileName;
use crate::source::Source;
use crate::upload::{UploadOptions, Uploaded, verify_stored};
use crate::whole::Whole;
use carrack_api::{CompleteUpload, CreateUpload, File, Part, Upload, UploadCreated};
use carrack_domain::digest::Piece;
use carrack_domain::id::hex;
use carrack_domain::upload::PartPlan;
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;
use reqwest::header::CONTENT_LENGTH;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

/// An upload on the server.
struct Session {
    id: String,
    plan: PartPlan,
    /// Whether the server has part `n + 1`.
    received: Vec<bool>,
}

/// What the parts of one upload have in common.
struct Job<'a> {
    client: &'a Client,
    source: &'a Source,
    session: &'a Session,
    name: &'a str,
    progress: &'a Arc<dyn Progress>,
}

impl Client {
    pub(crate) async fn upload_parts(
        &self,
        source: Source,
        target: &FileName,
        options: &UploadOptions,
        progress: &Arc<dyn Progress>,
    ) -> Result<Uploaded> {
        let journal = self
            .options()
            .state_dir
            .as_deref()
            .map(|state_dir| UploadJournal::new(state_dir, self.base(), target, &source));
        let session = match self.resume(journal.clone(), &source, target).await? {
            Some(session) => session,
            None => self.begin(journal.clone(), &source, target, options).await?,
        };
        let name = target.to_string();
        let job = Job { client: self, source: &source, session: &session, name: &name, progress };
        let outcome = job.run().await;
        let ended = match &outcome {
            Ok(_) => true,
            Err(ClientError::Changed { .. } | ClientError::Corrupt { .. }) => {
                self.abandon(&session.id).await;
                true
            }
            Err(error) if error.status() == Some(422) => {
                self.abandon(&session.id).await;
                true
            }
            Err(error) => error.is_gone(),
        };
        if let Some(journal) = journal.filter(|_| ended) {
            blocking(move || {
                journal.forget();
                Ok(())
            })
            .await?;
        }
        outcome
    }

    /// The upload that an earlier run began, if the server still has it.
    async fn resume(
        &self,
        journal: Option<UploadJournal>,
        source: &Source,
        target: &FileName,
    ) -> Result<Option<Session>> {
        let Some(journal) = journal else { return Ok(None) };
        let Some(id) = blocking(move || Ok(journal.upload_id())).await? else { return Ok(None) };
        let path = format!("/v1/uploads/{id}");
        let upload: Upload = match self.json(|| self.request(Method::GET, &path)).await {
            Ok(upload) => upload,
            Err(error) if error.is_gone() => return Ok(None),
            Err(error) => return Err(error),
        };
        let same = upload.bucket == target.bucket.as_str()
            && upload.key == target.key.as_str()
            && upload.size == Some(source.stamp.size);
        if !same {
            return Ok(None);
        }
        let plan = plan(source.stamp.size, upload.part_size.unwrap_or(0), upload.part_count.unwrap_or(0))?;
        // An upload past `open` has every part, whatever it lists.
        let received = match upload.state.as_str() {
            "open" => flags(upload.received.as_deref().unwrap_or(""), plan.count())
                .ok_or_else(|| ClientError::Unexpected(format!("received parts {:?}", upload.received)))?,
            _ => vec![true; plan.count() as usize],
        };
        Ok(Some(Session { id, plan, received }))
    }

    async fn begin(
        &self,
        journal: Option<UploadJournal>,
        source: &Source,
        target: &FileName,
        options: &UploadOptions,
    ) -> Result<Session> {
        let create = CreateUpload {
            bucket: target.bucket.to_string(),
            key: target.key.to_string(),
            size: source.stamp.size,
            part_size: self.wished_part_size(source.stamp.size),
            content_type: options.content_type.clone(),
            metadata: options.metadata.clone(),
            digest: BTreeMap::new(),
            if_none_match: options.only_create.then(|| "*".to_owned()),
        };
        let created: UploadCreated =
            self.json(|| self.request(Method::POST, "/v1/uploads").json(&create)).await?;
        let plan = plan(source.stamp.size, created.part_size, created.part_count)?;
        let session = Session { id: created.upload_id, plan, received: vec![false; plan.count() as usize] };
        if let Some(journal) = journal {
            let id = session.id.clone();
            blocking(move || {
                journal.remember(&id);
                Ok(())
            })
            .await?;
        }
        Ok(session)
    }

    /// The wished part size, enlarged for a file of too many parts.
    fn wished_part_size(&self, size: u64) -> Option<u64> {
        let wished = NonZeroU64::new(self.options().part_size?)?;
        PartPlan::new(size, None, wished).ok().map(PartPlan::part_size)
    }

    /// Tells the server that an upload will not be continued; it would expire anyhow, so one try is enough.
    async fn abandon(&self, id: &str) {
        self.send(self.request(Method::DELETE, &format!("/v1/uploads/{id}"))).await.ok();
    }
}

impl Job<'_> {
    async fn run(&self) -> Result<Uploaded> {
        let mut whole = Whole::default();
        let mut kept_bytes = 0;
        let mut parts = stream::iter((1..).zip(&self.session.received))
            .map(|(number, received)| self.part(number, *received))
            .buffer_unordered(self.client.options().parallel);
        while let Some(part) = parts.next().await {
            let (piece, kept) = part?;
            if kept {
                kept_bytes += piece.len();
                self.progress.kept(piece.len());
            }
            whole.insert(piece);
        }
        self.source.verify_unchanged().await?;
        let digest = whole
            .digest(self.source.stamp.size)
            .ok_or_else(|| ClientError::Unexpected("the parts do not come to the whole".into()))?;
        let blake3 = hex(&digest.blake3);
        let complete = CompleteUpload { digest: BTreeMap::from([("blake3".to_owned(), blake3.clone())]) };
        let path = format!("/v1/uploads/{}/complete", self.session.id);
        let client = self.client;
        let file: File = client.json(|| client.request(Method::POST, &path).json(&complete)).await?;
        verify_stored(self.name, &blake3, &file)?;
        Ok(Uploaded { file, kept_bytes })
    }

    /// One part: hashed where the server has it, sent where not.
    async fn part(&self, number: u64, received: bool) -> Result<(Piece, bool)> {
        let extent = self.session.plan.extent(number);
        let (offset, len) = extent.map_err(|error| ClientError::Unexpected(error.to_string()))?;
        if received {
            return Ok((self.source.hash(offset, len).await?, true));
        }
        let mut backoff = self.client.backoff();
        let mut mismatches = 0;
        loop {
            let sent = Sent::new(Arc::clone(self.progress));
            let error = match self.send(number, offset, len, &sent).await {
                Ok(piece) => return Ok((piece, false)),
                Err(error) => error,
            };
            self.progress.went_back(sent.bytes());
            // A part that was damaged on its way is sent once more; twice is no accident.
            if matches!(error, ClientError::Corrupt { .. }) && mismatches == 0 {
                mismatches += 1;
                continue;
            }
            backoff.pause(error).await?;
        }
    }

    async fn send(&self, number: u64, offset: u64, len: u64, sent: &Arc<Sent>) -> Result<Piece> {
        let _permit = self.client.permit().await?;
        let body = body::of_file(self.source, offset, len, sent);
        let path = format!("/v1/uploads/{}/parts/{number}", self.session.id);
        let request = self.client.request(Method::PUT, &path).header(CONTENT_LENGTH, len).body(body);
        let (part, sum): (Part, _) = self.client.deliver(request, sent).await?;
        let (blake3, crc32) = (hex(&sum.blake3), hex(&sum.piece.crc32.to_be_bytes()));
        if part.part == number && part.size == len && part.blake3 == blake3 && part.crc32 == crc32 {
            return Ok(sum.piece);
        }
        let name = format!("part {number} of {}", self.name);
        Err(ClientError::Corrupt { name, expected: blake3, actual: part.blake3 })
    }
}

/// The server's plan for `size` bytes, once it makes sense.
fn plan(size: u64, part_size: u64, part_count: u64) -> Result<PartPlan> {
    PartPlan::new(size, Some(part_size), NonZeroU64::MIN)
        .ok()
        .filter(|plan| plan.count() == part_count)
        .ok_or_else(|| {
            ClientError::Unexpected(format!("{part_count} parts of {part_size} bytes for {size} bytes"))
        })
}
