//! What is made as it is sent.

use super::Kind;
use super::transfer::{Account, COPIED_BYTES, Ending};
use crate::Body;
use crate::limit::Traffic;
use crate::transfers::Watched;
use bytes::Bytes;
use carrack_domain::Result;
use futures_util::StreamExt;

/// A body of unknown length on its way, under the same limits as a [`super::Transfer`].
pub struct Flow {
    body: Body,
    /// Bytes that have come and may not go yet.
    rest: Bytes,
    account: Account,
    traffic: Traffic,
}

impl Flow {
    /// Begins to send `body`, as `traffic` allows.
    pub fn new(traffic: Traffic, body: Body, kind: Kind, watched: Option<Watched>) -> Flow {
        Flow { body, rest: Bytes::new(), account: Account::begin(kind).watched(watched), traffic }
    }

    /// Its bytes. An error is never the end of them.
    pub fn into_body(self) -> Body {
        Box::pin(futures_util::stream::unfold(self, |mut flow| async move {
            let next = flow.next().await.transpose()?;
            Some((next, flow))
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.rest.is_empty() {
            match self.body.next().await {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => {
                    self.account.end(Ending::Failed);
                    return Err(error);
                }
                None => {
                    self.account.end(Ending::Completed);
                    return Ok(None);
                }
            }
        }
        let wants = (self.rest.len() as u64).min(COPIED_BYTES);
        let admitted = self.traffic.meter().admit(wants).await.min(wants);
        // Not more than the rest has.
        let bytes = self.rest.split_to(admitted as usize);
        self.account.send(bytes.len() as u64);
        Ok(Some(bytes))
    }
}
