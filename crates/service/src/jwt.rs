//! Tokens that others have signed (RFC 7519): `HS256` with a key derived from the server's own ring, and `RS256`, `ES256` or
//! `EdDSA` with the published keys (RFC 7517) of issuers that the operator trusts.
//!
//! A key says which algorithm goes with it, never the token: a header with another one, or that brings keys, compression or
//! extensions of its own, is refused before anything is verified (RFC 8725 §3). Claims are identity; what somebody may do is
//! asked of the policies.

mod check;

use crate::access::{check_subject, invalid_token};
use crate::keys::KeyRing;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrack_domain::{BucketName, Clock, Error, ForeignTokenId, Identity, Result, Role, Timestamp};
pub use check::check;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;

/// Issuer and audience of tokens that are signed with the server's own ring.
pub const OWN: &str = "carrack";
/// How far the clocks of two machines may be apart. What has ended has ended on ours.
const SKEW: Duration = Duration::from_secs(60);
/// Keys of an issuer are asked for again when they are so old.
const FRESH: Duration = Duration::from_secs(300);
/// And not sooner than this, whatever tokens come: nobody can make us ask more often.
const PAUSE: Duration = Duration::from_secs(30);
/// When an issuer does not answer, its keys are good for so long.
const STALE: Duration = Duration::from_secs(3600);
/// The most keys of an issuer.
const KEYS_MAX: usize = 100;
/// The largest set of keys, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 << 10;

/// Where the keys of an issuer are.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The set as JSON, at most [`KEY_SET_BYTES_MAX`] bytes; what went wrong, for the log.
    async fn fetch(&self) -> Result<Vec<u8>, String>;
}

/// How somebody else's tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signing {
    /// The algorithm with this registered name.
    pub fn parse(text: &str) -> Option<Signing> {
        match text {
            "RS256" => Some(Signing::Rs256),
            "ES256" => Some(Signing::Es256),
            "EdDSA" => Some(Signing::EdDsa),
            _ => None,
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Signing::Rs256 => Algorithm::RS256,
            Signing::Es256 => Algorithm::ES256,
            Signing::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// Somebody whose tokens are believed.
pub struct Issuer {
    /// `iss` of their tokens.
    pub issuer: String,
    /// What `aud` of their tokens has to name.
    pub audience: String,
    /// The algorithms that are taken from them.
    pub algorithms: Vec<Signing>,
    /// Where their keys are.
    pub source: Box<dyn KeySource>,
}

/// Verifies tokens that others have signed.
pub(crate) struct Tokens {
    issuers: Vec<Known>,
    /// Counts changes of keys: what was verified before one is verified again.
    generation: AtomicU64,
    clock: Arc<dyn Clock>,
}

struct Known {
    issuer: Issuer,
    keys: RwLock<Arc<KeySet>>,
    /// When the keys were asked for last; held while they are.
    asked: Mutex<Option<Timestamp>>,
}

#[derive(Default)]
struct KeySet {
    keys: Vec<Arc<PublicKey>>,
    /// The set as it came, to see whether a new one is another.
    text: Vec<u8>,
    /// When it came; never without a first.
    came: Option<Timestamp>,
}

struct PublicKey {
    kid: Option<String>,
    signing: Signing,
    key: DecodingKey,
}

/// What is looked at of a header. Extensions would have to be understood (RFC 7515 §4.1.11), keys inside be trusted.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

/// Members of a header that change what a token is.
const NOT_TAKEN: [&str; 8] = ["crit", "jwk", "jku", "x5u", "x5c", "zip", "enc", "b64"];

#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    exp: i64,
    iat: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    buckets: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

impl Tokens {
    pub(crate) fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Tokens {
        let known = |issuer| Known { issuer, keys: RwLock::default(), asked: Mutex::new(None) };
        Tokens { issuers: issuers.into_iter().map(known).collect(), generation: AtomicU64::new(0), clock }
    }

    /// Grows when what was verified may have lost its key.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The keys of the ring have changed.
    pub(crate) fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a text has the form of such a token; no access token has.
    pub(crate) fn looks_like(text: &str) -> bool {
        text.starts_with("ey") && text.bytes().filter(|b| *b == b'.').count() == 2
    }

    /// Who a token is about; `invalid_token` whatever is wrong with it, which the log says.
    pub(crate) async fn verify(&self, ring: &KeyRing, token: &str) -> Result<Identity> {
        let refused = |reason: &str| {
            tracing::debug!(reason, "a signed token was refused");
            invalid_token()
        };
        let header: Header = part(token, 0).ok_or_else(|| refused("its header cannot be read"))?;
        let plain = header
            .typ
            .as_deref()
            .is_none_or(|typ| typ.eq_ignore_ascii_case("jwt") || typ.eq_ignore_ascii_case("at+jwt"));
        if !plain || NOT_TAKEN.iter().any(|name| header.more.contains_key(*name)) {
            return Err(refused("its header asks for what is not done here"));
        }
        let (claims, audience) = match header.alg.as_str() {
            "HS256" => {
                let key = ring.jwt(header.kid.as_deref()).ok_or_else(|| refused("its key is unknown"))?;
                let key = DecodingKey::from_secret(&key);
                (verified(token, &key, Algorithm::HS256).map_err(|error| refused(&error))?, OWN)
            }
            other => {
                let signing = Signing::parse(other).ok_or_else(|| refused("its algorithm is not taken"))?;
                let said: Unverified = part(token, 1).ok_or_else(|| refused("its issuer cannot be read"))?;
                let known = self.issuers.iter().find(|known| known.issuer.issuer == said.iss);
                let known = known.filter(|known| known.issuer.algorithms.contains(&signing));
                let known = known.ok_or_else(|| refused("its issuer is unknown, or signs otherwise"))?;
                let claims = self.by_issuer(known, &header, signing, token).await;
                (claims.map_err(|error| refused(&error))?, known.issuer.audience.as_str())
            }
        };
        let own = header.alg == "HS256";
        if (own && claims.iss != OWN) || !claims.aud.names(audience) {
            return Err(refused("it is for somebody else"));
        }
        self.identity(claims).map_err(|reason| refused(&reason))
    }

    async fn by_issuer(
        &self,
        known: &Known,
        header: &Header,
        signing: Signing,
        token: &str,
    ) -> Result<Claims, String> {
        self.refresh(known, false).await?;
        let mut key = known.key(header, signing);
        if key.is_none() {
            // A key that is new: asked for, but not for every token that names one.
            self.refresh(known, true).await?;
            key = known.key(header, signing);
        }
        let key = key.ok_or("its key is unknown")?;
        verified(token, &key.key, signing.algorithm())
    }

    /// Asks for an issuer's keys when they are old, or `wanted` and not asked for lately.
    async fn refresh(&self, known: &Known, wanted: bool) -> Result<(), String> {
        let now = self.clock.now();
        let age = |then: Option<Timestamp>, span: Duration| then.is_none_or(|then| then.after(span) <= now);
        if !wanted && !age(known.keys().came, FRESH) {
            return Ok(());
        }
        let mut asked = known.asked.lock().await;
        if age(*asked, PAUSE) && (wanted || age(known.keys().came, FRESH)) {
            *asked = Some(now);
            let issuer = &known.issuer.issuer;
            match known.issuer.source.fetch().await.and_then(|text| key_set(text, now)) {
                Ok(set) => {
                    let same = known.keys().text == set.text;
                    *known.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
                    if !same {
                        self.outdate();
                        tracing::info!(issuer, "the keys of an issuer have changed");
                    }
                }
                Err(error) => tracing::warn!(issuer, error, "the keys of an issuer could not be read"),
            }
        }
        drop(asked);
        if age(known.keys().came, STALE) { Err("its issuer's keys are not there".to_owned()) } else { Ok(()) }
    }

    fn identity(&self, claims: Claims) -> Result<Identity, String> {
        let now = self.clock.now();
        let soon = now.after(SKEW).as_secs();
        if claims.exp <= now.as_secs() {
            return Err("it has ended".to_owned());
        }
        if claims.iat > soon || claims.nbf.is_some_and(|nbf| nbf > soon) || claims.iat > claims.exp {
            return Err("it has not begun".to_owned());
        }
        let role = match claims.role.as_deref() {
            None => Role::User,
            Some(name) => Role::parse(name).ok_or("its role is unknown")?,
        };
        let sentence = |error: Error| error.detail().to_owned();
        let buckets = claims.buckets.map(|names| names.iter().map(|name| BucketName::parse(name)).collect());
        Ok(Identity {
            subject: check_subject(claims.sub).map_err(sentence)?,
            role,
            buckets: buckets.transpose().map_err(sentence)?,
            token: None,
            foreign: claims.jti.map(|jti| ForeignTokenId::of(&claims.iss, &jti)),
            expires_at: Some(Timestamp::from_millis(claims.exp.saturating_mul(1000))),
        })
    }
}

impl Known {
    fn keys(&self) -> Arc<KeySet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that a header names; without a name, the only one of its kind.
    fn key(&self, header: &Header, signing: Signing) -> Option<Arc<PublicKey>> {
        let set = self.keys();
        let mut fitting = set
            .keys
            .iter()
            .filter(|key| key.signing == signing && (header.kid.is_none() || key.kid == header.kid));
        let key = fitting.next()?.clone();
        fitting.next().is_none().then_some(key)
    }
}

/// One of the first two parts of a token, before anything was verified.
fn part<T: serde::de::DeserializeOwned>(token: &str, index: usize) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The claims of a token whose signature is right; times are compared by our clock, not here. The header is not looked at again:
/// what it says has been judged, and of what it says besides nothing counts (RFC 7515 §4).
fn verified(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, String> {
    let (message, signature) = token.rsplit_once('.').ok_or("it has no signature")?;
    if message.matches('.').count() != 1 {
        return Err("it has other than three parts".to_owned());
    }
    match verify(signature, message.as_bytes(), key, algorithm) {
        Ok(true) => part(token, 1).ok_or_else(|| "its claims cannot be read".to_owned()),
        Ok(false) => Err("its signature is wrong".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a set of keys. What cannot be used here is left out.
fn key_set(text: Vec<u8>, came: Timestamp) -> Result<KeySet, String> {
    if text.len() > KEY_SET_BYTES_MAX {
        return Err(format!("the set has {} bytes, at most {KEY_SET_BYTES_MAX} are read", text.len()));
    }
    let set: JwkSet = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("the set has {} keys, at most {KEYS_MAX} are read", set.keys.len()));
    }
    let keys = set.keys.iter().filter_map(public_key).collect();
    Ok(KeySet { keys, text, came: Some(came) })
}

fn public_key(jwk: &Jwk) -> Option<Arc<PublicKey>> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let signing = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Signing::Rs256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Signing::Es256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Signing::EdDsa,
        // A secret in a published set is none.
        AlgorithmParameters::OctetKey(_)
        | AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_) => return None,
    };
    let named = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    if named.is_some_and(|named| Signing::parse(&named) != Some(signing)) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Arc::new(PublicKey { kid: jwk.common.key_id.clone(), signing, key }))
}

#[cfg(test)]
mod tests;
