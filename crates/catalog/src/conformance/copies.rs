//! Rows that go from one catalog to another. Also for catalogs of two kinds: see [`run`].

use super::*;
use crate::copies::{CopyCatalog, CopyState, Identity, OPEN_UPLOADS, Range, Row, TABLES, Table, Value};
use crate::{EventCatalog, Finish, Outcome};
use bytes::Bytes;
use carrack_domain::file::Pieces;
use carrack_domain::policy::Policy;
use carrack_domain::token::Denial;

/// Runs everything: `from` gives a new, empty catalog each time, and so does `to`, perhaps of another kind. Both keep an audit
/// log and events.
pub async fn run<F: CopyCatalog + EventCatalog, T: CopyCatalog + EventCatalog>(
    from: impl AsyncFn() -> Arc<F>,
    to: impl AsyncFn() -> Arc<T>,
) {
    everything_goes_over(&*from().await, &*to().await).await;
    pages_and_ranges(&*from().await).await;
    what_is_no_more_goes(&*from().await, &*to().await).await;
    what_is_made_later_has_new_numbers(&*from().await, &*to().await).await;
    what_is_open_stays(&*from().await, &*to().await).await;
}

/// All rows of a table, a few at a time.
async fn rows(catalog: &dyn CopyCatalog, table: &'static Table) -> Vec<Row> {
    let (mut rows, mut after) = (Vec::<Row>::new(), None);
    loop {
        let range = Range { after, through: None };
        let page = catalog.copy_rows(table, range, 2).await.expect("copy_rows");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { return rows };
        after = Some(table.key_of(last).to_vec());
        rows.extend(page);
    }
}

async fn transfer(from: &dyn CopyCatalog, to: &dyn CopyCatalog) -> Identity {
    let identity = from.identity().await.unwrap();
    to.begin_copy(&identity, NOW).await.unwrap();
    for table in &TABLES {
        to.put_rows(table, rows(from, table).await)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", table.name));
    }
    identity
}

async fn assert_same(from: &dyn CopyCatalog, to: &dyn CopyCatalog) {
    for table in &TABLES {
        assert_eq!(rows(from, table).await, rows(to, table).await, "{}", table.name);
    }
}

/// A file of a small content.
fn small(bucket: &BucketName, name: &str, number: u64, bytes: &'static [u8]) -> NewFile {
    let mut file = new_file(bucket, &key(name), blob(number, bytes.len() as u64));
    file.content = Some(Bytes::from_static(bytes));
    file
}

/// Some of everything that there is a table for.
async fn fill_all<C: CopyCatalog + EventCatalog>(catalog: &C) -> BucketName {
    catalog.set_sinks(&["a hook".to_owned()]).await.unwrap();
    let name = bucket_name("copied");
    let policy: Policy = serde_json::from_str(
        r#"{"rules": [{"effect": "allow", "actions": ["read"], "to": ["role:guest"]}]}"#,
    )
    .unwrap();
    let settings =
        BucketSettings { quota_bytes: Some(1 << 40), retention_seconds: Some(90), policy: Some(policy) };
    catalog.put_bucket(&name, &settings, NOW).await.unwrap();
    put_bucket(catalog, &bucket_name("other"), None).await;
    for number in 0..5 {
        put_file(catalog, &name, &format!("k/\u{e4}{number}"), number, 1 << 33).await;
    }
    catalog.commit_file(small(&name, "small", 10, b"\0 small")).await.unwrap();
    catalog.commit_file(small(&name, "empty", 11, b"")).await.unwrap();
    let mut joined = new_file(&name, &key("joined"), blob(12, 42));
    joined.blob.pieces = Some(Arc::new(Pieces::new([(blob_id(301), 30), (blob_id(302), 12)], Some([9; 32]))));
    catalog.commit_file(joined).await.unwrap();
    let chunks = crate::ChunkList { chunk_size: 1 << 20, hashes: vec![[1; 32], [2; 32]] };
    catalog.put_chunks(&blob_id(1), &chunks).await.unwrap();
    catalog.put_sha256(&blob_id(2), [3; 32]).await.unwrap();
    let up = upload(20, &name, "uploaded", 10);
    catalog.create_upload(&up).await.unwrap();
    fill(catalog, &up).await;
    assert_eq!(catalog.begin_finish(&up.id, blob_id(20)).await.unwrap(), Finish::Begun);
    catalog.commit_file(finished_file(&up, 20)).await.unwrap();
    joins::whole(catalog, &name).await;
    archives::every_kind(catalog).await;
    // A child that comes before its parent.
    let parent = tokens::token(200, Some(later(500)));
    catalog.create_token(&parent).await.unwrap();
    catalog.create_token(&tokens::session(3, 200)).await.unwrap();
    let denial = Denial {
        issuer: "https://id.example".to_owned(),
        jti: "j\u{e4}".to_owned(),
        until: Some(later(60)),
        denied_at: NOW,
        denied_by: "root".to_owned(),
    };
    catalog.deny_token(&denial).await.unwrap();
    links::used_once_of_two(catalog).await;
    name
}

async fn everything_goes_over<F: CopyCatalog + EventCatalog, T: CopyCatalog + EventCatalog>(
    from: &F,
    to: &T,
) {
    let name = fill_all(from).await;
    for table in &TABLES {
        assert!(!rows(from, table).await.is_empty(), "nothing of {} is there to be copied", table.name);
    }
    assert!(to.is_empty().await.unwrap() && !from.is_empty().await.unwrap());
    assert_eq!(to.copy_state().await.unwrap(), CopyState::None);
    let identity = transfer(from, to).await;
    assert_eq!(to.copy_state().await.unwrap(), CopyState::Begun(NOW));
    to.begin_copy(&identity, later(5)).await.unwrap();
    assert_eq!(to.copy_state().await.unwrap(), CopyState::Begun(NOW), "begun again is begun before");
    to.finish_copy(&identity, later(9)).await.unwrap();
    assert_eq!(to.copy_state().await.unwrap(), CopyState::Done(later(9)));
    assert_eq!(from.copy_state().await.unwrap(), CopyState::None);
    assert_same(from, to).await;
    assert_eq!(to.identity().await.unwrap(), identity);
    assert_eq!(to.totals().await.unwrap(), from.totals().await.unwrap());
    assert_eq!(to.audit_head().await.unwrap(), from.audit_head().await.unwrap(), "one chain");
    assert_eq!(to.buckets().await.unwrap(), from.buckets().await.unwrap());
    for path in ["small", "empty", "joined", "uploaded", "k/\u{e4}2"] {
        let file = from.file(&name, &key(path)).await.unwrap();
        assert_eq!(to.file(&name, &key(path)).await.unwrap(), file);
        let blobs = [file.blob.id];
        assert_eq!(to.contents(&blobs).await.unwrap(), from.contents(&blobs).await.unwrap(), "{path}");
    }
    let small = to.file(&name, &key("small")).await.unwrap().blob.id;
    assert_eq!(to.contents(&[small]).await.unwrap(), [Some(Bytes::from_static(b"\0 small"))]);
    // The sums of owners follow: at what somebody has, not a byte more.
    let has: u64 = from.totals().await.unwrap().bytes - archives::BYTES;
    for catalog in [from as &dyn Catalog, to as &dyn Catalog] {
        let place = carrack_domain::access::FileRef { bucket: name.clone(), key: key("nowhere") };
        catalog.set_owner_quota("ann", Some(has + 1)).await.unwrap();
        catalog.check_owner_quota("ann", &place, 1).await.unwrap();
        assert_code(catalog.check_owner_quota("ann", &place, 2).await, Code::QuotaExceeded, "one more");
        catalog.forget_owner_quotas().await.unwrap();
    }
    // Put again nothing changes, and everything else works as ever.
    for table in &TABLES {
        to.put_rows(table, rows(from, table).await).await.unwrap();
    }
    assert_same(from, to).await;
    put_file(to, &name, "new", 900, 3).await;
    to.delete_file(&name, &key("small"), &Precondition::None).await.unwrap();
    assert_eq!(to.forget_contents(&[small]).await.unwrap(), []);
    assert_eq!(to.contents(&[small]).await.unwrap(), [None]);
}

async fn pages_and_ranges<C: CopyCatalog>(catalog: &C) {
    let name = bucket_name("ranges");
    put_bucket(catalog, &name, None).await;
    for path in ["a", "b", "c", "d"] {
        put_file(catalog, &name, path, path.as_bytes()[0].into(), 1).await;
    }
    let files = TABLES.iter().find(|table| table.name == "file").unwrap();
    let all = rows(catalog, files).await;
    let key = |at: usize| Some(files.key_of(&all[at]).to_vec());
    for (after, through, expected) in [
        (None, None, &all[..]),
        (key(0), None, &all[1..]),
        (key(0), key(2), &all[1..3]),
        (None, key(1), &all[..2]),
    ] {
        assert_eq!(catalog.copy_rows(files, Range { after, through }, 9).await.unwrap(), expected);
    }
    assert_eq!(catalog.copy_rows(files, Range::default(), 3).await.unwrap(), all[..3]);
    assert_eq!(
        catalog.copy_rows(files, Range { after: key(3), through: None }, 3).await.unwrap(),
        [] as [Row; 0]
    );
}

/// The original may have been in use between two runs.
async fn what_is_no_more_goes<F: CopyCatalog + EventCatalog, T: CopyCatalog>(from: &F, to: &T) {
    let name = fill_all(from).await;
    let identity = transfer(from, to).await;
    let gone = from.delete_file(&name, &key("small"), &Precondition::None).await.unwrap().unwrap();
    from.forget_contents(&[gone]).await.unwrap();
    let replaced = from.commit_file(new_file(&name, &key("empty"), blob(950, 7))).await.unwrap();
    assert_eq!(replaced.outcome, Outcome::Replaced);
    let [parent] = &from.tokens(9).await.unwrap()[..] else { panic!("one token is no session") };
    from.delete_token(&parent.id).await.unwrap();
    for table in TABLES.iter().rev().filter(|table| table.name != "blob") {
        let left = rows(from, table).await;
        let extra = rows(to, table)
            .await
            .into_iter()
            .filter(|row| !left.iter().any(|other| table.key_of(other) == table.key_of(row)));
        to.drop_rows(table, extra.map(|row| table.key_of(&row).to_vec()).collect()).await.unwrap();
    }
    transfer(from, to).await;
    let blobs = TABLES.iter().find(|table| table.name == "blob").unwrap();
    to.drop_rows(blobs, vec![vec![Value::Bytes(gone.as_bytes().to_vec())]]).await.unwrap();
    assert_same(from, to).await;
    to.finish_copy(&identity, NOW).await.unwrap();
    assert_eq!(to.tokens(9).await.unwrap(), []);
    assert_eq!(to.contents(&[gone]).await.unwrap(), [None], "its bytes went with it");
}

async fn what_is_made_later_has_new_numbers<F: CopyCatalog + EventCatalog, T: CopyCatalog + EventCatalog>(
    from: &F,
    to: &T,
) {
    let name = fill_all(from).await;
    let gone = bucket_name("gone");
    put_bucket(from, &gone, None).await;
    put_file(from, &gone, "k", 970, 1).await;
    from.delete_file(&gone, &key("k"), &Precondition::None).await.unwrap();
    let before = from.generation(&gone).await.unwrap();
    from.delete_bucket(&gone).await.unwrap();
    let last = from.events(0, 1000).await.unwrap().last().unwrap().clone();
    // All were told, so that no row says how far the numbers have got.
    let turn = from.take_turn("a hook", [1; 16], Duration::from_secs(60)).await.unwrap().unwrap();
    from.pass("a hook", turn.fence, last.seq).await.unwrap();
    from.drop_events(NOW, 1000).await.unwrap();
    assert_eq!(from.events(0, 9).await.unwrap(), []);
    let identity = transfer(from, to).await;
    to.finish_copy(&identity, NOW).await.unwrap();
    put_bucket(to, &gone, None).await;
    assert!(to.generation(&gone).await.unwrap() > before, "a generation is never repeated");
    put_file(to, &name, "later", 971, 1).await;
    let made = to.events(0, 1000).await.unwrap();
    assert_eq!(made[0].seq, last.seq + 1, "nor is a number of an event");
    assert_eq!(made[0].id.split('-').next(), last.id.split('-').next(), "told as by the same");
    let head = to.audit_head().await.unwrap();
    let old = from.audit_head().await.unwrap();
    assert!(head.block > old.block && head.chain == old.chain, "one chain goes on");
}

async fn what_is_open_stays<F: CopyCatalog + EventCatalog, T: CopyCatalog>(from: &F, to: &T) {
    let name = bucket_name("open");
    put_bucket(from, &name, None).await;
    let up = upload(30, &name, "half", 10);
    from.create_upload(&up).await.unwrap();
    assert_eq!(from.totals().await.unwrap().open_uploads, 1);
    let told = from.copy_rows(&OPEN_UPLOADS, Range::default(), 9).await.unwrap();
    let [row] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (row[1].text(), row[2].text(), row[3].bytes()),
        (Some("ann"), Some("open"), Some(&b"half"[..]))
    );
    let identity = transfer(from, to).await;
    to.finish_copy(&identity, NOW).await.unwrap();
    assert_code(to.upload(&up.id).await, Code::UploadNotFound, "an open upload");
    assert_eq!(account(to, &name).await, (0, 0, 0), "what it had reserved is free");
}
