//! Who is told of what happens.

use crate::config::{Config, Events};
use crate::system::SystemEntropy;
use carrack_catalog::EventCatalog;
use carrack_domain::Clock;
use carrack_events::{AddressRules, Amqp, IpNet, Options, Relay, Secret, Sink, Webhook};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The most endpoints: each has a task.
const WEBHOOKS_MAX: usize = 64;

/// Those that the settings name; the sentence says which setting is wrong, and shows no secret.
pub(crate) fn sinks(settings: &Events, clock: &Arc<dyn Clock>) -> Result<Vec<Arc<dyn Sink>>, String> {
    let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
    if settings.give_up_after < Duration::from_secs(1) {
        return Err("setting events.give_up_after: found less than 1s, expected at least 1s".to_owned());
    }
    if !settings.amqp_url.is_empty() {
        let sink = Amqp::new(&settings.amqp_url, &settings.exchange);
        sinks.push(Arc::new(
            sink.map_err(|problem| format!("setting events.amqp_url or exchange: {problem}"))?,
        ));
    }
    let range = |text: &String| -> Result<IpNet, String> {
        let found = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        found.ok_or_else(|| {
            format!("setting events.allow_addresses: found {text:?}, expected addresses, or ranges such as \"10.0.0.0/8\"")
        })
    };
    let allowed = settings.allow_addresses.iter().map(range).collect::<Result<_, _>>()?;
    let rules = Arc::new(AddressRules { allowed });
    if settings.webhooks.len() > WEBHOOKS_MAX {
        return Err(format!(
            "setting events.webhooks: found {}, expected at most {WEBHOOKS_MAX}",
            settings.webhooks.len()
        ));
    }
    for (number, hook) in settings.webhooks.iter().enumerate() {
        let wrong =
            |field: &str, problem: String| format!("setting events.webhooks[{number}].{field}: {problem}");
        let secret = Secret::parse(&hook.secret).map_err(|problem| wrong("secret", problem))?;
        let sink = Webhook::new(&hook.url, secret, hook.types.clone(), rules.clone(), clock.clone())
            .map_err(|problem| wrong("url", problem))?;
        if sinks.iter().any(|other| other.name() == sink.name()) {
            return Err(wrong("url", "it is there twice".to_owned()));
        }
        sinks.push(Arc::new(sink));
    }
    Ok(sinks)
}

/// The relay to them, which the catalog knows of.
pub(crate) async fn relay(
    config: &Config,
    catalog: Arc<dyn EventCatalog>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Relay>, String> {
    let public = config.server.public_url.trim_end_matches('/');
    let options = Options {
        source: if public.is_empty() { "/carrack".to_owned() } else { public.to_owned() },
        give_up_after: config.events.give_up_after,
        sinks: sinks(&config.events, &clock)?,
    };
    let relay = Relay::new(catalog, clock, Arc::new(SystemEntropy), options);
    relay.begin().await.map_err(|error| format!("events cannot be kept: {}", error.chain()))?;
    Ok(Arc::new(relay))
}
