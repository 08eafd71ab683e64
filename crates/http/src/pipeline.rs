//! The steps that every request goes through, in one place.

use crate::App;
use crate::body::{ReadToEnd, Record, RequestBody, ResponseBody};
use crate::call::{Call, Parameters};
use crate::cors::Cors;
use crate::credentials;
use crate::limits;
use crate::metrics::MethodLabel;
use crate::problem;
use crate::render::Response;
use crate::resumable::{self, fields::Draft};
use crate::routes::Route;
use crate::tus;
use crate::watched::Watched;
use carrack_api::headers::REQUEST_ID;
use carrack_domain::error::Class;
use carrack_domain::policy::Circumstances;
use carrack_domain::{Action, Code, Error, Result, TraceId};
use carrack_service::limit::Standing;
use http::header::{
    CACHE_CONTROL, CONNECTION, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// What comes in.
pub(crate) type Request = hyper::Request<Incoming>;

/// Serves one request on one route, with what its path says.
pub(crate) async fn serve(
    app: Arc<App>,
    route: &'static Route,
    parameters: Result<Parameters>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let trace = app.traces.next();
    let method = MethodLabel::of(request.method());
    let active = Active::begin(route);
    let span = span(trace, method.as_str());
    let keep_alive = KeepAlive::of(&request);
    let terms = Terms::of(&app, &request);
    let here = credentials::circumstances(&app, request.extensions(), request.headers());
    let mut watched = Watched::begin(&app, route, method, trace, &here, &keep_alive.read_to_end);
    let mut standing = None;
    let result = match terms.preflight(&request) {
        Some(response) => Ok(response),
        None => {
            let handling = handle(app.clone(), route, parameters, request, here, &mut watched, &mut standing);
            handling.instrument(span.clone()).await
        }
    };
    let failure = result.as_ref().err().map(|error| (error.code(), error.chain()));
    let mut response = result.unwrap_or_else(|error| terms.render(&app, &error, trace));
    let is_head = terms.method == Method::HEAD;
    terms.finish(&mut response);
    if let Some(standing) = standing {
        limits::tell(standing, response.headers_mut());
    }
    let status = response.status();
    let failed = failure.as_ref().map(|(code, _)| *code);
    span.in_scope(|| log(trace, route, method.as_str(), status, failure, started));
    finish(&app, &mut response, trace, &keep_alive);
    route.meters().first_byte.record(started.elapsed().as_secs_f64());
    if is_head {
        // Nothing follows the head, whatever it says of the length (RFC 9110 §9.3.2).
        *response.body_mut() = ResponseBody::empty();
    }
    watched.answer(status.as_u16(), failed, response.body());
    response.body_mut().record(Record { started, trace, method, active, status: status.as_u16(), watched });
    response
}

/// What is logged on the way belongs to a request. Reading is so frequent, and so quiet, that its span is for the
/// curious: what goes wrong with it is logged at its end, with its trace id.
fn span(trace: TraceId, method: &str) -> tracing::Span {
    if is_reading(method) {
        tracing::debug_span!("request", request = %trace)
    } else {
        tracing::info_span!("request", request = %trace)
    }
}

/// In whose terms a request is answered, besides HTTP's own.
struct Terms {
    method: Method,
    /// tus clients expect statuses and headers of their protocol.
    tus: bool,
    /// And so do those of resumable uploads.
    draft: Option<Draft>,
    /// The page that asks, in a browser, and who is let in.
    page: Option<(HeaderValue, Arc<App>)>,
}

impl Terms {
    fn of(app: &Arc<App>, request: &Request) -> Terms {
        let path = request.uri().path();
        let page = app.cors.origin(path, request.headers());
        Terms {
            method: request.method().clone(),
            tus: tus::dialect::speaks(path),
            draft: resumable::dialect::spoken(request),
            page: page.map(|origin| (origin, app.clone())),
        }
    }

    fn preflight(&self, request: &Request) -> Option<Response> {
        self.page.as_ref().and_then(|_| Cors::preflight(&self.method, request.headers()))
    }

    fn render(&self, app: &App, error: &Error, trace: TraceId) -> Response {
        let code = error.code();
        if let Some(draft) = self.draft {
            let mut response = problem::render(error, draft.status(code), draft.kind(code), trace);
            draft.finish_error(app, error.is_final(), &mut response);
            return response;
        }
        let status = if self.tus { tus::dialect::status(code, &self.method) } else { problem::status(code) };
        problem::render(error, status, None, trace)
    }

    fn finish(self, response: &mut Response) {
        if self.tus {
            tus::dialect::finish(response);
        }
        if let Some((origin, app)) = self.page {
            app.cors.finish(origin, response);
        }
    }
}

/// A request under way. However it ends, also by a client that resets its stream in the middle, it is counted out.
pub(crate) struct Active {
    pub(crate) route: &'static Route,
}

impl Active {
    fn begin(route: &'static Route) -> Active {
        route.meters().active.increment(1);
        Active { route }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.route.meters().active.decrement(1);
    }
}

async fn handle(
    app: Arc<App>,
    route: &'static Route,
    parameters: Result<Parameters>,
    request: Request,
    here: Circumstances,
    watched: &mut Watched,
    standing: &mut Option<Standing>,
) -> Result<Response> {
    if !route.while_draining() {
        app.service.health.refuse_while_draining()?;
    }
    let (parts, body) = request.into_parts();
    watched.about(&parameters);
    watched.admit().await?;
    let caller = credentials::admitted(&app, route, &parts, here).await?;
    watched.acts(&caller);
    caller.principal.enter(route.action)?;
    if !route.while_draining() {
        *standing = app.service.limiter.request(&caller.principal).await;
        standing.map_or(Ok(()), |standing| standing.admit())?;
    }
    if route.action == Action::Write {
        app.service.limiter.settle_quota(&caller.principal).await?;
    }
    watched.receive(&parts.method, &body);
    let signed = caller.signed.is_some();
    let body = RequestBody::new(body, app.pace, watched.read_to_end());
    let call = Call::new(app, caller, parts, parameters?, body, watched.context())?;
    let mut answer = watched.within((route.handler)(call)).await?;
    if signed {
        // Whoever has the URL has the right: it is neither to be kept on the way nor told to other sites.
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    Ok(answer)
}

/// Whether the connection can take another request after this one.
struct KeepAlive {
    version: Version,
    read_to_end: ReadToEnd,
}

impl KeepAlive {
    fn of(request: &Request) -> KeepAlive {
        KeepAlive { version: request.version(), read_to_end: ReadToEnd::of(request.body()) }
    }

    /// Not with the rest of a body in the way; streams of HTTP/2 do not have this trouble.
    fn ends(&self) -> bool {
        self.version < Version::HTTP_2 && !self.read_to_end.get()
    }
}

fn finish(app: &App, response: &mut Response, trace: TraceId, keep_alive: &KeepAlive) {
    let headers = response.headers_mut();
    if keep_alive.ends() {
        // Else a client would send its next request into a connection that is being closed (RFC 9112 §9.6).
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        headers.insert(HeaderName::from_static(REQUEST_ID), value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if app.hsts_seconds > 0
        && let Ok(value) = HeaderValue::try_from(format!("max-age={}", app.hsts_seconds))
    {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
}

/// One line per request: what succeeded reading is for the curious, the rest for the record.
fn log(
    trace: TraceId,
    route: &Route,
    method: &str,
    status: StatusCode,
    failure: Option<(Code, String)>,
    started: Instant,
) {
    let (trace_id, route, status) = (tracing::field::display(trace), route.path, status.as_u16());
    let duration_ms = started.elapsed().as_millis() as u64;
    match failure {
        Some((code, error)) => {
            let (fault, code) = (matches!(code.class(), Class::Fault), code.as_str());
            if fault {
                tracing::error!(trace_id, method, route, status, duration_ms, code, error, "request failed");
            } else {
                tracing::info!(trace_id, method, route, status, duration_ms, code, error, "request refused");
            }
        }
        None if is_reading(method) => {
            tracing::debug!(trace_id, method, route, status, duration_ms, "request")
        }
        None => tracing::info!(trace_id, method, route, status, duration_ms, "request"),
    }
}

fn is_reading(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}
