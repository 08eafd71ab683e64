//! Tokens as plain values.

use super::values::damaged;
use carrack_domain::access::Identity;
use carrack_domain::{BucketName, Code, Error, Result};

pub(crate) fn not_found() -> Error {
    Error::new(Code::TokenNotFound, "There is no such token (any more).")
}

/// The buckets a token is good for, as JSON; `None` is all.
pub(crate) fn buckets_text(identity: &Identity) -> Option<String> {
    identity.buckets.as_ref().map(|buckets| {
        let names: Vec<&str> = buckets.iter().map(BucketName::as_str).collect();
        serde_json::to_string(&names).unwrap_or_default()
    })
}

/// Reads what [`buckets_text`] wrote.
pub(crate) fn buckets(text: Option<&str>) -> Result<Option<Vec<BucketName>>> {
    let Some(text) = text else { return Ok(None) };
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| damaged("a token"))?;
    let names = names.iter().map(|name| BucketName::parse(name).map_err(|_| damaged("a token")));
    names.collect::<Result<_>>().map(Some)
}
