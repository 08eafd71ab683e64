//! Who is calling. Credentials become a principal here, once, before any handler runs.
//!
//! *Cheapness.* What a token says is kept by its hash, so that a request that was seen before needs neither the catalog
//! nor a signature. *Coherence.* Tokens and policies change through this room alone, which forgets or replaces what it
//! keeps before anybody is told of the change, and tells the other nodes. A look-up that was under way meanwhile does not
//! enter the cache: its placeholder was removed. What other nodes may have changed is believed for an epoch of
//! [`crate::coherence`].

use crate::Core;
use crate::coherence::of_tokens;
use crate::denied::Denied;
use crate::jwt::{Issuer, Tokens};
use crate::keys::{KeyRing, Secret};
use carrack_domain::access::{GUEST, ManageTokens, ROOT};
use carrack_domain::policy::{Circumstances, SUBJECT_BYTES_MAX};
use carrack_domain::token::{Carrier, Token};
use carrack_domain::{
    BucketName, Code, Error, Grant, Identity, Policies, Principal, Result, Role, Timestamp, TokenId,
};
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Tokens that are kept: some 300 bytes each.
const TOKENS_MAX: usize = 16_384;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// The most tokens a listing shows.
const LIST_MAX: usize = 1000;
/// How long a token that others have signed is believed before it is verified again, in seconds.
const VERIFIED_SECONDS: i64 = 300;
/// How long a session lasts, if what it was made with does.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;

/// What the operator set, and what was made at the first start.
pub struct Options {
    /// The first administrator's token.
    pub root_token: String,
    /// What is signed with.
    pub keys: KeyRing,
    /// Whether guests may read what no policy speaks of.
    pub anonymous_read: bool,
    /// Whose tokens are believed besides those signed with the ring.
    pub issuers: Vec<Issuer>,
}

/// Verifies credentials, and makes them.
pub struct Access {
    pub(crate) core: Arc<Core>,
    /// Only the hash is kept: a memory dump does not contain the token.
    root: blake3::Hash,
    root_identity: Arc<Identity>,
    guest: Arc<Identity>,
    keys: KeyRing,
    anonymous_read: bool,
    policies: RwLock<Arc<Policies>>,
    /// Held while policies are read again, so that an older reading never replaces a newer one.
    reading_policies: tokio::sync::Mutex<()>,
    /// The same for what is denied: also held while something is added to it.
    pub(crate) reading_denied: tokio::sync::Mutex<()>,
    /// Each with the epoch that it is of, as the next.
    by_hash: Cache<(Kind, [u8; 32]), (u64, Arc<Identity>)>,
    by_id: Cache<TokenId, u64>,
    tokens: Tokens,
    pub(crate) denied: Denied,
    /// By generation of the keys, period of time, and hash.
    verified: Cache<(u64, i64, [u8; 32]), Arc<Identity>>,
}

/// Which kind of credentials a hash is of: what is good as one is not as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Bearer,
    Cookie,
}

impl Kind {
    fn of(carrier: Carrier) -> Kind {
        match carrier {
            Carrier::Bearer => Kind::Bearer,
            Carrier::Cookie => Kind::Cookie,
        }
    }
}

/// Credentials as they came with a request.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// None.
    None,
    /// `Authorization: Bearer`.
    Bearer(&'a str),
    /// The web app's cookie.
    Cookie(&'a str),
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is.
    pub subject: String,
    /// What its bearer may do by default.
    pub role: Role,
    /// How long it is good; `None` until it is revoked.
    pub expires_in: Option<Duration>,
    /// The only buckets it is good for; `None` for all.
    pub buckets: Option<Vec<BucketName>>,
}

/// A token that was made, with its secret, which is told once.
pub struct Made {
    /// The secret.
    pub secret: String,
    /// What is kept of it.
    pub token: Token,
}

impl Access {
    /// Credentials under this configuration. Policies are still to be read.
    pub fn new(core: Arc<Core>, options: Options) -> Access {
        let clock = core.clock.clone();
        Access {
            core,
            root: blake3::hash(options.root_token.as_bytes()),
            root_identity: Arc::new(Identity::new(ROOT, Role::Admin)),
            guest: Arc::new(Identity::new(GUEST, Role::Guest)),
            keys: options.keys,
            anonymous_read: options.anonymous_read,
            policies: RwLock::new(Arc::new(Policies::new(HashMap::new(), options.anonymous_read))),
            reading_policies: tokio::sync::Mutex::new(()),
            reading_denied: tokio::sync::Mutex::new(()),
            by_hash: Cache::new(TOKENS_MAX),
            by_id: Cache::new(TOKENS_MAX),
            tokens: Tokens::new(options.issuers, clock),
            denied: Denied::default(),
            verified: Cache::new(TOKENS_MAX),
        }
    }

    /// What is signed with.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Signs with these keys from now on; the sentence says what is wrong with them. When they are no good nothing has
    /// changed.
    pub fn replace_keys(&self, secrets: &[Secret]) -> Result<(), String> {
        self.keys.replace(secrets)?;
        self.tokens.outdate();
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// What is known of a request that comes in now.
    pub fn circumstances(&self, address: Option<IpAddr>, tls: bool) -> Circumstances {
        Circumstances { address, tls, now: self.now() }
    }

    /// Reads the policies of all buckets again. Called at the start, and after each change before it is answered.
    pub async fn read_policies(&self) -> Result<()> {
        let _turn = self.reading_policies.lock().await;
        let buckets = self.core.catalog.buckets().await?;
        let own = buckets.into_iter().filter_map(|bucket| Some((bucket.name, bucket.settings.policy?)));
        let policies = Arc::new(Policies::new(own.collect(), self.anonymous_read));
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
        Ok(())
    }

    fn policies(&self) -> Arc<Policies> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody whose credentials were verified, under the policies of this moment.
    pub fn principal(&self, identity: Arc<Identity>, of: Circumstances) -> Principal {
        Principal::of(identity, of, self.policies())
    }

    /// The principal behind credentials; without any, a guest. `invalid_token` for those that are unknown, revoked or
    /// expired.
    pub async fn authenticate(&self, credentials: Credentials<'_>, of: Circumstances) -> Result<Principal> {
        let identity = match credentials {
            Credentials::None => self.guest.clone(),
            Credentials::Bearer(token) => self.bearer(token).await?,
            Credentials::Cookie(session) => self.token(Kind::Cookie, session).await?,
        };
        if identity.expires_at.is_some_and(|end| end <= of.now) {
            return Err(invalid_token());
        }
        self.refuse_denied(&identity)?;
        Ok(self.principal(identity, of))
    }

    /// Counts changes of what tokens of others are verified with, see [`Access::renew`].
    pub fn epoch(&self) -> u64 {
        self.tokens.generation()
    }

    /// Somebody who came at `epoch` and is still here, under the policies of this moment; `invalid_token` when their
    /// credentials were revoked or have expired since.
    pub async fn renew(&self, principal: &Principal, epoch: u64) -> Result<Principal> {
        let identity = principal.identity();
        if identity.expires_at.is_some_and(|end| end <= self.now()) {
            return Err(invalid_token());
        }
        self.refuse_denied(identity)?;
        match identity.token {
            Some(token) => self.still_good(&token).await?,
            None if [ROOT, GUEST].contains(&identity.subject.as_str()) => {}
            // The key that it was signed with may be gone, and the token is not kept to be verified again.
            None if epoch != self.epoch() => return Err(invalid_token()),
            None => {}
        }
        Ok(self.principal(identity.clone(), Circumstances { now: self.now(), ..*principal.circumstances() }))
    }

    async fn bearer(&self, token: &str) -> Result<Arc<Identity>> {
        // `blake3::Hash` compares in constant time.
        if blake3::hash(token.as_bytes()) == self.root {
            return Ok(self.root_identity.clone());
        }
        if Tokens::looks_like(token) && token.len() <= TOKEN_BYTES_MAX {
            return self.signed_token(token).await;
        }
        self.token(Kind::Bearer, token).await
    }

    /// Who a token that others have signed is about; one that was seen lately is not verified again.
    async fn signed_token(&self, token: &str) -> Result<Arc<Identity>> {
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        // Every few minutes, and whenever keys change, so that a key that is gone is gone.
        let period = self.now().as_secs().div_euclid(VERIFIED_SECONDS);
        let seen = (self.tokens.generation(), period, hash);
        if let Some(identity) = self.verified.get(&seen) {
            return Ok(identity);
        }
        let identity = Arc::new(self.tokens.verify(&self.keys, token).await?);
        self.verified.insert(seen, identity.clone());
        Ok(identity)
    }

    async fn token(&self, kind: Kind, secret: &str) -> Result<Arc<Identity>> {
        if secret.is_empty() || secret.len() > TOKEN_BYTES_MAX {
            return Err(invalid_token());
        }
        let hash = *blake3::hash(secret.as_bytes()).as_bytes();
        let epoch = self.core.coherence.epoch();
        if let Some((of, identity)) = self.by_hash.get(&(kind, hash)) {
            if of == epoch {
                return Ok(identity);
            }
            self.by_hash.remove_if(&(kind, hash), |(of, _)| *of != epoch);
        }
        match self.by_hash.get_value_or_guard_async(&(kind, hash)).await {
            Ok((_, identity)) => Ok(identity),
            Err(guard) => {
                let token = match self.core.catalog.token_by_hash(&hash).await {
                    Ok(token) if Kind::of(token.carrier) == kind => token,
                    Ok(_) => return Err(invalid_token()),
                    Err(error) if error.code() == Code::TokenNotFound => return Err(invalid_token()),
                    Err(error) => return Err(error),
                };
                let identity = Arc::new(token.identity);
                // Refused when it was revoked meanwhile: then this answer is not for those who come later.
                match guard.insert((epoch, identity.clone())) {
                    Ok(()) | Err(_) => Ok(identity),
                }
            }
        }
    }

    /// Whether the token that something was made with is still good; `invalid_token` otherwise.
    pub(crate) async fn still_good(&self, token: &TokenId) -> Result<()> {
        let epoch = self.core.coherence.epoch();
        if let Some(of) = self.by_id.get(token) {
            if of == epoch {
                return Ok(());
            }
            self.by_id.remove_if(token, |of| *of != epoch);
        }
        match self.by_id.get_value_or_guard_async(token).await {
            Ok(_) => Ok(()),
            Err(guard) => match self.core.catalog.token(token).await {
                Ok(_) => match guard.insert(epoch) {
                    Ok(()) | Err(_) => Ok(()),
                },
                Err(error) if error.code() == Code::TokenNotFound => Err(invalid_token()),
                Err(error) => Err(error),
            },
        }
    }

    /// Makes a token for somebody. Its secret is in the answer and nowhere else.
    pub async fn create_token(&self, grant: &Grant<ManageTokens>, new: NewToken) -> Result<Made> {
        let subject = check_subject(new.subject)?;
        let identity = Identity {
            subject,
            role: new.role,
            buckets: new.buckets,
            token: None,
            foreign: None,
            expires_at: new.expires_in.map(|span| self.now().after(span)),
        };
        self.make(identity, Carrier::Bearer, None, grant.principal().subject()).await
    }

    async fn make(
        &self,
        identity: Identity,
        carrier: Carrier,
        parent: Option<TokenId>,
        created_by: &str,
    ) -> Result<Made> {
        let entropy = &*self.core.entropy;
        let mut bytes = [0; SECRET_BYTES];
        entropy.fill(&mut bytes);
        let secret = format!("{}{}", prefix(carrier), carrack_domain::id::hex(&bytes));
        let id = TokenId::generate(entropy);
        let token = Token {
            hash: *blake3::hash(secret.as_bytes()).as_bytes(),
            id,
            parent,
            carrier,
            identity: Identity { token: Some(id), ..identity },
            created_at: self.now(),
            created_by: created_by.to_owned(),
        };
        self.core.catalog.create_token(&token).await?;
        Ok(Made { secret, token })
    }

    /// The tokens there are, oldest first; of those made with them nothing is shown.
    pub async fn tokens(&self, _grant: &Grant<ManageTokens>) -> Result<Vec<Token>> {
        let mut tokens = self.core.catalog.tokens(LIST_MAX).await?;
        let now = self.now();
        tokens.retain(|token| token.identity.expires_at.is_none_or(|end| end > now));
        Ok(tokens)
    }

    /// Ends a token, and every session and URL that was made with it, at once; `token_not_found`.
    pub async fn revoke(&self, _grant: &Grant<ManageTokens>, id: TokenId) -> Result<()> {
        self.end(id).await
    }

    async fn end(&self, id: TokenId) -> Result<()> {
        let gone = self.core.catalog.delete_token(&id).await?;
        for gone in &gone {
            self.by_hash.remove(&(Kind::of(gone.carrier), gone.hash));
            self.by_id.remove(&gone.id);
        }
        for news in of_tokens(gone.iter().map(|gone| (gone.hash, gone.id))) {
            self.core.coherence.tell(news).await;
        }
        Ok(())
    }

    /// Forgets tokens that another node has ended: hash of the secret and id of each, in hexadecimal.
    pub(crate) fn forget_tokens(&self, tokens: &[(String, String)]) {
        for (hash, id) in tokens {
            if let Some(hash) = carrack_domain::id::unhex(hash) {
                self.by_hash.remove(&(Kind::Bearer, hash));
                self.by_hash.remove(&(Kind::Cookie, hash));
            }
            if let Some(id) = TokenId::parse(id) {
                self.by_id.remove(&id);
            }
        }
    }

    /// Begins a session of the web app for whoever brings this token; what a cookie carries.
    pub async fn begin_session(&self, token: &str, of: Circumstances) -> Result<Made> {
        let principal = self.authenticate(Credentials::Bearer(token), of).await?;
        let own = principal.identity();
        let end = self.now().after(SESSION);
        let identity =
            Identity { expires_at: Some(own.expires_at.map_or(end, |own| own.min(end))), ..(**own).clone() };
        self.make(identity, Carrier::Cookie, own.token, principal.subject()).await
    }

    /// Ends the session that this cookie carries; nothing when it is none (any more).
    pub async fn end_session(&self, session: &str) -> Result<()> {
        match self.token(Kind::Cookie, session).await {
            Ok(identity) => match identity.token {
                Some(id) => match self.end(id).await {
                    Err(error) if error.code() != Code::TokenNotFound => Err(error),
                    Ok(()) | Err(_) => Ok(()),
                },
                None => Ok(()),
            },
            Err(error) if error.code() == Code::InvalidToken => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the secret begins with, so that whoever finds one knows what it is.
fn prefix(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Bearer => "carrack_",
        Carrier::Cookie => "carrack_session_",
    }
}

pub(crate) fn invalid_token() -> Error {
    Error::new(Code::InvalidToken, "The token is not valid here (any more).")
}

/// A name that somebody other than the first administrator and those without one may have.
pub(crate) fn check_subject(subject: String) -> Result<String> {
    let plain = !subject.is_empty()
        && subject.len() <= SUBJECT_BYTES_MAX
        && !subject.chars().any(char::is_control)
        && subject.trim() == subject;
    if plain && subject != ROOT && subject != GUEST {
        return Ok(subject);
    }
    Err(Error::new(
        Code::InvalidRequest,
        format!(
            "A subject has 1 to {SUBJECT_BYTES_MAX} bytes, no control character, no space at its ends, and is not '{ROOT}' or '{GUEST}'."
        ),
    ))
}
