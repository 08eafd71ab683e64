//! What a bucket and an owner have, and may have.

use carrack_domain::{BucketName, Code, Error, Result};

/// A hundred years: what is longer is for ever.
const RETENTION_SECONDS_MAX: i64 = 100 * 366 * 24 * 3600;

/// The account of a bucket within a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) id: i64,
    pub(crate) quota: Option<i64>,
    pub(crate) used: i64,
    pub(crate) reserved: i64,
}

impl Account {
    /// `quota_exceeded` unless `bytes` fit once `freed` bytes are given back. No bucket holds more than 2^63-1 bytes.
    pub(crate) fn admit(&self, bytes: u64, freed: i64) -> Result<()> {
        let limit = i128::from(self.quota.unwrap_or(i64::MAX));
        let total = i128::from(self.used) + i128::from(self.reserved) - i128::from(freed) + i128::from(bytes);
        if total <= limit {
            return Ok(());
        }
        let detail = format!(
            "The bucket may hold {limit} bytes; with these {bytes} it would hold {total}, open uploads included. \
             Delete files, or ask for a larger quota."
        );
        Err(Error::new(Code::QuotaExceeded, detail))
    }
}

pub(crate) fn not_found(name: &BucketName) -> Error {
    Error::new(Code::BucketNotFound, format!("There is no bucket {name}."))
}

pub(crate) fn quota_number(quota: u64) -> Result<i64> {
    let detail = format!("The quota may be at most {} bytes: leave it out for no limit.", i64::MAX);
    i64::try_from(quota).map_err(|_| Error::new(Code::InvalidRequest, detail))
}

pub(crate) fn retention_number(seconds: u64) -> Result<i64> {
    let detail = format!(
        "retention_seconds is a number from 1 to {RETENTION_SECONDS_MAX}: leave it out to keep files for ever."
    );
    let number = i64::try_from(seconds).ok().filter(|number| (1..=RETENTION_SECONDS_MAX).contains(number));
    number.ok_or_else(|| Error::new(Code::InvalidRequest, detail))
}

/// What an owner has and may have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holding {
    pub(crate) bytes: i64,
    pub(crate) quota: Option<i64>,
}

impl Holding {
    /// `quota_exceeded` when it is more than before, and more than it may be.
    pub(crate) fn admit(self, before: i64) -> Result<()> {
        match self.quota {
            Some(quota) if self.bytes > quota && self.bytes > before => {
                let detail = format!(
                    "One may have {quota} bytes here; with this it would be {}, open uploads included. Delete files, or \
                     ask for a larger quota.",
                    self.bytes
                );
                Err(Error::new(Code::QuotaExceeded, detail))
            }
            _ => Ok(()),
        }
    }
}
