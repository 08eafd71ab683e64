//! `[limits]`: for everybody, and per role what is different.

use super::units;
use carrack_service::limit::{RoleSettings, Settings};
use serde::Deserialize;

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub requests_per_second: u32,
    pub burst: u32,
    pub transfers_per_user: u32,
    #[serde(deserialize_with = "units::bytes")]
    pub bandwidth: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub bandwidth_per_user: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub bandwidth_per_connection: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub quota_per_user: u64,
    pub failed_logins_per_minute: u32,
    pub password_guesses_per_minute: u32,
    #[serde(default)]
    pub roles: Roles,
}

/// `[limits.roles]`
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    #[serde(default)]
    pub guest: Role,
    #[serde(default)]
    pub user: Role,
    #[serde(default)]
    pub admin: Role,
}

/// `[limits.roles.NAME]`: what is absent is as for everybody, except that a role has no bandwidth of its own.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub requests_per_second: Option<u32>,
    pub burst: Option<u32>,
    pub transfers_per_user: Option<u32>,
    #[serde(default, deserialize_with = "units::maybe_bytes")]
    pub bandwidth: Option<u64>,
    #[serde(default, deserialize_with = "units::maybe_bytes")]
    pub bandwidth_per_user: Option<u64>,
    #[serde(default, deserialize_with = "units::maybe_bytes")]
    pub bandwidth_per_connection: Option<u64>,
    #[serde(default, deserialize_with = "units::maybe_bytes")]
    pub quota_per_user: Option<u64>,
}

impl Limits {
    /// What goes for each role.
    pub(crate) fn settings(&self) -> Settings {
        let of = |role: Role| RoleSettings {
            requests_per_second: role.requests_per_second.unwrap_or(self.requests_per_second),
            burst: role.burst.unwrap_or(self.burst),
            transfers_per_user: role.transfers_per_user.unwrap_or(self.transfers_per_user),
            bandwidth: role.bandwidth.unwrap_or(0),
            bandwidth_per_user: role.bandwidth_per_user.unwrap_or(self.bandwidth_per_user),
            bandwidth_per_connection: role.bandwidth_per_connection.unwrap_or(self.bandwidth_per_connection),
            quota_per_user: role.quota_per_user.unwrap_or(self.quota_per_user),
        };
        Settings {
            bandwidth: self.bandwidth,
            roles: [of(self.roles.guest), of(self.roles.user), of(self.roles.admin)],
            failed_logins_per_minute: self.failed_logins_per_minute,
            password_guesses_per_minute: self.password_guesses_per_minute,
        }
    }
}
