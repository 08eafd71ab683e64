//! Webhooks, signed as Standard Webhooks (<https://www.standardwebhooks.com>): `webhook-id`, `webhook-timestamp`, and in
//! `webhook-signature` HMAC-SHA256 of `ID.TIMESTAMP.BODY`.

use crate::address::{AddressRules, Resolver};
use crate::cloudevent::{CONTENT_TYPE, render};
use crate::{Problem, Sink, wanted};
use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carrack_catalog::Event;
use carrack_domain::Clock;
use reqwest::{Client, StatusCode, Url, redirect};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause after a failure: the endpoint is somebody else's.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// No further event is begun after this: the lease has to be kept.
const TURN: Duration = Duration::from_secs(3);
/// The longest that somebody may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What a webhook's messages are signed with. It has no `Debug`.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in Base64; the sentence says what is wrong, and shows nothing of it.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let expected = || {
            "expected whsec_ and 24 to 64 bytes in Base64, such as \"whsec_$(openssl rand -base64 32)\""
                .to_owned()
        };
        let text = text.strip_prefix("whsec_").ok_or_else(expected)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| expected())?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(expected());
        }
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, at: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{at}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

/// An endpoint that is told by `POST`.
pub struct Webhook {
    name: String,
    url: Url,
    secret: Secret,
    types: Vec<String>,
    client: Client,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// The sentence says what is wrong with the URL.
    pub fn new(
        url: &str,
        secret: Secret,
        types: Vec<String>,
        rules: Arc<AddressRules>,
        clock: Arc<dyn Clock>,
    ) -> Result<Webhook, String> {
        let expected = || "expected https://... or http://... without user and password".to_owned();
        let url = Url::parse(url).map_err(|_| expected())?;
        let plain = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !plain {
            return Err(expected());
        }
        let host = url.host_str().ok_or_else(expected)?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && !rules.permits(address)
        {
            return Err(format!(
                "{address} is not a public address: name it in events.allow_addresses if it is meant"
            ));
        }
        let client = Client::builder()
            .dns_resolver(Arc::new(Resolver(rules)))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .user_agent(concat!("carrack/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client can be made: {error}"))?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, url.as_str().as_bytes());
        let tag = carrack_domain::id::hex(&digest.as_ref()[..4]);
        // The path may be a secret of its own, as the URLs of chat services are.
        let name = format!("webhook {host} {tag}");
        Ok(Webhook { name, url, secret, types, client, clock })
    }

    async fn post(&self, source: &str, event: &Event) -> Result<(), Problem> {
        let body = render(source, event).map_err(|error| Problem::new(format!("not an event: {error}")))?;
        let at = self.clock.now().as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", CONTENT_TYPE)
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", self.secret.sign(&event.id, at, &body))
            .body(body);
        let answer = request.send().await.map_err(|error| Problem::new(said(error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Err(Problem {
            reason: format!("it answered {}", status.as_u16()),
            retry_after: retry_after.map(|span| span.min(RETRY_AFTER_MAX)),
            // By Standard Webhooks: nobody is there any more, and nobody will be.
            is_final: status == StatusCode::GONE,
        })
    }
}

/// What an error says, with its causes, and without the URL.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[async_trait]
impl Sink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, kind: &str) -> bool {
        wanted(&self.types, kind)
    }

    fn pause_max(&self) -> Duration {
        PAUSE_MAX
    }

    async fn tell(&self, source: &str, events: &[&Event]) -> (usize, Option<Problem>) {
        let begun = Instant::now();
        for (taken, event) in events.iter().enumerate() {
            if taken > 0 && begun.elapsed() > TURN {
                return (taken, None);
            }
            if let Err(problem) = self.post(source, event).await {
                return (taken, Some(problem));
            }
        }
        (events.len(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Now;

    impl Clock for Now {
        fn now(&self) -> carrack_domain::Timestamp {
            carrack_domain::Timestamp::from_millis(0)
        }
    }

    /// The example of the specification's reference implementations.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn bad_settings_are_named_and_show_no_secret() {
        for text in ["", "geheim", "whsec_geheim!", "whsec_Z2VoZWlt"] {
            let said = Secret::parse(text).err().unwrap();
            assert!(said.contains("whsec_") && !said.contains("geheim") && !said.contains("Z2Vo"), "{said}");
        }
        let webhook = |url: &str, rules: AddressRules| {
            let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
            Webhook::new(url, secret, Vec::new(), Arc::new(rules), Arc::new(Now)).map(|webhook| webhook.name)
        };
        for url in [
            "",
            "ftp://host",
            "http://ann:geheim@host/",
            "http://127.0.0.1/",
            "http://[::1]:80/",
            "http://2130706433/",
        ] {
            let said = webhook(url, AddressRules::default()).err().unwrap();
            assert!(!said.contains("geheim"), "{said}");
        }
        let own = AddressRules { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
        let name = webhook("http://127.0.0.1/hook/geheim", own).unwrap();
        assert!(name.starts_with("webhook 127.0.0.1 ") && !name.contains("geheim"), "{name}");
    }
}
