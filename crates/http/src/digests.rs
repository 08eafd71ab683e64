//! Digest headers: `Content-Digest` and `Repr-Digest` (RFC 9530), `Content-MD5` (RFC 1864).

use crate::call::Call;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrack_api::headers::{CONTENT_DIGEST, CONTENT_MD5, REPR_DIGEST, WANT_REPR_DIGEST};
use carrack_domain::digest::{Algorithm, Digest};
use carrack_domain::{Code, Error, Result};
use http::HeaderMap;

/// The digests that a request announces for its body. Algorithms that are not known here are passed over, as
/// RFC 9530 §2 wants; what is known and malformed is `invalid_digest`.
pub(crate) fn announced(call: &Call) -> Result<Vec<Digest>> {
    let mut digests = of_content(&call.headers)?;
    digests.extend(of_whole(&call.headers)?);
    Ok(digests)
}

/// Those of a message's content.
pub(crate) fn of_content(headers: &HeaderMap) -> Result<Vec<Digest>> {
    let mut digests = dictionary(headers, CONTENT_DIGEST)?;
    if let Some(value) = headers.get(CONTENT_MD5) {
        let bytes = value.to_str().ok().and_then(|text| STANDARD.decode(text.trim()).ok());
        digests.push(Digest::new(Algorithm::Md5, bytes.ok_or_else(|| malformed(CONTENT_MD5))?)?);
    }
    Ok(digests)
}

/// Those of the whole representation.
pub(crate) fn of_whole(headers: &HeaderMap) -> Result<Vec<Digest>> {
    dictionary(headers, REPR_DIGEST)
}

fn dictionary(headers: &HeaderMap, name: &str) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| malformed(name))?;
        for member in text.split(',') {
            digests.extend(member_digest(name, member.trim())?);
        }
    }
    Ok(digests)
}

/// One `sha-256=:BASE64:` of a structured dictionary (RFC 8941 §3.2, §3.3.5).
fn member_digest(header: &str, member: &str) -> Result<Option<Digest>> {
    if member.is_empty() {
        return Ok(None);
    }
    let (name, value) = member.split_once('=').ok_or_else(|| malformed(header))?;
    let algorithm = match name.trim() {
        "sha-256" => Algorithm::Sha256,
        "sha-512" => Algorithm::Sha512,
        "md5" => Algorithm::Md5,
        _ => return Ok(None),
    };
    let encoded =
        value.trim().strip_prefix(':').and_then(|rest| rest.split_once(':')).map(|(inner, _)| inner);
    let bytes = encoded.and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| malformed(header))?;
    Digest::new(algorithm, bytes).map(Some)
}

fn malformed(header: &str) -> Error {
    Error::new(
        Code::InvalidDigest,
        format!(
            "The {header} header cannot be read: write it like 'sha-256=:BASE64:' (Content-MD5: base64)."
        ),
    )
}

/// Whether the client wants a SHA-256 of the representation (RFC 9530 §4: a preference above 0).
pub(crate) fn wants_sha256(headers: &HeaderMap) -> bool {
    headers.get_all(WANT_REPR_DIGEST).iter().filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',').any(|member| {
            let (name, weight) = member.trim().split_once('=').unwrap_or((member.trim(), "10"));
            name == "sha-256" && weight.parse::<u8>().is_ok_and(|weight| (1..=10).contains(&weight))
        })
    })
}

/// `Repr-Digest` of a SHA-256.
pub(crate) fn repr_digest(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        let good = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(member_digest("x", good).unwrap().unwrap().algorithm(), Algorithm::Sha256);
        assert_eq!(member_digest("x", "unixsum=:AAA=:").unwrap(), None);
        for bad in ["sha-256", "sha-256=abc", "sha-256=:a:", "sha-512=:AAAA:", "sha-256=:AAAA"] {
            assert_eq!(member_digest("x", bad).unwrap_err().code(), Code::InvalidDigest, "{bad}");
        }
    }

    #[test]
    fn wants() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(WANT_REPR_DIGEST, value.parse().unwrap());
            wants_sha256(&headers)
        };
        assert!(of("sha-256=1") && of("sha-512=3, sha-256=10"));
        assert!(!of("sha-256=0") && !of("sha-512=10") && !of("sha-256=x"));
    }
}
