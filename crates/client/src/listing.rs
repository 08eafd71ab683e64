//! What is on the server, and removing it.

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::remote::{FileName, bucket_name, push_query};
use carrack_api::{Bucket, BucketList, File, FileList};
use reqwest::Method;

/// Files of a bucket, page by page.
pub struct Listing {
    client: Client,
    path: String,
    cursor: Option<String>,
    ended: bool,
}

impl Listing {
    /// The next page; `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<FileList>> {
        if self.ended {
            return Ok(None);
        }
        let mut path = self.path.clone();
        if let Some(cursor) = &self.cursor {
            push_query(&mut path, "cursor", cursor);
        }
        let page: FileList = self.client.json(|| self.client.request(Method::GET, &path)).await?;
        if page.next_cursor.is_some() && page.next_cursor == self.cursor {
            return Err(ClientError::Unexpected("the listing's cursor stands still".into()));
        }
        self.ended = page.next_cursor.is_none();
        self.cursor.clone_from(&page.next_cursor);
        Ok(Some(page))
    }
}

impl Client {
    /// The buckets the caller may know of.
    pub async fn buckets(&self) -> Result<Vec<Bucket>> {
        let list: BucketList = self.json(|| self.request(Method::GET, "/v1/buckets")).await?;
        Ok(list.buckets)
    }

    /// The files of `bucket` whose keys begin with `prefix`: all of them, or with `delimiter` those of one folder and
    /// the folders in it.
    pub fn list(&self, bucket: &str, prefix: &str, delimiter: Option<char>) -> Result<Listing> {
        let mut path = format!("/v1/files/{}", bucket_name(bucket)?);
        if !prefix.is_empty() {
            push_query(&mut path, "prefix", prefix);
        }
        if let Some(delimiter) = delimiter {
            push_query(&mut path, "delimiter", &delimiter.to_string());
        }
        Ok(Listing { client: self.clone(), path, cursor: None, ended: false })
    }

    /// A file's facts.
    pub async fn stat(&self, name: &FileName) -> Result<File> {
        let path = format!("{}?meta", name.path());
        self.json(|| self.request(Method::GET, &path)).await
    }

    /// Removes a file. One that an earlier try, whose answer was lost, has removed already is removed.
    pub async fn delete(&self, name: &FileName) -> Result<()> {
        let path = name.path();
        let mut backoff = self.backoff();
        let mut tried = false;
        loop {
            match self.send(self.request(Method::DELETE, &path)).await {
                Ok(_) => return Ok(()),
                Err(error) if tried && error.status() == Some(404) => return Ok(()),
                Err(error) => backoff.pause(error).await?,
            }
            tried = true;
        }
    }
}
