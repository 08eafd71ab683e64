//! Who may do what. A service method demands a [`Grant`] for exactly the thing it touches, and [`authorize`] is the only
//! way to one: a handler that forgets the check does not compile (invariant 5).

use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::id::{ForeignTokenId, TokenId};
use crate::key::{BucketName, Key, KeyPrefix};
use crate::policy::{Actions, Circumstances, Effect, Party, Policy, Rule, Span};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock};

/// What a principal may do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nobody in particular.
    Guest,
    /// Somebody known.
    User,
    /// May do everything.
    Admin,
}

impl Role {
    /// The role's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Guest => "guest",
            Role::User => "user",
            Role::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Role> {
        [Role::Guest, Role::User, Role::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// The subject of those who brought no credentials.
pub const GUEST: &str = "guest";
/// The subject of the first administrator.
pub const ROOT: &str = "root";

/// Who somebody is, once their credentials were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name that ends up in `created_by`, ownership and the audit trail.
    pub subject: String,
    /// What they may do by default.
    pub role: Role,
    /// The only buckets that these credentials are good for; `None` is no such limit.
    pub buckets: Option<Vec<BucketName>>,
    /// The access token they came with, or that what they came with was made with.
    pub token: Option<TokenId>,
    /// The token of somebody else's that they came with, or that what they came with was made with; `None` also when that has
    /// no name.
    pub foreign: Option<ForeignTokenId>,
    /// When these credentials end.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// Somebody whose credentials know no further limits.
    pub fn new(subject: impl Into<String>, role: Role) -> Identity {
        Identity {
            subject: subject.into(),
            role,
            buckets: None,
            token: None,
            foreign: None,
            expires_at: None,
        }
    }
}

/// What holds in every bucket: the policies that were set, and what goes for buckets without one.
#[derive(Debug, Clone)]
pub struct Policies {
    own: HashMap<BucketName, Policy>,
    default: Policy,
    none: Policy,
    admit_guests: bool,
}

impl Policies {
    /// These policies. Without one, a user may do everything in `default`, and guests may read, list and archive there
    /// if `anonymous_read`; elsewhere nobody may do anything but administrators.
    pub fn new(own: HashMap<BucketName, Policy>, anonymous_read: bool) -> Policies {
        let allow = |actions, party| Rule {
            effect: Effect::Allow,
            actions,
            prefix: String::new(),
            to: vec![party],
            when: None,
        };
        let mut rules = vec![allow(Actions::ALL, Party::Role(Role::User))];
        if anonymous_read {
            let reading = Actions::of(&[Action::Read, Action::List, Action::Archive]);
            rules.push(allow(reading, Party::Role(Role::Guest)));
        }
        // Two rules are within every bound.
        let default = Policy::new(rules).unwrap_or_default();
        let default_has_its_own = own.keys().any(|bucket| bucket.as_str() == DEFAULT_BUCKET);
        let admit_guests =
            own.values().any(Policy::admits_guests) || (anonymous_read && !default_has_its_own);
        Policies { own, default, none: Policy::default(), admit_guests }
    }

    /// What holds in a bucket.
    pub fn of(&self, bucket: &BucketName) -> &Policy {
        match self.own.get(bucket) {
            Some(policy) => policy,
            None if bucket.as_str() == DEFAULT_BUCKET => &self.default,
            None => &self.none,
        }
    }

    /// Whether guests may do anything anywhere.
    pub fn admit_guests(&self) -> bool {
        self.admit_guests
    }
}

/// Who makes a request, under which circumstances, and the policies that hold at that moment.
#[derive(Debug, Clone)]
pub struct Principal {
    identity: Arc<Identity>,
    circumstances: Circumstances,
    policies: Arc<Policies>,
}

impl Principal {
    /// A principal whose credentials were verified by the caller of this function, with no policies set and nothing
    /// known of where the request comes from.
    pub fn new(subject: impl Into<String>, role: Role) -> Principal {
        static POLICIES: LazyLock<Arc<Policies>> =
            LazyLock::new(|| Arc::new(Policies::new(HashMap::new(), false)));
        let circumstances = Circumstances { address: None, tls: false, now: Timestamp::from_millis(0) };
        Principal::of(Arc::new(Identity::new(subject, role)), circumstances, POLICIES.clone())
    }

    /// Somebody whose credentials were verified by the caller of this function.
    pub fn of(identity: Arc<Identity>, circumstances: Circumstances, policies: Arc<Policies>) -> Principal {
        Principal { identity, circumstances, policies }
    }

    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The name that ends up in `created_by`, ownership and the audit trail.
    pub fn subject(&self) -> &str {
        &self.identity.subject
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.identity.role
    }

    /// What is known of the request besides who makes it.
    pub fn circumstances(&self) -> &Circumstances {
        &self.circumstances
    }

    /// Whether this principal may know that a bucket exists.
    pub fn knows(&self, bucket: &BucketName) -> bool {
        let identity = &self.identity;
        self.reaches(bucket)
            && (identity.role == Role::Admin
                || self.policies.of(bucket).reveals(identity, &self.circumstances))
    }

    /// Whether a route of this action is open at all: what is asked before its handler, which asks again of the thing
    /// that is touched. So a handler that forgets opens nothing to those who may do nothing of the kind.
    ///
    /// `unauthenticated` for guests where none are admitted, or on a route of administrators; `forbidden` for others there.
    pub fn enter(&self, action: Action) -> Result<()> {
        match (action, self.role()) {
            (Action::Public, _) | (_, Role::Admin) => Ok(()),
            (Action::Admin, Role::User) => Err(forbidden()),
            (Action::Admin, Role::Guest) => Err(unauthenticated()),
            (_, Role::Guest) if !self.policies.admit_guests() => Err(unauthenticated()),
            (_, Role::User | Role::Guest) => Ok(()),
        }
    }

    /// Whether a thing that belongs to whoever made it is theirs to use: their own, or anything for administrators whose
    /// credentials are good everywhere. Guests are nobody in particular: what one of them has made is protected by its
    /// unguessable name alone.
    pub fn owns(&self, owner: &str) -> bool {
        owner == self.subject() || self.rules()
    }

    /// Whether it is somebody: what belongs to guests belongs to no one of them.
    pub fn is_known(&self) -> bool {
        self.role() != Role::Guest
    }

    /// Whether these credentials are good for a bucket at all, whatever its policy says.
    pub fn reaches(&self, bucket: &BucketName) -> bool {
        self.identity.buckets.as_ref().is_none_or(|only| only.contains(bucket))
    }

    /// Whether it is an administrator whose credentials are good everywhere.
    pub fn rules(&self) -> bool {
        self.role() == Role::Admin && self.identity.buckets.is_none()
    }

    fn may(&self, action: Action, bucket: &BucketName, span: Span<'_>) -> bool {
        let identity = &self.identity;
        self.reaches(bucket)
            && (identity.role == Role::Admin
                || self.policies.of(bucket).allows(identity, &self.circumstances, action, span))
    }

    /// What is not about one bucket: administration is for administrators whose credentials are good everywhere; the
    /// rest is checked again against each thing that is touched.
    fn may_in_general(&self, action: Action) -> bool {
        match action {
            Action::Admin => self.rules(),
            _ => self.role() != Role::Guest || self.policies.admit_guests(),
        }
    }
}

/// What can be done to a resource; policies grant these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Without credentials: health, documentation.
    Public,
    /// Ask about, or end, one's own credentials.
    Identify,
    /// Read a file's content or facts.
    Read,
    /// Create or replace a file.
    Write,
    /// Delete a file.
    Delete,
    /// List files.
    List,
    /// Make an archive of files.
    Archive,
    /// Give others a way to a file.
    Share,
    /// Manage buckets and tokens.
    Admin,
}

mod sealed {
    pub trait Sealed {}
}

/// The type-level side of an [`Action`]: what is acted on, and what it is called.
pub trait Permission: sealed::Sealed + Send + Sync + 'static {
    /// What a grant of this action names.
    type Resource: Clone + Send + Sync;
    /// The action.
    const ACTION: Action;
    /// The bucket and the key or prefix within it, for the policies of that bucket.
    fn place(resource: &Self::Resource) -> Option<(&BucketName, Span<'_>)>;
}

/// A bucket and a key in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: Key,
}

/// A bucket and the beginning of keys in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRef {
    /// The bucket.
    pub bucket: BucketName,
    /// What the keys begin with.
    pub prefix: KeyPrefix,
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident($resource:ty) = $action:ident, $(@$span:ident)? $place:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl sealed::Sealed for $name {}

        impl Permission for $name {
            type Resource = $resource;
            const ACTION: Action = Action::$action;
            fn place(resource: &$resource) -> Option<(&BucketName, Span<'_>)> {
                let place: fn(&$resource) -> Option<(&BucketName, &str)> = $place;
                place(resource).map(|(bucket, text)| (bucket, span!(text $($span)?)))
            }
        }
    )*};
}

/// A prefix is marked `@below`, anything else is a key.
macro_rules! span {
    ($text:ident) => {
        Span::Key($text)
    };
    ($text:ident below) => {
        Span::Below($text)
    };
}

permissions! {
    /// Read one file.
    ReadFile(FileRef) = Read, |r| Some((&r.bucket, r.key.as_str()));
    /// Create or replace one file.
    WriteFile(FileRef) = Write, |r| Some((&r.bucket, r.key.as_str()));
    /// Delete one file.
    DeleteFile(FileRef) = Delete, |r| Some((&r.bucket, r.key.as_str()));
    /// Give others a way to one file.
    ShareFile(FileRef) = Share, |r| Some((&r.bucket, r.key.as_str()));
    /// Give others a way to the files below a prefix.
    SharePrefix(PrefixRef) = Share, @below |r| Some((&r.bucket, r.prefix.as_str()));
    /// List the files below a prefix.
    ListFiles(PrefixRef) = List, @below |r| Some((&r.bucket, r.prefix.as_str()));
    /// Archive the files below a prefix.
    ArchivePrefix(PrefixRef) = Archive, @below |r| Some((&r.bucket, r.prefix.as_str()));
    /// Archive one file among others.
    ArchiveFile(FileRef) = Archive, |r| Some((&r.bucket, r.key.as_str()));
    /// Use uploads of one's own; each is checked against its owner and target besides.
    UseUploads(()) = Write, |_| None;
    /// Use links of one's own; each is checked against its owner besides.
    UseLinks(()) = Share, |_| None;
    /// Use archives of one's own; each is checked against its owner besides.
    UseArchives(()) = Archive, |_| None;
    /// See the buckets there are; those that the caller may not know of are left out.
    ListBuckets(()) = List, |_| None;
    /// Make, change or delete a bucket.
    ManageBucket(BucketName) = Admin, |r| Some((r, ""));
    /// Make, see and revoke access tokens.
    ManageTokens(()) = Admin, |_| None;
    /// Read what is measured.
    ReadMetrics(()) = Admin, |_| None;
    /// Read who did what.
    ReadAudit(()) = Admin, |_| None;
    /// See the nodes there are.
    ReadCluster(()) = Admin, |_| None;
}

/// Proof that a principal may do `P` to a resource. Only [`authorize`] makes one.
#[derive(Debug, Clone)]
pub struct Grant<P: Permission> {
    principal: Principal,
    resource: P::Resource,
    permission: PhantomData<P>,
}

impl<P: Permission> Grant<P> {
    /// Who was granted it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What it was granted for.
    pub fn resource(&self) -> &P::Resource {
        &self.resource
    }
}

/// Decides whether `principal` may do `P` to `resource`: administrators may do everything that their credentials are good
/// for, others what the bucket's policy allows them.
///
/// `unauthenticated` for a guest, `bucket_not_found` in a bucket in which the principal may do nothing at all (which is
/// answered the same when there is none), else `forbidden`.
pub fn authorize<P: Permission>(principal: &Principal, resource: P::Resource) -> Result<Grant<P>> {
    let place = P::place(&resource);
    let allowed = match place {
        Some((bucket, span)) => principal.may(P::ACTION, bucket, span),
        None => principal.may_in_general(P::ACTION),
    };
    if allowed {
        return Ok(Grant { principal: principal.clone(), resource, permission: PhantomData });
    }
    Err(match (principal.role(), place) {
        (Role::Guest, _) => unauthenticated(),
        (Role::User | Role::Admin, Some((bucket, _)))
            if P::ACTION != Action::Admin && !principal.knows(bucket) =>
        {
            Error::new(Code::BucketNotFound, format!("There is no bucket {bucket}."))
        }
        (Role::User | Role::Admin, _) => forbidden(),
    })
}

fn unauthenticated() -> Error {
    Error::new(Code::Unauthenticated, "Credentials are needed: send 'Authorization: Bearer TOKEN'.")
}

fn forbidden() -> Error {
    Error::new(Code::Forbidden, "These credentials do not suffice for this.")
}

/// The bucket that exists after the first start.
pub const DEFAULT_BUCKET: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bucket: &str) -> FileRef {
        FileRef { bucket: BucketName::parse(bucket).unwrap(), key: Key::parse("k").unwrap() }
    }

    fn with(identity: Identity, policies: Policies) -> Principal {
        let here = Circumstances { address: None, tls: false, now: Timestamp::from_millis(0) };
        Principal::of(Arc::new(identity), here, Arc::new(policies))
    }

    #[test]
    fn default_deny() {
        let guest = Principal::new("guest", Role::Guest);
        let user = Principal::new("alice", Role::User);
        let admin = Principal::new("root", Role::Admin);
        assert_eq!(authorize::<ReadFile>(&guest, file("default")).unwrap_err().code(), Code::Unauthenticated);
        assert!(authorize::<WriteFile>(&user, file("default")).is_ok());
        assert_eq!(
            authorize::<WriteFile>(&user, file("other")).unwrap_err().code(),
            Code::BucketNotFound,
            "whether it exists is not for everybody to know"
        );
        assert_eq!(
            authorize::<ManageBucket>(&user, file("default").bucket).unwrap_err().code(),
            Code::Forbidden
        );
        assert_eq!(authorize::<ManageTokens>(&user, ()).unwrap_err().code(), Code::Forbidden);
        assert!(authorize::<ManageBucket>(&admin, file("other").bucket).is_ok());
    }

    #[test]
    fn credentials_for_some_buckets_are_good_for_no_others_whoever_has_them() {
        let only = Some(vec![file("other").bucket]);
        let admin = Identity { buckets: only, ..Identity::new("ops", Role::Admin) };
        let admin = with(admin, Policies::new(HashMap::new(), false));
        assert!(authorize::<WriteFile>(&admin, file("other")).is_ok());
        assert!(authorize::<ManageBucket>(&admin, file("other").bucket).is_ok());
        assert_eq!(authorize::<ReadFile>(&admin, file("default")).unwrap_err().code(), Code::BucketNotFound);
        assert_eq!(
            authorize::<ManageBucket>(&admin, file("default").bucket).unwrap_err().code(),
            Code::Forbidden
        );
        assert_eq!(authorize::<ManageTokens>(&admin, ()).unwrap_err().code(), Code::Forbidden);
    }

    #[test]
    fn guests_read_where_anonymous_reading_is_on_and_no_policy_says_otherwise() {
        let guest = |policies| with(Identity::new(GUEST, Role::Guest), policies);
        let open = guest(Policies::new(HashMap::new(), true));
        assert!(open.enter(Action::Read).is_ok() && authorize::<ReadFile>(&open, file("default")).is_ok());
        assert_eq!(authorize::<WriteFile>(&open, file("default")).unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(authorize::<ReadFile>(&open, file("other")).unwrap_err().code(), Code::Unauthenticated);
        let own = HashMap::from([(file("default").bucket, Policy::default())]);
        let closed = guest(Policies::new(own, true));
        assert!(
            closed.enter(Action::Read).is_err() && authorize::<ReadFile>(&closed, file("default")).is_err()
        );
    }
}
