//! Every route there is, with the action it needs.

use crate::body::ResponseBody;
use crate::call::{Call, Parameters};
use crate::metrics::Meters;
use crate::render::Response;
use crate::{
    App, archives, audit, buckets, cluster, files, links, live, pipeline, resumable, sign, system, tokens,
    tus, uploads, watched, ws, zip,
};
use carrack_domain::error::Fact;
use carrack_domain::{Action, Code, Error, Result};
use carrack_service::keys::Purpose;
use http::Method;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};

/// A handler: a call in, an answer or an error out.
pub(crate) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// One method of one resource.
pub(crate) struct Route {
    pub(crate) methods: &'static [Method],
    /// The template, which is also the metrics' label.
    pub(crate) path: &'static str,
    /// What has to be allowed; nothing but `Public` is reached without credentials.
    pub(crate) action: Action,
    /// What it is called in the audit log; `None`: it is not recorded.
    pub(crate) recorded: Option<&'static str>,
    /// What a URL of it may be signed for.
    pub(crate) signed: Option<Purpose>,
    pub(crate) handler: Handler,
    meters: OnceLock<Meters>,
}

impl Route {
    /// This route's meters, looked up in the recorder once.
    pub(crate) fn meters(&self) -> &Meters {
        self.meters.get_or_init(|| Meters::new(self.path))
    }

    /// Whether it is answered although the server is stopping: what tells the outside so. All else is new work.
    pub(crate) fn while_draining(&self) -> bool {
        matches!(self.path, "/livez" | "/readyz" | "/metrics")
    }
}

macro_rules! routes {
    ($($methods:tt $path:literal $action:ident $handler:path;)*) => {
        /// The table. A route that is not in it does not exist.
        pub(crate) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| vec![$(
            Route {
                methods: methods!($methods),
                path: $path,
                action: Action::$action,
                recorded: watched::action(methods!($methods), $path),
                signed: signable($path),
                handler: |call| Box::pin($handler(call)),
                meters: OnceLock::new(),
            },
        )*]);
    };
}

/// What URLs of a route may be signed for; which method is a matter of the signature.
fn signable(path: &str) -> Option<Purpose> {
    match path {
        "/v1/uploads/{id}/parts/{number}" => Some(Purpose::Part),
        "/v1/files/{bucket}/{*key}" => Some(Purpose::File),
        _ => None,
    }
}

macro_rules! methods {
    (GET) => {
        &[Method::GET]
    };
    ([GET HEAD]) => {
        &[Method::GET, Method::HEAD]
    };
    (PUT) => {
        &[Method::PUT]
    };
    (POST) => {
        &[Method::POST]
    };
    (DELETE) => {
        &[Method::DELETE]
    };
    (PATCH) => {
        &[Method::PATCH]
    };
    (OPTIONS) => {
        &[Method::OPTIONS]
    };
    (HEAD) => {
        &[Method::HEAD]
    };
}

routes! {
    [GET HEAD] "/livez" Public system::livez;
    [GET HEAD] "/readyz" Public system::readyz;
    [GET HEAD] "/openapi.json" Public system::openapi;
    [GET HEAD] "/docs" Public system::docs;
    [GET HEAD] "/docs/" Public system::docs;
    [GET HEAD] "/docs/{*rest}" Public system::docs;
    [GET HEAD] "/metrics" Admin system::metrics;
    GET "/v1/cluster" Admin cluster::get;
    GET "/v1/buckets" List buckets::list;
    PUT "/v1/buckets/{bucket}" Admin buckets::put;
    GET "/v1/buckets/{bucket}" Admin buckets::get;
    DELETE "/v1/buckets/{bucket}" Admin buckets::delete;
    GET "/v1/files/{bucket}" List files::list;
    [GET HEAD] "/v1/files/{bucket}/" Read files::get;
    PUT "/v1/files/{bucket}/" Write files::put;
    DELETE "/v1/files/{bucket}/" Delete files::delete;
    [GET HEAD] "/v1/files/{bucket}/{*key}" Read files::get;
    PUT "/v1/files/{bucket}/{*key}" Write files::put;
    DELETE "/v1/files/{bucket}/{*key}" Delete files::delete;
    POST "/v1/files/{bucket}/{*key}" Write resumable::post;
    OPTIONS "/v1/files/{bucket}/{*key}" Public resumable::options;
    [GET HEAD] "/v1/resumable/{id}" Write resumable::head;
    PATCH "/v1/resumable/{id}" Write resumable::patch;
    DELETE "/v1/resumable/{id}" Write resumable::delete;
    OPTIONS "/v1/resumable/{id}" Public resumable::options;
    GET "/v1/uploads" Write uploads::list;
    POST "/v1/uploads" Write uploads::create;
    GET "/v1/uploads/{id}" Write uploads::status;
    DELETE "/v1/uploads/{id}" Write uploads::delete;
    PUT "/v1/uploads/{id}/parts/{number}" Write uploads::put_part;
    GET "/v1/uploads/{id}/parts/{number}/url" Write sign::part_url;
    POST "/v1/uploads/{id}/part-urls" Write sign::part_urls;
    POST "/v1/uploads/{id}/complete" Write uploads::complete;
    POST "/v1/sign" Share sign::sign;
    GET "/v1/links" Share links::list;
    POST "/v1/links" Share links::create;
    GET "/v1/links/{id}" Share links::get;
    DELETE "/v1/links/{id}" Share links::revoke;
    [GET HEAD] "/d/{token}" Public links::open;
    POST "/d/{token}" Public links::answer;
    [GET HEAD] "/d/{token}/c/{claim}" Public links::use_claim;
    GET "/v1/tokens" Admin tokens::list;
    POST "/v1/tokens" Admin tokens::create;
    GET "/v1/tokens/denied" Admin tokens::denied;
    POST "/v1/tokens/denied" Admin tokens::deny;
    DELETE "/v1/tokens/{id}" Admin tokens::revoke;
    GET "/v1/me" Identify tokens::me;
    POST "/v1/session" Public tokens::begin_session;
    DELETE "/v1/session" Public tokens::end_session;
    OPTIONS "/v1/tus" Public tus::options;
    POST "/v1/tus" Write tus::collection;
    OPTIONS "/v1/tus/" Public tus::options;
    POST "/v1/tus/" Write tus::collection;
    OPTIONS "/v1/tus/{id}" Public tus::options;
    HEAD "/v1/tus/{id}" Write tus::resource;
    PATCH "/v1/tus/{id}" Write tus::resource;
    DELETE "/v1/tus/{id}" Write tus::resource;
    POST "/v1/tus/{id}" Write tus::resource;
    [GET HEAD] "/v1/zip/{bucket}" Archive zip::get;
    GET "/v1/archives" Archive archives::list;
    POST "/v1/archives" Archive archives::create;
    GET "/v1/archives/{id}" Archive archives::get;
    DELETE "/v1/archives/{id}" Archive archives::delete;
    POST "/v1/archives/{id}/pause" Archive archives::pause;
    POST "/v1/archives/{id}/resume" Archive archives::resume;
    POST "/v1/archives/{id}/cancel" Archive archives::cancel;
    [GET HEAD] "/v1/archives/{id}/content" Archive archives::content;
    GET "/v1/archives/{id}/events" Archive live::events;
    GET "/v1/ws" List ws::open;
    GET "/v1/audit" Admin audit::list;
}

/// What a resource can be asked to do, found by its path.
static RESOURCES: LazyLock<matchit::Router<Resource>> = LazyLock::new(|| {
    let mut resources: BTreeMap<&str, Vec<(&Method, &Route)>> = BTreeMap::new();
    for route in ROUTES.iter() {
        let methods = route.methods.iter().map(|method| (method, route));
        resources.entry(route.path).or_default().extend(methods);
    }
    let mut router = matchit::Router::new();
    for (path, routes) in resources {
        if let Err(error) = router.insert(path, Resource(routes)) {
            // A mistake in the table above, which every test of it notices.
            tracing::error!(path, %error, "a route cannot be reached");
        }
    }
    router
});

/// The routes of one path, by method.
struct Resource(Vec<(&'static Method, &'static Route)>);

impl Resource {
    fn route(&self, method: &Method) -> Option<&'static Route> {
        self.0.iter().find_map(|(known, route)| (*known == method).then_some(*route))
    }
}

/// All routes as a service for the transport. Not a library's router, which costs a request of 4 KiB a sixteenth of its
/// time (decision 0039).
#[derive(Clone)]
pub struct Router {
    app: Arc<App>,
}

/// All routes of `app`.
pub fn router(app: Arc<App>) -> Router {
    Router { app }
}

impl Service<Request<Incoming>> for Router {
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (route, parameters) = match RESOURCES.at(request.uri().path()) {
            Ok(found) => {
                let route = found.value.route(request.method()).unwrap_or(&NO_SUCH_METHOD);
                (route, Parameters::of(found.params.iter()))
            }
            Err(_) => (&NOWHERE, Ok(Parameters::default())),
        };
        let app = self.app.clone();
        Box::pin(async move { Ok(pipeline::serve(app, route, parameters, request).await) })
    }
}

/// What a path without a route comes to: a request like any other, counted and logged.
static NOWHERE: Route = Route {
    methods: &[],
    path: "(none)",
    action: Action::Public,
    recorded: None,
    signed: None,
    handler: |_| {
        Box::pin(async {
            Err(Error::new(Code::RouteNotFound, "Nothing is at this path. /docs says what there is."))
        })
    },
    meters: OnceLock::new(),
};

/// What a method that the resource does not have comes to.
static NO_SUCH_METHOD: Route = Route {
    methods: &[],
    path: "(method)",
    action: Action::Public,
    recorded: None,
    signed: None,
    handler: |call| {
        Box::pin(async move {
            let allowed = allowed(call.path());
            Err(Error::new(Code::MethodNotAllowed, format!("This resource takes {allowed}."))
                .with_fact(Fact::Allowed(allowed)))
        })
    },
    meters: OnceLock::new(),
};

/// The methods of the resource at this path.
fn allowed(path: &str) -> String {
    let resource = RESOURCES.at(path).map(|found| found.value);
    let names = resource.iter().flat_map(|resource| resource.0.iter().map(|(method, _)| method.as_str()));
    names.collect::<Vec<&str>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Documented and served are the same set.
    #[test]
    fn every_route_is_documented_and_every_documented_route_is_served() {
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
        let mut served = BTreeSet::new();
        for route in ROUTES.iter().filter(|r| !r.path.ends_with('/') && !r.path.starts_with("/docs")) {
            for method in route.methods {
                let name = method.as_str();
                let head_of_system = name == "HEAD" && !route.path.starts_with("/v1");
                if !head_of_system {
                    served.insert((name.to_owned(), route.path.replace("{*", "{")));
                }
            }
        }
        assert_eq!(documented, served);
    }

    #[test]
    fn every_route_but_these_is_recorded() {
        let probes = ["/livez", "/readyz", "/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];
        for route in ROUTES.iter() {
            let silent = probes.contains(&route.path) || route.methods == [Method::OPTIONS];
            assert_eq!(route.recorded.is_none(), silent, "{}", route.path);
        }
    }

    #[test]
    fn every_route_is_found_by_a_path_of_its_own() {
        for route in ROUTES.iter() {
            let path = route.path.replace("{*rest}", "a/b").replace("{*key}", "a/b%20c");
            let path = path.replace(['{', '}'], "");
            let found = RESOURCES.at(&path).unwrap();
            for method in route.methods {
                let reached = found.value.route(method).unwrap();
                assert!(std::ptr::eq(reached, route), "{method} {path} comes to {}", reached.path);
            }
        }
    }

    #[test]
    fn only_these_are_public() {
        let public: Vec<&Route> = ROUTES.iter().filter(|r| r.action == Action::Public).collect();
        let tus = public.iter().filter(|r| r.path.starts_with("/v1/tus"));
        assert!(tus.into_iter().all(|r| r.methods == [Method::OPTIONS]), "what a server can do is no secret");
        let public: BTreeSet<&str> = public.into_iter().map(|r| r.path).collect();
        assert_eq!(
            public,
            BTreeSet::from([
                "/livez",
                "/readyz",
                "/openapi.json",
                "/docs",
                "/docs/",
                "/docs/{*rest}",
                "/v1/session",
                "/d/{token}",
                "/d/{token}/c/{claim}",
                "/v1/files/{bucket}/{*key}",
                "/v1/resumable/{id}",
                "/v1/tus",
                "/v1/tus/",
                "/v1/tus/{id}"
            ])
        );
    }
}
