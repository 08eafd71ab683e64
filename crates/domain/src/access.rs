//! Who may do what. A service method demands a [`Grant`] for exactly the thing it touches, and [`authorize`] is the only
//! way to one: a handler that forgets the check does not compile (invariant 5).

use crate::error::{Code, Error, Result};
use crate::key::{BucketName, Key, KeyPrefix};
use std::marker::PhantomData;

/// What a principal may do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// Who a request comes from, once its credentials were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    subject: String,
    role: Role,
}

impl Principal {
    /// A principal whose credentials were verified by the caller of this function.
    pub fn new(subject: impl Into<String>, role: Role) -> Principal {
        Principal { subject: subject.into(), role }
    }

    /// The name that ends up in `created_by`, ownership and the audit trail.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }
}

/// What can be done to a resource; policies grant these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Without credentials: health, documentation.
    Public,
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
    /// Manage buckets.
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
    fn place(resource: &Self::Resource) -> Option<(&BucketName, &str)>;
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
    ($($(#[$doc:meta])* $name:ident($resource:ty) = $action:ident, $place:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl sealed::Sealed for $name {}

        impl Permission for $name {
            type Resource = $resource;
            const ACTION: Action = Action::$action;
            fn place(resource: &$resource) -> Option<(&BucketName, &str)> {
                let place: fn(&$resource) -> Option<(&BucketName, &str)> = $place;
                place(resource)
            }
        }
    )*};
}

permissions! {
    /// Read one file.
    ReadFile(FileRef) = Read, |r| Some((&r.bucket, r.key.as_str()));
    /// Create or replace one file.
    WriteFile(FileRef) = Write, |r| Some((&r.bucket, r.key.as_str()));
    /// Delete one file.
    DeleteFile(FileRef) = Delete, |r| Some((&r.bucket, r.key.as_str()));
    /// List the files below a prefix.
    ListFiles(PrefixRef) = List, |r| Some((&r.bucket, r.prefix.as_str()));
    /// Archive the files below a prefix.
    ArchivePrefix(PrefixRef) = Archive, |r| Some((&r.bucket, r.prefix.as_str()));
    /// Archive one file among others.
    ArchiveFile(FileRef) = Archive, |r| Some((&r.bucket, r.key.as_str()));
    /// Use uploads of one's own; each is checked against its owner and target besides.
    UseUploads(()) = Write, |_| None;
    /// Use archives of one's own; each is checked against its owner besides.
    UseArchives(()) = Archive, |_| None;
    /// See the buckets there are.
    ListBuckets(()) = List, |_| None;
    /// Make, change or delete a bucket.
    ManageBucket(BucketName) = Admin, |r| Some((r, ""));
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

/// Decides whether `principal` may do `P` to `resource`: default deny, administrators may do everything, users may do
/// everything but administer in the bucket `default`.
pub fn authorize<P: Permission>(principal: &Principal, resource: P::Resource) -> Result<Grant<P>> {
    let allowed = match (principal.role, P::ACTION) {
        (_, Action::Public) | (Role::Admin, _) => true,
        (Role::User, Action::Admin) | (Role::Guest, _) => false,
        (Role::User, Action::Read | Action::Write | Action::Delete | Action::List | Action::Archive) => {
            P::place(&resource).is_none_or(|(bucket, _)| bucket.as_str() == DEFAULT_BUCKET)
        }
    };
    if allowed {
        return Ok(Grant { principal: principal.clone(), resource, permission: PhantomData });
    }
    Err(match principal.role {
        Role::Guest => {
            Error::new(Code::Unauthenticated, "Credentials are needed: send 'Authorization: Bearer TOKEN'.")
        }
        Role::User | Role::Admin => Error::new(Code::Forbidden, "These credentials do not suffice for this."),
    })
}

/// The bucket that exists after the first start.
pub const DEFAULT_BUCKET: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bucket: &str) -> FileRef {
        FileRef { bucket: BucketName::parse(bucket).unwrap(), key: Key::parse("k").unwrap() }
    }

    #[test]
    fn default_deny() {
        let guest = Principal::new("guest", Role::Guest);
        let user = Principal::new("alice", Role::User);
        let admin = Principal::new("root", Role::Admin);
        assert_eq!(authorize::<ReadFile>(&guest, file("default")).unwrap_err().code(), Code::Unauthenticated);
        assert!(authorize::<WriteFile>(&user, file("default")).is_ok());
        assert_eq!(authorize::<WriteFile>(&user, file("other")).unwrap_err().code(), Code::Forbidden);
        assert_eq!(
            authorize::<ManageBucket>(&user, file("default").bucket).unwrap_err().code(),
            Code::Forbidden
        );
        assert!(authorize::<ManageBucket>(&admin, file("other").bucket).is_ok());
    }
}
