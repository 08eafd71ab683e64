//! Words of the audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! record {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// A record of the audit log: what happened, who did it, and what came of it. What does not apply is absent.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct AuditRecord {
            /// When it was written: at the end of what it tells of (RFC 3339).
            pub at: String,
            /// `change`, `begin`, `end`, `repeated` or `note`.
            pub kind: String,
            /// What was done, such as `file.read`.
            pub action: String,
            /// How they showed who they are: `none`, `root`, `token`, `session`, `jwt`, `signed`, `link`; `refused` when what
            /// they brought is not good; `system` for the server's own doing.
            pub auth: String,
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }
    };
}

record! {
    /// The method of the request.
    method: String,
    /// Who did it.
    subject: String,
    /// Their role.
    role: String,
    /// The id of the token they came with, or that what they came with was made with.
    token: String,
    /// The id of the key that signed their URL.
    kid: String,
    /// The id of the link they came by.
    link: String,
    /// From where.
    ip: String,
    /// The bucket it was about.
    bucket: String,
    /// The key it was about.
    key: String,
    /// The id of the upload, archive, link or token it was about.
    id: String,
    /// The `X-Request-Id` of the request.
    trace: String,
    /// The answer's status.
    status: u16,
    /// Why it was refused or failed: the `code` of the problem.
    code: String,
    /// `complete`, `cut`, `stopped`, `failed`, `denied`, `refused` or `abandoned`.
    result: String,
    /// Bytes of the answer that were handed to the system.
    sent: u64,
    /// Bytes of the request's body that were read.
    received: u64,
    /// The content that was made, by its ETag, or the hash of a checkpoint.
    version: String,
    /// Bytes that a change is about.
    bytes: u64,
    /// Milliseconds from the beginning of the request to `at`.
    took_ms: u64,
    /// How many it stands for, or the number of a checkpoint.
    count: u64,
    /// Anything else.
    detail: String,
}

/// Some records, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records; there may be none although there are further pages.
    pub records: Vec<AuditRecord>,
    /// `cursor` of the next page; absent when the log ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
