//! Links and access tokens: made, listed, revoked.
//!
//! What makes one is sent once: were its answer lost, another try would leave a link or a token that nobody knows of.

use crate::client::Client;
use crate::error::{ClientError, Result};
use carrack_api::{
    Archive, CreateArchive, CreateLink, CreateToken, Link, LinkList, Token, TokenCreated, TokenList,
};
use reqwest::Method;

impl Client {
    /// Makes a link to a file or to an archive.
    pub async fn create_link(&self, wish: &CreateLink) -> Result<Link> {
        self.post_once("/v1/links", wish).await
    }

    /// Makes a stored archive of everything below a prefix that can be linked to, and lives for so many seconds.
    pub async fn create_archive(&self, bucket: &str, prefix: &str, seconds: u64) -> Result<Archive> {
        let wish = CreateArchive {
            bucket: Some(bucket.to_owned()),
            prefix: Some(prefix.to_owned()),
            expires_in: Some(seconds),
            ..CreateArchive::default()
        };
        self.post_once("/v1/archives", &wish).await
    }

    /// The caller's links, newest first.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let list: LinkList = self.json(|| self.request(Method::GET, "/v1/links")).await?;
        Ok(list.links)
    }

    /// Revokes a link; one that was revoked stays so.
    pub async fn revoke_link(&self, id: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/v1/links/{}", id_segment(id)?))).await?;
        Ok(())
    }

    /// Makes an access token; its secret is in the answer and nowhere else.
    pub async fn create_token(&self, wish: &CreateToken) -> Result<TokenCreated> {
        self.post_once("/v1/tokens", wish).await
    }

    /// The access tokens there are, oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let list: TokenList = self.json(|| self.request(Method::GET, "/v1/tokens")).await?;
        Ok(list.tokens)
    }

    /// Revokes an access token.
    pub async fn revoke_token(&self, id: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/v1/tokens/{}", id_segment(id)?))).await?;
        Ok(())
    }

    async fn post_once<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        wish: &impl serde::Serialize,
    ) -> Result<T> {
        self.read_json(self.send(self.request(Method::POST, path).json(wish)).await?).await
    }
}

/// An id as a segment of a path: nothing else may get there.
fn id_segment(id: &str) -> Result<&str> {
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(id);
    }
    Err(ClientError::Invalid(format!("{id:?} is no id: ids are letters and digits")))
}
