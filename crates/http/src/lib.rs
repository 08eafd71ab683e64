//! The only room that knows HTTP semantics: parse, one service call, render.
//!
//! [`routes::ROUTES`] declares every route with the action it needs; [`pipeline`] runs each request through the same
//! steps: trace id, credentials, handler, error rendering, metrics. A resource has one file.

mod archives;
mod audit;
mod body;
mod buckets;
mod call;
pub mod check;
mod cluster;
mod compress;
mod conditional;
mod cors;
mod credentials;
mod digests;
mod disposition;
mod files;
mod guard;
mod limits;
mod links;
mod live;
pub mod metrics;
mod openapi;
mod pipeline;
mod problem;
mod render;
mod representation;
mod resumable;
mod rope;
mod routes;
mod sign;
mod system;
mod tokens;
mod tus;
mod uploads;
mod watched;
mod watching;
mod ws;
mod zip;

use carrack_domain::{Entropy, TraceId};
use carrack_service::Service;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::task::TaskTracker;

pub use body::Pace;
pub use cors::Cors;
pub use credentials::Proxies;
pub use openapi::document as openapi_document;
pub use representation::Representations;
pub use routes::router;

/// What the handlers work with.
pub struct App {
    /// The product.
    pub service: Arc<Service>,
    /// Names for requests.
    pub traces: Traces,
    /// How clients reach this server, without a `/` at the end; from the `Host` header when absent.
    pub public_url: Option<String>,
    /// `http` or `https`: what is spoken here.
    pub scheme: &'static str,
    /// For how many seconds browsers shall come by HTTPS alone; 0: they are not told (RFC 6797).
    pub hsts_seconds: u64,
    /// Which proxies are believed when they say where a request comes from.
    pub proxies: Proxies,
    /// Which web pages may talk to it.
    pub cors: Cors,
    /// How slowly a request's body may come before it is given up.
    pub pace: Pace,
    /// Headers of hot files.
    pub representations: Representations,
    /// Owns what goes on after its answer, such as WebSockets; awaited at shutdown.
    pub tasks: TaskTracker,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// Trace ids: a random half for the process and a count, so that no two requests of any two runs share one. They name,
/// they do not protect: nothing is reached by knowing one.
pub struct Traces {
    process: [u8; 8],
    count: AtomicU64,
}

impl Traces {
    /// Ids of this run.
    pub fn new(entropy: &dyn Entropy) -> Traces {
        let mut process = [0; 8];
        entropy.fill(&mut process);
        Traces { process, count: AtomicU64::new(0) }
    }

    fn next(&self) -> TraceId {
        // An odd factor visits every value once; it spreads the count over all digits.
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.process);
        bytes[8..].copy_from_slice(&count.to_be_bytes());
        TraceId::from_bytes(bytes)
    }
}
