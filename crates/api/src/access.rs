//! Words of signed URLs, tokens and sessions.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A URL that needs no credentials, to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUrl {
    /// `GET` (which permits `HEAD`), `HEAD` or `PUT`.
    pub method: String,
    /// The path of a file, `/v1/files/BUCKET/KEY`, without a query.
    pub path: String,
    /// Seconds for which it is good, 1 to 604800; 900 when absent. Never longer than the caller's own credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// The only address, or range of addresses such as `10.0.0.0/8`, that it is good from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The name that a download is saved under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Bytes per second, at least 1024, over all connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u64>,
    /// Whether it shall lead to the storage itself, where the server allows that: for `GET` alone, without `ip` and `rate_limit`,
    /// for 900 seconds at most. Such a URL is good until it ends, whatever becomes of the file's policy or the caller's token;
    /// what is fetched by it is neither counted nor recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

/// A URL that needs no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedUrl {
    /// The URL, to be used exactly as it is.
    pub url: String,
    /// The method it is good for.
    pub method: String,
    /// Whether it leads to the storage itself: the answers are S3's, and a download that is cut off later than it ends takes a
    /// new one.
    #[serde(default)]
    pub direct: bool,
    /// When it ends.
    pub expires_at: String,
}

/// A URL for one part that needs no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartUrl {
    /// The part's number.
    pub part: u64,
    /// Bytes of the part: the body has exactly these.
    pub size: u64,
    /// The URL, to be used exactly as it is.
    pub url: String,
    /// `PUT`.
    pub method: String,
    /// Headers that must be sent besides.
    pub headers: BTreeMap<String, String>,
    /// Whether it leads to the storage itself: the bytes do not pass the server, the answer is S3's, and the part counts when it
    /// is found there.
    #[serde(default)]
    pub direct: bool,
    /// When it ends.
    pub expires_at: String,
}

/// Which parts to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignParts {
    /// Their numbers: `1-100`, `1-4,7`.
    pub parts: String,
    /// Seconds for which the URLs are good, 1 to 604800; 900 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// CRC-32 of parts in hex, by number: where the server allows it, these go to the storage itself, with URLs that are good
    /// for 900 seconds at most and for no other bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub crc32: BTreeMap<u64, String>,
}

/// URLs of parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartUrls {
    /// By number.
    pub urls: Vec<PartUrl>,
}

/// An access token, to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Whose it is: what `created_by` and ownership will say.
    pub subject: String,
    /// `guest`, `user` or `admin`.
    pub role: String,
    /// Seconds for which it is good; until it is revoked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// The only buckets it is good for; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<String>>,
}

/// An access token that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The token. It is told once and kept nowhere.
    pub token: String,
    /// Names it, for revoking.
    pub id: String,
    /// When it ends; null: when it is revoked.
    pub expires_at: Option<String>,
}

/// What is known of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Names it.
    pub id: String,
    /// Whose it is.
    pub subject: String,
    /// Its role.
    pub role: String,
    /// The only buckets it is good for; null: all.
    pub buckets: Option<Vec<String>>,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it ends; null: when it is revoked.
    pub expires_at: Option<String>,
}

/// Access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// Oldest first.
    pub tokens: Vec<Token>,
}

/// A token that somebody else has signed, to be refused from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyToken {
    /// Its `iss`; `carrack`, of tokens that are signed with the server's own keys, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its `jti`.
    pub jti: String,
    /// When it ends by itself: until then it is kept in mind, for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A token that is refused although it has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeniedToken {
    /// Its `iss`.
    pub issuer: String,
    /// Its `jti`.
    pub jti: String,
    /// When it ends by itself; null: nobody said.
    pub expires_at: Option<String>,
    /// When it was denied.
    pub denied_at: String,
    /// By whom.
    pub denied_by: String,
}

/// Tokens that are refused although they have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeniedTokens {
    /// Oldest first.
    pub denied: Vec<DeniedToken>,
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The name that ends up in `created_by` and ownership.
    pub subject: String,
    /// `guest`, `user` or `admin`.
    pub role: String,
    /// When these credentials end; null: when they are revoked.
    pub expires_at: Option<String>,
    /// What goes for this caller.
    pub limits: Limits,
}

/// What goes for a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Bytes of the largest file.
    pub max_size: u64,
    /// The only buckets that these credentials are good for; null: all.
    pub buckets: Option<Vec<String>>,
    /// Requests per second; null: any number.
    pub requests_per_second: Option<u64>,
    /// Transfers at once; null: any number.
    pub transfers: Option<u64>,
    /// Bytes per second of all transfers together; null: no limit.
    pub bandwidth: Option<u64>,
    /// Bytes per second of one connection; null: no limit.
    pub bandwidth_per_connection: Option<u64>,
    /// Bytes of files and open uploads; null: no limit.
    pub quota: Option<u64>,
}

/// What a session of the web app begins with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginSession {
    /// An access token.
    pub token: String,
}

/// A link, to be made: a way to a file's present content, or to an archive, for whoever has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// The file's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Instead of a file: the id of a completed archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// Seconds for which it is good; one to an archive ends with the archive.
    pub expires_in: u64,
    /// How many downloads it is good for; any number when absent. One that is resumed, or comes over many connections, is
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u64>,
    /// Not good before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// The only address, or range of addresses such as `10.0.0.0/8`, that it is good from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// What has to be known to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The name that a download is saved under; the file's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Bytes per second, at least 1024, over all connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u64>,
}

/// A link's facts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Names it, for revoking.
    pub id: String,
    /// The link itself.
    pub url: String,
    /// The file's bucket; null: it is to an archive.
    pub bucket: Option<String>,
    /// Its key; null: it is to an archive.
    pub key: Option<String>,
    /// The archive's id; null: it is to a file.
    pub archive: Option<String>,
    /// Bytes of the content.
    pub size: u64,
    /// The content's tag.
    pub etag: String,
    /// When it ends.
    pub expires_at: String,
    /// When it begins; null: at once.
    pub not_before: Option<String>,
    /// How many downloads it is good for; null: any number.
    pub max_downloads: Option<u64>,
    /// How many there were.
    pub uses: u64,
    /// When the last began.
    pub last_used_at: Option<String>,
    /// The only addresses that it is good from; null: any.
    pub ip: Option<String>,
    /// Whether it has a password.
    pub password: bool,
    /// The name that a download is saved under; null: the file's own.
    pub filename: Option<String>,
    /// Bytes per second, over all connections; null: no bound.
    pub rate_limit: Option<u64>,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

/// Links.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkList {
    /// Newest first.
    pub links: Vec<Link>,
}
