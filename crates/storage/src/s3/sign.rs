//! AWS Signature Version 4: what a request says of who makes it. A fault in here is a request that is refused, never one that
//! is let through.

use aws_lc_rs::{digest, hmac};
use carrack_domain::Timestamp;
use carrack_domain::id::hex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is said of a body instead of its SHA-256: a checksum is signed with the headers.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Who makes requests.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) region: String,
}

/// A request as far as it is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Of characters that need no escape.
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, String)],
    /// In lower case.
    pub(super) headers: &'a [(&'static str, String)],
    /// SHA-256 of the body in hex, or [`UNSIGNED`].
    pub(super) payload: &'a str,
}

impl<'a> Request<'a> {
    fn all_headers(&self) -> Vec<(&'a str, &'a str)> {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (*name, value.trim())).collect();
        headers.push(("host", self.host));
        headers.sort_unstable();
        headers
    }

    fn signed_headers(&self) -> String {
        self.all_headers().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";")
    }
}

/// A moment as S3 writes it: `20130524T000000Z`.
pub(super) fn stamp(now: Timestamp) -> String {
    let text = now.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    format!("{}Z", whole.replace(['-', ':'], ""))
}

/// A query, sorted and escaped.
pub(super) fn query(parameters: &[(&str, String)]) -> String {
    let escape = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let mut pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.sort();
    pairs.join("&")
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

impl Credentials {
    /// The value of `Authorization` for a request that is made at `stamp`, which is among its headers as `x-amz-date`.
    pub(super) fn authorization(&self, request: &Request<'_>, stamp: &str) -> String {
        let (names, scope) = (request.signed_headers(), self.scope(stamp));
        let signature = self.signature(request, stamp);
        format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", self.id)
    }

    /// The query of a URL with which others may make the request, without its body being signed, for so many seconds from
    /// `stamp` on.
    pub(super) fn presigned(&self, request: Request<'_>, stamp: &str, seconds: u64) -> String {
        let mut parameters = request.query.to_vec();
        parameters.extend([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{}", self.id, self.scope(stamp))),
            ("X-Amz-Date", stamp.to_owned()),
            ("X-Amz-Expires", seconds.to_string()),
            ("X-Amz-SignedHeaders", request.signed_headers()),
        ]);
        let request = Request { query: &parameters, payload: UNSIGNED, ..request };
        let signature = self.signature(&request, stamp);
        format!("{}&X-Amz-Signature={signature}", query(&parameters))
    }

    fn scope(&self, stamp: &str) -> String {
        format!("{}/{}/s3/aws4_request", stamp.get(..8).unwrap_or_default(), self.region)
    }

    fn signature(&self, request: &Request<'_>, stamp: &str) -> String {
        let (headers, names) = (request.all_headers(), request.signed_headers());
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{}",
            request.method,
            request.path,
            query(request.query),
            request.payload
        );
        let scope = self.scope(stamp);
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
        hex(self.mac(stamp.get(..8).unwrap_or_default(), text.as_bytes()).as_ref())
    }

    fn mac(&self, day: &str, text: &[u8]) -> hmac::Tag {
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let day = mac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        let region = mac(day.as_ref(), self.region.as_bytes());
        let service = mac(region.as_ref(), b"s3");
        mac(mac(service.as_ref(), b"aws4_request").as_ref(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// "Example: GET Object" of the S3 API reference, Signature Calculations for the Authorization Header.
    #[test]
    fn as_the_reference_signs() {
        let stamp = stamp(Timestamp::parse("2013-05-24T00:00:00Z").unwrap());
        assert_eq!(stamp, "20130524T000000Z");
        let empty = sha256(b"");
        let headers = [
            ("range", "bytes=0-9".to_owned()),
            ("x-amz-content-sha256", empty.clone()),
            ("x-amz-date", stamp.clone()),
        ];
        let request = Request {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            headers: &headers,
            payload: &empty,
        };
        let authorization = credentials().authorization(&request, &stamp);
        assert!(authorization.contains("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date"));
        assert!(
            authorization
                .ends_with("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
        );
    }

    /// The example of "Authenticating Requests: Using Query Parameters" of the S3 API reference.
    #[test]
    fn as_the_reference_presigns() {
        let request = Request {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            headers: &[],
            payload: UNSIGNED,
        };
        let query = credentials().presigned(request, "20130524T000000Z", 86_400);
        assert_eq!(
            query,
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
             aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
             aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    /// "Example: GET Bucket (List Objects)" of the same page.
    #[test]
    fn queries_are_sorted_and_escaped() {
        let stamp = "20130524T000000Z";
        let empty = sha256(b"");
        let headers = [("x-amz-content-sha256", empty.clone()), ("x-amz-date", stamp.to_owned())];
        let request = Request {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/",
            query: &[("prefix", "J".to_owned()), ("max-keys", "2".to_owned())],
            headers: &headers,
            payload: &empty,
        };
        let authorization = credentials().authorization(&request, stamp);
        assert!(
            authorization
                .ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
        );
        assert_eq!(query(&[("b", "a/b c".to_owned()), ("a", String::new())]), "a=&b=a%2Fb%20c");
    }
}
