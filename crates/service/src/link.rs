//! Links: made, listed, revoked, used.
//!
//! *Counting.* A use of a counted link is taken in one transaction before the first byte is sent. What is sent under it is
//! counted as it goes and written down when each answer ends; in between it is in memory, in one place for all answers of
//! the same use. A crash in the middle forgets what was sent since: the use stays taken, and can be resumed.

use crate::Core;
use crate::access::Access;
use crate::download::{COUNTED_BYTES, Downloads, Form, OpenFile};
use crate::keys::Purpose;
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use carrack_domain::access::{FileRef, ReadFile, ShareFile, UseLinks, authorize};
use carrack_domain::link::{Link, LinkClaim};
use carrack_domain::policy::{AddressRange, Circumstances};
use carrack_domain::{ClaimId, Code, Error, Grant, Identity, LinkId, Result, Role, Timestamp};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The longest that a link is good: ten years.
pub const EXPIRES_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// The longest password, in bytes: what is longer costs us, not whoever guesses.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// How long a password that was given need not be given again.
pub const UNLOCKED: Duration = Duration::from_secs(3600);
/// The most links a listing shows.
const LIST_MAX: usize = 1000;
/// How many claims are looked at for one that is unfinished.
const CLAIMS_MAX: usize = 100;
/// Passwords hashed at once: each takes 19 MiB and some 20 ms of a core.
const HASHING_MAX: usize = 2;

/// A link to be made.
#[derive(Debug, Clone, Default)]
pub struct NewLink {
    /// How long it is good.
    pub expires_in: Duration,
    /// How many uses it has; `None` for any number.
    pub max_downloads: Option<u64>,
    /// When it begins.
    pub not_before: Option<Timestamp>,
    /// From where only.
    pub ip: Option<AddressRange>,
    /// What has to be known.
    pub password: Option<String>,
    /// The name a download is saved under.
    pub filename: Option<String>,
    /// Bytes per second, over all connections.
    pub rate_limit: Option<NonZeroU64>,
}

/// Ways to files for whoever has them.
pub struct Links {
    core: Arc<Core>,
    access: Arc<Access>,
    downloads: Arc<Downloads>,
    hashing: Arc<Semaphore>,
    /// Claims that are being used, each in one place.
    live: Arc<Mutex<HashMap<ClaimId, Weak<Live>>>>,
}

/// A claim that is being used.
struct Live {
    claim: Mutex<LinkClaim>,
    size: u64,
}

impl Live {
    fn claim(&self) -> MutexGuard<'_, LinkClaim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is sent under a claim, from one offset on, until dropped.
pub struct Delivery {
    core: Arc<Core>,
    live: Arc<Live>,
    offset: u64,
    sent: u64,
}

impl Delivery {
    /// Counts `len` bytes about to be sent; `link_used` when they would be too many.
    pub(crate) fn take(&mut self, len: u64) -> Result<()> {
        if !self.live.claim().take(len, self.live.size) {
            return Err(used());
        }
        self.sent += len;
        Ok(())
    }

    /// Writes down what came of it.
    pub(crate) fn end(self, whole: bool) {
        let Delivery { core, live, offset, sent } = self;
        live.claim().ended(offset, sent, live.size, whole, core.clock.now());
        let tasks = core.tasks.clone();
        // Owned by the tracker that shutdown awaits. It holds the claim, so that nobody reads it from before.
        tasks.spawn(async move {
            let claim = live.claim().clone();
            if let Err(error) = core.catalog.save_claim(&claim).await {
                tracing::warn!(error = error.chain(), "how far a use of a link is could not be written down");
            }
        });
    }
}

fn used() -> Error {
    Error::new(Code::LinkUsed, "This use of the link is over: everything was sent.")
}

fn not_found() -> Error {
    Error::new(Code::LinkNotFound, "There is no such link (any more).")
}

impl Links {
    pub(crate) fn new(core: Arc<Core>, access: Arc<Access>, downloads: Arc<Downloads>) -> Links {
        let hashing = Arc::new(Semaphore::new(HASHING_MAX));
        Links { core, access, downloads, hashing, live: Arc::default() }
    }

    /// Makes a link to a file's present content. Who may share it may let others read what they may read themselves.
    pub async fn create(
        &self,
        read: &Grant<ReadFile>,
        share: &Grant<ShareFile>,
        new: NewLink,
    ) -> Result<Link> {
        if read.resource() != share.resource() {
            return Err(Error::broken("a grant to share another file"));
        }
        let file = self.core.facts.file(read.resource()).await?;
        let now = self.core.clock.now();
        let password = match new.password {
            None => None,
            Some(password) => Some(self.hash(password).await?),
        };
        let principal = share.principal();
        let link = Link {
            id: LinkId::generate(&*self.core.entropy),
            owner: principal.subject().to_owned(),
            role: principal.role(),
            file: (*file).clone(),
            expires_at: now.after(new.expires_in),
            not_before: new.not_before,
            max_downloads: new.max_downloads,
            uses: 0,
            ip: new.ip,
            password,
            filename: new.filename,
            rate_limit: new.rate_limit,
            created_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        self.core.catalog.create_link(&link).await?;
        Ok(link)
    }

    /// What leads to a link: the part of its URL behind `/d/`.
    pub fn token(&self, link: &Link) -> Result<String> {
        self.access.keys().seal(Purpose::Link, &[], link.id.as_bytes())
    }

    /// The caller's links, newest first.
    pub async fn list(&self, grant: &Grant<UseLinks>) -> Result<Vec<Link>> {
        if grant.principal().role() == Role::Guest {
            return Ok(Vec::new());
        }
        self.core.catalog.links(grant.principal().subject(), LIST_MAX).await
    }

    /// The caller's link of this id, any link for an administrator; `link_not_found`.
    pub async fn get(&self, grant: &Grant<UseLinks>, id: LinkId) -> Result<Link> {
        let link = self.core.catalog.link(&id).await?;
        let principal = grant.principal();
        let own = principal.role() != Role::Guest && link.owner == principal.subject();
        let rules = principal.role() == Role::Admin && principal.identity().buckets.is_none();
        if own || rules { Ok(link) } else { Err(not_found()) }
    }

    /// Revokes the caller's link, at once; again is fine.
    pub async fn revoke(&self, grant: &Grant<UseLinks>, id: LinkId) -> Result<()> {
        let link = self.get(grant, id).await?;
        self.core.catalog.revoke_link(&link.id, self.core.clock.now()).await
    }

    /// The link that a token leads to: `invalid_signature` for what is not ours, `link_revoked`, `wrong_address`,
    /// `link_not_yet`. Whether it has expired or been used up is asked when it is used.
    pub async fn open(&self, token: &str, of: &Circumstances) -> Result<Link> {
        let id = self.access.keys().open(Purpose::Link, &[], token)?;
        let id = <[u8; 16]>::try_from(id.as_slice()).map_err(|_| crate::keys::invalid_signature())?;
        let link = self.core.catalog.link(&LinkId::from_bytes(id)).await.map_err(|error| {
            let gone = error.code() == Code::LinkNotFound;
            if gone { Error::new(Code::LinkExpired, "This link has expired.") } else { error }
        })?;
        if link.revoked_at.is_some() {
            return Err(Error::new(Code::LinkRevoked, "This link was revoked."));
        }
        if link.ip.is_some_and(|range| !of.address.is_some_and(|address| range.contains(address))) {
            return Err(Error::new(Code::WrongAddress, "This link is not good from this address."));
        }
        if let Some(begins) = link.not_before.filter(|begins| *begins > of.now) {
            return Err(Error::new(Code::LinkNotYet, format!("This link is good from {begins} on.")));
        }
        Ok(link)
    }

    /// `link_expired` once a link's time is over.
    pub fn check_time(&self, link: &Link, of: &Circumstances) -> Result<()> {
        if link.expires_at > of.now {
            return Ok(());
        }
        Err(Error::new(Code::LinkExpired, "This link has expired."))
    }

    /// `link_expired`, or `link_used` unless there is a use left.
    pub fn check_uses(&self, link: &Link, of: &Circumstances) -> Result<()> {
        self.check_time(link, of)?;
        if link.max_downloads.is_none_or(|most| link.uses < most) {
            return Ok(());
        }
        Err(Error::new(Code::LinkUsed, "This link has been used as often as it may be."))
    }

    /// Takes one use of a counted link. It is taken for good when this returns.
    pub async fn claim(&self, link: &Link, of: &Circumstances) -> Result<ClaimId> {
        let claim = LinkClaim::new(ClaimId::generate(&*self.core.entropy), link.id, of.address, of.now);
        self.may_still_be_read(link, of)?;
        let core = self.core.clone();
        let work = async move {
            core.catalog.use_link(&claim.link, Some(&claim), claim.created_at).await?;
            Ok(claim.id)
        };
        self.core.to_the_end(work).await
    }

    /// Notes a use of a link that is not counted.
    pub async fn note_use(&self, link: &Link, of: &Circumstances) -> Result<()> {
        self.core.catalog.use_link(&link.id, None, of.now).await
    }

    /// The newest unfinished use that was claimed from where this request comes from.
    pub async fn unfinished(&self, link: &Link, of: &Circumstances) -> Result<Option<ClaimId>> {
        let Some(address) = of.address else { return Ok(None) };
        let claims = self.core.catalog.claims(&link.id, CLAIMS_MAX).await?;
        let found = claims.into_iter().find(|claim| claim.address == Some(address) && claim.is_open(of.now));
        Ok(found.map(|claim| claim.id))
    }

    /// What a link is to, opened; of an uncounted link.
    pub async fn content(&self, link: &Link, form: Form, of: &Circumstances) -> Result<OpenFile> {
        self.may_still_be_read(link, of)?;
        self.downloads.open_content(&link.file, form).await
    }

    /// The claim of this name, to be used: `link_used` when it is over, or is none of this link.
    pub async fn begin(&self, link: &Link, claim: &str, of: &Circumstances) -> Result<Use> {
        let id = ClaimId::parse(claim).ok_or_else(used)?;
        self.may_still_be_read(link, of)?;
        let live = self.live(link, id).await?;
        if !live.claim().is_open(of.now) {
            return Err(used());
        }
        Ok(Use { core: self.core.clone(), live })
    }

    async fn live(&self, link: &Link, id: ClaimId) -> Result<Arc<Live>> {
        let known = || self.table().get(&id).and_then(Weak::upgrade);
        if let Some(live) = known() {
            return if live.claim().link == link.id { Ok(live) } else { Err(used()) };
        }
        let claim = self.core.catalog.claim(&link.id, &id).await?;
        let mut table = self.table();
        if let Some(live) = table.get(&id).and_then(Weak::upgrade) {
            return Ok(live);
        }
        // Those that nobody uses any more go when another comes.
        table.retain(|_, live| live.strong_count() > 0);
        let live = Arc::new(Live { claim: Mutex::new(claim), size: link.file.blob.size });
        table.insert(id, Arc::downgrade(&live));
        Ok(live)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ClaimId, Weak<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether who made the link may still read and share what it is to: rights are those of the moment.
    fn may_still_be_read(&self, link: &Link, of: &Circumstances) -> Result<()> {
        let owner = self.access.principal(Arc::new(Identity::new(link.owner.clone(), link.role)), *of);
        let place = FileRef { bucket: link.file.bucket.clone(), key: link.file.key.clone() };
        let gone = |_| Error::new(Code::LinkRevoked, "Who made this link may not share the file any more.");
        authorize::<ReadFile>(&owner, place.clone()).map_err(gone)?;
        authorize::<ShareFile>(&owner, place).map_err(gone)?;
        Ok(())
    }

    async fn hash(&self, password: String) -> Result<String> {
        let mut salt = [0; 16];
        self.core.entropy.fill(&mut salt);
        self.hashing(move || {
            let failed =
                |error: argon2::password_hash::Error| Error::internal("hash a password", error.to_string());
            let salt = SaltString::encode_b64(&salt).map_err(failed)?;
            let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// `wrong_password` unless it is the link's.
    pub async fn check_password(&self, link: &Link, password: String) -> Result<()> {
        let wrong = || Error::new(Code::WrongPassword, "This is not the link's password.");
        let Some(hash) = link.password.clone() else { return Ok(()) };
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(wrong());
        }
        let right = self
            .hashing(move || {
                let failed = |error: argon2::password_hash::Error| {
                    Error::internal("read a password", error.to_string())
                };
                let hash = PasswordHash::new(&hash).map_err(failed)?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        if right { Ok(()) } else { Err(wrong()) }
    }

    /// Hashing is made to be dear: so many at once, on threads of their own.
    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn =
            self.hashing.clone().acquire_owned().await.map_err(|e| Error::internal("wait for a turn", e))?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal("hash a password", error))?
    }

    /// What shows for a while that the password was given.
    pub fn unlock(&self, link: &Link, of: &Circumstances) -> Result<String> {
        let end = of.now.after(UNLOCKED).as_secs().to_be_bytes();
        self.access.keys().seal(Purpose::Unlock, &[link.id.as_bytes(), password_of(link)], &end)
    }

    /// `password_required` unless there is none, or `unlocked` shows that it was given.
    pub fn check_unlocked(&self, link: &Link, unlocked: Option<&str>, of: &Circumstances) -> Result<()> {
        if link.password.is_none() {
            return Ok(());
        }
        let context: [&[u8]; 2] = [link.id.as_bytes(), password_of(link)];
        let end = unlocked.and_then(|text| self.access.keys().open(Purpose::Unlock, &context, text).ok());
        let end = end.and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        if end.is_some_and(|end| end > of.now.as_secs()) {
            return Ok(());
        }
        Err(Error::new(
            Code::PasswordRequired,
            "This link has a password: POST it to this URL as the form field 'password', and keep the cookie.",
        ))
    }
}

fn password_of(link: &Link) -> &[u8] {
    link.password.as_deref().unwrap_or_default().as_bytes()
}

/// A use that is under way.
pub struct Use {
    core: Arc<Core>,
    live: Arc<Live>,
}

impl Use {
    /// Which use it is.
    pub fn claim(&self) -> ClaimId {
        self.live.claim().id
    }

    /// Sends from `offset` on.
    pub fn deliver(self, offset: u64) -> Delivery {
        Delivery { core: self.core, live: self.live, offset, sent: 0 }
    }

    /// `link_used` for all of it once all of it was delivered, and for anything where too much was sent: what would be
    /// broken off at once is not begun.
    pub fn admit(&self, len: u64) -> Result<()> {
        let (claim, size) = (self.live.claim(), self.live.size);
        let once_more = claim.done_at.is_some() && len == size && size > 0;
        if once_more || !claim.has_room(len.min(COUNTED_BYTES), size) {
            return Err(used());
        }
        Ok(())
    }
}
