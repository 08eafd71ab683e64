//! A request, taken apart once: who calls, which route, which parameters.

use crate::App;
use crate::body::RequestBody;
use crate::credentials::{self, Caller};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrack_domain::access::{FileRef, PrefixRef};
use carrack_domain::audit::{Context, Kind};
use carrack_domain::digest::{Algorithm, Digest};
use carrack_domain::file::Metadata;
use carrack_domain::link::{Link, Target};
use carrack_domain::{ArchiveId, BucketName, Code, Error, Key, KeyPrefix, Principal, Result, UploadId};
use carrack_interim::Interim;
use carrack_service::download::Form;
use carrack_service::limit::{LinkRate, Traffic, Unit, Who};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Uri};
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The largest JSON body that is read.
const JSON_BYTES_MAX: usize = 1 << 20;

/// The largest form that is read.
const FORM_BYTES_MAX: usize = 4 << 10;

/// What stands in the places of a route's template, percent-encoding undone.
#[derive(Default)]
pub(crate) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Decodes names and values as they stand in the path; `invalid_key` when one is not UTF-8.
    pub(crate) fn of<'a>(raw: impl Iterator<Item = (&'static str, &'a str)>) -> Result<Parameters> {
        let decoded = raw.map(|(name, value)| match percent_decode_str(value).decode_utf8() {
            Ok(value) => Ok((name, value.into_owned())),
            Err(_) => Err(Error::new(
                Code::InvalidKey,
                "The path is not UTF-8 once its percent-encoding is undone: encode the key as UTF-8.",
            )),
        });
        Ok(Parameters(decoded.collect::<Result<_>>()?))
    }

    /// One of them.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(n, value)| (*n == name).then_some(value.as_str()))
    }
}

/// What a handler gets.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Principal,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// In which form this connection can send the bytes of blobs.
    pub(crate) form: Form,
    /// The name that a signed URL gives a download.
    pub(crate) saved_as: Option<String>,
    /// The rate that a signed URL is bound to.
    link: Option<LinkRate>,
    /// The other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// The connection beneath, for who speaks something else on it after the answer.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Says interim responses, where the connection can send them.
    pub(crate) interim: Option<Interim>,
    /// What is recorded of it; `None` when nothing is.
    context: Option<Arc<Context>>,
    uri: Uri,
    parameters: Parameters,
    query: Vec<(String, String)>,
}

impl Call {
    /// Takes a request apart.
    pub(crate) fn new(
        app: Arc<App>,
        caller: Caller,
        mut parts: Parts,
        parameters: Parameters,
        body: RequestBody,
        context: Option<Arc<Context>>,
    ) -> Result<Call> {
        let (saved_as, link) = caller.signed.map_or((None, None), |signed| (signed.filename, signed.rate));
        let peer = parts.extensions.get::<SocketAddr>().copied();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let query = parse_query(parts.uri.query().unwrap_or(""))?;
        let interim = parts.extensions.remove::<Interim>();
        let recognised = parts.extensions.get::<carrack_mapped::Recognised>().is_some();
        let form = if recognised { Form::Mapped } else { Form::Copied };
        Ok(Call {
            app,
            upgrade,
            uri: parts.uri,
            principal: caller.principal,
            saved_as,
            link,
            peer,
            method: parts.method,
            headers: parts.headers,
            body,
            form,
            interim,
            parameters,
            query,
            context,
        })
    }

    /// What it is about, when its path does not say.
    pub(crate) fn about(&self, place: &FileRef) {
        if let Some(context) = &self.context {
            context.about_file(&place.bucket, &place.key);
        }
    }

    /// The link that it came by, which is what it is about.
    pub(crate) fn came_by(&self, link: &Link) {
        if let Some(context) = &self.context {
            context.came_by(link.id);
            if let Target::File(file) = &link.target {
                context.about_file(&file.bucket, &file.key);
            }
        }
    }

    /// Records that somebody has got a way past the server: what comes of it is not seen here.
    pub(crate) fn handed_out(&self, action: &'static str, bytes: u64, detail: &str) {
        let Some(context) = &self.context else { return };
        let mut record = context.record(Kind::Note, self.principal.circumstances().now, action);
        (record.bytes, record.detail) = (Some(bytes), Some(detail));
        self.app.service.audit.write(&record);
    }

    fn param(&self, name: &str) -> &str {
        self.parameters.get(name).unwrap_or("")
    }

    /// `{bucket}` of the path.
    pub(crate) fn bucket(&self) -> Result<BucketName> {
        BucketName::parse(self.param("bucket"))
    }

    /// `{bucket}` and `{key}` of the path.
    pub(crate) fn file(&self) -> Result<FileRef> {
        Ok(FileRef { bucket: self.bucket()?, key: Key::parse(self.param("key"))? })
    }

    /// `{bucket}` of the path and `prefix` of the query.
    pub(crate) fn prefix(&self) -> Result<PrefixRef> {
        let prefix = KeyPrefix::parse(self.query("prefix").unwrap_or(""))?;
        Ok(PrefixRef { bucket: self.bucket()?, prefix })
    }

    /// `{id}` of the path; a spelling that no id has is `upload_not_found` like any unknown one.
    pub(crate) fn upload_id(&self) -> Result<UploadId> {
        UploadId::parse(self.param("id"))
            .ok_or_else(|| Error::new(Code::UploadNotFound, "There is no such upload."))
    }

    /// `{token}` of the path.
    pub(crate) fn token(&self) -> &str {
        self.param("token")
    }

    /// `{claim}` of the path.
    pub(crate) fn claim(&self) -> &str {
        self.param("claim")
    }

    /// The body as a form (`application/x-www-form-urlencoded`).
    pub(crate) async fn form(&mut self) -> Result<Vec<(String, String)>> {
        let bytes = self.body.collect(FORM_BYTES_MAX).await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Error::new(Code::InvalidRequest, "The body is no form: it is not UTF-8."))?;
        parse_query(text)
    }

    /// `{id}` of the path, of whatever kind.
    pub(crate) fn id(&self) -> &str {
        self.param("id")
    }

    /// Refuses to change something for a page of another site.
    pub(crate) fn refuse_other_sites(&self) -> Result<()> {
        credentials::refuse_other_sites(&self.method, &self.uri, &self.headers)
    }

    /// `{id}` of the path; a spelling that no id has is `archive_not_found` like any unknown one.
    pub(crate) fn archive_id(&self) -> Result<ArchiveId> {
        ArchiveId::parse(self.param("id"))
            .ok_or_else(|| Error::new(Code::ArchiveNotFound, "There is no such archive."))
    }

    /// `{number}` of the path.
    pub(crate) fn part_number(&self) -> Result<u64> {
        let text = self.param("number");
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| {
            Error::new(
                Code::InvalidPart,
                format!("'{}' is not a part number: use 1, 2, 3, ...", text.escape_default()),
            )
        })
    }

    /// What follows `/docs/`; `None` without that slash.
    pub(crate) fn docs_path(&self) -> Option<String> {
        self.uri.path().strip_prefix("/docs/").map(str::to_owned)
    }

    /// The path as it was received.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The first value of a query parameter.
    pub(crate) fn query<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.queries(name).next()
    }

    /// Every value of a query parameter.
    pub(crate) fn queries<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A header as text; `None` when it is absent or not visible ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; an absent body is `T::default()`.
    pub(crate) async fn json_or_default<T: serde::de::DeserializeOwned + Default>(&mut self) -> Result<T> {
        let bytes = self.body.collect(JSON_BYTES_MAX).await?;
        if bytes.is_empty() { Ok(T::default()) } else { parse_json(&bytes) }
    }

    /// The body as JSON.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        self.json_up_to(JSON_BYTES_MAX).await
    }

    /// The same for a body that may be longer than most.
    pub(crate) async fn json_up_to<T: serde::de::DeserializeOwned>(&mut self, limit: usize) -> Result<T> {
        let bytes = self.body.collect(limit).await?;
        parse_json(&bytes)
    }

    /// The right to a transfer of the caller; `too_many_transfers`.
    pub(crate) fn traffic(&self) -> Result<Traffic> {
        let who = Who::of(&self.principal);
        self.app.service.limiter.traffic(&who, Unit::Own, who.clone(), self.link, self.peer)
    }

    /// The body, to be read by somebody who may outlive the call, no faster than the caller may send; none is left.
    /// `too_many_transfers`.
    pub(crate) fn receive(&mut self) -> Result<carrack_service::Body> {
        let traffic = self.traffic()?;
        Ok(traffic.receive(self.body.take().into_stream()))
    }

    /// How clients reach this server.
    pub(crate) fn base_url(&self) -> String {
        // In HTTP/2, and in absolute targets, the host stands in the target (RFC 9112 §3.2.2).
        let host = self.uri.authority().map(Authority::as_str).or_else(|| self.header("host"));
        match (&self.app.public_url, host) {
            (Some(url), _) => url.clone(),
            (None, Some(host)) => format!("{}://{host}", self.app.scheme),
            (None, None) => String::new(),
        }
    }
}

fn parse_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // A struct could be read from an array too, by the order of its fields: that is no promise of ours.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::new(
            Code::InvalidRequest,
            "The body is a JSON array where an object is expected.",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Code::InvalidRequest, format!("The body is not the JSON that is expected here: {error}."))
    })
}

/// Splits a query into names and values, `+` being a space as forms write it.
fn parse_query(query: &str) -> Result<Vec<(String, String)>> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().map(|text| text.into_owned()).map_err(|_| {
            Error::new(Code::InvalidRequest, "The query is not UTF-8 once its percent-encoding is undone.")
        })
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// A place in a listing as clients carry it around: not to be understood.
pub(crate) fn cursor(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(after)
}

/// Undoes [`cursor`].
pub(crate) fn parse_cursor(text: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        Error::new(Code::InvalidRequest, "This cursor is none: pass 'next_cursor' of the page before.")
    })
}

/// Digests in a JSON body: algorithm to hex.
pub(crate) fn json_digests(digests: &BTreeMap<String, String>) -> Result<Vec<Digest>> {
    digests
        .iter()
        .map(|(name, value)| {
            let algorithm = Algorithm::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
                let known = Algorithm::ALL.map(Algorithm::name).join(", ");
                Error::new(
                    Code::InvalidDigest,
                    format!("Digests of '{}' are not known here: use {known}.", name.escape_default()),
                )
            })?;
            let bytes = (0..value.len() / 2)
                .map(|i| value.get(i * 2..i * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<Vec<u8>>>()
                .filter(|_| value.len() % 2 == 0 && value.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(|| Error::new(Code::InvalidDigest, format!("The {name} digest is not hex.")))?;
            Digest::new(algorithm, bytes)
        })
        .collect()
}

/// The most bytes of the uploader's own facts, names and values together.
const METADATA_BYTES_MAX: usize = 8 << 10;

/// Refuses more metadata than is kept.
pub(crate) fn check_metadata(metadata: Metadata) -> Result<Metadata> {
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(Error::new(
            Code::InvalidRequest,
            format!("The metadata has {bytes} bytes, at most {METADATA_BYTES_MAX} are kept."),
        ));
    }
    Ok(metadata)
}

/// The longest media type.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// A media type that can be sent back in a header; absent means bytes of no known kind.
pub(crate) fn check_content_type(content_type: Option<&str>) -> Result<String> {
    let Some(text) = content_type else { return Ok("application/octet-stream".to_owned()) };
    let visible = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
    if visible && text.contains('/') && text.len() <= CONTENT_TYPE_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(Error::new(
        Code::InvalidRequest,
        "The content type is none: use something like 'text/plain' or leave it out.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pairs = parse_query("prefix=a%2Fb+c&key=x&key=y&meta&=z&a=b=c").unwrap();
        let expected =
            [("prefix", "a/b c"), ("key", "x"), ("key", "y"), ("meta", ""), ("", "z"), ("a", "b=c")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(parse_query("a=%ff").is_err());
    }

    #[test]
    fn hex_digests() {
        let of =
            |name: &str, value: &str| json_digests(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(of("crc32", "deadbeef").is_ok());
        for (name, value) in
            [("crc32", "deadbee"), ("crc32", "deadbeeg"), ("crc32", "+eadbeef"), ("crc64", ""), ("md5", "é")]
        {
            assert_eq!(of(name, value).unwrap_err().code(), Code::InvalidDigest, "{name} {value}");
        }
    }

    #[test]
    fn bodies_are_objects_of_known_members() {
        let of = |text: &str| parse_json::<carrack_api::PutBucket>(text.as_bytes());
        assert_eq!(of(" {\"quota_bytes\": 7}").unwrap().quota_bytes, Some(7));
        for bad in ["[]", " [7]", "{\"quota\": 7}", "7", "null", ""] {
            assert_eq!(of(bad).unwrap_err().code(), Code::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn cursors_survive_the_trip() {
        assert_eq!(parse_cursor(&cursor("ä/b c")).unwrap(), "ä/b c");
        assert!(parse_cursor("!").is_err());
    }
}
