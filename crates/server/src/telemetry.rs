//! Logs, metrics, and what is said on the terminal.

use crate::config::{LogFormat, Telemetry};
use crate::recorder::Metrics;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::io::{IsTerminal, Write};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::targets::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Seconds: from a catalog look-up to a slow upload.
const DURATION_BUCKETS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0, 600.0,
];
/// Commands in one commit.
const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// From a KiB to a TiB.
const BYTES_BUCKETS: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];

/// Log lines go to standard error from now on.
pub(crate) fn start_logging(settings: &Telemetry) {
    let filter: Targets = settings.log.parse().unwrap_or_default();
    let text = match settings.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if text {
        tracing_subscriber::registry().with(layer.with_target(false).with_filter(filter)).try_init()
    } else {
        let layer = layer.json().flatten_event(true).with_current_span(true).with_span_list(false);
        tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
    };
    if let Err(error) = started {
        complain(&format!("logging could not be started: {error}"));
    }
}

/// Installs the recorder that the rooms' metrics go to.
pub(crate) fn start_metrics() -> Result<Metrics, String> {
    let exporter = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATION_BUCKETS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Full("carrack_catalog_commands_per_commit".to_owned()),
                COUNT_BUCKETS,
            )
        })
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Prefix("carrack_network_connection_".to_owned()),
                BYTES_BUCKETS,
            )
        })
        .map_err(|error| format!("the metrics could not be set up: {error}"))?
        .build_recorder();
    let metrics = Metrics::install(exporter)?;
    carrack_catalog::metrics::describe();
    carrack_storage::metrics::describe();
    carrack_service::metrics::describe();
    crate::clock::describe();
    crate::discovery::describe();
    carrack_state::describe();
    carrack_events::metrics::describe();
    carrack_http::metrics::describe();
    carrack_transport::metrics::describe();
    describe_process();
    metrics::gauge!("carrack_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(metrics)
}

fn describe_process() {
    metrics::describe_gauge!("process_resident_memory_bytes", metrics::Unit::Bytes, "Resident memory.");
    metrics::describe_gauge!("process_open_fds", "Open file descriptors.");
    metrics::describe_gauge!("carrack_build_info", "Always 1; the labels say what runs.");
}

/// Renders all metrics, those of the process taken at this moment.
pub(crate) fn render(metrics: &Metrics) -> String {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(descriptors.count() as f64);
    }
    metrics.render()
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Says something to whoever started the server. A closed standard output is no reason to stop serving.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "standard output cannot be written to");
    }
}

/// A line on standard error, from a command that is not the server.
pub(crate) fn note(message: &str) {
    // Where that is closed there is nobody to tell.
    writeln!(std::io::stderr(), "{message}").ok();
}

/// Tells whoever started the server why it does not run. There is nowhere left to report a failure of this to.
pub(crate) fn complain(message: &str) {
    let mut out = std::io::stderr().lock();
    for line in message.lines() {
        if writeln!(out, "carrack: {line}").is_err() {
            return;
        }
    }
}
