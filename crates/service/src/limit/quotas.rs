//! How much a user may keep. The catalog holds to it; here it is told what goes for whom.

use super::{Limiter, Settings};
use crate::coherence::News;
use carrack_domain::{Principal, Result};
use quick_cache::sync::Cache;
use std::sync::atomic::{AtomicBool, Ordering};

/// Owners of whom it is remembered what the catalog was told: some 100 bytes each.
const OWNERS_MAX: usize = 16_384;

pub(super) struct Quotas {
    /// What the catalog was told last.
    told: Cache<String, Option<u64>>,
    /// Whether it was told anything since it forgot all of it.
    is_told: AtomicBool,
    /// Held while it is told, so that an older quota never replaces a newer one.
    telling: tokio::sync::Mutex<()>,
}

impl Default for Quotas {
    fn default() -> Quotas {
        let (is_told, telling) = (AtomicBool::default(), tokio::sync::Mutex::default());
        Quotas { told: Cache::new(OWNERS_MAX), is_told, telling }
    }
}

impl Limiter {
    /// Makes the catalog forget what it was told when the server ran before. Called at the start. Other nodes tell it again.
    pub async fn begin(&self) -> Result<()> {
        if !self.core.is_alone && !self.core.state.is_shared() {
            // Nobody would tell them that it was forgotten.
            return Ok(());
        }
        self.core.catalog.forget_owner_quotas().await?;
        self.core.coherence.tell(News::Quotas).await;
        Ok(())
    }

    /// The catalog may have forgotten what it was told: another node was started.
    pub(crate) fn tell_quotas_again(&self) {
        self.quotas.told.clear();
    }

    /// Tells the catalog how much somebody may keep who is about to send something, unless it knows.
    pub async fn settle_quota(&self, principal: &Principal) -> Result<()> {
        let settings = self.settings();
        let quotas = &self.quotas;
        if !settings.bounds_what_is_kept() {
            return if quotas.is_told.load(Ordering::Acquire) { self.forget_quotas().await } else { Ok(()) };
        }
        let (owner, quota) = (principal.subject(), quota(&settings, principal));
        if quotas.told.get(owner) == Some(quota) {
            return Ok(());
        }
        let _turn = quotas.telling.lock().await;
        quotas.is_told.store(true, Ordering::Release);
        self.core.catalog.set_owner_quota(owner, quota).await?;
        quotas.told.insert(owner.to_owned(), quota);
        Ok(())
    }

    async fn forget_quotas(&self) -> Result<()> {
        let quotas = &self.quotas;
        let _turn = quotas.telling.lock().await;
        if quotas.is_told.load(Ordering::Acquire) {
            self.core.catalog.forget_owner_quotas().await?;
            quotas.told.clear();
            quotas.is_told.store(false, Ordering::Release);
        }
        Ok(())
    }
}

fn quota(settings: &Settings, principal: &Principal) -> Option<u64> {
    let quota = settings.role(principal.role()).quota_per_user;
    // More than the catalog counts is no bound.
    (quota > 0 && quota <= i64::MAX as u64).then_some(quota)
}
