//! Registration with a Consul agent (<https://developer.hashicorp.com/consul/api-docs/agent/service>): whoever looks for nodes
//! asks it for those that pass both checks, that this process lives (TTL) and that it is ready (HTTP). A node that stops is in
//! maintenance first, so that nobody is sent there any more. Without Consul the node serves all the same.

use crate::config::Discovery;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the agent hears that this process lives, and after how long it thinks otherwise.
const BEAT_EVERY: Duration = Duration::from_secs(3);
const TTL: &str = "10s";
/// How often the agent asks whether it is ready, and how long it waits.
const READY_EVERY: &str = "5s";
const READY_PATIENCE: &str = "2s";
/// When the agent forgets a node that is not heard of; no less is possible, and nobody is sent there long before.
const FORGOTTEN_AFTER: &str = "1m0s";
/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first pause after a failure, which doubles until the last: with one call, less than ten seconds.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// Whether the agent knows this node: 1 or 0.
const REGISTERED: &str = "carrack_discovery_registered";
/// Calls of the agent that failed.
const FAILURES: &str = "carrack_discovery_failures_total";

/// Registers help texts with the installed recorder.
pub(crate) fn describe() {
    metrics::describe_gauge!(REGISTERED, "Whether the Consul agent knows this node.");
    metrics::describe_counter!(FAILURES, "Calls of the Consul agent that failed.");
}

/// A node and its agent.
pub(crate) struct Consul {
    client: Client,
    url: String,
    token: String,
    id: String,
    registration: Value,
}

/// Why a call failed.
enum Failed {
    /// The agent does not know the node, or no longer.
    Unknown,
    /// For the log.
    Other(String),
}

impl Consul {
    /// Of the node of this name, which listens here.
    pub(crate) fn new(
        settings: &Discovery,
        node: &str,
        scheme: &str,
        local: SocketAddr,
    ) -> Result<Consul, String> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build();
        let client = client.map_err(|error| format!("no HTTP client can be made: {error}"))?;
        let id = format!("{}-{node}", settings.service);
        let own = (!local.ip().is_unspecified()).then(|| local.ip().to_string());
        let address = Some(settings.address.clone()).filter(|address| !address.is_empty()).or(own);
        // The agent asks on the machine it shares with us, whatever others are told.
        let probed = if local.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], local.port()))
        } else {
            local
        };
        let mut registration = json!({
            "ID": id,
            "Name": settings.service,
            "Port": local.port(),
            "Tags": [scheme],
            "Meta": { "node": node, "version": env!("CARGO_PKG_VERSION") },
            "Checks": [
                {
                    "CheckID": format!("{id}:alive"), "Name": "alive", "TTL": TTL,
                    "DeregisterCriticalServiceAfter": FORGOTTEN_AFTER,
                },
                {
                    "CheckID": format!("{id}:ready"), "Name": "ready", "Method": "GET",
                    "HTTP": format!("{scheme}://{probed}/readyz"), "Interval": READY_EVERY, "Timeout": READY_PATIENCE,
                    // A certificate is of the name that clients use.
                    "TLSSkipVerify": scheme == "https",
                },
            ],
        });
        if let (Some(address), Some(fields)) = (address, registration.as_object_mut()) {
            fields.insert("Address".to_owned(), Value::from(address));
        }
        let url = settings.consul_url.trim_end_matches('/').to_owned();
        Ok(Consul { client, url, token: settings.token.clone(), id, registration })
    }

    async fn call(&self, path: &str, body: Option<&Value>) -> Result<(), Failed> {
        let mut request = self.client.request(Method::PUT, format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("x-consul-token", &self.token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| Failed::Other(error.without_url().to_string()));
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(StatusCode::NOT_FOUND) => Err(Failed::Unknown),
            Ok(status) => Err(Failed::Other(format!("it answered {}", status.as_u16()))),
            Err(failed) => Err(failed),
        }
    }

    async fn register(&self) -> Result<(), Failed> {
        self.call("/v1/agent/service/register?replace-existing-checks=true", Some(&self.registration)).await
    }

    async fn beat(&self) -> Result<(), Failed> {
        let status = json!({ "Status": "passing", "Output": "serving" });
        self.call(&format!("/v1/agent/check/update/{}:alive", self.id), Some(&status)).await
    }

    /// Registers, and stays so, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(self.stay()).await;
    }

    async fn stay(&self) {
        let (mut registered, mut is_known_away, mut pause) = (false, false, PAUSE_FIRST);
        loop {
            let done = if registered {
                self.beat().await
            } else {
                match self.register().await {
                    Ok(()) => self.beat().await,
                    failed => failed,
                }
            };
            match done {
                Ok(()) => {
                    if !registered {
                        tracing::info!(id = self.id, "registered with Consul");
                    }
                    (registered, is_known_away, pause) = (true, false, PAUSE_FIRST);
                    metrics::gauge!(REGISTERED).set(1.0);
                    tokio::time::sleep(BEAT_EVERY).await;
                    continue;
                }
                // It was started anew: it has to be told again, at once.
                Err(Failed::Unknown) if registered => {
                    registered = false;
                    continue;
                }
                Err(Failed::Unknown) => self.failed("it answered 404", &mut is_known_away),
                Err(Failed::Other(why)) => self.failed(&why, &mut is_known_away),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    fn failed(&self, why: &str, is_known_away: &mut bool) {
        metrics::counter!(FAILURES).increment(1);
        metrics::gauge!(REGISTERED).set(0.0);
        if !std::mem::replace(is_known_away, true) {
            tracing::warn!(
                why,
                "Consul cannot be told of this node: it serves all the same, and tries again"
            );
        }
    }

    /// Has nobody sent here any more.
    pub(crate) async fn drain(&self) {
        let path = format!("/v1/agent/service/maintenance/{}?enable=true&reason=stopping", self.id);
        self.at_last(&path).await;
    }

    /// Takes the node out.
    pub(crate) async fn leave(&self) {
        self.at_last(&format!("/v1/agent/service/deregister/{}", self.id)).await;
        metrics::gauge!(REGISTERED).set(0.0);
    }

    async fn at_last(&self, path: &str) {
        if let Err(Failed::Other(why)) = self.call(path, None).await {
            tracing::warn!(why, "Consul could not be told that this node stops: its checks will");
        }
    }
}
