//! Access tokens and sessions, as the catalog keeps them: never the secret itself. Tokens of others that are good no more.

use crate::access::Identity;
use crate::clock::Timestamp;
use crate::id::{ForeignTokenId, TokenId};

/// How a token may be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// As `Authorization: Bearer`.
    Bearer,
    /// As the web app's cookie.
    Cookie,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// BLAKE3 of the secret.
    pub hash: [u8; 32],
    /// Names it; not secret.
    pub id: TokenId,
    /// The token it was made with, and with which it ends.
    pub parent: Option<TokenId>,
    /// How it may be brought.
    pub carrier: Carrier,
    /// Who brings it: `identity.token` is `id`, `identity.expires_at` when it ends.
    pub identity: Identity,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

impl ForeignTokenId {
    /// The token of this issuer with this `jti` (RFC 7519 §4.1.7).
    pub fn of(issuer: &str, jti: &str) -> ForeignTokenId {
        let mut hasher = blake3::Hasher::new_derive_key("carrack 2026 token of an issuer");
        hasher.update(&(issuer.len() as u64).to_le_bytes());
        hasher.update(issuer.as_bytes());
        hasher.update(jti.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ForeignTokenId::from_bytes(id)
    }
}

/// A token that somebody else has signed, and that is good no more although it has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `iss`.
    pub issuer: String,
    /// `jti`.
    pub jti: String,
    /// When the token ends by itself; `None` when nobody said.
    pub until: Option<Timestamp>,
    /// When it was denied.
    pub denied_at: Timestamp,
    /// By whom.
    pub denied_by: String,
}

impl Denial {
    /// Names the token.
    pub fn id(&self) -> ForeignTokenId {
        ForeignTokenId::of(&self.issuer, &self.jti)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_have_one_name() {
        let of = ForeignTokenId::of;
        assert_eq!(of("a", "b"), of("a", "b"));
        assert!(of("ab", "c") != of("a", "bc") && of("", "ab") != of("ab", ""));
    }
}
