use super::*;
use crate::{Committed, Finish, Outcome};
use carrack_domain::file::Pieces;

fn partial(number: u64, bucket: &BucketName, length: Option<u64>) -> Upload {
    let shape = Shape::Append { length, partial: true };
    Upload { shape, ..append_upload(number, bucket, &format!("tus/{number}"), length) }
}

fn joined(number: u64, bucket: &BucketName, name: &str) -> Upload {
    let echo = Echo { metadata: None, concat: Some(format!("final;{number}")) };
    Upload { shape: Shape::Joined { length: None }, echo, ..upload(number, bucket, name, 0) }
}

async fn append(catalog: &dyn Catalog, up: &Upload, len: u64) {
    let taken = catalog.take_over(&up.id, None).await.unwrap();
    catalog
        .append(&up.id, taken.epoch, &extent(taken.offset, len, 5).piece, &Receipt::new(), later(60))
        .await
        .unwrap();
}

/// Partial uploads 1 and 2 of 30 and 12 bytes, whole.
async fn two(catalog: &dyn Catalog, name: &BucketName) -> [Upload; 2] {
    let both = [partial(1, name, Some(30)), partial(2, name, Some(12))];
    for up in &both {
        catalog.create_upload(up).await.unwrap();
        append(catalog, up, up.length().unwrap()).await;
    }
    both
}

/// The file of pieces 101 and 102.
fn file_of(up: &Upload, number: u64, runs: &[(u64, u64)]) -> NewFile {
    let pieces = Pieces::new(runs.iter().map(|(number, size)| (blob_id(*number), *size)), None);
    let mut file = new_file(&up.target.bucket, &up.target.key, blob(number, pieces.size()));
    file.blob.pieces = Some(Arc::new(pieces));
    file.origin = Origin::Session(up.id);
    file
}

const NAMES: [(u64, u64); 2] = [(1, 101), (2, 102)];

fn names() -> Vec<(UploadId, BlobId)> {
    NAMES.iter().map(|(upload, piece)| (upload_id(*upload), blob_id(*piece))).collect()
}

pub(super) async fn life(catalog: &dyn Catalog) {
    let name = bucket_name("joins");
    put_bucket(catalog, &name, None).await;
    let (one, two) = (partial(1, &name, Some(30)), partial(2, &name, None));
    catalog.create_upload(&one).await.unwrap();
    catalog.create_upload(&two).await.unwrap();
    assert!(catalog.upload(&one.id).await.unwrap().is_partial());
    assert!(catalog.begin_finish(&one.id, blob_id(9)).await.is_err(), "a partial one is no file");
    let all = joined(9, &name, "whole");
    assert_eq!(catalog.create_joined(&all, &[two.id, one.id, two.id]).await.unwrap(), all.id);
    assert_eq!(catalog.upload(&all.id).await.unwrap(), all);
    assert_eq!(catalog.joined_of(&two.id).await.unwrap(), Some(all.id));
    assert_eq!(catalog.joined_of(&all.id).await.unwrap(), None);
    let parts = catalog.partials(&all.id).await.unwrap();
    let ids: Vec<UploadId> = parts.iter().map(|part| part.upload.id).collect();
    assert_eq!(ids, [two.id, one.id, two.id], "in order, as often as named");
    assert!(parts.iter().all(|part| !part.is_whole() && part.stored.is_none()));
    assert!(catalog.begin_finish(&all.id, blob_id(9)).await.is_err(), "it has no bytes of its own");
    assert_code(catalog.begin_join(&all.id, blob_id(9), &names()).await, Code::PartsMissing, "nothing yet");
    append(catalog, &one, 30).await;
    append(catalog, &two, 12).await;
    assert_code(catalog.begin_join(&all.id, blob_id(9), &names()).await, Code::PartsMissing, "no length yet");
    catalog.take_over(&two.id, said(12, 12)).await.unwrap();
    assert!(catalog.partials(&all.id).await.unwrap().iter().all(crate::Partial::is_whole));
    assert_eq!(account(catalog, &name).await, (0, 42, 0));
    assert_eq!(catalog.begin_join(&all.id, blob_id(9), &names()).await.unwrap(), Finish::Begun);

    let file = file_of(&all, 9, &[(102, 12), (101, 30), (102, 12)]);
    let Committed { file, .. } = catalog.commit_file(file).await.unwrap();
    assert_eq!(account(catalog, &name).await, (54, 0, 1), "bytes count as often as they are in the file");
    assert_eq!(catalog.file(&name, &key("whole")).await.unwrap(), file);
    assert_eq!(catalog.blob(&blob_id(9)).await.unwrap(), Some(file.blob.clone()));
    assert_eq!(catalog.blobs(None, 9).await.unwrap(), std::slice::from_ref(&file.blob));
    for (run, stored) in [(101, true), (102, true), (9, false), (7, false)] {
        assert_eq!(catalog.is_stored(&blob_id(run)).await.unwrap(), stored, "{run}");
    }
    assert_code(catalog.upload(&one.id).await, Code::UploadNotFound, "used up");
    assert_eq!(catalog.partials(&all.id).await.unwrap(), []);
    let done = catalog.upload(&all.id).await.unwrap();
    assert_eq!((done.state, done.length()), (UploadState::Complete, Some(54)));
    let again = catalog.begin_join(&all.id, blob_id(8), &names()).await.unwrap();
    assert_eq!(again, Finish::Done(Box::new(file.clone()), Outcome::Created));

    assert_eq!(file.blob.blake3(), None);
    catalog.put_blake3(&blob_id(9), [3; 32]).await.unwrap();
    catalog.put_blake3(&blob_id(9), [3; 32]).await.expect("again");
    assert!(catalog.put_blake3(&blob_id(9), [4; 32]).await.is_err(), "it has one");
    let known = catalog.file(&name, &key("whole")).await.unwrap();
    assert_eq!((known.blob.blake3(), known.etag()), (Some([3; 32]), file.etag()), "the tag stays");
    put_file(catalog, &name, "plain", 50, 5).await;
    catalog.put_blake3(&blob_id(50), [3; 32]).await.expect("of a blob in one run: nothing");
    assert_eq!(catalog.blob(&blob_id(50)).await.unwrap(), Some(blob(50, 5)));
    catalog.delete_file(&name, &key("whole"), &Precondition::None).await.unwrap();
    assert!(catalog.is_stored(&blob_id(101)).await.unwrap(), "until it is forgotten");
    catalog.forget_blob(&blob_id(9)).await.unwrap();
    assert!(!catalog.is_stored(&blob_id(101)).await.unwrap());
}

pub(super) async fn wishes_repeated(catalog: &dyn Catalog) {
    let name = bucket_name("repeat");
    put_bucket(catalog, &name, None).await;
    let both = two(catalog, &name).await.map(|up| up.id);
    let all = joined(9, &name, "whole");
    catalog.create_joined(&all, &both).await.unwrap();
    let same = joined(10, &name, "whole");
    assert_eq!(catalog.create_joined(&same, &both).await.unwrap(), all.id);
    assert!(!catalog.has_upload(&same.id).await.unwrap());
    for (other, list, what) in [
        (joined(10, &name, "elsewhere"), vec![both[0], both[1]], "another target"),
        (joined(10, &name, "whole"), vec![both[1], both[0]], "another order"),
        (joined(10, &name, "whole"), vec![both[0]], "another list"),
    ] {
        assert_code(catalog.create_joined(&other, &list).await, Code::InvalidConcatenation, what);
    }
    catalog.begin_join(&all.id, blob_id(9), &names()).await.unwrap();
    assert_eq!(catalog.create_joined(&same, &both).await.unwrap(), all.id, "while it is finishing");
    catalog.commit_file(file_of(&all, 9, &[(101, 30), (102, 12)])).await.unwrap();
    assert_eq!(catalog.create_joined(&same, &both).await.unwrap(), all.id, "once it is complete");
    let stranger = Upload { owner: "eve".to_owned(), ..joined(11, &name, "whole") };
    assert_code(catalog.create_joined(&stranger, &both).await, Code::InvalidConcatenation, "somebody else");
}

pub(super) async fn what_cannot_be_joined(catalog: &dyn Catalog) {
    let name = bucket_name("refuse");
    let all = joined(9, &name, "whole");
    assert_code(catalog.create_joined(&all, &[]).await, Code::BucketNotFound, "no bucket");
    put_bucket(catalog, &name, None).await;
    let mine = partial(1, &name, Some(1));
    let theirs = Upload { owner: "eve".to_owned(), ..partial(2, &name, Some(1)) };
    let whole = append_upload(3, &name, "k", Some(1));
    let parts = upload(4, &name, "k", 1);
    for up in [&mine, &theirs, &whole, &parts] {
        catalog.create_upload(up).await.unwrap();
    }
    for (id, what) in
        [(theirs.id, "foreign"), (whole.id, "no partial"), (parts.id, "parts"), (upload_id(99), "unknown")]
    {
        let refused = catalog.create_joined(&all, &[mine.id, id]).await;
        assert_code(refused, Code::InvalidConcatenation, what);
        assert!(!catalog.has_upload(&all.id).await.unwrap(), "{what}");
        assert_eq!(catalog.joined_of(&mine.id).await.unwrap(), None, "{what}");
    }
}

pub(super) async fn finish_abandon_and_delete(catalog: &dyn Catalog) {
    let name = bucket_name("abandon");
    put_bucket(catalog, &name, None).await;
    let both = two(catalog, &name).await;
    let all = joined(9, &name, "whole");
    catalog.create_joined(&all, &both.clone().map(|up| up.id)).await.unwrap();
    assert!(catalog.begin_join(&all.id, blob_id(9), &names()[..1]).await.is_err(), "a name for each");
    catalog.begin_join(&all.id, blob_id(9), &names()).await.unwrap();
    assert_eq!(
        catalog.begin_join(&all.id, blob_id(8), &names()).await.unwrap(),
        Finish::Underway(blob_id(9))
    );
    let states: Vec<_> =
        catalog.partials(&all.id).await.unwrap().into_iter().map(|p| p.upload.state).collect();
    assert_eq!(states, [UploadState::Finishing(blob_id(101)), UploadState::Finishing(blob_id(102))]);
    assert_eq!(catalog.finishing_uploads().await.unwrap().len(), 3);
    assert_code(catalog.delete_upload(&both[0].id).await, Code::UploadFinished, "a partial one being joined");
    assert_eq!(catalog.expire_uploads(later(10_000), 9).await.unwrap(), [], "nor swept");
    catalog.abandon_finish(&all.id, blob_id(8)).await.expect("of another blob: nothing");
    assert_eq!(catalog.finishing_uploads().await.unwrap().len(), 3);
    catalog.abandon_finish(&all.id, blob_id(9)).await.unwrap();
    assert_eq!(catalog.finishing_uploads().await.unwrap(), []);
    assert_eq!(account(catalog, &name).await, (0, 42, 0));

    catalog.delete_upload(&both[0].id).await.unwrap();
    assert_eq!(catalog.partials(&all.id).await.unwrap().len(), 1);
    assert_code(catalog.begin_join(&all.id, blob_id(9), &names()).await, Code::PartsMissing, "one is gone");
    catalog.delete_upload(&all.id).await.unwrap();
    assert_eq!(account(catalog, &name).await, (0, 12, 0), "what was to be joined stays");
    let again = joined(10, &name, "whole");
    catalog.create_joined(&again, &[both[1].id]).await.expect("free for another");
    let mut swept = catalog.expire_uploads(later(10_000), 9).await.unwrap();
    swept.sort();
    assert_eq!(swept, [both[1].id, again.id]);
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
}

pub(super) async fn quotas(catalog: &dyn Catalog) {
    let (name, other) = (bucket_name("parts"), bucket_name("whole"));
    put_bucket(catalog, &name, None).await;
    put_bucket(catalog, &other, Some(41)).await;
    let both = two(catalog, &name).await.map(|up| up.id);
    let all = joined(9, &other, "whole");
    catalog.create_joined(&all, &both).await.unwrap();
    assert_code(catalog.begin_join(&all.id, blob_id(9), &names()).await, Code::QuotaExceeded, "begin_join");
    assert_eq!(catalog.finishing_uploads().await.unwrap(), [], "nothing has changed");
    put_bucket(catalog, &other, Some(42)).await;
    catalog.begin_join(&all.id, blob_id(9), &names()).await.unwrap();
    catalog.commit_file(file_of(&all, 9, &[(101, 30), (102, 12)])).await.unwrap();
    assert_eq!(account(catalog, &name).await, (0, 0, 0), "given back where it was reserved");
    assert_eq!(account(catalog, &other).await, (42, 0, 1));
}

/// A file that was joined from two partial uploads.
pub(super) async fn whole(catalog: &dyn Catalog, name: &BucketName) {
    let ids = two(catalog, name).await.map(|up| up.id);
    let all = joined(9, name, "whole");
    catalog.create_joined(&all, &ids).await.unwrap();
    assert_eq!(catalog.begin_join(&all.id, blob_id(109), &names()).await.unwrap(), Finish::Begun);
    catalog.commit_file(file_of(&all, 109, &[(101, 30), (102, 12)])).await.unwrap();
}
