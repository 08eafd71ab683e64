//! A file to the server: small ones whole, others in parts (see `upload_parts`), streams whole and once.

use crate::body::{self, Sent, Sum};
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::progress::Progress;
use crate::remote::FileName;
use crate::source::Source;
use carrack_api::File;
use carrack_api::headers::METADATA_PREFIX;
use carrack_domain::id::hex;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use reqwest::{Body, Method, RequestBuilder};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncRead;

/// What to say about a file that is uploaded.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// Its media type; the server's default when absent.
    pub content_type: Option<String>,
    /// Facts of the uploader's own.
    pub metadata: BTreeMap<String, String>,
    /// Only create, never replace.
    pub only_create: bool,
}

/// An upload that is complete and verified.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The file's facts.
    pub file: File,
    /// Bytes that an earlier run had sent.
    pub kept_bytes: u64,
}

impl Client {
    /// Uploads the file at `path` as `target`. A large one goes in parts and is continued by the next run, as long as
    /// the file stays what it is and [`crate::ClientOptions::state_dir`] is given.
    pub async fn upload_file(
        &self,
        path: &Path,
        target: &FileName,
        options: &UploadOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Uploaded> {
        let source = Source::open(path).await?;
        progress.started(Some(source.stamp.size));
        let uploaded = if source.stamp.size <= self.options().whole_put_max {
            self.put_file(&source, target, options, &progress).await?
        } else {
            self.upload_parts(source, target, options, &progress).await?
        };
        progress.finished();
        Ok(uploaded)
    }

    /// Uploads whatever `reader` gives until its end. It cannot be read twice, so there is one try only.
    pub async fn upload_stream(
        &self,
        reader: impl AsyncRead + Send + Unpin + 'static,
        target: &FileName,
        options: &UploadOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Uploaded> {
        progress.started(None);
        let sent = Sent::new(Arc::clone(&progress));
        let body = body::of_reader(reader, &sent);
        let file = self.put_body(target, options, None, body, &sent).await?;
        progress.finished();
        Ok(Uploaded { file, kept_bytes: 0 })
    }

    async fn put_file(
        &self,
        source: &Source,
        target: &FileName,
        options: &UploadOptions,
        progress: &Arc<dyn Progress>,
    ) -> Result<Uploaded> {
        let size = source.stamp.size;
        let mut backoff = self.backoff();
        loop {
            let sent = Sent::new(Arc::clone(progress));
            let body = body::of_file(source, 0, size, &sent);
            match self.put_body(target, options, Some(size), body, &sent).await {
                Ok(file) => {
                    source.verify_unchanged().await?;
                    return Ok(Uploaded { file, kept_bytes: 0 });
                }
                Err(error) => {
                    progress.went_back(sent.bytes());
                    backoff.pause(error).await?;
                }
            }
        }
    }

    async fn put_body(
        &self,
        target: &FileName,
        options: &UploadOptions,
        size: Option<u64>,
        body: Body,
        sent: &Sent,
    ) -> Result<File> {
        let _permit = self.permit().await?;
        let mut request = describe(self.request(Method::PUT, &target.path()), options).body(body);
        if let Some(size) = size {
            request = request.header(CONTENT_LENGTH, size);
        }
        let (file, sum): (File, Sum) = self.deliver(request, sent).await?;
        let actual = sum.piece.content().map(|digest| hex(&digest.blake3)).unwrap_or_default();
        verify_stored(&target.to_string(), &actual, &file)?;
        Ok(file)
    }

    /// Sends a request with a hashed body: the answer, and what the body came to.
    pub(crate) async fn deliver<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
        sent: &Sent,
    ) -> Result<(T, Sum)> {
        let answer = async { self.read_json(self.send_body(request, || sent.bytes()).await?).await }.await;
        match (sent.outcome(), answer) {
            // Why the body broke off is known better here than where the connection was dropped.
            (Some(Err(local)), _) => Err(local),
            (_, Err(error)) => Err(error),
            (Some(Ok(sum)), Ok(answer)) => Ok((answer, sum)),
            (None, Ok(_)) => Err(ClientError::Unexpected("an answer before the body was sent".into())),
        }
    }
}

/// What the server stored must be what was sent.
pub(crate) fn verify_stored(name: &str, sent: &str, file: &File) -> Result<()> {
    if file.blake3.as_deref() == Some(sent) {
        return Ok(());
    }
    Err(ClientError::Corrupt {
        name: name.to_owned(),
        expected: sent.to_owned(),
        actual: file.blake3.clone().unwrap_or_else(|| "none".to_owned()),
    })
}

fn describe(mut request: RequestBuilder, options: &UploadOptions) -> RequestBuilder {
    if let Some(content_type) = &options.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    if options.only_create {
        request = request.header(IF_NONE_MATCH, "*");
    }
    for (name, value) in &options.metadata {
        request = request.header(format!("{METADATA_PREFIX}{name}"), value);
    }
    request
}
