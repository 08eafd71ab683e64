use super::*;
use crate::{Committed, Finish, Outcome};

pub(super) async fn life(catalog: &dyn Catalog) {
    let name = bucket_name("uploads");
    let up = upload(1, &name, "ü/k", 2500);
    assert_code(catalog.create_upload(&up).await, Code::BucketNotFound, "create_upload");
    put_bucket(catalog, &name, None).await;
    assert_code(catalog.upload(&up.id).await, Code::UploadNotFound, "upload");
    assert!(!catalog.has_upload(&up.id).await.unwrap());
    assert_code(catalog.delete_upload(&up.id).await, Code::UploadNotFound, "delete_upload");
    assert_code(catalog.begin_finish(&up.id, blob_id(1)).await, Code::UploadNotFound, "begin_finish");
    let line = extent(0, 10, 1);
    assert_code(catalog.record_extent(&up.id, &line, NOW).await, Code::UploadNotFound, "record_extent");
    catalog.abandon_finish(&up.id, blob_id(1)).await.expect("abandon_finish of an unknown upload");

    catalog.create_upload(&up).await.unwrap();
    assert_eq!(catalog.upload(&up.id).await.unwrap(), up);
    assert!(catalog.has_upload(&up.id).await.unwrap());
    assert_eq!(account(catalog, &name).await, (0, 2500, 0));
    assert!(catalog.create_upload(&up).await.is_err(), "an id names one upload");
    assert_eq!(account(catalog, &name).await, (0, 2500, 0), "and reserves once");

    let mut plain = upload(2, &name, "k", 0);
    plain.expected = Vec::new();
    plain.precondition = Precondition::Match(vec!["\"a,b\"".to_owned(), "\"c\"".to_owned()]);
    (plain.told, plain.wants_sha256) = (true, true);
    plain.target.metadata = Metadata::new();
    plain.created_at = Timestamp::from_millis(-1);
    catalog.create_upload(&plain).await.unwrap();
    assert_eq!(catalog.upload(&plain.id).await.unwrap(), plain);
    for (number, precondition) in [
        (3, Precondition::Present),
        (4, Precondition::Match(Vec::new())),
        (5, Precondition::NoneMatch(vec!["\"c\"".to_owned()])),
    ] {
        let conditional = Upload { precondition, ..upload(number, &name, "k", 0) };
        catalog.create_upload(&conditional).await.unwrap();
        assert_eq!(catalog.upload(&conditional.id).await.unwrap(), conditional);
        catalog.delete_upload(&conditional.id).await.unwrap();
    }
    assert_eq!(catalog.open_uploads().await.unwrap(), 2);
    for _ in 0..2 {
        catalog.note_direct(&plain.id, later(30)).await.unwrap();
        let noted = Upload { direct: true, expires_at: later(30), ..plain.clone() };
        assert_eq!(catalog.upload(&plain.id).await.unwrap(), noted);
    }
    assert_code(catalog.note_direct(&upload_id(9), NOW).await, Code::UploadNotFound, "note_direct");
    catalog.record_extent(&up.id, &line, later(70)).await.unwrap();
    catalog.delete_upload(&up.id).await.unwrap();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), []);
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
    catalog.create_upload(&up).await.unwrap();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), [], "the ledger went with the upload");
}

pub(super) async fn ledger(catalog: &dyn Catalog) {
    let name = bucket_name("ledger");
    put_bucket(catalog, &name, None).await;
    let up = upload(1, &name, "k", 10_000);
    catalog.create_upload(&up).await.unwrap();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), []);
    assert_eq!(catalog.extents(&upload_id(9)).await.unwrap(), [], "an unknown upload");
    let (first, second, odd) = (extent(0, 1000, 1), extent(1000, 1024, 2), extent(2024, 5003, 3));
    for line in [&odd, &first, &second] {
        catalog.record_extent(&up.id, line, later(100)).await.unwrap();
    }
    assert_eq!(catalog.extents(&up.id).await.unwrap(), [first.clone(), second.clone(), odd.clone()]);
    assert_eq!(catalog.upload(&up.id).await.unwrap().expires_at, later(100));
    assert_eq!(catalog.extent(&up.id, 1000).await.unwrap(), Some(second.clone()));
    assert_eq!(catalog.extent(&up.id, 1001).await.unwrap(), None, "inside an extent");
    assert_eq!(catalog.extent(&upload_id(9), 0).await.unwrap(), None);
    catalog.record_extent(&up.id, &second, later(50)).await.expect("the same again");
    assert_eq!(catalog.upload(&up.id).await.unwrap().expires_at, later(50));
    let other = extent(1000, 1024, 9);
    catalog.record_extent(&up.id, &other, later(50)).await.unwrap();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), [first, other, odd], "replaced");

    let mut whole = carrack_domain::digest::Piece::empty(0);
    for line in catalog.extents(&up.id).await.unwrap() {
        whole = whole.join(&line.piece).expect("the ledger's pieces still join");
    }
    assert_eq!(whole.len(), 7027);

    let other = upload(2, &name, "other", 10_000);
    catalog.create_upload(&other).await.unwrap();
    let unseen = |said: &'static [u8]| {
        let piece = carrack_domain::digest::Piece::unseen(1000, 2024, 7);
        StoredExtent::unseen(&other.id, piece, Receipt::from_static(said))
    };
    let stored = async || catalog.extent(&other.id, 1000).await.unwrap();
    for said in [unseen(b"said by the storage"), unseen(b"and once more"), second.clone()] {
        catalog.record_extent(&other.id, &said, later(100)).await.unwrap();
        assert_eq!(stored().await, Some(said), "what nobody has seen is replaced");
    }
    catalog.record_extent(&other.id, &unseen(b"too late"), later(200)).await.unwrap();
    assert_eq!(stored().await, Some(second), "what passed here is not");
}

/// What it is, extents as offset and length, whether they cover 2500 bytes.
type Coverage = (&'static str, &'static [(u64, u64)], bool);

pub(super) async fn coverage(catalog: &dyn Catalog) {
    let name = bucket_name("coverage");
    put_bucket(catalog, &name, None).await;
    let cases: [Coverage; 8] = [
        ("nothing", &[], false),
        ("all", &[(0, 1000), (1000, 1000), (2000, 500)], true),
        ("one gap", &[(0, 1000), (2000, 500)], false),
        ("no beginning", &[(1000, 1000), (2000, 500)], false),
        ("no end", &[(0, 1000), (1000, 1000)], false),
        ("overlap", &[(0, 1000), (500, 2000)], false),
        ("beyond the end", &[(0, 1000), (1000, 2000)], false),
        ("uneven", &[(0, 1), (1, 2498), (2499, 1)], true),
    ];
    for (number, (what, lines, covered)) in cases.into_iter().enumerate() {
        let up = upload(number as u64, &name, "k", 2500);
        catalog.create_upload(&up).await.unwrap();
        for (offset, len) in lines {
            catalog.record_extent(&up.id, &extent(*offset, *len, 1), later(1)).await.unwrap();
        }
        let finish = catalog.begin_finish(&up.id, blob_id(number as u64)).await;
        if covered {
            assert_eq!(finish.unwrap(), Finish::Begun, "{what}");
        } else {
            assert_code(finish, Code::PartsMissing, what);
            assert_eq!(catalog.upload(&up.id).await.unwrap().state, UploadState::Open, "{what}");
        }
    }
    let empty = upload(99, &name, "k", 0);
    catalog.create_upload(&empty).await.unwrap();
    assert_eq!(catalog.begin_finish(&empty.id, blob_id(99)).await.unwrap(), Finish::Begun);
}

pub(super) async fn finish(catalog: &dyn Catalog) {
    let name = bucket_name("finish");
    put_bucket(catalog, &name, None).await;
    let up = upload(1, &name, "k", 10);
    catalog.create_upload(&up).await.unwrap();
    fill(catalog, &up).await;
    assert_eq!(catalog.finishing_uploads().await.unwrap(), []);
    assert_eq!(catalog.begin_finish(&up.id, blob_id(1)).await.unwrap(), Finish::Begun);
    assert_eq!(catalog.begin_finish(&up.id, blob_id(2)).await.unwrap(), Finish::Underway(blob_id(1)));
    let mut expected = up.clone();
    expected.state = UploadState::Finishing(blob_id(1));
    assert_eq!(catalog.finishing_uploads().await.unwrap(), [expected]);
    let again = catalog.record_extent(&up.id, &extent(0, 10, 1), later(1)).await;
    assert_code(again, Code::UploadFinished, "record_extent while finishing");
    let noted = catalog.note_direct(&up.id, later(1)).await;
    assert_code(noted, Code::UploadFinished, "note_direct while finishing");
    assert_code(catalog.delete_upload(&up.id).await, Code::UploadFinished, "delete_upload while finishing");
    assert_eq!(catalog.open_uploads().await.unwrap(), 1);

    catalog.abandon_finish(&up.id, blob_id(2)).await.expect("of another blob: nothing");
    assert_eq!(catalog.upload(&up.id).await.unwrap().state, UploadState::Finishing(blob_id(1)));
    catalog.abandon_finish(&up.id, blob_id(1)).await.unwrap();
    assert_eq!(catalog.upload(&up.id).await.unwrap(), up);
    assert_eq!(account(catalog, &name).await, (0, 10, 0), "the reservation stays");
    catalog.record_extent(&up.id, &extent(0, 10, 2), later(60)).await.expect("open again");

    assert_eq!(catalog.begin_finish(&up.id, blob_id(3)).await.unwrap(), Finish::Begun);
    let Committed { file, outcome, .. } = catalog.commit_file(finished_file(&up, 3)).await.unwrap();
    assert_eq!(outcome, Outcome::Created);
    assert_eq!(account(catalog, &name).await, (10, 0, 1));
    assert_eq!(catalog.upload(&up.id).await.unwrap().state, UploadState::Complete);
    let done = Finish::Done(Box::new(file.clone()), Outcome::Created);
    assert_eq!(catalog.begin_finish(&up.id, blob_id(4)).await.unwrap(), done);
    catalog.abandon_finish(&up.id, blob_id(3)).await.unwrap();
    assert_eq!(catalog.upload(&up.id).await.unwrap().state, UploadState::Complete);
    let again = catalog.record_extent(&up.id, &extent(0, 10, 1), later(1)).await;
    assert_code(again, Code::UploadFinished, "record_extent of a complete upload");
    assert_eq!(catalog.open_uploads().await.unwrap(), 0);
    assert_eq!(catalog.finishing_uploads().await.unwrap(), []);
    catalog.delete_upload(&up.id).await.unwrap();
    assert_eq!(catalog.file(&name, &key("k")).await.unwrap(), file, "its file stays");
    assert_eq!(account(catalog, &name).await, (10, 0, 1));
}

pub(super) async fn done_shows_the_file_as_it_was(catalog: &dyn Catalog) {
    let name = bucket_name("history");
    put_bucket(catalog, &name, None).await;
    put_file(catalog, &name, "ü/日本", 5, 3).await;
    let up = upload(1, &name, "ü/日本", 10);
    catalog.create_upload(&up).await.unwrap();
    fill(catalog, &up).await;
    catalog.begin_finish(&up.id, blob_id(1)).await.unwrap();
    let mut new = finished_file(&up, 1);
    new.blob.digest.sha256 = Some([0xbb; 32]);
    new.created_by = "\"ann\" \u{1f680}".to_owned();
    let Committed { file, outcome, .. } = catalog.commit_file(new).await.unwrap();
    assert_eq!(outcome, Outcome::Replaced);
    let done = Finish::Done(Box::new(file), outcome);
    let path = key("ü/日本");
    put_file(catalog, &name, path.as_str(), 2, 3).await;
    assert_eq!(catalog.begin_finish(&up.id, blob_id(9)).await.unwrap(), done, "after the file was replaced");
    catalog.delete_file(&name, &path, &Precondition::None).await.unwrap();
    catalog.forget_blob(&blob_id(1)).await.unwrap();
    catalog.delete_bucket(&name).await.unwrap();
    assert_eq!(catalog.begin_finish(&up.id, blob_id(9)).await.unwrap(), done, "after all of it is gone");
}

pub(super) async fn reservations(catalog: &dyn Catalog) {
    let name = bucket_name("reserved");
    put_bucket(catalog, &name, Some(100)).await;
    let (a, b) = (upload(1, &name, "a", 60), upload(2, &name, "b", 41));
    catalog.create_upload(&a).await.unwrap();
    assert_code(catalog.create_upload(&b).await, Code::QuotaExceeded, "create_upload beyond the rest");
    assert!(!catalog.has_upload(&b.id).await.unwrap());
    assert_code(catalog.check_quota(&name, &key("c"), 41).await, Code::QuotaExceeded, "reserved bytes count");
    let over = new_file(&name, &key("c"), blob(5, 41));
    assert_code(catalog.commit_file(over).await, Code::QuotaExceeded, "reserved bytes count");
    put_file(catalog, &name, "c", 6, 40).await;
    assert_eq!(account(catalog, &name).await, (40, 60, 1));
    fill(catalog, &a).await;
    catalog.begin_finish(&a.id, blob_id(1)).await.unwrap();
    assert_eq!(account(catalog, &name).await, (40, 60, 1), "finishing holds the reservation");
    catalog.commit_file(finished_file(&a, 1)).await.expect("the own reservation counts as released");
    assert_eq!(account(catalog, &name).await, (100, 0, 2));
    catalog.delete_upload(&a.id).await.unwrap();
    assert_eq!(account(catalog, &name).await, (100, 0, 2), "released once");
}

pub(super) async fn lists(catalog: &dyn Catalog) {
    let (one, two) = (bucket_name("one"), bucket_name("two"));
    put_bucket(catalog, &one, None).await;
    put_bucket(catalog, &two, None).await;
    for number in 0..8u64 {
        let bucket = if number % 2 == 0 { &one } else { &two };
        let mut up = upload(number, bucket, "k", 1);
        up.created_at = later(100 - number);
        up.expires_at = later(200 + number);
        if number >= 6 {
            up.owner = "bob".to_owned();
        }
        catalog.create_upload(&up).await.unwrap();
    }
    let ids = async |owner: &str, bucket: Option<&BucketName>, limit: usize| {
        let found = catalog.uploads(owner, bucket, limit).await.unwrap();
        found.into_iter().map(|upload| upload.id).collect::<Vec<_>>()
    };
    let numbers = |numbers: &[u64]| numbers.iter().map(|number| upload_id(*number)).collect::<Vec<_>>();
    assert_eq!(ids("ann", None, 9).await, numbers(&[5, 4, 3, 2, 1, 0]), "oldest first");
    assert_eq!(ids("ann", None, 2).await, numbers(&[5, 4]));
    assert_eq!(ids("ann", Some(&one), 9).await, numbers(&[4, 2, 0]));
    assert_eq!(ids("bob", None, 9).await, numbers(&[7, 6]));
    assert_eq!(ids("eve", None, 9).await, []);

    let expire = async |at: u64, limit: usize| {
        let mut found = catalog.expire_uploads(later(at), limit).await.unwrap();
        found.sort();
        found
    };
    assert_eq!(expire(200, 9).await, [], "expires_at itself has not passed");
    for number in [0, 1] {
        let up = catalog.upload(&upload_id(number)).await.unwrap();
        fill(catalog, &up).await;
        catalog.begin_finish(&up.id, blob_id(number)).await.unwrap();
    }
    catalog.commit_file(finished_file(&catalog.upload(&upload_id(0)).await.unwrap(), 0)).await.unwrap();
    assert_eq!(ids("ann", None, 9).await, numbers(&[5, 4, 3, 2]), "only open ones");
    catalog.record_extent(&upload_id(2), &extent(0, 1, 1), later(900)).await.unwrap();
    assert_eq!(
        expire(204, 9).await,
        numbers(&[0, 3]),
        "complete and open ones; not a finishing one, not a moved one"
    );
    assert!(catalog.extents(&upload_id(3)).await.unwrap().is_empty());
    assert_eq!(catalog.upload(&upload_id(3)).await.unwrap_err().code(), Code::UploadNotFound);
    assert_eq!(expire(899, 1).await.len(), 1, "at most so many");
    assert_eq!(expire(899, 9).await.len(), 3);
    assert_eq!(catalog.open_uploads().await.unwrap(), 2);
    let held = catalog.bucket(&one).await.unwrap().reserved_bytes
        + catalog.bucket(&two).await.unwrap().reserved_bytes;
    assert_eq!(
        held,
        catalog.upload(&upload_id(1)).await.unwrap().length().unwrap()
            + catalog.upload(&upload_id(2)).await.unwrap().length().unwrap()
    );
}
