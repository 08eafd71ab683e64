//! A broker that speaks AMQP 0-9-1, such as RabbitMQ: a topic exchange, publisher confirms, and what no queue wanted comes back.

use crate::cloudevent::{CONTENT_TYPE, render, type_of};
use crate::metrics::UNROUTABLE;
use crate::{Problem, Sink};
use async_trait::async_trait;
use carrack_catalog::Event;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the broker may take to do anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause after a failure: the broker is ours, and has to be told within ten seconds of its coming back, of which
/// an attempt that came too early takes [`PATIENCE`].
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Nothing further is begun after this: the lease has to be kept.
const TURN: Duration = Duration::from_secs(3);
/// Bytes of a short string of the protocol.
const NAME_BYTES_MAX: usize = 255;
/// Kept by the broker across its restarts.
const PERSISTENT: u8 = 2;

struct Link {
    /// Dropping it closes the channel.
    _connection: Connection,
    channel: Channel,
}

/// See the module's documentation.
pub struct Amqp {
    uri: AMQPUri,
    exchange: ShortString,
    name: String,
    link: tokio::sync::Mutex<Option<Link>>,
    /// Kinds of which the log says that nobody wants them; as many as there are kinds.
    unwanted: Mutex<HashSet<String>>,
}

impl Amqp {
    /// The sentence says what is wrong with the URL, and shows nothing of it.
    pub fn new(url: &str, exchange: &str) -> Result<Amqp, String> {
        let expected = "expected \"amqp://user:password@host[:port][/vhost]\", or amqps:// with TLS";
        let uri: AMQPUri = url.parse().map_err(|_| expected.to_owned())?;
        if !(1..=NAME_BYTES_MAX).contains(&exchange.len()) {
            return Err(format!("expected the name of an exchange, 1 to {NAME_BYTES_MAX} bytes"));
        }
        let name = format!("amqp {exchange}");
        Ok(Amqp {
            uri,
            exchange: exchange.into(),
            name,
            link: tokio::sync::Mutex::default(),
            unwanted: Mutex::default(),
        })
    }

    async fn connect(&self) -> lapin::Result<Link> {
        let properties = ConnectionProperties::default().with_connection_name("carrack".into());
        let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
        let channel = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (exchange, kind) = (self.exchange.clone(), ExchangeKind::Topic);
        channel.exchange_declare(exchange, kind, durable, FieldTable::default()).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Link { _connection: connection, channel })
    }

    /// Publishes these, none of the same subject as another, and waits for the broker: how many it has taken.
    async fn publish(&self, link: &Link, source: &str, events: &[&Event]) -> (usize, Option<Problem>) {
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let body = match render(source, event) {
                Ok(body) => body,
                Err(error) => return (0, Some(Problem::new(format!("not an event: {error}")))),
            };
            let kind = type_of(&event.kind);
            let properties = BasicProperties::default()
                .with_content_type(CONTENT_TYPE.into())
                .with_delivery_mode(PERSISTENT)
                .with_message_id(event.id.as_str().into())
                .with_timestamp(event.at.as_secs().unsigned_abs())
                .with_type(kind.as_str().into());
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent =
                link.channel.basic_publish(self.exchange.clone(), kind.into(), options, &body, properties);
            match sent.await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => return (0, Some(Problem::new(error.to_string()))),
            }
        }
        for (taken, (confirm, event)) in confirms.into_iter().zip(events).enumerate() {
            match confirm.await {
                Ok(Confirmation::Ack(returned)) => {
                    if returned.is_some() {
                        self.note_unwanted(&event.kind);
                    }
                }
                Ok(Confirmation::Nack(_)) => return (taken, Some(Problem::new("the broker refused it"))),
                Ok(Confirmation::NotRequested) => {
                    return (taken, Some(Problem::new("the broker does not confirm")));
                }
                Err(error) => return (taken, Some(Problem::new(error.to_string()))),
            }
        }
        (events.len(), None)
    }

    /// An event that no queue is bound for is not for anybody: it is counted, and does not hold up the others.
    fn note_unwanted(&self, kind: &str) {
        ::metrics::counter!(UNROUTABLE).increment(1);
        let mut unwanted = self.unwanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if unwanted.insert(kind.to_owned()) {
            let kind = type_of(kind);
            tracing::warn!(kind, exchange = %self.exchange, "no queue is bound for such events: they are lost");
        }
    }

    async fn tell_all(&self, source: &str, events: &[&Event]) -> (usize, Option<Problem>) {
        let mut link = self.link.lock().await;
        let present = match link.take().filter(|link| link.channel.status().connected()) {
            Some(present) => present,
            None => match tokio::time::timeout(PATIENCE, self.connect()).await {
                Ok(Ok(new)) => new,
                Ok(Err(error)) => return (0, Some(Problem::new(error.to_string()))),
                Err(_) => return (0, Some(Problem::new("the broker does not answer"))),
            },
        };
        let mut taken = 0;
        let begun = Instant::now();
        while taken < events.len() && (taken == 0 || begun.elapsed() < TURN) {
            let some = distinct(&events[taken..]);
            let published = tokio::time::timeout(PATIENCE, self.publish(&present, source, some)).await;
            let (more, problem) =
                published.unwrap_or((0, Some(Problem::new("the broker does not confirm in time"))));
            taken += more;
            if problem.is_some() {
                // With the link, so that what was not confirmed is not confirmed later.
                return (taken, problem);
            }
        }
        *link = Some(present);
        (taken, None)
    }
}

/// Those at the beginning that are about different things: whatever becomes of one of them, none of the same subject was told
/// after it.
fn distinct<'a, 'b>(events: &'a [&'b Event]) -> &'a [&'b Event] {
    let mut subjects = HashSet::new();
    let end = events.iter().take_while(|event| subjects.insert(event.subject.as_str())).count();
    &events[..end]
}

#[async_trait]
impl Sink for Amqp {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, _kind: &str) -> bool {
        true
    }

    fn pause_max(&self) -> Duration {
        PAUSE_MAX
    }

    async fn tell(&self, source: &str, events: &[&Event]) -> (usize, Option<Problem>) {
        self.tell_all(source, events).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudevent::sample;

    #[test]
    fn what_is_about_the_same_goes_one_after_the_other() {
        let of = |subject: &str| Event { subject: subject.to_owned(), ..sample(1) };
        let events = ["a", "b", "c", "a", "d"].map(of);
        let events: Vec<&Event> = events.iter().collect();
        assert_eq!((distinct(&events).len(), distinct(&events[3..]).len(), distinct(&[]).len()), (3, 2, 0));
    }

    #[test]
    fn bad_settings_show_no_secret() {
        for url in ["", "http://ann:geheim@host", "amqp://ann:geheim@host:x"] {
            let said = Amqp::new(url, "carrack").err().unwrap();
            assert!(said.contains("amqp://") && !said.contains("geheim"), "{said}");
        }
        assert!(Amqp::new("amqp://ann:geheim@host/%2f", "").is_err());
        assert_eq!(Amqp::new("amqp://ann:geheim@host/%2f", "carrack").unwrap().name(), "amqp carrack");
    }
}
