//! `/v1/tokens`, `/v1/me`, `/v1/session`: whose credentials are good, and for how long.

use crate::call::Call;
use crate::compress;
use crate::credentials;
use crate::render::{self, Response};
use carrack_api::{
    BeginSession, CreateToken, DeniedToken, DeniedTokens, DenyToken, Limits, Me, TokenCreated, TokenList,
};
use carrack_domain::access::{ManageTokens, authorize};
use carrack_domain::token::{Denial, Token};
use carrack_domain::{BucketName, Code, Error, Identity, Result, Role, Timestamp, TokenId};
use carrack_service::access::NewToken;
use carrack_service::denied::NewDenial;
use http::header::SET_COOKIE;
use http::{HeaderValue, StatusCode};
use std::time::Duration;

/// The longest that a token is good, unless it is good until it is revoked: a hundred years.
const EXPIRES_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Makes an access token. It is told once and kept nowhere.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access", request_body = CreateToken,
    responses((status = 201, body = TokenCreated), (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn create(mut call: Call) -> Result<Response> {
    let grant = authorize::<ManageTokens>(&call.principal, ())?;
    let wished: CreateToken = call.json().await?;
    let role = Role::parse(&wished.role)
        .ok_or_else(|| Error::new(Code::InvalidRequest, "role is one of guest, user and admin."))?;
    let expires_in = wished.expires_in.map(Duration::from_secs);
    if expires_in.is_some_and(|span| span.is_zero() || span > EXPIRES_MAX) {
        let most = EXPIRES_MAX.as_secs();
        return Err(Error::new(
            Code::InvalidRequest,
            format!("expires_in is a number of seconds from 1 to {most}, or absent."),
        ));
    }
    let buckets = wished.buckets.map(|names| names.iter().map(|name| BucketName::parse(name)).collect());
    let new = NewToken { subject: wished.subject, role, expires_in, buckets: buckets.transpose()? };
    let made = call.app.service.access.create_token(&grant, new).await?;
    let created = TokenCreated {
        token: made.secret,
        id: made.token.id.to_string(),
        expires_at: made.token.identity.expires_at.map(|end| end.to_string()),
    };
    Ok(render::json(StatusCode::CREATED, &created))
}

/// The access tokens there are, without their secrets.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access",
    responses((status = 200, body = TokenList), (status = 403, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn list(call: Call) -> Result<Response> {
    let grant = authorize::<ManageTokens>(&call.principal, ())?;
    let tokens = call.app.service.access.tokens(&grant).await?;
    let list = TokenList { tokens: tokens.iter().map(render_token).collect() };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &list)).await
}

fn render_token(token: &Token) -> carrack_api::Token {
    carrack_api::Token {
        id: token.id.to_string(),
        subject: token.identity.subject.clone(),
        role: token.identity.role.as_str().to_owned(),
        buckets: bucket_names(&token.identity),
        created_at: token.created_at.to_string(),
        created_by: token.created_by.clone(),
        expires_at: token.identity.expires_at.map(|end| end.to_string()),
    }
}

fn bucket_names(identity: &Identity) -> Option<Vec<String>> {
    identity.buckets.as_ref().map(|names| names.iter().map(BucketName::to_string).collect())
}

/// Revokes an access token, and all that was made with it, at once.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "access", params(("id" = String, Path)),
    responses((status = 204, description = "It is refused from now on."), (status = 404, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn revoke(call: Call) -> Result<Response> {
    let grant = authorize::<ManageTokens>(&call.principal, ())?;
    let id = TokenId::parse(call.id())
        .ok_or_else(|| Error::new(Code::TokenNotFound, "There is no such token (any more)."))?;
    call.app.service.access.revoke(&grant, id).await?;
    Ok(render::empty(StatusCode::NO_CONTENT))
}

/// Denies a token that somebody else has signed, and all that was made with it, at once.
#[utoipa::path(
    post, path = "/v1/tokens/denied", tag = "access", request_body = DenyToken,
    responses((status = 201, description = "It is refused from now on.", body = DeniedToken), (status = 400, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem)),
    security(("bearer" = []))
)]
pub(crate) async fn deny(mut call: Call) -> Result<Response> {
    let grant = authorize::<ManageTokens>(&call.principal, ())?;
    let wished: DenyToken = call.json().await?;
    let until = wished.expires_at.as_deref().map(|text| {
        Timestamp::parse(text).ok_or_else(|| {
            Error::new(Code::InvalidRequest, "expires_at is a time such as 2026-11-21T18:00:00Z, or absent.")
        })
    });
    let new = NewDenial { issuer: wished.issuer, jti: wished.jti, until: until.transpose()? };
    let denial = call.app.service.access.deny(&grant, new).await?;
    Ok(render::json(StatusCode::CREATED, &render_denial(denial)))
}

/// The tokens of others that are denied.
#[utoipa::path(
    get, path = "/v1/tokens/denied", tag = "access",
    responses((status = 200, body = DeniedTokens), (status = 403, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn denied(call: Call) -> Result<Response> {
    let grant = authorize::<ManageTokens>(&call.principal, ())?;
    let denied = call.app.service.access.denied(&grant).await?;
    let list = DeniedTokens { denied: denied.into_iter().map(render_denial).collect() };
    compress::fresh(&call.headers, render::json(StatusCode::OK, &list)).await
}

fn render_denial(denial: Denial) -> DeniedToken {
    DeniedToken {
        issuer: denial.issuer,
        jti: denial.jti,
        expires_at: denial.until.map(|until| until.to_string()),
        denied_at: denial.denied_at.to_string(),
        denied_by: denial.denied_by,
    }
}

/// Who is calling.
#[utoipa::path(
    get, path = "/v1/me", tag = "access",
    responses((status = 200, body = Me), (status = 401, body = carrack_api::Problem)), security(("bearer" = []))
)]
pub(crate) async fn me(call: Call) -> Result<Response> {
    let identity = call.principal.identity();
    let me = Me {
        subject: identity.subject.clone(),
        role: identity.role.as_str().to_owned(),
        expires_at: identity.expires_at.map(|end| end.to_string()),
        limits: limits(&call),
    };
    Ok(render::json(StatusCode::OK, &me))
}

fn limits(call: &Call) -> Limits {
    let service = &call.app.service;
    let settings = service.limiter.settings();
    let role = settings.role(call.principal.role());
    let some = |number: u64| (number > 0).then_some(number);
    Limits {
        max_size: service.uploads.size_max(),
        buckets: bucket_names(call.principal.identity()),
        requests_per_second: some(role.requests_per_second.into()),
        transfers: some(role.transfers_per_user.into()),
        bandwidth: some(role.bandwidth_per_user),
        bandwidth_per_connection: some(role.bandwidth_per_connection),
        quota: some(role.quota_per_user),
    }
}

/// Begins a session of the web app: a cookie that scripts cannot read and other sites cannot use.
#[utoipa::path(
    post, path = "/v1/session", tag = "access", request_body = BeginSession,
    responses((status = 204, description = "`Set-Cookie`."), (status = 401, body = carrack_api::Problem), (status = 403, body = carrack_api::Problem))
)]
pub(crate) async fn begin_session(mut call: Call) -> Result<Response> {
    // Else a page of another site could make a browser work in its own author's name.
    call.refuse_other_sites()?;
    let wished: BeginSession = call.json().await?;
    let here = *call.principal.circumstances();
    let service = &call.app.service;
    service.limiter.may_log_in(here.address).await?;
    let made = service.access.begin_session(&wished.token, here).await;
    if made.as_ref().is_err_and(credentials::is_bad_credential) {
        service.limiter.login_failed(here.address).await;
    }
    let made = made?;
    let seconds = made.token.identity.expires_at.map_or(0, |end| end.as_secs() - here.now.as_secs());
    Ok(with_cookie(here.tls, &made.secret, seconds.max(0)))
}

/// Ends the session that the cookie carries.
#[utoipa::path(
    delete, path = "/v1/session", tag = "access",
    responses((status = 204, description = "There is none any more."), (status = 403, body = carrack_api::Problem))
)]
pub(crate) async fn end_session(call: Call) -> Result<Response> {
    call.refuse_other_sites()?;
    if let Some(session) = credentials::session(&call.app, &call.headers) {
        call.app.service.access.end_session(session).await?;
    }
    Ok(with_cookie(call.principal.circumstances().tls, "", 0))
}

fn with_cookie(tls: bool, value: &str, seconds: i64) -> Response {
    let mut response = render::empty(StatusCode::NO_CONTENT);
    let secure = if tls { "; Secure" } else { "" };
    let name = credentials::cookie_name(tls);
    // Without a Domain it is this host's alone.
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(mut value) = HeaderValue::try_from(cookie) {
        value.set_sensitive(true);
        response.headers_mut().insert(SET_COOKIE, value);
    }
    response
}
