//! Links: made, listed, revoked, used.
//!
//! *Counting.* A use of a counted link is taken in one transaction before the first byte is sent. What is sent under it is
//! counted as it goes and written down when each answer ends; in between it is in memory, in one place for all answers of
//! the same use. A crash in the middle forgets what was sent since: the use stays taken, and can be resumed. Several nodes
//! that serve the same use take in what the others have written down, before they begin an answer and when they end one.

mod target;

use crate::Core;
use crate::access::Access;
use crate::archive::Archives;
use crate::download::{COUNTED_BYTES, Downloads};
use crate::keys::Purpose;
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use carrack_domain::access::{ReadFile, ShareFile, UseArchives, UseLinks};
use carrack_domain::link::{Link, LinkClaim, LinkedArchive, Target};
use carrack_domain::policy::{AddressRange, Circumstances};
use carrack_domain::{ArchiveId, ClaimId, Code, Error, Grant, LinkId, Principal, Result, Role, Timestamp};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
pub use target::Content;
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

/// Ways to files and archives for whoever has them.
pub struct Links {
    core: Arc<Core>,
    access: Arc<Access>,
    downloads: Arc<Downloads>,
    archives: Arc<Archives>,
    hashing: Arc<Semaphore>,
    /// Claims that are being used, each in one place.
    live: Arc<Mutex<HashMap<ClaimId, Weak<Live>>>>,
}

/// A claim that is being used.
struct Live {
    claim: Mutex<LinkClaim>,
    /// As it was written down when this node looked last. Held while it is looked at and written.
    base: tokio::sync::Mutex<LinkClaim>,
    size: u64,
}

/// How often a claim is written again that another node has written over.
const SAVES_MAX: usize = 5;

impl Live {
    fn claim(&self) -> MutexGuard<'_, LinkClaim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what other nodes have written down.
    async fn look(&self, core: &Core) -> Result<()> {
        let mut base = self.base.lock().await;
        self.learn(core, &mut base).await
    }

    async fn learn(&self, core: &Core, base: &mut LinkClaim) -> Result<()> {
        let stored = core.catalog.claim(&base.link, &base.id).await?;
        self.claim().learn(base, &stored, self.size, core.clock.now());
        *base = stored;
        Ok(())
    }

    /// Writes down how far it is.
    async fn save(&self, core: &Core) -> Result<()> {
        let mut base = self.base.lock().await;
        let is_shared = core.state.is_shared();
        for _ in 0..SAVES_MAX {
            if is_shared {
                self.learn(core, &mut base).await?;
            }
            let claim = self.claim().clone();
            core.catalog.save_claim(&claim).await?;
            // Another node may have read before this and written after it: then what was counted here is not in there.
            if !is_shared || core.catalog.claim(&claim.link, &claim.id).await?.covers(&claim) {
                *base = claim;
                return Ok(());
            }
        }
        Err(Error::new(Code::Overloaded, "Too many nodes write down the same use of a link."))
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
            if let Err(error) = live.save(&core).await {
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
    pub(crate) fn new(
        core: Arc<Core>,
        access: Arc<Access>,
        downloads: Arc<Downloads>,
        archives: Arc<Archives>,
    ) -> Links {
        let hashing = Arc::new(Semaphore::new(HASHING_MAX));
        Links { core, access, downloads, archives, hashing, live: Arc::default() }
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
        self.make(share.principal(), Target::File((*file).clone()), new).await
    }

    /// Makes a link to a completed archive of the caller's. Whose files are in it may share them, or the link leads
    /// nowhere. It ends with the archive.
    ///
    /// `archive_not_found`, `archive_not_ready`, `forbidden`.
    pub async fn create_to_archive(
        &self,
        archives: &Grant<UseArchives>,
        links: &Grant<UseLinks>,
        id: ArchiveId,
        mut new: NewLink,
    ) -> Result<Link> {
        let archive = self.archives.get(archives, id).await?;
        let linked = LinkedArchive::of(&archive).ok_or_else(|| {
            let detail = format!("The archive is {}: link to it once it is completed.", archive.state);
            Error::new(Code::ArchiveNotReady, detail)
        })?;
        target::may_be_shared(links.principal(), &archive)?;
        let left = archive.expires_at.as_millis() - self.core.clock.now().as_millis();
        new.expires_in = new.expires_in.min(Duration::from_millis(left.try_into().unwrap_or(0)));
        self.make(links.principal(), Target::Archive(linked), new).await
    }

    async fn make(&self, principal: &Principal, target: Target, new: NewLink) -> Result<Link> {
        let now = self.core.clock.now();
        let password = match new.password {
            None => None,
            Some(password) => Some(self.hash(password).await?),
        };
        let link = Link {
            id: LinkId::generate(&*self.core.entropy),
            owner: principal.subject().to_owned(),
            role: principal.role(),
            target,
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
        if own || principal.rules() { Ok(link) } else { Err(not_found()) }
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

    /// The claim of this name, to be used: `link_used` when it is over, or is none of this link.
    pub async fn begin(&self, link: &Link, claim: &str, of: &Circumstances) -> Result<Use> {
        let id = ClaimId::parse(claim).ok_or_else(used)?;
        let live = self.live(link, id).await?;
        if !live.claim().is_open(of.now) {
            return Err(used());
        }
        Ok(Use { core: self.core.clone(), live })
    }

    async fn live(&self, link: &Link, id: ClaimId) -> Result<Arc<Live>> {
        let known = || self.table().get(&id).and_then(Weak::upgrade);
        if let Some(live) = known() {
            if self.core.state.is_shared() {
                live.look(&self.core).await?;
            }
            return if live.claim().link == link.id { Ok(live) } else { Err(used()) };
        }
        let claim = self.core.catalog.claim(&link.id, &id).await?;
        let mut table = self.table();
        if let Some(live) = table.get(&id).and_then(Weak::upgrade) {
            return Ok(live);
        }
        // Those that nobody uses any more go when another comes.
        table.retain(|_, live| live.strong_count() > 0);
        let base = tokio::sync::Mutex::new(claim.clone());
        let live = Arc::new(Live { claim: Mutex::new(claim), base, size: link.target.size() });
        table.insert(id, Arc::downgrade(&live));
        Ok(live)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ClaimId, Weak<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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
