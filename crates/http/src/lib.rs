//! The only room that knows HTTP semantics: parse, one service call, render.
//!
//! [`routes::ROUTES`] declares every route with the action it needs; [`pipeline`] runs each request through the same
//! steps: trace id, credentials, handler, error rendering, metrics. A resource has one file.

mod body;
mod buckets;
mod call;
mod conditional;
mod digests;
mod disposition;
mod files;
pub mod metrics;
mod openapi;
mod pipeline;
mod problem;
mod render;
mod rope;
mod routes;
mod system;
mod uploads;
mod zip;

use carrack_domain::{Clock, Entropy};
use carrack_service::Service;
use std::sync::Arc;
use std::time::Duration;

pub use openapi::document as openapi_document;
pub use routes::router;

/// What the handlers work with.
pub struct App {
    /// The product.
    pub service: Arc<Service>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for trace ids.
    pub entropy: Arc<dyn Entropy>,
    /// How clients reach this server, without a `/` at the end; from the `Host` header when absent.
    pub public_url: Option<String>,
    /// A request body that brings no byte for so long is given up.
    pub idle_timeout: Duration,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}
