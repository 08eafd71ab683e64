use super::*;
use crate::{Finish, Outcome, Taken};
use carrack_domain::error::Fact;

async fn made(catalog: &dyn Catalog, name: &BucketName, number: u64, length: Option<u64>) -> Upload {
    let up = append_upload(number, name, "k", length);
    catalog.create_upload(&up).await.unwrap();
    up
}

pub(super) async fn grow_at_their_end(catalog: &dyn Catalog) {
    let name = bucket_name("append");
    put_bucket(catalog, &name, None).await;
    let up = made(catalog, &name, 1, Some(3000)).await;
    assert_eq!(catalog.upload(&up.id).await.unwrap(), up);
    assert_eq!(account(catalog, &name).await, (0, 3000, 0));
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    assert_eq!((&taken.upload, taken.offset), (&up, 0));

    let (first, second, third) = (extent(0, 1500, 1), extent(1500, 1, 2), extent(1501, 1499, 3));
    catalog.append(&up.id, taken.epoch, &first.piece, &Receipt::new(), later(70)).await.unwrap();
    assert_eq!(catalog.extents(&up.id).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(catalog.upload(&up.id).await.unwrap().expires_at, later(70));
    for (wrong, what) in
        [(extent(0, 10, 9), "lower"), (extent(1499, 2, 9), "inside"), (third.clone(), "higher")]
    {
        let error =
            catalog.append(&up.id, taken.epoch, &wrong.piece, &Receipt::new(), later(99)).await.unwrap_err();
        let fact = Fact::Offset { expected: 1500, given: wrong.piece.fragment.start() };
        assert_eq!((error.code(), error.fact()), (Code::OffsetMismatch, Some(&fact)), "{what}");
    }
    let beyond =
        catalog.append(&up.id, taken.epoch, &extent(1500, 1501, 9).piece, &Receipt::new(), later(99)).await;
    assert_code(beyond, Code::LengthExceeded, "beyond the length");
    assert_eq!(catalog.extents(&up.id).await.unwrap(), [first], "untouched");
    assert_eq!(catalog.upload(&up.id).await.unwrap().expires_at, later(70));
    assert_code(catalog.begin_finish(&up.id, blob_id(1)).await, Code::PartsMissing, "not whole");

    catalog
        .append(&up.id, taken.epoch, &second.piece, &Receipt::from_static(b"two"), later(71))
        .await
        .unwrap();
    catalog
        .append(&up.id, taken.epoch, &third.piece, &Receipt::from_static(b"all three"), later(72))
        .await
        .unwrap();
    let bytes = [vec![1; 1500], vec![2; 1], vec![3; 1499]].concat();
    let mut whole = PieceHasher::new(0);
    whole.update(&bytes);
    let whole = whole.finish();
    let blake3 = whole.content().unwrap().blake3;
    let ledger = catalog.extents(&up.id).await.unwrap();
    assert_eq!(
        ledger,
        [StoredExtent { piece: whole, blake3, receipt: Receipt::from_static(b"all three") }],
        "one line"
    );
    assert_eq!(catalog.take_over(&up.id, None).await.unwrap().receipt, "all three");
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    assert_eq!(catalog.begin_finish(&up.id, blob_id(1)).await.unwrap(), Finish::Begun);
    let late =
        catalog.append(&up.id, taken.epoch, &extent(3000, 0, 1).piece, &Receipt::new(), later(99)).await;
    assert_code(late, Code::UploadFinished, "append while finishing");
    assert_eq!(catalog.take_over(&up.id, None).await.unwrap().epoch, taken.epoch, "nothing to take over");
    catalog.commit_file(finished_file(&up, 1)).await.unwrap();
    assert_eq!(account(catalog, &name).await, (3000, 0, 1));
    let done = catalog.take_over(&up.id, None).await.unwrap();
    assert_eq!((done.upload.state, done.offset), (UploadState::Complete, 3000));
    assert_eq!(done.upload.echo, up.echo);

    let empty = made(catalog, &name, 2, Some(0)).await;
    assert_eq!(catalog.begin_finish(&empty.id, blob_id(2)).await.unwrap(), Finish::Begun);
    let parts = upload(3, &name, "k", 10);
    catalog.create_upload(&parts).await.unwrap();
    assert_code(catalog.take_over(&parts.id, None).await, Code::UploadShape, "numbered parts");
    assert_code(catalog.take_over(&upload_id(9), None).await, Code::UploadNotFound, "take_over");
    assert_code(
        catalog.append(&upload_id(9), 1, &extent(0, 1, 1).piece, &Receipt::new(), NOW).await,
        Code::UploadNotFound,
        "append",
    );
}

pub(super) async fn come_at_once(catalog: &dyn Catalog) {
    let name = bucket_name("at-once");
    put_bucket(catalog, &name, Some(100)).await;
    let up = append_upload(1, &name, "k", Some(60));
    let mut file = new_file(&name, &key("k"), blob(1, 60));
    file.origin = Origin::Whole(Box::new(up.clone()));
    let committed = catalog.commit_file(file.clone()).await.unwrap();
    assert_eq!(account(catalog, &name).await, (60, 0, 1));
    let recorded = catalog.upload(&up.id).await.unwrap();
    assert_eq!(recorded, Upload { state: UploadState::Complete, ..up.clone() });
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    assert_eq!((taken.upload.state, taken.offset), (UploadState::Complete, 60));
    let done = catalog.begin_finish(&up.id, blob_id(9)).await.unwrap();
    assert_eq!(done, Finish::Done(Box::new(committed.file), Outcome::Created));

    let other = append_upload(2, &name, "other", Some(60));
    let mut beyond = new_file(&name, &key("other"), blob(2, 60));
    beyond.origin = Origin::Whole(Box::new(other.clone()));
    assert_code(catalog.commit_file(beyond).await, Code::QuotaExceeded, "beyond the quota");
    assert!(!catalog.has_upload(&other.id).await.unwrap(), "nothing is recorded");
    assert!(catalog.commit_file(file).await.is_err(), "an upload is made once");
    catalog.delete_upload(&up.id).await.unwrap();
    assert_eq!(account(catalog, &name).await, (60, 0, 1), "the file stays, and nothing was reserved");
}

pub(super) async fn fencing(catalog: &dyn Catalog) {
    let name = bucket_name("fence");
    put_bucket(catalog, &name, None).await;
    let up = made(catalog, &name, 1, Some(100)).await;
    let old = catalog.take_over(&up.id, None).await.unwrap();
    let new = catalog.take_over(&up.id, None).await.unwrap();
    assert!(new.epoch > old.epoch);
    let line = extent(0, 10, 1);
    assert_code(
        catalog.append(&up.id, old.epoch, &line.piece, &Receipt::new(), later(1)).await,
        Code::Superseded,
        "the displaced one",
    );
    assert_code(
        catalog.append(&up.id, new.epoch + 1, &line.piece, &Receipt::new(), later(1)).await,
        Code::Superseded,
        "a guess",
    );
    assert_eq!(catalog.extents(&up.id).await.unwrap(), []);
    catalog.append(&up.id, new.epoch, &line.piece, &Receipt::new(), later(1)).await.unwrap();
    let Taken { offset, epoch, .. } = catalog.take_over(&up.id, None).await.unwrap();
    assert_eq!(offset, 10);
    let next = extent(10, 10, 2);
    assert_code(
        catalog.append(&up.id, new.epoch, &next.piece, &Receipt::new(), later(1)).await,
        Code::Superseded,
        "displaced too",
    );
    catalog.append(&up.id, epoch, &next.piece, &Receipt::new(), later(1)).await.unwrap();
}

pub(super) async fn lengths_said_later(catalog: &dyn Catalog) {
    let name = bucket_name("later");
    put_bucket(catalog, &name, None).await;
    let up = made(catalog, &name, 1, None).await;
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    catalog.append(&up.id, taken.epoch, &extent(0, 40, 1).piece, &Receipt::new(), later(1)).await.unwrap();
    assert_eq!(account(catalog, &name).await, (0, 40, 0), "reserved as it grows");
    assert_code(catalog.begin_finish(&up.id, blob_id(1)).await, Code::PartsMissing, "no length yet");
    assert_code(catalog.take_over(&up.id, said(40, 39)).await, Code::LengthMismatch, "below what is stored");
    assert_eq!(catalog.upload(&up.id).await.unwrap().length(), None);
    let taken = catalog.take_over(&up.id, said(39, 39)).await.unwrap();
    assert_eq!((taken.upload.length(), taken.offset), (None, 40), "nothing is said from the wrong offset");
    let known = catalog.take_over(&up.id, said(40, 100)).await.unwrap();
    assert_eq!((known.upload.length(), known.offset), (Some(100), 40));
    assert_eq!(catalog.upload(&up.id).await.unwrap(), Upload { expires_at: later(1), ..known.upload });
    assert_eq!(account(catalog, &name).await, (0, 100, 0));
    for other in [99, 101, 40] {
        assert_code(catalog.take_over(&up.id, said(40, other)).await, Code::LengthMismatch, "said once");
    }
    let again = catalog.take_over(&up.id, said(40, 100)).await.expect("the same again");
    catalog.append(&up.id, again.epoch, &extent(40, 60, 1).piece, &Receipt::new(), later(1)).await.unwrap();
    assert_eq!(account(catalog, &name).await, (0, 100, 0), "reserved before");
    assert_eq!(catalog.begin_finish(&up.id, blob_id(1)).await.unwrap(), Finish::Begun);
    catalog.commit_file(finished_file(&catalog.upload(&up.id).await.unwrap(), 1)).await.unwrap();
    assert_eq!(account(catalog, &name).await, (100, 0, 1));

    let given_up = made(catalog, &name, 2, None).await;
    let taken = catalog.take_over(&given_up.id, None).await.unwrap();
    catalog
        .append(&given_up.id, taken.epoch, &extent(0, 7, 1).piece, &Receipt::new(), later(1))
        .await
        .unwrap();
    catalog.delete_upload(&given_up.id).await.unwrap();
    assert_eq!(account(catalog, &name).await, (100, 0, 1), "what it had reserved is given back");
}

pub(super) async fn quota_of_what_grows(catalog: &dyn Catalog) {
    let name = bucket_name("tight");
    put_bucket(catalog, &name, Some(100)).await;
    let up = made(catalog, &name, 1, None).await;
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    catalog.append(&up.id, taken.epoch, &extent(0, 60, 1).piece, &Receipt::new(), later(1)).await.unwrap();
    let more = catalog.append(&up.id, taken.epoch, &extent(60, 41, 1).piece, &Receipt::new(), later(1)).await;
    assert_code(more, Code::QuotaExceeded, "append");
    assert_code(
        catalog.take_over(&up.id, said(60, 101)).await,
        Code::QuotaExceeded,
        "a length beyond the quota",
    );
    assert_eq!(account(catalog, &name).await, (0, 60, 0), "nothing has changed");
    catalog
        .append(&up.id, taken.epoch, &extent(60, 40, 1).piece, &Receipt::new(), later(1))
        .await
        .expect("still the same epoch");
    let known = append_upload(2, &name, "k", Some(1));
    assert_code(catalog.create_upload(&known).await, Code::QuotaExceeded, "create_upload");
}

pub(super) async fn writers_have_numbers(catalog: &dyn Catalog) {
    let name = bucket_name("writers");
    put_bucket(catalog, &name, None).await;
    let parts = upload(71, &name, "k", 10);
    catalog.create_upload(&parts).await.unwrap();
    assert_eq!(catalog.new_writer(&parts.id).await.unwrap(), 1);
    assert_eq!(catalog.new_writer(&parts.id).await.unwrap(), 2, "no number twice");
    assert_code(catalog.new_writer(&upload_id(9)).await, Code::UploadNotFound, "new_writer");
}
