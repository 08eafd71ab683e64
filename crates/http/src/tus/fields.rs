//! The protocol's header fields.

use crate::call::Call;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrack_api::headers::{UPLOAD_CHECKSUM, UPLOAD_DEFER_LENGTH, UPLOAD_LENGTH};
use carrack_domain::digest::{Algorithm, Digest};
use carrack_domain::upload::PARTIALS_MAX;
use carrack_domain::{Code, Error, Result, UploadId};
use carrack_service::upload::Checksum;
use http::header::{CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName};

/// The media type of bytes at an offset.
const OFFSET_TYPE: &str = "application/offset+octet-stream";
/// Numbers end at 2^63-1, as those of the catalog do.
const NUMBER_MAX: u64 = i64::MAX as u64;
/// What `Upload-Checksum` may name; sha1 is the one that every server has to know.
const CHECKSUMS: [(&str, Algorithm); 4] = [
    ("sha1", Algorithm::Sha1),
    ("sha256", Algorithm::Sha256),
    ("md5", Algorithm::Md5),
    ("crc32", Algorithm::Crc32),
];
const CHECKSUM_ALGORITHMS: &[Algorithm] =
    &[Algorithm::Sha1, Algorithm::Sha256, Algorithm::Md5, Algorithm::Crc32];

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, detail)
}

/// A field that may be there once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(format!("{name} is there more than once: send it once.")));
    }
    value.to_str().map(Some).map_err(|_| invalid(format!("{name} has other characters than visible ASCII.")))
}

/// A number, in digits alone.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>> {
    let Some(text) = single(headers, name)? else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number <= NUMBER_MAX => Ok(Some(number)),
        _ => Err(invalid(format!("{name} is not a number of bytes: use digits, at most {NUMBER_MAX}."))),
    }
}

/// The length of an upload that is being created; `None` when it will be said later.
pub(super) fn length_at_creation(headers: &HeaderMap) -> Result<Option<u64>> {
    let length = number(headers, UPLOAD_LENGTH)?;
    match (length, single(headers, UPLOAD_DEFER_LENGTH)?) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some("1")) => Ok(None),
        (None, Some(_)) => Err(invalid("Upload-Defer-Length is '1' or absent.")),
        (Some(_), Some(_)) => Err(invalid("Upload-Length and Upload-Defer-Length exclude each other.")),
        (None, None) => Err(invalid("Upload-Length is missing: send it, or 'Upload-Defer-Length: 1'.")),
    }
}

/// Refuses a length where it follows from something else.
pub(super) fn no_length(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(UPLOAD_LENGTH) || headers.contains_key(UPLOAD_DEFER_LENGTH) {
        return Err(invalid("A final upload is as long as its parts: leave Upload-Length out."));
    }
    Ok(())
}

/// Whether the body is bytes at an offset.
pub(super) fn has_offset_type(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case(OFFSET_TYPE))
}

/// The answer to a body of another kind.
pub(super) fn wrong_type() -> Error {
    Error::new(
        Code::UnsupportedMediaType,
        format!("The body has to be sent as 'Content-Type: {OFFSET_TYPE}'."),
    )
}

/// What an upload is made of.
pub(super) enum Concat {
    /// Bytes, for a file.
    None,
    /// Bytes, for another upload.
    Partial,
    /// These uploads.
    Final(Vec<UploadId>),
}

impl Concat {
    pub(super) fn parse(text: Option<&str>) -> Result<Concat> {
        let invalid = |detail: String| Error::new(Code::InvalidConcatenation, detail);
        let urls = match text {
            None => return Ok(Concat::None),
            Some("partial") => return Ok(Concat::Partial),
            Some(text) => text.strip_prefix("final;").ok_or_else(|| {
                invalid("Upload-Concat is 'partial', or 'final;' and the URLs of partial uploads.".to_owned())
            })?,
        };
        let mut ids = Vec::new();
        for url in urls.split_ascii_whitespace() {
            if ids.len() == PARTIALS_MAX {
                return Err(invalid(format!("More than {PARTIALS_MAX} uploads are named: join fewer.")));
            }
            // Absolute or relative, and under whatever name the server was called.
            let id = url.rsplit_once("/v1/tus/").and_then(|(_, id)| UploadId::parse(id));
            ids.push(id.ok_or_else(|| {
                invalid(format!("'{}' is not the URL of an upload here.", url.escape_default()))
            })?);
        }
        Ok(Concat::Final(ids))
    }
}

/// The names for `Tus-Checksum-Algorithm`.
pub(super) fn checksum_algorithms() -> String {
    CHECKSUMS.map(|(name, _)| name).join(",")
}

/// What the body must come to: said in the head, or announced for the trailer.
pub(super) fn checksum(call: &Call) -> Result<Checksum> {
    if let Some(text) = single(&call.headers, UPLOAD_CHECKSUM)? {
        return Ok(Checksum::Now(vec![parse_checksum(text)?]));
    }
    let announced = call.headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    let is_checksum =
        |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok_and(|name| name == UPLOAD_CHECKSUM);
    if !announced.flat_map(|text| text.split(',')).any(is_checksum) {
        return Ok(Checksum::None);
    }
    let trailers = call.body.trailers();
    let read = move || {
        let trailers = trailers.get();
        let text = single(&trailers, UPLOAD_CHECKSUM)?.ok_or_else(|| {
            Error::new(
                Code::InvalidDigest,
                "The Upload-Checksum that was announced did not come: nothing was stored.",
            )
        })?;
        parse_checksum(text)
    };
    Ok(Checksum::AtEnd(CHECKSUM_ALGORITHMS, Box::new(read)))
}

fn parse_checksum(text: &str) -> Result<Digest> {
    let invalid = |detail: String| Error::new(Code::InvalidDigest, detail);
    let (name, value) = text.trim().split_once(' ').ok_or_else(|| {
        invalid("Upload-Checksum is an algorithm, a space, and the digest in base64.".to_owned())
    })?;
    let (_, algorithm) = CHECKSUMS.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let known = checksum_algorithms();
        invalid(format!("Checksums of '{}' are not known here: use {known}.", name.escape_default()))
    })?;
    let value = STANDARD.decode(value.trim());
    Digest::new(
        algorithm,
        value.map_err(|_| invalid("The digest in Upload-Checksum is not base64.".to_owned()))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn numbers_are_digits() {
        let of = |text: &str| number(&headers(&[("upload-offset", text)]), "upload-offset");
        assert_eq!(of("0").unwrap(), Some(0));
        assert_eq!(of("9223372036854775807").unwrap(), Some(NUMBER_MAX));
        for bad in
            ["", "-1", "+1", "1.0", "1e3", "0x1", " 1 2", "9223372036854775808", "99999999999999999999", "a"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
        let twice = headers(&[("upload-offset", "1"), ("upload-offset", "1")]);
        assert!(number(&twice, "upload-offset").is_err());
        assert_eq!(number(&HeaderMap::new(), "upload-offset").unwrap(), None);
    }

    #[test]
    fn lists_of_uploads() {
        let id = "0123456789abcdef0123456789abcdef";
        let of = |text: &str| match Concat::parse(Some(text)) {
            Ok(Concat::Final(ids)) => Ok(ids.len()),
            Ok(Concat::Partial) => Ok(999),
            Ok(Concat::None) => Ok(0),
            Err(error) => Err(error.code()),
        };
        assert_eq!(of("partial"), Ok(999));
        assert_eq!(of(&format!("final;/v1/tus/{id} http://x:1/v1/tus/{id} https://y/p/v1/tus/{id}")), Ok(3));
        for bad in
            ["", "Partial", "final", "final;/v1/tus/x", "final;/v1/uploads/0123", &format!("final;{id}")]
        {
            assert_eq!(of(bad), Err(Code::InvalidConcatenation), "{bad}");
        }
        let many = |count: usize| format!("final;{}", vec![format!("/v1/tus/{id}"); count].join(" "));
        assert_eq!(of(&many(1000)), Ok(1000));
        assert_eq!(of(&many(1001)), Err(Code::InvalidConcatenation));
    }

    #[test]
    fn checksums() {
        assert_eq!(parse_checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap().algorithm(), Algorithm::Sha1);
        assert_eq!(parse_checksum("crc32 AAAAAA==").unwrap().algorithm(), Algorithm::Crc32);
        for bad in [
            "",
            "sha1",
            "sha1 ",
            "sha1 !",
            "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "sha512 AA==",
            "sha1 AAAA",
            "md5 AA",
        ] {
            assert_eq!(parse_checksum(bad).unwrap_err().code(), Code::InvalidDigest, "{bad}");
        }
    }
}
