//! What is recorded of a request: where it comes from, who makes it, what it is about, how it ended. It is learnt on the way
//! through the pipeline, and written down when this is dropped, so that no way for a request to end leaves no record.

use crate::App;
use crate::body::{ReadToEnd, ResponseBody};
use crate::call::Parameters;
use crate::credentials::Caller;
use crate::metrics::MethodLabel;
use crate::routes::Route;
use carrack_domain::audit::{Context, Kind, Place, Record};
use carrack_domain::policy::Circumstances;
use carrack_domain::{ArchiveId, Code, Result, Role, TraceId};
use http::Method;
use http_body::Body;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Instant;

/// Transfers of more bytes, or of nobody knows how many, leave a record when they begin, too.
const LONG_BYTES: u64 = 1 << 20;

/// What a route is called in the log. Probes and documentation are not recorded, and neither is what a method could do.
pub(crate) fn action(methods: &[Method], path: &str) -> Option<&'static str> {
    let method = methods.first()?;
    Some(match path {
        "/metrics" => "metrics.read",
        "/v1/buckets" => "bucket.list",
        "/v1/buckets/{bucket}" => by_method(method, ["bucket.read", "bucket.put", "", "", "bucket.delete"])?,
        "/v1/files/{bucket}" => "file.list",
        "/v1/files/{bucket}/" | "/v1/files/{bucket}/{*key}" => {
            by_method(method, ["file.read", "file.put", "upload.create", "", "file.delete"])?
        }
        "/v1/resumable/{id}" | "/v1/tus/{id}" => by_method(
            method,
            ["upload.status", "upload.status", "upload.append", "upload.append", "upload.delete"],
        )?,
        "/v1/tus" | "/v1/tus/" => by_method(method, ["", "", "upload.create", "", ""])?,
        "/v1/uploads" => by_method(method, ["upload.list", "", "upload.create", "", ""])?,
        "/v1/uploads/{id}" => by_method(method, ["upload.status", "", "", "", "upload.delete"])?,
        "/v1/uploads/{id}/parts/{number}" => "upload.part",
        "/v1/uploads/{id}/parts/{number}/url" | "/v1/uploads/{id}/part-urls" => "upload.sign",
        "/v1/uploads/{id}/complete" => "upload.complete",
        "/v1/sign" => "file.sign",
        "/v1/links" => by_method(method, ["link.list", "", "link.create", "", ""])?,
        "/v1/links/{id}" => by_method(method, ["link.read", "", "", "", "link.revoke"])?,
        "/d/{token}" => by_method(method, ["link.download", "", "link.answer", "", ""])?,
        "/d/{token}/c/{claim}" => "link.download",
        "/v1/tokens" => by_method(method, ["token.list", "", "token.create", "", ""])?,
        "/v1/tokens/denied" => by_method(method, ["token.list", "", "token.deny", "", ""])?,
        "/v1/tokens/{id}" => "token.delete",
        "/v1/me" => "session.read",
        "/v1/session" => by_method(method, ["", "", "session.create", "", "session.delete"])?,
        "/v1/zip/{bucket}" => "zip.read",
        "/v1/archives" => by_method(method, ["archive.list", "", "archive.create", "", ""])?,
        "/v1/archives/{id}" => by_method(method, ["archive.status", "", "", "", "archive.delete"])?,
        "/v1/archives/{id}/pause" => "archive.pause",
        "/v1/archives/{id}/resume" => "archive.resume",
        "/v1/archives/{id}/cancel" => "archive.cancel",
        "/v1/archives/{id}/content" => "archive.read",
        "/v1/archives/{id}/events" => "archive.watch",
        "/v1/ws" => "events.watch",
        "/v1/audit" => "audit.read",
        "/v1/cluster" => "cluster.read",
        _ => return None,
    })
}

/// The name for GET (or HEAD), PUT, POST, PATCH or DELETE.
fn by_method(method: &Method, names: [&'static str; 5]) -> Option<&'static str> {
    let [get, put, post, patch, delete] = names;
    let name = match *method {
        Method::GET | Method::HEAD => get,
        Method::PUT => put,
        Method::POST => post,
        Method::PATCH => patch,
        Method::DELETE => delete,
        _ => "",
    };
    (!name.is_empty()).then_some(name)
}

/// See the module's documentation.
pub(crate) struct Watched {
    read_to_end: ReadToEnd,
    recorded: Option<Box<Recorded>>,
}

struct Recorded {
    app: Arc<App>,
    context: Arc<Context>,
    action: &'static str,
    method: &'static str,
    started: Instant,
    received: ReadToEnd,
    /// `None` while there is no answer.
    status: Option<u16>,
    code: Option<Code>,
    sent: u64,
    end: End,
}

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There was none, or nobody took it.
    Abandoned,
    Whole,
    Cut,
    Broken,
}

impl Watched {
    /// Of a request that comes in now.
    pub(crate) fn begin(
        app: &Arc<App>,
        route: &Route,
        method: MethodLabel,
        trace: TraceId,
        here: &Circumstances,
        read_to_end: &ReadToEnd,
    ) -> Watched {
        let action = route.recorded.filter(|_| app.service.audit.is_on());
        let recorded = action.map(|action| {
            Box::new(Recorded {
                app: app.clone(),
                context: Arc::new(Context::new(trace, here.address, here.now)),
                action,
                method: method.as_str(),
                started: Instant::now(),
                received: read_to_end.clone(),
                status: None,
                code: None,
                sent: 0,
                end: End::Abandoned,
            })
        });
        Watched { read_to_end: read_to_end.clone(), recorded }
    }

    /// Whether the request's body was read.
    pub(crate) fn read_to_end(&self) -> ReadToEnd {
        self.read_to_end.clone()
    }

    /// What goes with all work for the request.
    pub(crate) fn context(&self) -> Option<Arc<Context>> {
        self.recorded.as_ref().map(|recorded| recorded.context.clone())
    }

    /// What its path says it is about. Tokens of links, and claims, are secrets.
    pub(crate) fn about(&self, path: &Result<Parameters>) {
        let (Some(recorded), Ok(path)) = (&self.recorded, path) else { return };
        let text = |name| path.get(name).map(str::to_owned);
        // All ids are written alike; what is written otherwise is none, and may be anything.
        let id = path.get("id").filter(|id| ArchiveId::parse(id).is_some()).map(str::to_owned);
        let place = Place { bucket: text("bucket"), key: text("key"), id };
        if place != Place::default() {
            recorded.context.about(place);
        }
    }

    /// Lets it in, when its end can be recorded.
    pub(crate) async fn admit(&mut self) -> Result<()> {
        let Some(recorded) = &self.recorded else { return Ok(()) };
        let admitted = recorded.app.service.audit.admit().await;
        if admitted.is_err() {
            // There is no room for its own record.
            self.forget();
        }
        admitted
    }

    fn forget(&mut self) {
        if let Some(recorded) = self.recorded.take() {
            recorded.forget();
        }
    }

    /// Who makes it.
    pub(crate) fn acts(&self, caller: &Caller) {
        if let Some(recorded) = &self.recorded {
            recorded.context.acts(caller.principal.identity().clone(), caller.via.clone());
        }
    }

    /// A body is about to be received. That of a guest may still be refused, as often as anybody likes: only its end is
    /// recorded.
    pub(crate) fn receive(&self, method: &Method, body: &Incoming) {
        let Some(recorded) = self.recorded.as_ref().filter(|recorded| !recorded.of_anybody()) else { return };
        let brings = matches!(*method, Method::PUT | Method::POST | Method::PATCH);
        if brings && body.size_hint().upper().is_none_or(|bytes| bytes > LONG_BYTES) {
            recorded.app.service.audit.write(&recorded.record(Kind::Begin));
        }
    }

    /// Runs its work, whose changes are recorded as its own.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.recorded {
            Some(recorded) => carrack_service::audit::within(recorded.context.clone(), work).await,
            None => work.await,
        }
    }

    /// What is answered.
    pub(crate) fn answer(&mut self, status: u16, code: Option<Code>, body: &ResponseBody) {
        let Some(recorded) = &mut self.recorded else { return };
        (recorded.status, recorded.code) = (Some(status), code);
        if body.remaining().is_none_or(|bytes| bytes > LONG_BYTES) {
            recorded.app.service.audit.write(&recorded.record(Kind::Begin));
        }
    }

    /// The answer ended.
    pub(crate) fn end(mut self, sent: u64, broken: bool, whole: bool) {
        let Some(recorded) = &mut self.recorded else { return };
        recorded.sent = sent;
        recorded.end = match (broken, whole) {
            (true, _) => End::Broken,
            (false, true) => End::Whole,
            (false, false) => End::Cut,
        };
    }
}

impl Recorded {
    /// Whether it is made by nobody in particular.
    fn of_anybody(&self) -> bool {
        self.context.identity().is_none_or(|identity| identity.role == Role::Guest)
    }

    fn record(&self, kind: Kind) -> Record<'_> {
        let took = self.started.elapsed();
        let mut record = self.context.record(kind, self.context.began().after(took), self.action);
        record.method = Some(self.method);
        if kind == Kind::End {
            record.status = self.status;
            record.code = self.code;
            record.took_ms = u64::try_from(took.as_millis()).ok();
            record.sent = Some(self.sent);
            record.received = Some(self.received.bytes());
            record.result = Some(self.result());
        } else {
            record.status = self.status;
        }
        record
    }

    fn result(&self) -> &'static str {
        match (self.end, self.status, self.code) {
            (End::Abandoned, None, _) => "abandoned",
            (_, _, Some(Code::BodyIncomplete | Code::RequestTimeout)) => "cut",
            (_, Some(401 | 403 | 404 | 410 | 429), _) => "denied",
            (_, Some(500..), _) | (End::Broken, _, _) => "failed",
            (_, Some(400..), _) => "refused",
            (End::Cut | End::Abandoned, _, _) if self.app.service.health.draining() => "stopped",
            (End::Cut | End::Abandoned, _, _) => "cut",
            (End::Whole, _, _) => "complete",
        }
    }

    /// Leaves no record.
    fn forget(mut self) {
        self.action = "";
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if self.action.is_empty() {
            return;
        }
        let record = self.record(Kind::End);
        let refused = self.status.is_none_or(|status| status >= 400) && self.sent < LONG_BYTES;
        if self.of_anybody() && refused {
            self.app.service.audit.refused(&record);
        } else {
            self.app.service.audit.write(&record);
        }
    }
}
