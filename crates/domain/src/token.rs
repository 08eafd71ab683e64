//! Access tokens and sessions, as the catalog keeps them: never the secret itself.

use crate::access::Identity;
use crate::clock::Timestamp;
use crate::id::TokenId;

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
