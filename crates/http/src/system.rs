//! Health, metrics, documentation.

use crate::call::Call;
use crate::compress;
use crate::openapi;
use crate::render::{self, Response};
use carrack_domain::access::{ReadMetrics, authorize};
use carrack_domain::{Code, Error, Result};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use utoipa_swagger_ui::Config;

/// The process answers. Asks nobody else, so an orchestrator never restarts a server for a dependency's fault.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "Alive.")))]
pub(crate) async fn livez(_call: Call) -> Result<Response> {
    Ok(render::bytes(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"))
}

/// Requests can be served: catalog and storage answer, and the server is not stopping.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "Ready."), (status = 503, body = carrack_api::Problem))
)]
pub(crate) async fn readyz(call: Call) -> Result<Response> {
    call.app.service.health.ready().await?;
    Ok(render::bytes(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Metrics.", content_type = "text/plain")), security(("bearer" = [])))]
pub(crate) async fn metrics(call: Call) -> Result<Response> {
    authorize::<ReadMetrics>(&call.principal, ())?;
    let text = (call.app.metrics)();
    let response = render::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text);
    compress::fresh(&call.headers, response).await
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, description = "OpenAPI.", content_type = "application/json")))]
pub(crate) async fn openapi(call: Call) -> Result<Response> {
    let response = render::json(StatusCode::OK, &openapi::document());
    compress::kept("openapi.json", &call.headers, response).await
}

/// The documentation page and its assets, all from the binary.
pub(crate) async fn docs(call: Call) -> Result<Response> {
    let Some(path) = call.docs_path() else {
        let mut response = render::empty(StatusCode::PERMANENT_REDIRECT);
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/docs/"));
        return Ok(response);
    };
    let config = Arc::new(Config::from("/openapi.json"));
    let page = utoipa_swagger_ui::serve(&path, config)
        .map_err(|error| Error::internal("serve the documentation", error.to_string()))?
        .ok_or_else(|| Error::new(Code::RouteNotFound, "The documentation has no such page."))?;
    let mut response = render::bytes(StatusCode::OK, "text/html; charset=utf-8", page.bytes.into_owned());
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(page.content_type) {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"),
    );
    compress::kept(&format!("docs/{path}"), &call.headers, response).await
}
