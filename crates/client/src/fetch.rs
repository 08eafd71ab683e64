//! Ranges of a content that must stay the same: `If-Match` on every request, and every answer checked against the
//! range and the tag that were asked for, so that two contents are never mixed.

use crate::client::{Client, header};
use crate::error::{ClientError, Result};
use crate::progress::Progress;
use crate::sink::Sink;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};

/// What is fetched.
pub(crate) struct Content<'a> {
    /// The resource's path and query.
    pub(crate) path: &'a str,
    /// What people call it.
    pub(crate) name: &'a str,
    /// The strong tag with its quotes.
    pub(crate) etag: &'a str,
    /// Bytes of the whole.
    pub(crate) size: u64,
    /// Who watches.
    pub(crate) progress: &'a dyn Progress,
}

impl Client {
    /// Fetches `at..end` into `sink`, continuing behind what was taken whenever the connection is cut.
    pub(crate) async fn fetch<S: Sink>(
        &self,
        content: &Content<'_>,
        mut at: u64,
        end: u64,
        sink: &mut S,
    ) -> Result<()> {
        let mut backoff = self.backoff();
        while at < end {
            let before = at;
            let outcome = self.fetch_once(content, &mut at, end, sink).await;
            if at > before {
                backoff.progressed();
            }
            if let Err(error) = outcome {
                backoff.pause(error).await?;
            }
        }
        Ok(())
    }

    async fn fetch_once<S: Sink>(
        &self,
        content: &Content<'_>,
        at: &mut u64,
        end: u64,
        sink: &mut S,
    ) -> Result<()> {
        let _permit = self.permit().await?;
        let request = self
            .request(Method::GET, content.path)
            .header(RANGE, format!("bytes={at}-{}", end - 1))
            .header(IF_MATCH, content.etag);
        let response = self.send(request).await.map_err(|error| replaced(error, content.name))?;
        check_tag(response.headers(), content)?;
        check_range(&response, content, *at, end)?;
        self.drain(response, at, end, content.progress, sink).await
    }

    /// Moves a body that should bring `at..end` into `sink`; `at` follows what was taken.
    pub(crate) async fn drain<S: Sink>(
        &self,
        mut response: Response,
        at: &mut u64,
        end: u64,
        progress: &dyn Progress,
        sink: &mut S,
    ) -> Result<()> {
        while let Some(bytes) = self.chunk(&mut response).await? {
            let len = bytes.len() as u64;
            if len > end - *at {
                return Err(ClientError::Unexpected("a body longer than its range".into()));
            }
            sink.write(bytes).await?;
            *at += len;
            progress.advanced(len);
        }
        if *at < end {
            let reason = format!("the body ended {} bytes early", end - *at);
            return Err(ClientError::Unreachable { server: self.base().to_owned(), reason });
        }
        Ok(())
    }
}

/// A 412 to `If-Match` means that the content is another now.
pub(crate) fn replaced(error: ClientError, name: &str) -> ClientError {
    match error.status() {
        Some(412) => ClientError::Replaced { name: name.to_owned() },
        _ => error,
    }
}

fn check_tag(headers: &HeaderMap, content: &Content<'_>) -> Result<()> {
    match header(headers, &ETAG) {
        Some(tag) if tag != content.etag => Err(ClientError::Replaced { name: content.name.to_owned() }),
        _ => Ok(()),
    }
}

fn check_range(response: &Response, content: &Content<'_>, at: u64, end: u64) -> Result<()> {
    let whole = at == 0 && end == content.size;
    if whole && response.status() == StatusCode::OK {
        return Ok(());
    }
    let range = header(response.headers(), &CONTENT_RANGE);
    if response.status() == StatusCode::PARTIAL_CONTENT
        && range.and_then(content_range) == Some((at, end, content.size))
    {
        return Ok(());
    }
    Err(ClientError::Unexpected(format!(
        "bytes {at}-{} of {} were asked for, and HTTP {} with the range {} came",
        end - 1,
        content.size,
        response.status().as_u16(),
        range.unwrap_or("none"),
    )))
}

/// Reads `bytes 0-9/100` as start, end (exclusive) and size.
pub(crate) fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let (end, size) = (last.checked_add(1)?, size.parse().ok()?);
    (first < end && end <= size).then_some((first, end, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 10, 100)));
        assert_eq!(content_range("bytes 99-99/100"), Some((99, 100, 100)));
        for bad in ["", "bytes 0-9/*", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "items 0-1/2"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
