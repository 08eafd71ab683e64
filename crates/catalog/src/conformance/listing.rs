use super::*;
use crate::{ListQuery, Listing};
use carrack_domain::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

fn query(prefix_text: &str, delimiter: Option<char>, after: Option<String>, limit: usize) -> ListQuery {
    ListQuery { prefix: prefix(prefix_text), delimiter, after, limit }
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|file| file.key.as_str()).collect()
}

pub(super) async fn pages(catalog: &dyn Catalog) {
    let name = bucket_name("pages");
    assert_code(catalog.list(&name, &query("", None, None, 9)).await, Code::BucketNotFound, "list");
    put_bucket(catalog, &name, None).await;
    assert_eq!(catalog.list(&name, &query("", None, None, 9)).await.unwrap(), Listing::default());
    let all = ["a", "a-b", "a/1", "a/2", "a/b/3", "a0", "b", "é", "日"];
    for (number, text) in all.iter().enumerate() {
        put_file(catalog, &name, text, number as u64, 1).await;
    }
    let whole = catalog.list(&name, &query("", None, None, 9)).await.unwrap();
    assert_eq!((keys(&whole), &whole.next), (all.to_vec(), &None), "exactly full is the last page");
    assert_eq!(whole.files[0], catalog.file(&name, &key("a")).await.unwrap());

    let page = catalog.list(&name, &query("", Some('/'), None, 3)).await.unwrap();
    assert_eq!((keys(&page), page.prefixes.as_slice()), (vec!["a", "a-b"], &["a/".to_owned()][..]));
    let page = catalog.list(&name, &query("", Some('/'), page.next, 3)).await.unwrap();
    assert_eq!((keys(&page), page.prefixes.len()), (vec!["a0", "b", "é"], 0), "after a common prefix");
    let page = catalog.list(&name, &query("", Some('/'), page.next, 3)).await.unwrap();
    assert_eq!((keys(&page), &page.next), (vec!["日"], &None));

    let page = catalog.list(&name, &query("a/", Some('/'), None, 9)).await.unwrap();
    assert_eq!((keys(&page), page.prefixes.as_slice()), (vec!["a/1", "a/2"], &["a/b/".to_owned()][..]));
    let page = catalog.list(&name, &query("a", Some('/'), None, 9)).await.unwrap();
    assert_eq!((keys(&page), page.prefixes.as_slice()), (vec!["a", "a-b", "a0"], &["a/".to_owned()][..]));
    let page = catalog.list(&name, &query("zz", None, None, 9)).await.unwrap();
    assert_eq!(page, Listing::default());

    // Cursors come from clients: none may lead out of the prefix.
    for (after, expected) in
        [("", vec!["a/1", "a/2", "a/b/3"]), ("a", vec!["a/1", "a/2", "a/b/3"]), ("b", vec![])]
    {
        let page = catalog.list(&name, &query("a/", None, Some(after.to_owned()), 9)).await.unwrap();
        assert_eq!((keys(&page), &page.next), (expected, &None), "after {after:?}");
    }
    let page = catalog.list(&name, &query("a/", None, Some("a/1".to_owned()), 1)).await.unwrap();
    assert_eq!((keys(&page), page.next.as_deref()), (vec!["a/2"], Some("a/2")));
    let page = catalog.list(&name, &query("", None, None, 0)).await.unwrap();
    assert_eq!(page.files.len(), 1, "a limit of 0 counts as 1");
}

pub(super) async fn scans(catalog: &dyn Catalog) {
    let name = bucket_name("scans");
    let none = catalog.scan(&name, &prefix(""), Box::new(|_| Ok(()))).await;
    assert_code(none, Code::BucketNotFound, "scan");
    put_bucket(catalog, &name, None).await;
    for (number, text) in ["b/2", "b/1", "a", "b", "b0", "b/\u{10ffff}"].iter().enumerate() {
        let mut file = new_file(&name, &key(text), blob(number as u64, number as u64));
        file.blob.digest.sha256 = number.is_multiple_of(2).then_some([number as u8; 32]);
        file.created_at = later(number as u64);
        catalog.commit_file(file).await.unwrap();
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let visit = move |member: crate::Member<'_>| {
        sink.lock().unwrap().push((member.key.to_owned(), member.blob, member.created_at));
        Ok(())
    };
    let generation = catalog.scan(&name, &prefix("b/"), Box::new(visit)).await.unwrap();
    assert_eq!(generation, catalog.generation(&name).await.unwrap());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let order: Vec<&str> = seen.iter().map(|(key, _, _)| key.as_str()).collect();
    assert_eq!(order, ["b/1", "b/2", "b/\u{10ffff}"]);
    for (text, blob, created_at) in &seen {
        let file = catalog.file(&name, &key(text)).await.unwrap();
        assert_eq!((file.blob, file.created_at), (blob.clone(), *created_at));
    }

    let count = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&count);
    let stop = move |_: crate::Member<'_>| {
        *seen.lock().unwrap() += 1;
        Err(Error::new(Code::ArchiveTooLarge, "enough"))
    };
    let stopped = catalog.scan(&name, &prefix(""), Box::new(stop)).await;
    assert_code(stopped, Code::ArchiveTooLarge, "the visitor's error is passed on");
    assert_eq!(*count.lock().unwrap(), 1, "and nothing is shown after it");
}

/// What [`Catalog::list`] is meant to be, without pages.
fn naive(all: &BTreeMap<String, u64>, prefix: &str, delimiter: Option<char>) -> (Vec<String>, Vec<String>) {
    let mut files = Vec::new();
    let mut prefixes = BTreeSet::new();
    for key in all.keys().filter(|key| key.starts_with(prefix)) {
        let at =
            delimiter.and_then(|delimiter| Some(key[prefix.len()..].find(delimiter)? + delimiter.len_utf8()));
        match at {
            Some(at) => drop(prefixes.insert(key[..prefix.len() + at].to_owned())),
            None => files.push(key.clone()),
        }
    }
    (files, prefixes.into_iter().collect())
}

/// Random keys of an alphabet with the edges of UTF-8, any prefix, delimiter and page size, against [`naive`].
pub(super) async fn random(catalog: &dyn Catalog) {
    let name = bucket_name("random");
    put_bucket(catalog, &name, None).await;
    let letters = ["a", "b", "/", "/", "-", "~", "\u{a0}", "ÿ", "\u{7ff}", "日", "\u{ffff}", "\u{10ffff}"];
    let mut random = Random(42);
    let text = |random: &mut Random, most: u64| -> String {
        (0..=random.below(most)).map(|_| *random.pick(&letters)).collect()
    };
    let mut all = BTreeMap::new();
    while all.len() < 250 {
        if let Ok(key) = Key::parse(&text(&mut random, 6)) {
            let number = all.len() as u64;
            if all.insert(key.as_str().to_owned(), number).is_none() {
                put_file(catalog, &name, key.as_str(), number, 1).await;
            }
        }
    }
    let delimiters = [None, Some('/'), Some('-'), Some('a'), Some('ÿ'), Some('\u{10ffff}'), Some('x')];
    for _ in 0..250 {
        let start = match random.below(3) {
            0 => String::new(),
            _ => text(&mut random, 2),
        };
        let delimiter = *random.pick(&delimiters);
        let most = *random.pick(&[9, 9, 9, 300]);
        let limit = 1 + random.below(most) as usize;
        let (mut files, mut prefixes, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = catalog.list(&name, &query(&start, delimiter, after, limit)).await.unwrap();
            let count = page.files.len() + page.prefixes.len();
            assert!(count <= limit && (count == limit || page.next.is_none()), "only the last page is short");
            files.extend(page.files.into_iter().map(|file| file.key.as_str().to_owned()));
            prefixes.extend(page.prefixes);
            after = page.next;
            if after.is_none() {
                break;
            }
            assert!(count > 0, "a page before the last is not empty");
        }
        let expected = naive(&all, &start, delimiter);
        assert_eq!((files, prefixes), expected, "prefix {start:?}, delimiter {delimiter:?}, limit {limit}");

        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let visit = move |member: crate::Member<'_>| {
            sink.lock().unwrap().push(member.key.to_owned());
            Ok(())
        };
        catalog.scan(&name, &prefix(&start), Box::new(visit)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), naive(&all, &start, None).0, "scan of {start:?}");
    }
}

/// Every file that exists all the while is shown exactly once, whatever comes and goes between the pages.
pub(super) async fn survives_changes_between_pages(catalog: &dyn Catalog) {
    let name = bucket_name("moving");
    put_bucket(catalog, &name, None).await;
    for number in 0..20u64 {
        put_file(catalog, &name, &format!("keep/{number:02}"), number * 2, 1).await;
        put_file(catalog, &name, &format!("keep/{number:02}-gone"), number * 2 + 1, 1).await;
    }
    let mut kept = Vec::new();
    let mut after = None;
    loop {
        let page = catalog.list(&name, &query("", None, after, 3)).await.unwrap();
        for file in &page.files {
            if file.key.as_str().ends_with("gone") {
                catalog.delete_file(&name, &file.key, &Precondition::None).await.unwrap();
            } else if !file.key.as_str().contains("new") {
                kept.push(file.key.as_str().to_owned());
            }
        }
        put_file(catalog, &name, &format!("keep/00-new-{}", kept.len()), 100 + kept.len() as u64, 1).await;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..20).map(|number| format!("keep/{number:02}")).collect();
    assert_eq!(kept, expected);
}
