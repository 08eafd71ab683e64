use super::*;
use crate::{Committed, Outcome};
use carrack_domain::access::FileRef;
use carrack_domain::file::File;

pub(super) async fn life(catalog: &dyn Catalog) {
    let name = bucket_name("files");
    let path = key("ü/日本 \u{10ffff}.txt");
    assert_code(catalog.file(&name, &path).await, Code::BucketNotFound, "file");
    let orphan = new_file(&name, &path, blob(1, 5));
    assert_code(catalog.commit_file(orphan).await, Code::BucketNotFound, "commit_file");
    let deleted = catalog.delete_file(&name, &path, &Precondition::None).await;
    assert_code(deleted, Code::BucketNotFound, "delete_file");
    assert_eq!(catalog.blob(&blob_id(1)).await.unwrap(), None, "a failed commit leaves no blob");

    put_bucket(catalog, &name, None).await;
    assert_code(catalog.file(&name, &path).await, Code::FileNotFound, "file");
    let deleted = catalog.delete_file(&name, &path, &Precondition::None).await;
    assert_code(deleted, Code::FileNotFound, "delete_file");

    let mut new = new_file(&name, &path, blob(1, 5));
    new.blob.digest.sha256 = Some([0xaa; 32]);
    let Committed { file, outcome, .. } = catalog.commit_file(new.clone()).await.unwrap();
    let expected = File {
        bucket: name.clone(),
        key: path.clone(),
        blob: new.blob.clone(),
        content_type: new.target.content_type.clone(),
        metadata: new.target.metadata.clone(),
        created_at: NOW,
        created_by: "ann".to_owned(),
    };
    assert_eq!((&file, outcome), (&expected, Outcome::Created));
    assert_eq!(catalog.file(&name, &path).await.unwrap(), expected);
    assert_eq!(catalog.blob(&blob_id(1)).await.unwrap(), Some(new.blob));
    assert_eq!(account(catalog, &name).await, (5, 0, 1));

    let mut new = new_file(&name, &path, blob(2, 7));
    new.created_at = later(9);
    new.created_by = "bob".to_owned();
    new.target.content_type = "image/png".to_owned();
    new.target.metadata = Metadata::new();
    let Committed { file, outcome, orphan } = catalog.commit_file(new).await.unwrap();
    assert_eq!(orphan, Some(blob_id(1)));
    assert_eq!((outcome, file.blob.clone()), (Outcome::Replaced, blob(2, 7)));
    assert_eq!(file.metadata, Metadata::new());
    assert_eq!((file.created_at, file.created_by.as_str()), (later(9), "bob"));
    assert_eq!(catalog.file(&name, &path).await.unwrap(), file);
    assert_eq!(account(catalog, &name).await, (7, 0, 1));

    // A key that only begins alike, or differs in case or in normalisation, is another key.
    for alike in ["ü/日本", "Ü/日本 \u{10ffff}.txt", "u\u{308}/日本 \u{10ffff}.txt"] {
        assert_code(catalog.file(&name, &key(alike)).await, Code::FileNotFound, alike);
    }
    let gone = catalog.delete_file(&name, &path, &Precondition::None).await.unwrap();
    assert_eq!(gone, Some(blob_id(2)));
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
    assert_code(catalog.file(&name, &path).await, Code::FileNotFound, "a deleted file");
}

pub(super) async fn preconditions(catalog: &dyn Catalog) {
    let name = bucket_name("guarded");
    let path = key("k");
    put_bucket(catalog, &name, None).await;
    let commit = async |number: u64, precondition: Precondition| {
        let mut file = new_file(&name, &path, blob(number, 1));
        file.precondition = precondition;
        catalog.commit_file(file).await.map(|committed| committed.outcome)
    };
    let other = "\"00000000000000000000000000000000\"".to_owned();
    let failed = Code::PreconditionFailed;
    assert_code(commit(1, Precondition::Present).await, failed, "If-Match: * without a file");
    assert_code(commit(1, Precondition::Match(vec![other.clone()])).await, failed, "If-Match without a file");
    assert_eq!(catalog.unreferenced_blobs(&[], 9).await.unwrap(), [], "nothing was recorded");
    assert_eq!(commit(1, Precondition::NoneMatch(vec![other.clone()])).await.unwrap(), Outcome::Created);
    assert_code(commit(2, Precondition::Absent).await, failed, "If-None-Match: * with a file");
    assert_eq!(commit(2, Precondition::Present).await.unwrap(), Outcome::Replaced);
    let tag = catalog.file(&name, &path).await.unwrap().etag().as_str().to_owned();
    assert_code(
        commit(3, Precondition::NoneMatch(vec![other.clone(), tag.clone()])).await,
        failed,
        "the tag",
    );
    assert_code(commit(3, Precondition::Match(vec![other.clone()])).await, failed, "another tag");
    assert_eq!(
        commit(3, Precondition::Match(vec![other.clone(), tag.clone()])).await.unwrap(),
        Outcome::Replaced
    );

    let delete = async |precondition: Precondition| catalog.delete_file(&name, &path, &precondition).await;
    assert_code(delete(Precondition::Match(vec![tag])).await, failed, "delete with the tag of before");
    assert_code(delete(Precondition::Absent).await, failed, "delete what must not be there");
    let tag = catalog.file(&name, &path).await.unwrap().etag().as_str().to_owned();
    assert_eq!(delete(Precondition::Match(vec![other, tag])).await.unwrap(), Some(blob_id(3)));
    assert_code(delete(Precondition::Present).await, Code::FileNotFound, "delete twice");
}

pub(super) async fn quota(catalog: &dyn Catalog) {
    let name = bucket_name("narrow");
    put_bucket(catalog, &name, Some(10)).await;
    let (a, b) = (key("a"), key("b"));
    catalog.check_quota(&name, &a, 10).await.expect("all of it");
    assert_code(catalog.check_quota(&name, &a, 11).await, Code::QuotaExceeded, "one more");
    put_file(catalog, &name, "a", 1, 6).await;
    catalog.check_quota(&name, &a, 10).await.expect("the present file counts as gone");
    catalog.check_quota(&name, &b, 4).await.expect("the rest");
    assert_code(catalog.check_quota(&name, &b, 5).await, Code::QuotaExceeded, "beyond the rest");
    let over = new_file(&name, &b, blob(2, 5));
    assert_code(catalog.commit_file(over).await, Code::QuotaExceeded, "commit_file beyond the rest");
    put_file(catalog, &name, "a", 3, 10).await;
    assert_eq!(account(catalog, &name).await, (10, 0, 1));
    catalog.check_quota(&name, &b, 0).await.expect("an empty file always fits");

    put_bucket(catalog, &name, Some(4)).await;
    assert_code(
        catalog.check_quota(&name, &b, 0).await,
        Code::QuotaExceeded,
        "over a quota that was lowered",
    );
    catalog.check_quota(&name, &a, 4).await.expect("shrinking");
    put_file(catalog, &name, "a", 4, 4).await;
    assert_eq!(account(catalog, &name).await, (4, 0, 1));
}

pub(super) async fn failed_commits_change_nothing(catalog: &dyn Catalog) {
    let name = bucket_name("atomic");
    put_bucket(catalog, &name, Some(100)).await;
    put_file(catalog, &name, "k", 1, 10).await;
    let up = upload(1, &name, "k", 20);
    catalog.create_upload(&up).await.unwrap();
    let before = (
        catalog.bucket(&name).await.unwrap(),
        catalog.generation(&name).await.unwrap(),
        catalog.file(&name, &key("k")).await.unwrap(),
    );
    fill(catalog, &up).await;
    let file = finished_file(&up, 2);
    assert_code(catalog.commit_file(file.clone()).await, Code::UploadNotFound, "an upload that is open");
    catalog.begin_finish(&up.id, blob_id(2)).await.unwrap();
    let wrong = finished_file(&up, 3);
    assert_code(catalog.commit_file(wrong).await, Code::UploadNotFound, "under another blob");
    let mut guarded = file.clone();
    guarded.precondition = Precondition::Absent;
    assert_code(catalog.commit_file(guarded).await, Code::PreconditionFailed, "a precondition");
    let mut vast = file.clone();
    vast.blob.size = 101;
    assert_code(catalog.commit_file(vast).await, Code::QuotaExceeded, "over quota");
    let mut unknown = file.clone();
    unknown.origin = Origin::Session(upload_id(77));
    assert_code(catalog.commit_file(unknown).await, Code::UploadNotFound, "an unknown upload");
    let after = (
        catalog.bucket(&name).await.unwrap(),
        catalog.generation(&name).await.unwrap(),
        catalog.file(&name, &key("k")).await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(catalog.blob(&blob_id(2)).await.unwrap(), None);
    assert_eq!(catalog.upload(&up.id).await.unwrap().state, UploadState::Finishing(blob_id(2)));
    catalog.commit_file(file.clone()).await.expect("at last");
    assert_code(catalog.commit_file(file).await, Code::UploadNotFound, "an upload that is complete");
}

pub(super) async fn expire(catalog: &dyn Catalog) {
    let name = bucket_name("expiring");
    assert_code(catalog.expire_file(&name, &key("k"), later(9)).await, Code::BucketNotFound, "expire_file");
    put_bucket(catalog, &name, None).await;
    assert_code(catalog.expire_file(&name, &key("k"), later(9)).await, Code::FileNotFound, "expire_file");
    put_file(catalog, &name, "k", 1, 3).await;
    assert_code(catalog.expire_file(&name, &key("k"), NOW).await, Code::PreconditionFailed, "a young file");
    assert_eq!(account(catalog, &name).await, (3, 0, 1));
    assert_eq!(catalog.expire_file(&name, &key("k"), later(1)).await.unwrap(), Some(blob_id(1)));
    assert_eq!(account(catalog, &name).await, (0, 0, 0));
}

pub(super) async fn content_is_found(catalog: &dyn Catalog) {
    let (one, two) = (bucket_name("content-one"), bucket_name("content-two"));
    put_bucket(catalog, &one, None).await;
    put_bucket(catalog, &two, None).await;
    let sha256 = [7; 32];
    let of = |number, size, sha256| {
        let mut blob = blob(number, size);
        blob.digest.sha256 = sha256;
        blob
    };
    for (bucket, name, number, size, known) in [
        (&one, "known", 1, 10, Some(sha256)),
        (&two, "known-too", 2, 10, Some(sha256)),
        (&one, "longer", 3, 11, Some(sha256)),
        (&one, "other", 4, 10, Some([8; 32])),
        (&one, "unknown", 5, 10, None),
    ] {
        let file = new_file(bucket, &key(name), of(number, size, known));
        catalog.commit_file(file).await.expect("commit_file");
    }
    let find = async |size, known, limit| {
        let found = catalog.files_of_content(size, known, limit).await.unwrap();
        let mut keys: Vec<_> =
            found.iter().map(|file| (file.bucket.to_string(), file.key.to_string())).collect();
        keys.sort();
        keys
    };
    let pair = |bucket: &BucketName, name: &str| (bucket.to_string(), name.to_owned());
    assert_eq!(find(10, Some(sha256), 9).await, [pair(&one, "known"), pair(&two, "known-too")]);
    assert_eq!(find(10, Some(sha256), 1).await.len(), 1);
    assert_eq!(find(10, None, 9).await, [pair(&one, "unknown")]);
    assert_eq!(find(u64::MAX, Some(sha256), 9).await, []);
    catalog.put_sha256(&blob_id(5), sha256).await.unwrap();
    assert_eq!((find(10, None, 9).await.len(), find(10, Some(sha256), 9).await.len()), (0, 3));
}

pub(super) async fn copies(catalog: &dyn Catalog) {
    let name = bucket_name("copies");
    put_bucket(catalog, &name, Some(100)).await;
    put_file(catalog, &name, "source", 1, 40).await;
    let copy = |source: &str, to: &str, number| {
        let mut file = new_file(&name, &key(to), blob(number, 40));
        file.origin = Origin::Copy(FileRef { bucket: name.clone(), key: key(source) });
        file
    };
    let made = catalog.commit_file(copy("source", "copy", 1)).await.unwrap();
    assert_eq!((made.file.blob.id, made.outcome), (blob_id(1), Outcome::Created));
    assert_eq!(account(catalog, &name).await, (80, 0, 2), "both count");
    assert_code(catalog.commit_file(copy("source", "third", 1)).await, Code::QuotaExceeded, "the quota");
    let again = catalog.commit_file(copy("source", "source", 1)).await.unwrap();
    assert_eq!(
        (again.outcome, again.orphan),
        (Outcome::Replaced, None),
        "a copy over itself keeps its bytes"
    );
    assert_code(catalog.commit_file(copy("none", "x", 1)).await, Code::FileNotFound, "no source");
    assert_code(catalog.commit_file(copy("source", "x", 2)).await, Code::FileNotFound, "another content");
    catalog.delete_file(&name, &key("source"), &Precondition::None).await.unwrap();
    assert_code(
        catalog.commit_file(copy("source", "x", 1)).await,
        Code::FileNotFound,
        "a source that is gone",
    );
    assert_eq!(
        catalog.delete_file(&name, &key("copy"), &Precondition::None).await.unwrap(),
        Some(blob_id(1))
    );
}
