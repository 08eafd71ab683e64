//! URLs that bring their own right: whoever has one may do one thing, to one path, until it expires.
//!
//! What the signer may do is asked again when the URL is used: a policy changed since, or a token revoked, ends what was
//! made with it.

use crate::access::Access;
use crate::keys::{Purpose, invalid_signature};
use crate::limit::LinkRate;
use carrack_domain::access::{FileRef, Identity, ReadFile, ShareFile, UseUploads, WriteFile};
use carrack_domain::policy::{AddressRange, Circumstances};
use carrack_domain::{Code, Error, ForeignTokenId, Grant, Result, Role, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// How long a signed URL is good unless the caller wishes otherwise.
pub const EXPIRES_DEFAULT: Duration = Duration::from_secs(900);
/// The longest that one is good.
pub const EXPIRES_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest that a URL is good which leads to the storage itself: nothing is asked again when it is used.
pub const DIRECT_MAX: Duration = Duration::from_secs(900);
/// How far the clock may have gone back since one was made.
const SKEW: Duration = Duration::from_secs(60);

/// What a signed URL may do besides what its path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Until when; never longer than the signer's own credentials.
    pub expires_in: Option<Duration>,
    /// From where only.
    pub ip: Option<AddressRange>,
    /// The name a download is saved under.
    pub filename: Option<String>,
    /// Bytes per second, over all connections.
    pub rate_limit: Option<NonZeroU64>,
}

/// A URL's signature, with what is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What goes behind `?sig=`.
    pub sealed: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a good signature says.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Who made it: on whose behalf the request is.
    pub identity: Arc<Identity>,
    /// The name a download is saved under.
    pub filename: Option<String>,
    /// The rate that everything under this URL shares.
    pub rate_limit: Option<LinkRate>,
}

/// The payload. Times are seconds since 1970 UTC.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    method: String,
    iat: i64,
    exp: i64,
    sub: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    foreign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<AddressRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<NonZeroU64>,
}

/// The method on a file that a URL is made for.
#[derive(Debug)]
pub enum FileMethod {
    /// `GET`, and `HEAD` with it.
    Get(Grant<ReadFile>),
    /// `HEAD` alone.
    Head(Grant<ReadFile>),
    /// `PUT`.
    Put(Grant<WriteFile>),
}

impl Access {
    /// Signs the URL of one part; `path` is the URL's path as it will be sent. Whether the upload is the caller's own is
    /// asked when the URL is used, and had better be asked before.
    pub fn sign_part(
        &self,
        grant: &Grant<UseUploads>,
        path: &str,
        expires_in: Option<Duration>,
    ) -> Result<Signature> {
        let terms = Terms { expires_in, ..Terms::default() };
        self.sign(Purpose::Part, grant.principal().identity(), "PUT", path, terms)
    }

    /// Signs a URL for one method on one file. Who may share it may let others do what they may do themselves.
    pub fn sign_file(
        &self,
        share: &Grant<ShareFile>,
        method: &FileMethod,
        path: &str,
        terms: Terms,
    ) -> Result<Signature> {
        let (name, place): (_, &FileRef) = match method {
            FileMethod::Get(grant) => ("GET", grant.resource()),
            FileMethod::Head(grant) => ("HEAD", grant.resource()),
            FileMethod::Put(grant) => ("PUT", grant.resource()),
        };
        if place != share.resource() {
            return Err(Error::broken("a grant to share another file"));
        }
        self.sign(Purpose::File, share.principal().identity(), name, path, terms)
    }

    /// How long a URL may be good that leads to the storage itself, in whole seconds, and when it ends then.
    pub fn direct_lifetime(
        &self,
        identity: &Identity,
        expires_in: Option<Duration>,
    ) -> Result<(Duration, Timestamp)> {
        let now = self.now();
        let exp = end(identity, now, check_wish(expires_in)?.min(DIRECT_MAX));
        let seconds = u64::try_from(exp - now.as_secs()).unwrap_or(0).clamp(1, DIRECT_MAX.as_secs());
        let lifetime = Duration::from_secs(seconds);
        Ok((lifetime, Timestamp::from_millis(now.as_secs().saturating_mul(1000)).after(lifetime)))
    }

    fn sign(
        &self,
        purpose: Purpose,
        identity: &Identity,
        method: &str,
        path: &str,
        terms: Terms,
    ) -> Result<Signature> {
        let now = self.now();
        let exp = end(identity, now, check_wish(terms.expires_in)?);
        let claims = Claims {
            method: method.to_owned(),
            iat: now.as_secs(),
            exp,
            sub: identity.subject.clone(),
            role: identity.role.as_str().to_owned(),
            token: identity.token.map(|token| token.to_string()),
            foreign: identity.foreign.map(|token| token.to_string()),
            ip: terms.ip,
            filename: terms.filename,
            rate_limit: terms.rate_limit,
        };
        let payload = serde_json::to_vec(&claims).map_err(|error| Error::internal("write claims", error))?;
        let sealed = self.keys().seal(purpose, &[path.as_bytes()], &payload)?;
        Ok(Signature { sealed, expires_at: Timestamp::from_millis(exp.saturating_mul(1000)) })
    }

    /// What a signature says that came with `method` on `path`, both as they were received.
    ///
    /// `invalid_signature` unless it was made here for just that; `url_expired`; `wrong_address`; `invalid_token` when the
    /// token it was made with was revoked.
    pub async fn signed(
        &self,
        purpose: Purpose,
        method: &str,
        path: &str,
        sealed: &str,
        of: &Circumstances,
    ) -> Result<Signed> {
        let payload = self.keys().open(purpose, &[path.as_bytes()], sealed)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| invalid_signature())?;
        let same_method = claims.method == method || (claims.method == "GET" && method == "HEAD");
        let role = Role::parse(&claims.role).ok_or_else(invalid_signature)?;
        if !same_method || claims.iat > of.now.after(SKEW).as_secs() {
            return Err(invalid_signature());
        }
        if of.now.as_secs() >= claims.exp {
            return Err(Error::new(Code::UrlExpired, "This URL has expired: ask for a new one."));
        }
        if claims.ip.is_some_and(|range| !of.address.is_some_and(|address| range.contains(address))) {
            return Err(Error::new(Code::WrongAddress, "This URL is not good from this address."));
        }
        let token = match claims.token.as_deref().map(TokenId::parse) {
            None => None,
            Some(Some(token)) => {
                self.still_good(&token).await?;
                Some(token)
            }
            Some(None) => return Err(invalid_signature()),
        };
        let foreign = match claims.foreign.as_deref() {
            None => None,
            Some(text) => Some(ForeignTokenId::parse(text).ok_or_else(invalid_signature)?),
        };
        let identity = Identity { token, foreign, ..Identity::new(claims.sub, role) };
        self.refuse_denied(&identity)?;
        let name = || -> [u8; 16] {
            let mut name = [0; 16];
            name.copy_from_slice(&blake3::hash(sealed.as_bytes()).as_bytes()[..16]);
            name
        };
        let rate_limit = claims.rate_limit.map(|rate| LinkRate { name: name(), rate });
        Ok(Signed { identity: Arc::new(identity), filename: claims.filename, rate_limit })
    }
}

fn check_wish(expires_in: Option<Duration>) -> Result<Duration> {
    let wished = expires_in.unwrap_or(EXPIRES_DEFAULT);
    if wished.is_zero() || wished > EXPIRES_MAX {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("expires_in is a number of seconds from 1 to {}.", EXPIRES_MAX.as_secs()),
        ));
    }
    Ok(wished)
}

/// When something ends that is good for so long, in seconds since 1970: not less than was wished, not after the signer's own
/// credentials.
fn end(identity: &Identity, now: Timestamp, wished: Duration) -> i64 {
    let wished = now.after(wished + Duration::from_millis(999)).as_secs();
    identity.expires_at.map_or(wished, |own| own.as_secs().min(wished))
}
