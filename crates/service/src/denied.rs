//! Tokens that others have signed and that are good no more although they have not ended.
//!
//! All of them are in memory: they are asked for with every request that such a token makes. They change through this room
//! alone, which notes a new one before anybody is told that it is denied, and tells the other nodes.

use crate::access::{Access, invalid_token};
use crate::coherence::News;
use crate::jwt::OWN;
use carrack_domain::access::ManageTokens;
use carrack_domain::token::Denial;
use carrack_domain::{Code, Error, ForeignTokenId, Grant, Identity, Result, Timestamp};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// The most tokens that are denied at a time: some 100 bytes of memory each.
const DENIED_MAX: usize = 100_000;
/// Bytes of an issuer or of a `jti`.
const NAME_BYTES_MAX: usize = 1024;

/// Those that are denied, each with when that may be forgotten.
#[derive(Default)]
pub(crate) struct Denied(RwLock<HashMap<ForeignTokenId, Option<Timestamp>>>);

/// A token to be denied.
#[derive(Debug, Clone)]
pub struct NewDenial {
    /// `iss`; the server's own when absent.
    pub issuer: Option<String>,
    /// `jti`.
    pub jti: String,
    /// When the token ends by itself: until then it is kept in mind, for good when absent.
    pub until: Option<Timestamp>,
}

impl Access {
    /// Reads what is denied. Called at the start, before the first request, and where other nodes may have denied more.
    pub async fn read_denied(&self) -> Result<()> {
        let _turn = self.reading_denied.lock().await;
        let denied = self.core.catalog.denied_tokens(DENIED_MAX).await?;
        let denied = denied.iter().map(|denial| (denial.id(), denial.until)).collect();
        *self.denied.0.write().unwrap_or_else(PoisonError::into_inner) = denied;
        Ok(())
    }

    /// `invalid_token` for who came with a token that is denied, or with what was made with one.
    pub(crate) fn refuse_denied(&self, identity: &Identity) -> Result<()> {
        let Some(token) = &identity.foreign else { return Ok(()) };
        let denied = self.denied.0.read().unwrap_or_else(PoisonError::into_inner);
        if denied.contains_key(token) { Err(invalid_token()) } else { Ok(()) }
    }

    /// Denies a token of somebody else's, every session and URL that was made with it, at once. Again is fine.
    pub async fn deny(&self, grant: &Grant<ManageTokens>, new: NewDenial) -> Result<Denial> {
        let issuer = new.issuer.unwrap_or_else(|| OWN.to_owned());
        let sound = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        if !sound(&issuer) || !sound(&new.jti) {
            let detail = format!("issuer and jti have 1 to {NAME_BYTES_MAX} bytes each.");
            return Err(Error::new(Code::InvalidRequest, detail));
        }
        let now = self.now();
        if new.until.is_some_and(|until| until <= now) {
            let detail = "expires_at is over: the token is good no more by itself.";
            return Err(Error::new(Code::InvalidRequest, detail));
        }
        let denied_by = grant.principal().subject().to_owned();
        let denial = Denial { issuer, jti: new.jti, until: new.until, denied_at: now, denied_by };
        if self.has_no_room(denial.id(), now) {
            let detail = format!("{DENIED_MAX} tokens are denied already: change the issuer's key instead.");
            return Err(Error::new(Code::InvalidRequest, detail));
        }
        let _turn = self.reading_denied.lock().await;
        // Written down first: who is told that it is denied will not find it good after a restart.
        self.core.catalog.deny_token(&denial).await?;
        self.denied.0.write().unwrap_or_else(PoisonError::into_inner).insert(denial.id(), denial.until);
        self.core.coherence.tell(News::Denied).await;
        Ok(denial)
    }

    /// The tokens of others that are denied, oldest first.
    pub async fn denied(&self, _grant: &Grant<ManageTokens>) -> Result<Vec<Denial>> {
        let mut denied = self.core.catalog.denied_tokens(DENIED_MAX).await?;
        let now = self.now();
        denied.retain(|denial| denial.until.is_none_or(|until| until > now));
        Ok(denied)
    }

    fn has_no_room(&self, id: ForeignTokenId, now: Timestamp) -> bool {
        let mut denied = self.denied.0.write().unwrap_or_else(PoisonError::into_inner);
        if denied.len() >= DENIED_MAX {
            denied.retain(|_, until| until.is_none_or(|until| until > now));
        }
        denied.len() >= DENIED_MAX && !denied.contains_key(&id)
    }
}
