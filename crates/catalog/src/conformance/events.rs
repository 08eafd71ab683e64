//! The outbox.

use super::{NOW, assert_code, bucket_name, key, later, new_file, put_bucket, put_file, upload};
use crate::Catalog;
use crate::events::{Event, EventCatalog};
use carrack_domain::file::Precondition;
use carrack_domain::{Code, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(60);

/// Runs everything. `make` gives a new, empty catalog each time, which keeps events.
pub async fn run<C: Catalog + EventCatalog>(make: impl AsyncFn() -> Arc<C>) {
    what_is_made_is_told_and_what_fails_is_not(&*make().await).await;
    sinks_go_their_own_ways(&*make().await).await;
    one_at_a_time_tells_a_sink(&*make().await).await;
    what_all_have_passed_is_dropped(&*make().await).await;
    many_changes_at_once(make().await).await;
}

async fn all<C: EventCatalog>(catalog: &C) -> Vec<Event> {
    catalog.events(0, 1000).await.unwrap()
}

async fn what_is_made_is_told_and_what_fails_is_not<C: Catalog + EventCatalog>(catalog: &C) {
    let name = bucket_name("events");
    put_bucket(catalog, &name, Some(100)).await;
    put_file(catalog, &name, "ü/a\"b", 1, 60).await;
    let too_large = new_file(&name, &key("b"), super::blob(2, 60));
    assert_code(catalog.commit_file(too_large).await, Code::QuotaExceeded, "commit_file");
    let session = upload(3, &name, "u", 10);
    catalog.create_upload(&session).await.unwrap();
    catalog.expire_uploads(later(3600), 10).await.unwrap();
    catalog.delete_file(&name, &key("ü/a\"b"), &Precondition::None).await.unwrap();
    let events = all(catalog).await;
    let id = session.id.to_string();
    let said: Vec<(&str, &str)> =
        events.iter().map(|event| (event.kind.as_str(), event.subject.as_str())).collect();
    let expected = [
        ("bucket.created", "events"),
        ("file.created", "events/ü/a\"b"),
        ("upload.created", id.as_str()),
        ("upload.expired", id.as_str()),
        ("file.deleted", "events/ü/a\"b"),
    ];
    assert_eq!(said, expected);
    let data: serde_json::Value = serde_json::from_str(&events[1].data).unwrap();
    assert_eq!(
        (&data["bucket"], &data["key"], &data["size"]),
        (&"events".into(), &"ü/a\"b".into(), &60.into())
    );
    assert!(data["etag"].as_str().is_some_and(|etag| etag.starts_with('"')), "{data}");
    assert!(events.is_sorted_by(|one, two| one.seq < two.seq && one.id != two.id && one.at <= two.at));
    assert_eq!(all(catalog).await, events, "the same each time");
    assert_eq!(catalog.events(events[2].seq, 1).await.unwrap(), events[3..4]);
}

async fn sinks_go_their_own_ways<C: Catalog + EventCatalog>(catalog: &C) {
    let name = bucket_name("events");
    put_bucket(catalog, &name, None).await;
    let names = ["one".to_owned(), "two".to_owned()];
    catalog.set_sinks(&names).await.unwrap();
    put_file(catalog, &name, "a", 1, 1).await;
    put_file(catalog, &name, "b", 2, 1).await;
    let one = catalog.take_turn("one", [1; 16], LEASE).await.unwrap().unwrap();
    let events = catalog.events(one.passed, 10).await.unwrap();
    assert_eq!(events.len(), 2, "what came before the sink is not told");
    catalog.pass("one", one.fence, events[0].seq).await.unwrap();
    let two = catalog.take_turn("two", [1; 16], LEASE).await.unwrap().unwrap();
    assert_eq!(two.passed, one.passed);
    catalog.note_failure("two", two.fence, NOW, "refused", false).await.unwrap();
    catalog.note_failure("two", two.fence, later(9), "refused again", false).await.unwrap();
    let sinks = catalog.sinks().await.unwrap();
    assert_eq!((sinks[0].pending, sinks[1].pending), (1, 2));
    assert_eq!((sinks[0].failing_since, sinks[1].failing_since), (None, Some(NOW)), "since the first");
    assert_eq!(sinks[1].problem.as_deref(), Some("refused again"));
    catalog.note_failure("two", two.fence, later(9), "gone", true).await.unwrap();
    assert!(catalog.sinks().await.unwrap()[1].is_dead);
    assert_eq!(catalog.take_turn("two", [1; 16], LEASE).await.unwrap(), None, "it is told nothing more");
    catalog.set_sinks(&names).await.unwrap();
    let two = catalog.take_turn("two", [1; 16], LEASE).await.unwrap().unwrap();
    assert_eq!((two.passed, two.failing_since), (one.passed, None), "tried again from where it was");
    catalog.set_sinks(&names[1..]).await.unwrap();
    assert_eq!(catalog.sinks().await.unwrap().len(), 1);
    assert_code(catalog.pass("one", one.fence, events[1].seq).await, Code::Superseded, "pass");
}

async fn one_at_a_time_tells_a_sink<C: Catalog + EventCatalog>(catalog: &C) {
    catalog.set_sinks(&["one".to_owned()]).await.unwrap();
    assert_eq!(catalog.take_turn("none", [1; 16], LEASE).await.unwrap(), None);
    let short = Duration::from_millis(50);
    let first = catalog.take_turn("one", [1; 16], short).await.unwrap().unwrap();
    let kept = catalog.take_turn("one", [1; 16], short).await.unwrap().unwrap();
    assert_eq!(kept.fence, first.fence, "kept");
    let begun = std::time::Instant::now();
    let second = loop {
        if let Some(turn) = catalog.take_turn("one", [2; 16], LEASE).await.unwrap() {
            break turn;
        }
        assert!(begun.elapsed() < LEASE, "a lease ends");
        tokio::task::yield_now().await;
    };
    assert!(second.fence > first.fence);
    assert_eq!(catalog.take_turn("one", [1; 16], LEASE).await.unwrap(), None);
    assert_code(catalog.pass("one", first.fence, 1).await, Code::Superseded, "pass");
    let failed = catalog.note_failure("one", first.fence, NOW, "x", true).await;
    assert_code(failed, Code::Superseded, "note_failure");
    catalog.end_turn("one", first.fence).await.unwrap();
    assert_eq!(catalog.take_turn("one", [1; 16], LEASE).await.unwrap(), None, "not theirs to give back");
    catalog.end_turn("one", second.fence).await.unwrap();
    assert!(catalog.take_turn("one", [1; 16], LEASE).await.unwrap().is_some());
}

async fn what_all_have_passed_is_dropped<C: Catalog + EventCatalog>(catalog: &C) {
    let never = Timestamp::from_millis(0);
    let name = bucket_name("events");
    catalog.set_sinks(&["one".to_owned(), "two".to_owned()]).await.unwrap();
    put_bucket(catalog, &name, None).await;
    put_file(catalog, &name, "a", 1, 1).await;
    let events = all(catalog).await;
    let one = catalog.take_turn("one", [1; 16], LEASE).await.unwrap().unwrap();
    catalog.pass("one", one.fence, events[1].seq).await.unwrap();
    assert_eq!(catalog.drop_events(never, 10).await.unwrap(), 0, "two was not told");
    let two = catalog.take_turn("two", [1; 16], LEASE).await.unwrap().unwrap();
    catalog.pass("two", two.fence, events[0].seq).await.unwrap();
    assert_eq!(catalog.drop_events(never, 10).await.unwrap(), 1);
    assert_eq!(all(catalog).await, events[1..]);
    let after = events[1].at.after(Duration::from_millis(1));
    assert_eq!(catalog.drop_events(after, 10).await.unwrap(), 1, "too old, whoever was told");
    catalog.set_sinks(&["three".to_owned()]).await.unwrap();
    put_file(catalog, &name, "b", 2, 1).await;
    let last = all(catalog).await;
    assert!(last.len() == 1 && last[0].seq > events[1].seq, "no number comes twice");
    let three = catalog.take_turn("three", [1; 16], LEASE).await.unwrap().unwrap();
    assert_eq!(catalog.events(three.passed, 10).await.unwrap(), last);
}

async fn many_changes_at_once<C: Catalog + EventCatalog>(catalog: Arc<C>) {
    let name = bucket_name("events");
    put_bucket(&*catalog, &name, None).await;
    let mut changing = tokio::task::JoinSet::new();
    for number in 0..50_u64 {
        let (catalog, name) = (catalog.clone(), name.clone());
        changing
            .spawn(async move { put_file(&*catalog, &name, &format!("k{}", number % 7), number, 1).await });
    }
    // What is looked at meanwhile has no gap that is filled later.
    let mut seen = Vec::new();
    while seen.len() < 51 {
        let last = seen.last().map_or(0, |event: &Event| event.seq);
        seen.extend(catalog.events(last, 10).await.unwrap());
        tokio::task::yield_now().await;
    }
    changing.join_all().await;
    assert_eq!(seen, all(&*catalog).await);
}
