//! How much one may have: requests per second, transfers at once, bytes per second.
//!
//! *Whose.* Somebody with credentials counts under their name, wherever they call from; guests count under their address,
//! of IPv6 under its first 64 bits, which is what one customer is given. What is sent by a link or a signed URL counts, in
//! bytes per second, as sent by who made it: a user's bandwidth is not multiplied by giving links away.

mod bandwidth;
mod quotas;
mod requests;
mod shares;
mod transfers;
mod tree;

pub use bandwidth::{Bandwidth, Meter, RATE_MIN};
pub use requests::Standing;
pub use transfers::{Permit, Unit};

use crate::metrics::REFUSALS;
use crate::{Body, Core};
use carrack_domain::{Code, Error, Identity, Principal, Result, Role};
use quotas::Quotas;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;
use transfers::Transfers;

/// What the operator set. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Bytes per second of the server.
    pub bandwidth: u64,
    /// What goes for guests, users and administrators, in this order.
    pub roles: [RoleSettings; 3],
    /// Requests with credentials that are not good, per minute and address.
    pub failed_logins_per_minute: u32,
    /// Passwords tried on links, per minute and address; on one link, from all addresses, ten times as many.
    pub password_guesses_per_minute: u32,
}

/// What goes for everybody of one role. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleSettings {
    /// Requests per second of one of them.
    pub requests_per_second: u32,
    /// Requests at once of one of them; 0: as many as in a second.
    pub burst: u32,
    /// Transfers at once of one of them.
    pub transfers_per_user: u32,
    /// Bytes per second of all of them.
    pub bandwidth: u64,
    /// Bytes per second of one of them.
    pub bandwidth_per_user: u64,
    /// Bytes per second of one connection of one of them.
    pub bandwidth_per_connection: u64,
    /// Bytes that files and open uploads of one of them may have.
    pub quota_per_user: u64,
}

impl Settings {
    /// What goes for a role.
    pub fn role(&self, role: Role) -> &RoleSettings {
        &self.roles[role as usize]
    }

    fn counts_requests(&self) -> bool {
        self.roles.iter().any(|role| role.requests_per_second > 0)
    }

    fn counts_transfers(&self) -> bool {
        self.roles.iter().any(|role| role.transfers_per_user > 0)
    }

    fn bounds_what_is_kept(&self) -> bool {
        self.roles.iter().any(|role| role.quota_per_user > 0)
    }

    fn meters(&self) -> bool {
        let role = |role: &RoleSettings| {
            role.bandwidth > 0 || role.bandwidth_per_user > 0 || role.bandwidth_per_connection > 0
        };
        self.bandwidth > 0 || self.roles.iter().any(role)
    }
}

/// Who is counted.
#[derive(Debug, Clone)]
pub struct Who {
    identity: Arc<Identity>,
    address: Option<IpAddr>,
}

/// A name to count under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum User {
    Subject(String),
    /// A guest's; of one that cannot be told, none.
    Address(Option<IpAddr>),
}

impl Who {
    /// Who makes a request.
    pub fn of(principal: &Principal) -> Who {
        Who { identity: principal.identity().clone(), address: principal.circumstances().address }
    }

    /// Somebody in whose name something is sent.
    pub fn named(identity: Arc<Identity>) -> Who {
        Who { identity, address: None }
    }

    fn role(&self) -> Role {
        self.identity.role
    }

    fn user(&self) -> User {
        match self.role() {
            Role::Guest => User::Address(self.address.map(network)),
            Role::User | Role::Admin => User::Subject(self.identity.subject.clone()),
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The rate that a link or signed URL is bound to, shared by all that goes by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkRate {
    /// The link, or the signature.
    pub name: [u8; 16],
    /// Bytes per second.
    pub rate: NonZeroU64,
}

/// Counts all of it, and refuses or delays what is too much.
pub struct Limiter {
    core: Arc<Core>,
    settings: RwLock<Arc<Settings>>,
    /// Looked at first, so that what is not limited costs nothing.
    counts_requests: AtomicBool,
    counts_failures: AtomicBool,
    counts_transfers: AtomicBool,
    transfers: Arc<Transfers>,
    bandwidth: Arc<Bandwidth>,
    quotas: Quotas,
}

/// The right to one transfer, and how fast it may be. Goes with the body it is for.
pub struct Traffic {
    _permit: Option<Permit>,
    meter: Meter,
}

impl Limiter {
    pub(crate) fn new(core: Arc<Core>, settings: Settings) -> Limiter {
        let limiter = Limiter {
            core,
            settings: RwLock::default(),
            counts_requests: AtomicBool::default(),
            counts_failures: AtomicBool::default(),
            counts_transfers: AtomicBool::default(),
            transfers: Arc::default(),
            bandwidth: Arc::default(),
            quotas: Quotas::default(),
        };
        limiter.replace(settings);
        limiter
    }

    /// These settings go from now on, for what is under way too, except that what has begun is not refused any more.
    pub fn replace(&self, settings: Settings) {
        self.bandwidth.replace(settings);
        self.counts_requests.store(settings.counts_requests(), Ordering::Relaxed);
        self.counts_failures.store(settings.failed_logins_per_minute > 0, Ordering::Relaxed);
        self.counts_transfers.store(settings.counts_transfers(), Ordering::Relaxed);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// What goes now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody's own bytes are slowed down, besides the server's as a whole: what they send or fetch has to pass here
    /// then.
    pub fn is_paced(&self, role: Role) -> bool {
        let RoleSettings { bandwidth, bandwidth_per_user, bandwidth_per_connection, .. } =
            *self.settings().role(role);
        bandwidth > 0 || bandwidth_per_user > 0 || bandwidth_per_connection > 0
    }

    /// Lets those go on who wait for their share, and shares with the other nodes, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let sharing = async {
            if self.core.state.is_shared() {
                self.share().await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(self.bandwidth.run(), sharing) }).await;
    }

    /// The right to a transfer of `sender`, counted as one of `receiver`, over the connection to `peer`:
    /// `too_many_transfers`.
    pub fn traffic(
        &self,
        receiver: &Who,
        unit: Unit,
        sender: Who,
        link: Option<LinkRate>,
        peer: Option<SocketAddr>,
    ) -> Result<Traffic> {
        let _permit = self.permit(receiver, unit)?;
        Ok(Traffic { _permit, meter: Meter::new(self.bandwidth.clone(), sender, link, peer) })
    }

    fn permit(&self, who: &Who, unit: Unit) -> Result<Option<Permit>> {
        if !self.counts_transfers.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let most = self.settings().role(who.role()).transfers_per_user;
        if most == 0 {
            return Ok(None);
        }
        self.transfers.begin(who.user(), unit, most as usize).map(Some).ok_or_else(|| {
            refused("transfers");
            Error::new(
                Code::TooManyTransfers,
                format!(
                    "{most} transfers are under way, and so many one may have at once. Wait for one to end."
                ),
            )
            .with_fact(carrack_domain::error::Fact::RetryAfter(transfers::RETRY_SECONDS))
        })
    }
}

impl Traffic {
    /// How fast it may be.
    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// A body that is taken no faster than it may come, and that keeps the right to come.
    pub fn receive(self, body: Body) -> Body {
        Box::pin(futures_util::stream::unfold((body, self), |(mut body, mut traffic)| async move {
            let bytes = futures_util::StreamExt::next(&mut body).await?;
            if let Ok(bytes) = &bytes {
                traffic.meter.admit_all(bytes.len() as u64).await;
            }
            Some((bytes, (body, traffic)))
        }))
    }
}

/// Counts a refusal.
fn refused(limit: &'static str) {
    ::metrics::counter!(REFUSALS, "limit" => limit).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
