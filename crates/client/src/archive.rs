//! A folder of the server as one ZIP, continued by itself wherever the connection is cut, and by the next run.

use crate::blocking::blocking;
use crate::client::{Client, header};
use crate::error::{ClientError, Result};
use crate::fetch::{content_range, replaced};
use crate::journal::{self, DownloadRecord};
use crate::part_file::{open_locked, publish, suffixed};
use crate::progress::Progress;
use crate::remote::{bucket_name, push_query};
use crate::sink::{Sink, StreamSink};
use carrack_api::{Archive, CreateArchive};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;

/// What an archive is made of.
#[derive(Debug, Clone)]
pub struct ArchiveRequest {
    /// The bucket.
    pub bucket: String,
    /// What the keys begin with.
    pub prefix: String,
    /// Whether the server compresses it first: `deflate` or `auto`.
    pub compression: Option<String>,
}

/// How often an archive that is being made is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Where the bytes of an archive are.
struct Place {
    /// The path that has them.
    path: String,
    /// What a later run with the same wish would be remembered by.
    remembered: String,
    /// The archive that was made for this, to be deleted afterwards.
    made: Option<String>,
}

/// How far an archive is. Until the first answer nothing is known.
#[derive(Debug, Clone, Default)]
struct Reached {
    at: u64,
    etag: Option<String>,
    size: Option<u64>,
}

/// The part file of an archive: bytes from the front.
struct Partial {
    file: tokio::fs::File,
    path: PathBuf,
    journal: PathBuf,
    reached: Reached,
}

impl Client {
    /// Downloads an archive to `destination`; its bytes, which no digest covers, are checked by tag, range and length.
    /// Returns its size.
    pub async fn download_archive(
        &self,
        request: &ArchiveRequest,
        destination: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<u64> {
        let place = self.place(request).await?;
        let (url_path, url) = (place.path.clone(), format!("{}{}", self.base(), place.remembered));
        let mut partial = Partial::open(destination.to_owned(), url.clone()).await?;
        let kept = partial.reached.at;
        let mut outcome = self.continue_archive(&url_path, &url, &mut partial, &*progress).await;
        // The archive that an earlier run began is no more, and no byte of another was taken: begin anew.
        if kept > 0 && partial.reached.at == kept && matches!(outcome, Err(ClientError::Replaced { .. })) {
            partial.restart().await?;
            outcome = self.continue_archive(&url_path, &url, &mut partial, &*progress).await;
        }
        outcome?;
        let destination = destination.to_owned();
        let size = partial.reached.at;
        blocking(move || publish(&partial.path, &partial.journal, &destination)).await?;
        self.forget(place).await;
        progress.finished();
        Ok(size)
    }

    /// Downloads an archive into `writer`. Returns its size.
    pub async fn stream_archive<W: AsyncWrite + Unpin + Send>(
        &self,
        request: &ArchiveRequest,
        writer: &mut W,
        progress: Arc<dyn Progress>,
    ) -> Result<u64> {
        let place = self.place(request).await?;
        let mut sink = StreamSink::new(writer, "-".into(), None);
        let mut reached = Reached::default();
        self.fetch_archive(&place.path, &mut reached, &mut sink, &*progress, |_| Ok(())).await?;
        sink.finish().await?;
        self.forget(place).await;
        progress.finished();
        Ok(reached.at)
    }

    /// Finds out where the archive is; one that is to be compressed is made first.
    async fn place(&self, request: &ArchiveRequest) -> Result<Place> {
        let mut remembered = request.path()?;
        let Some(compression) = &request.compression else {
            return Ok(Place { path: remembered.clone(), remembered, made: None });
        };
        push_query(&mut remembered, "compression", compression);
        let wish = CreateArchive {
            bucket: Some(request.bucket.clone()),
            prefix: Some(request.prefix.clone()),
            compression: Some(compression.clone()),
            ..CreateArchive::default()
        };
        let mut archive: Archive =
            self.json(|| self.request(Method::POST, "/v1/archives").json(&wish)).await?;
        let own = format!("/v1/archives/{}", archive.id);
        while matches!(archive.state.as_str(), "waiting" | "running" | "paused") {
            tokio::time::sleep(ASK_EVERY).await;
            archive = self.json(|| self.request(Method::GET, &own)).await?;
        }
        if archive.state != "completed" {
            let why = archive.error.map_or_else(String::new, |error| format!(": {}", error.detail));
            return Err(ClientError::Unexpected(format!("an archive that is {}{why}", archive.state)));
        }
        Ok(Place { path: format!("{own}/content"), remembered, made: Some(own) })
    }

    /// Deletes an archive that was made for one download. It would expire by itself.
    async fn forget(&self, place: Place) {
        if let Some(made) = place.made {
            self.send(self.request(Method::DELETE, &made)).await.ok();
        }
    }

    async fn continue_archive(
        &self,
        path: &str,
        url: &str,
        partial: &mut Partial,
        progress: &dyn Progress,
    ) -> Result<()> {
        let Partial { file, path: local, journal, reached } = partial;
        let mut sink = StreamSink::new(file, local.clone(), None);
        let remember = |reached: &Reached| {
            let record = DownloadRecord {
                url: url.to_owned(),
                etag: reached.etag.clone().unwrap_or_default(),
                size: reached.size.unwrap_or_default(),
                piece_size: 0,
                done: String::new(),
            };
            journal::save(journal, &record).map_err(|error| ClientError::local(journal, error))
        };
        let outcome = self.fetch_archive(path, reached, &mut sink, progress, remember).await;
        // Also after an error: what was fetched is what the next run continues from.
        sink.finish().await.and(outcome)
    }

    /// Fetches an archive from where it is to its end. `remember` hears what it is before its first byte is taken.
    async fn fetch_archive<S: Sink>(
        &self,
        path: &str,
        reached: &mut Reached,
        sink: &mut S,
        progress: &dyn Progress,
        remember: impl Fn(&Reached) -> Result<()>,
    ) -> Result<()> {
        let mut backoff = self.backoff();
        let mut told = false;
        while reached.size != Some(reached.at) {
            let before = reached.at;
            let outcome = async {
                let _permit = self.permit().await?;
                let response = self.open_archive(path, reached).await?;
                if !told {
                    told = true;
                    progress.started(reached.size);
                    progress.kept(reached.at);
                    remember(reached)?;
                }
                let end = reached.size.unwrap_or(u64::MAX);
                self.drain(response, &mut reached.at, end, progress, sink).await
            };
            let outcome = outcome.await;
            if reached.at > before {
                backoff.progressed();
            }
            if let Err(error) = outcome {
                backoff.pause(error).await?;
            }
        }
        Ok(())
    }

    /// Asks for the rest, and checks that it is the rest of the same archive.
    async fn open_archive(&self, path: &str, reached: &mut Reached) -> Result<Response> {
        let mut request = self.request(Method::GET, path);
        if let (1.., Some(etag)) = (reached.at, &reached.etag) {
            request = request
                .header(RANGE, format!("bytes={}-", reached.at))
                .header(IF_MATCH, etag)
                .header(IF_RANGE, etag);
        }
        let response = self.send(request).await.map_err(|error| replaced(error, "the archive"))?;
        let etag = header(response.headers(), &ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned);
        if reached.at == 0 {
            let size = header(response.headers(), &CONTENT_LENGTH).and_then(|length| length.parse().ok());
            if etag.is_none() || size.is_none() {
                // Nobody could tell where to continue, or whether the end is the end.
                return Err(ClientError::Unexpected("an archive without a strong ETag and a length".into()));
            }
            *reached = Reached { at: 0, etag, size };
            return Ok(response);
        }
        if etag.is_some() && etag != reached.etag {
            return Err(ClientError::Replaced { name: "the archive".into() });
        }
        let range = header(response.headers(), &CONTENT_RANGE).and_then(content_range);
        let rest = reached.size.map(|size| (reached.at, size, size));
        if response.status() == StatusCode::PARTIAL_CONTENT && range.is_some() && range == rest {
            return Ok(response);
        }
        let (at, status) = (reached.at, response.status().as_u16());
        Err(ClientError::Unexpected(format!(
            "the archive from byte {at} was asked for and HTTP {status} came"
        )))
    }
}

impl Partial {
    async fn open(destination: PathBuf, url: String) -> Result<Partial> {
        blocking(move || {
            let (path, mut file) = open_locked(&destination)?;
            let journal = suffixed(&path, ".json");
            let error = |error| ClientError::local(&path, error);
            let len = file.metadata().map_err(error)?.len();
            let reached = match journal::load::<DownloadRecord>(&journal) {
                Some(saved) if saved.url == url && !saved.etag.is_empty() && len <= saved.size => {
                    Reached { at: len, etag: Some(saved.etag), size: Some(saved.size) }
                }
                _ => Reached::default(),
            };
            file.set_len(reached.at).map_err(error)?;
            file.seek(SeekFrom::Start(reached.at)).map_err(error)?;
            Ok(Partial { file: tokio::fs::File::from_std(file), path, journal, reached })
        })
        .await
    }

    async fn restart(&mut self) -> Result<()> {
        use tokio::io::AsyncSeekExt as _;
        let error = |error| ClientError::local(&self.path, error);
        self.file.set_len(0).await.map_err(error)?;
        self.file.rewind().await.map_err(error)?;
        self.reached = Reached::default();
        Ok(())
    }
}

impl ArchiveRequest {
    fn path(&self) -> Result<String> {
        let mut path = format!("/v1/zip/{}", bucket_name(&self.bucket)?);
        if !self.prefix.is_empty() {
            push_query(&mut path, "prefix", &self.prefix);
        }
        Ok(path)
    }
}
