//! A file from the server: in pieces side by side into a part file, or in order into a stream.

use crate::blocking::blocking;
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::fetch::Content;
use crate::journal::DownloadRecord;
use crate::part_file::{PartFile, rehash};
use crate::progress::Progress;
use crate::remote::FileName;
use crate::sink::{PieceSink, StreamSink};
use crate::whole::Whole;
use carrack_api::File;
use carrack_domain::digest::{Piece, PieceHasher};
use carrack_domain::id::hex;
use carrack_domain::upload::PartPlan;
use futures_util::stream::{self, StreamExt as _};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWrite;

/// A download that is complete and verified.
#[derive(Debug, Clone)]
pub struct Downloaded {
    /// The file's facts.
    pub file: File,
    /// Bytes that an earlier run had fetched.
    pub kept_bytes: u64,
}

impl Client {
    /// Downloads `name` to `destination`, whose folder exists. The bytes grow in [`crate::part_path`] and get their
    /// name once their BLAKE3 is the announced one; a file that was there is replaced then. An earlier run's pieces
    /// are kept if the content is still the same.
    pub async fn download_file(
        &self,
        name: &FileName,
        destination: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<Downloaded> {
        let file = self.stat(name).await?;
        let path = name.path();
        let mut part = self.open_part(&path, &file, destination).await?;
        progress.started(Some(file.size));
        let label = name.to_string();
        let content =
            Content { path: &path, name: &label, etag: &file.etag, size: file.size, progress: &*progress };
        let (whole, kept_bytes) = match self.fill(&content, &mut part).await {
            Ok(filled) => filled,
            Err(error @ ClientError::Replaced { .. }) => {
                part.discard().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = verify(&label, &file, whole.digest(file.size).map(|digest| digest.blake3)) {
            part.discard().await?;
            return Err(error);
        }
        part.publish().await?;
        progress.finished();
        Ok(Downloaded { file, kept_bytes })
    }

    /// Downloads `name` into `writer`, in order, over one connection at a time. The digest is known only at the end:
    /// an error then means that what was written is not to be used.
    pub async fn download_stream<W: AsyncWrite + Unpin + Send>(
        &self,
        name: &FileName,
        writer: &mut W,
        progress: Arc<dyn Progress>,
    ) -> Result<Downloaded> {
        let file = self.stat(name).await?;
        progress.started(Some(file.size));
        let (path, label) = (name.path(), name.to_string());
        let content =
            Content { path: &path, name: &label, etag: &file.etag, size: file.size, progress: &*progress };
        let mut sink = StreamSink::new(writer, "-".into(), Some(PieceHasher::new(0)));
        self.fetch(&content, 0, file.size, &mut sink).await?;
        let piece = sink.finish().await?;
        verify(&label, &file, piece.and_then(|piece| piece.content()).map(|digest| digest.blake3))?;
        progress.finished();
        Ok(Downloaded { file, kept_bytes: 0 })
    }

    async fn open_part(&self, path: &str, file: &File, destination: &Path) -> Result<PartFile> {
        let plan = PartPlan::new(file.size, None, self.options().piece_size)
            .map_err(|error| ClientError::Unexpected(error.to_string()))?;
        let record = DownloadRecord {
            url: format!("{}{path}", self.base()),
            etag: file.etag.clone(),
            size: file.size,
            piece_size: plan.part_size(),
            done: String::new(),
        };
        let destination = destination.to_owned();
        blocking(move || PartFile::open(&destination, record, plan)).await
    }

    /// Fetches the pieces that are missing and hashes those that are there.
    async fn fill(&self, content: &Content<'_>, part: &mut PartFile) -> Result<(Whole, u64)> {
        let mut whole = Whole::default();
        let mut kept_bytes = 0;
        let (file, path, plan) = (Arc::clone(&part.file), part.path.clone(), part.plan);
        let kept: Vec<bool> = (1..=plan.count()).map(|number| part.has(number)).collect();
        let (file, path, kept) = (&file, &path, &kept);
        let mut pieces = stream::iter(1..=plan.count())
            .map(|number| async move {
                let (offset, len) =
                    plan.extent(number).map_err(|error| ClientError::Unexpected(error.to_string()))?;
                if kept[number as usize - 1] {
                    let (file, path) = (Arc::clone(file), path.clone());
                    let piece = blocking(move || rehash(&file, &path, offset, len)).await?;
                    return Ok((number, piece, true));
                }
                let sink = PieceSink::new(Arc::clone(file), path.clone(), offset);
                Ok((number, self.fetch_piece(content, offset, len, sink).await?, false))
            })
            .buffer_unordered(self.options().parallel);
        while let Some(piece) = pieces.next().await {
            let (number, piece, was_kept): (u64, Piece, bool) = piece?;
            if was_kept {
                kept_bytes += piece.len();
                content.progress.kept(piece.len());
            } else {
                part.mark(number).await?;
            }
            whole.insert(piece);
        }
        Ok((whole, kept_bytes))
    }

    async fn fetch_piece(
        &self,
        content: &Content<'_>,
        offset: u64,
        len: u64,
        mut sink: PieceSink,
    ) -> Result<Piece> {
        self.fetch(content, offset, offset + len, &mut sink).await?;
        sink.finish().await
    }
}

fn verify(name: &str, file: &File, blake3: Option<[u8; 32]>) -> Result<()> {
    let actual = blake3.map_or_else(|| "unknown".to_owned(), |blake3| hex(&blake3));
    let expected = file.blake3.clone().unwrap_or_else(|| "none".to_owned());
    if actual == expected {
        return Ok(());
    }
    Err(ClientError::Corrupt { name: name.to_owned(), expected, actual })
}
