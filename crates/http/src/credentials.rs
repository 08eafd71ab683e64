//! What a request says of who makes it: one of a bearer token, the signature of its URL, or the web app's cookie.

use crate::App;
use crate::routes::Route;
use carrack_domain::access::ROOT;
use carrack_domain::audit::Via;
use carrack_domain::policy::{AddressRange, Circumstances};
use carrack_domain::{Action, Code, Error, Identity, Principal, Result, Role};
use carrack_service::access::Credentials;
use carrack_service::keys::{SEALED, invalid_signature, kid};
use carrack_service::limit::LinkRate;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Uri};
use std::net::{IpAddr, SocketAddr};

/// The query parameter that carries a signature.
pub(crate) const SIGNATURE: &str = "sig";
/// The most addresses of a forwarding chain that are looked at.
const HOPS_MAX: usize = 32;

/// Who calls, and what their URL says besides.
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// How they showed who they are.
    pub(crate) via: Via,
    /// The URL was signed.
    pub(crate) signed: Option<SignedFor>,
}

/// What a signed URL says besides who signed it.
pub(crate) struct SignedFor {
    /// The name a download is saved under.
    pub(crate) filename: Option<String>,
    /// The rate that everything under the URL shares.
    pub(crate) rate: Option<LinkRate>,
}

/// Which proxies are believed when they say where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Vec<AddressRange>,
}

impl Proxies {
    /// Those at these addresses.
    pub fn new(trusted: Vec<AddressRange>) -> Proxies {
        Proxies { trusted }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(address))
    }

    /// Where a request comes from: the nearest hop that is no proxy of ours. What is beyond that anybody can write.
    fn origin(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> (Option<IpAddr>, bool) {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return (None, false) };
        if self.trusted.is_empty() || !self.trusts(peer) {
            return (Some(peer), false);
        }
        let secure = last_item(headers, "x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("?")).collect();
        let mut nearest = peer;
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS_MAX) {
            // A hop that cannot be read hides who is behind it.
            let Some(address) = hop_address(hop) else { return (None, secure) };
            nearest = address;
            if !self.trusts(nearest) {
                break;
            }
        }
        (Some(nearest), secure)
    }
}

fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse::<IpAddr>().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

fn last_item<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

/// What is known of a request besides who makes it.
pub(crate) fn circumstances(app: &App, extensions: &Extensions, headers: &HeaderMap) -> Circumstances {
    let peer = extensions.get::<SocketAddr>().map(SocketAddr::ip);
    let (address, secure) = app.proxies.origin(peer, headers);
    app.service.access.circumstances(address, secure || app.scheme == "https")
}

/// Who is calling, unless their address has shown too many credentials that are not good.
pub(crate) async fn admitted(app: &App, route: &Route, parts: &Parts, here: Circumstances) -> Result<Caller> {
    let limiter = &app.service.limiter;
    let matters = limiter.counts_failures() && route.action != Action::Public;
    let shows = matters && shows_credentials(app, route, parts);
    if shows {
        limiter.may_log_in(here.address).await?;
    }
    let caller = caller(app, route, parts, here).await;
    if shows && caller.as_ref().is_err_and(is_bad_credential) {
        limiter.login_failed(here.address).await;
    }
    caller
}

fn shows_credentials(app: &App, route: &Route, parts: &Parts) -> bool {
    parts.headers.contains_key(AUTHORIZATION)
        || !matches!(signature(route, parts), Ok(None))
        || session(app, &parts.headers).is_some()
}

/// Whether credentials were refused that somebody may have guessed.
pub(crate) fn is_bad_credential(error: &Error) -> bool {
    matches!(error.code(), Code::InvalidToken | Code::InvalidSignature)
}

/// Who is calling. What is public does not look at credentials, so a probe with a stale token still gets its answer.
async fn caller(app: &App, route: &Route, parts: &Parts, here: Circumstances) -> Result<Caller> {
    let access = &app.service.access;
    let principal = if route.action == Action::Public {
        access.authenticate(Credentials::None, here).await?
    } else if let Some(token) = bearer(&parts.headers)? {
        if signature(route, parts)?.is_some() {
            return Err(Error::new(
                Code::InvalidRequest,
                "The URL is signed and there is an Authorization header too: send one of them.",
            ));
        }
        access.authenticate(Credentials::Bearer(token), here).await?
    } else if let Some(sealed) = signature(route, parts)? {
        return signed(app, route, parts, sealed, here).await;
    } else if let Some(session) = session(app, &parts.headers) {
        refuse_other_sites(&parts.method, &parts.uri, &parts.headers)?;
        access.authenticate(Credentials::Cookie(session), here).await?
    } else {
        access.authenticate(Credentials::None, here).await?
    };
    let via = via(principal.identity(), &parts.headers);
    Ok(Caller { principal, via, signed: None })
}

/// How somebody showed who they are, other than by a signed URL.
fn via(identity: &Identity, headers: &HeaderMap) -> Via {
    match (identity.role, identity.token) {
        (Role::Guest, None) => Via::Nothing,
        _ if !headers.contains_key(AUTHORIZATION) => Via::Session,
        (_, Some(_)) => Via::Token,
        (_, None) if identity.subject == ROOT => Via::Root,
        (_, None) => Via::Jwt,
    }
}

async fn signed(
    app: &App,
    route: &Route,
    parts: &Parts,
    sealed: &str,
    here: Circumstances,
) -> Result<Caller> {
    let purpose = route.signed.ok_or_else(invalid_signature)?;
    let access = &app.service.access;
    let signed = access.signed(purpose, parts.method.as_str(), parts.uri.path(), sealed, &here).await?;
    let principal = access.principal(signed.identity, here);
    let via = Via::Signed(kid(sealed).to_owned());
    let signed = SignedFor { filename: signed.filename, rate: signed.rate_limit };
    Ok(Caller { principal, via, signed: Some(signed) })
}

/// The signature of a URL, on a route that takes one. The query has to be that and nothing else: whatever could be added
/// to it would be something that nobody signed.
fn signature<'a>(route: &Route, parts: &'a Parts) -> Result<Option<&'a str>> {
    let Some(query) = parts.uri.query().filter(|_| route.signed.is_some()) else { return Ok(None) };
    // Altered in one byte it is still recognised, by its name or by its beginning.
    let named = query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| name == SIGNATURE));
    if !named && !query.contains(SEALED) {
        return Ok(None);
    }
    let sealed = query.strip_prefix(SIGNATURE).and_then(|rest| rest.strip_prefix('='));
    match sealed {
        Some(sealed) if !sealed.contains(['&', '%']) => Ok(Some(sealed)),
        _ => Err(invalid_signature()),
    }
}

/// The bearer token of a request; none is fine, another scheme or two of them is not.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match (token, values.next()) {
        (Some(token), None) => Ok(Some(token)),
        _ => Err(Error::new(Code::InvalidToken, "The Authorization header is not 'Bearer TOKEN'.")),
    }
}

/// The name of the web app's cookie. Over TLS it is one that no other host, and nothing in plain text, can set
/// (RFC 6265bis §4.1.3.2).
pub(crate) fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-carrack" } else { "carrack" }
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (known, value) = pair.trim().split_once('=')?;
        (known == name).then_some(value)
    })
}

/// What the web app's cookie carries.
pub(crate) fn session<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    let plain = || (app.scheme == "http").then(|| cookie(headers, cookie_name(false))).flatten();
    cookie(headers, cookie_name(true)).or_else(plain)
}

/// Refuses to change something for a page of another site, which a browser may make send our cookie. Browsers say where
/// a request that changes something comes from; what is no browser has no cookies of others to send. A WebSocket can be
/// read by the page that opens it, whatever site that is of, so opening one counts as a change.
pub(crate) fn refuse_other_sites(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_safe && !headers.contains_key(UPGRADE) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let same = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = uri.authority().map(|host| host.as_str()).or_else(|| text(HOST.as_str()));
            origin.split_once("://").is_some_and(|(_, from)| Some(from) == host)
        }
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    Err(Error::new(
        Code::Forbidden,
        "A page of another site cannot use this session: send 'Authorization: Bearer TOKEN' instead.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn only_proxies_of_ours_are_believed_and_only_for_one_hop_beyond() {
        let of = |trusted: &[&str], peer: &str, lines: &[&str]| {
            let trusted = trusted.iter().map(|range| AddressRange::parse(range).unwrap()).collect();
            Proxies::new(trusted).origin(ip(peer), &headers(lines)).0
        };
        assert_eq!(of(&[], "10.0.0.1", &["1.1.1.1"]), ip("10.0.0.1"), "nobody is believed");
        assert_eq!(of(&["10.0.0.0/8"], "9.9.9.9", &["1.1.1.1"]), ip("9.9.9.9"), "not a proxy of ours");
        let ours = &["10.0.0.0/8"][..];
        assert_eq!(of(ours, "10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(of(ours, "10.0.0.1", &["1.1.1.1"]), ip("1.1.1.1"));
        assert_eq!(of(ours, "10.0.0.1", &["6.6.6.6, 1.1.1.1"]), ip("1.1.1.1"), "the client wrote 6.6.6.6");
        assert_eq!(of(ours, "10.0.0.1", &["6.6.6.6", "1.1.1.1, 10.0.0.2"]), ip("1.1.1.1"));
        assert_eq!(of(ours, "::ffff:10.0.0.1", &["::ffff:1.1.1.1"]), ip("1.1.1.1"));
        assert_eq!(of(ours, "10.0.0.1", &["2001:db8::1"]), ip("2001:db8::1"));
        assert_eq!(of(ours, "10.0.0.1", &["1.1.1.1:80"]), ip("1.1.1.1"));
        assert_eq!(of(ours, "10.0.0.1", &["nonsense"]), None);
        assert_eq!(of(ours, "10.0.0.1", &["1.1.1.1, unknown"]), None);
    }
}
