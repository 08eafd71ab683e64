//! CloudEvents 1.0 in JSON (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).

use carrack_catalog::Event;
use serde_json::value::RawValue;

/// The media type of one event in structured mode.
pub(crate) const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// The type of an event of this kind.
pub(crate) fn type_of(kind: &str) -> String {
    format!("carrack.{kind}")
}

#[derive(serde::Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

/// An event as others read it.
pub(crate) fn render(source: &str, event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    let data: &RawValue = serde_json::from_str(&event.data)?;
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: &event.id,
        source,
        kind: type_of(&event.kind),
        subject: &event.subject,
        time: event.at.to_string(),
        datacontenttype: "application/json",
        data,
    })
}

#[cfg(test)]
pub(crate) fn sample(seq: u64) -> Event {
    Event {
        seq,
        id: format!("source-{seq}"),
        at: carrack_domain::Timestamp::from_millis(1_700_000_000_123),
        kind: "file.created".to_owned(),
        subject: "default/a".to_owned(),
        data: r#"{"bucket":"default","key":"a","size":7}"#.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_the_specification_demands() {
        let text = render("https://files.example.org", &sample(5)).unwrap();
        let event: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "source-5", "source": "https://files.example.org",
            "type": "carrack.file.created", "subject": "default/a", "time": "2023-11-14T22:13:20.123Z",
            "datacontenttype": "application/json", "data": {"bucket": "default", "key": "a", "size": 7},
        });
        assert_eq!(event, expected);
    }
}
