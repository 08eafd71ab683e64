//! Requests per second, failed logins and guesses of passwords.

use super::{Limiter, User, Who, network, refused};
use carrack_domain::error::Fact;
use carrack_domain::{Code, Error, LinkId, Principal, Result};
use carrack_state::{CellName, Refill, Taken};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many more may guess the password of one link, all addresses together, than one address.
const GUESSERS: u32 = 10;

/// How somebody stands with their requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether this one may be made.
    pub is_admitted: bool,
    /// Requests that may be made at once when none was made for `window`.
    pub quota: u32,
    /// Seconds in which so many come back.
    pub window: u64,
    /// Requests that may be made at once now.
    pub left: u32,
    /// Seconds until there is one again if there is none, else until all are.
    pub reset: u64,
}

impl Standing {
    fn of(taken: Taken, refill: Refill) -> Standing {
        let wait = if taken.left > 0 { taken.whole_after } else { taken.retry_after.max(refill.every) };
        Standing {
            is_admitted: taken.is_admitted,
            quota: refill.burst,
            window: seconds(refill.every * refill.burst),
            left: taken.left,
            reset: seconds(if taken.is_admitted { wait } else { taken.retry_after }),
        }
    }

    /// `rate_limited` unless the request may be made.
    pub fn admit(&self) -> Result<()> {
        if self.is_admitted {
            return Ok(());
        }
        refused("requests");
        Err(too_fast("Too many requests in so short a time.", self.reset))
    }
}

/// Rounded up, and at least 1: who comes earlier comes for nothing.
fn seconds(span: Duration) -> u64 {
    (span.as_millis().div_ceil(1000) as u64).max(1)
}

fn too_fast(what: &str, after: u64) -> Error {
    Error::new(Code::RateLimited, format!("{what} Come again in {after} s."))
        .with_fact(Fact::RetryAfter(after))
}

/// What a cell counts.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Request = 0,
    FailedLogin = 1,
    Guess = 2,
    GuessOfLink = 3,
}

fn cell(kind: Kind, whose: &[u8]) -> CellName {
    let mut name = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]).update(whose).finalize_xof().fill(&mut name);
    name
}

fn of_address(address: Option<IpAddr>) -> Vec<u8> {
    match address.map(network) {
        None => vec![0],
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
    }
}

fn of_user(user: &User) -> Vec<u8> {
    match user {
        User::Subject(subject) => [b"s", subject.as_bytes()].concat(),
        User::Address(address) => [b"a".as_slice(), &of_address(*address)].concat(),
    }
}

impl Limiter {
    /// Counts a request; `None` where requests are not limited.
    pub async fn request(&self, principal: &Principal) -> Option<Standing> {
        if !self.counts_requests.load(Ordering::Relaxed) {
            return None;
        }
        let who = Who::of(principal);
        let settings = self.settings();
        let role = settings.role(who.role());
        let burst = if role.burst > 0 { role.burst } else { role.requests_per_second };
        let refill = Refill::per_second(role.requests_per_second, burst)?;
        let taken = self.take(cell(Kind::Request, &of_user(&who.user())), refill, false).await?;
        Some(Standing::of(taken, refill))
    }

    /// `None` when the shared memory does not answer, which is told to the log: what is not counted is admitted.
    async fn take(&self, cell: CellName, refill: Refill, only_look: bool) -> Option<Taken> {
        let taken = self.core.state.take(&cell, refill, only_look, self.core.clock.now()).await;
        taken
            .inspect_err(|error| tracing::warn!(error = error.chain(), "a limit could not be looked up"))
            .ok()
    }

    async fn bounded(
        &self,
        cell: CellName,
        per_minute: u32,
        only_look: bool,
    ) -> std::result::Result<(), u64> {
        let Some(refill) = Refill::per_minute(per_minute) else { return Ok(()) };
        match self.take(cell, refill, only_look).await {
            Some(taken) if !taken.is_admitted => Err(seconds(taken.retry_after)),
            _ => Ok(()),
        }
    }

    /// Whether it is of interest which credentials are no good.
    pub fn counts_failures(&self) -> bool {
        self.counts_failures.load(Ordering::Relaxed)
    }

    /// `rate_limited` for an address from which credentials that are not good came too often.
    pub async fn may_log_in(&self, address: Option<IpAddr>) -> Result<()> {
        let most = self.settings().failed_logins_per_minute;
        let cell = cell(Kind::FailedLogin, &of_address(address));
        self.bounded(cell, most, true).await.map_err(|after| {
            refused("failed_logins");
            too_fast("Too many requests with credentials that are not good came from this address.", after)
        })
    }

    /// Credentials that are not good came from this address.
    pub async fn login_failed(&self, address: Option<IpAddr>) {
        let most = self.settings().failed_logins_per_minute;
        // Whether it was one too many is said to the next.
        let _counted = self.bounded(cell(Kind::FailedLogin, &of_address(address)), most, false).await;
    }

    /// Counts a try of a link's password before it is looked at; `rate_limited`.
    pub async fn guess(&self, link: LinkId, address: Option<IpAddr>) -> Result<()> {
        let most = self.settings().password_guesses_per_minute;
        let own = self.bounded(cell(Kind::Guess, &of_address(address)), most, false).await;
        let all = cell(Kind::GuessOfLink, link.as_bytes());
        let tried = match own {
            Ok(()) => self.bounded(all, most.saturating_mul(GUESSERS), false).await,
            refused => refused,
        };
        tried.map_err(|after| {
            refused("password_guesses");
            too_fast("Too many passwords were tried.", after)
        })
    }
}
