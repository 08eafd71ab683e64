use super::*;
use crate::{ChunkList, Committed};
use bytes::Bytes;

pub(super) async fn references(catalog: &dyn Catalog) {
    let (one, two) = (bucket_name("one"), bucket_name("two"));
    put_bucket(catalog, &one, None).await;
    put_bucket(catalog, &two, None).await;
    put_file(catalog, &one, "a", 1, 5).await;
    put_file(catalog, &one, "b", 1, 5).await;
    put_file(catalog, &two, "a", 1, 5).await;
    put_file(catalog, &two, "a", 1, 5).await;
    assert_eq!(account(catalog, &one).await, (10, 0, 2));
    assert_eq!(account(catalog, &two).await, (5, 0, 1), "a file replaced by itself");
    assert_eq!(catalog.blobs(None, 9).await.unwrap(), [blob(1, 5)]);

    let delete = async |bucket: &BucketName, name: &str| {
        catalog.delete_file(bucket, &key(name), &Precondition::None).await.unwrap()
    };
    assert_eq!(delete(&one, "a").await, None, "two files still point at it");
    assert_eq!(delete(&two, "a").await, None);
    catalog.forget_blob(&blob_id(1)).await.expect("of a referenced blob: nothing");
    assert_eq!(catalog.blob(&blob_id(1)).await.unwrap(), Some(blob(1, 5)));
    assert_eq!(catalog.unreferenced_blobs(&[], 9).await.unwrap(), []);
    assert_eq!(delete(&one, "b").await, Some(blob_id(1)));
    assert_eq!(catalog.unreferenced_blobs(&[], 9).await.unwrap(), [blob_id(1)]);
    assert_eq!(catalog.blobs(None, 9).await.unwrap(), []);

    let again = new_file(&one, &key("c"), blob(1, 5));
    assert!(catalog.commit_file(again).await.is_err(), "bytes that are being deleted cannot be pointed at");
    put_file(catalog, &one, "d", 2, 5).await;
    let other = new_file(&one, &key("e"), blob(2, 6));
    assert!(catalog.commit_file(other).await.is_err(), "a blob id never names other bytes");
    assert_eq!(account(catalog, &one).await, (5, 0, 1));
}

pub(super) async fn sweeping(catalog: &dyn Catalog) {
    let name = bucket_name("sweep");
    put_bucket(catalog, &name, None).await;
    for number in 0..7 {
        put_file(catalog, &name, "replaced", number, number).await;
    }
    for number in 10..14 {
        put_file(catalog, &name, &format!("kept-{number}"), number, number).await;
    }
    let sorted = async |skip: &[BlobId], limit: usize| {
        let mut found = catalog.unreferenced_blobs(skip, limit).await.unwrap();
        found.sort();
        found
    };
    let ids = |numbers: &[u64]| numbers.iter().map(|number| blob_id(*number)).collect::<Vec<_>>();
    assert_eq!(sorted(&[], 99).await, ids(&[0, 1, 2, 3, 4, 5]), "replaced blobs wait for their bytes to go");
    assert_eq!(sorted(&[], 2).await.len(), 2);
    assert_eq!(sorted(&[], 0).await, []);
    assert_eq!(sorted(&ids(&[0, 1, 2, 4, 77]), 1).await.len(), 1, "skipped ones do not use up the limit");
    assert_eq!(sorted(&ids(&[0, 1, 2, 4, 77]), 9).await, ids(&[3, 5]));
    assert_eq!(catalog.blob(&blob_id(3)).await.unwrap(), Some(blob(3, 3)), "known until forgotten");
    catalog.forget_blob(&blob_id(3)).await.unwrap();
    catalog.forget_blob(&blob_id(3)).await.expect("of an unknown blob: nothing");
    assert_eq!(catalog.blob(&blob_id(3)).await.unwrap(), None);
    assert_eq!(sorted(&[], 99).await, ids(&[0, 1, 2, 4, 5]));

    let mut walked = Vec::new();
    let mut after = None;
    loop {
        let page = catalog.blobs(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        walked.extend(page);
    }
    let expected: Vec<_> = [6, 10, 11, 12, 13].map(|number| blob(number, number)).to_vec();
    assert_eq!(walked, expected, "referenced ones, by id");
}

pub(super) async fn facts_learnt_later(catalog: &dyn Catalog) {
    let name = bucket_name("learn");
    put_bucket(catalog, &name, None).await;
    let id = blob_id(1);
    let list = ChunkList { chunk_size: 1 << 20, hashes: vec![[1; 32], [0xff; 32]] };
    assert_eq!(catalog.chunks(&id).await.unwrap(), None);
    catalog.put_chunks(&id, &list).await.expect("of an unknown blob: nothing");
    catalog.put_sha256(&id, [3; 32]).await.expect("of an unknown blob: nothing");
    assert_eq!(catalog.chunks(&id).await.unwrap(), None);
    put_file(catalog, &name, "a", 1, 5).await;
    put_file(catalog, &name, "b", 1, 5).await;
    put_file(catalog, &name, "c", 2, 5).await;
    catalog.put_chunks(&id, &ChunkList { chunk_size: 7, hashes: Vec::new() }).await.unwrap();
    catalog.put_chunks(&id, &list).await.expect("again");
    assert_eq!(catalog.chunks(&id).await.unwrap(), Some(list));
    assert_eq!(catalog.chunks(&blob_id(2)).await.unwrap(), None);

    catalog.put_sha256(&id, [3; 32]).await.unwrap();
    catalog.put_sha256(&id, [3; 32]).await.expect("again");
    let mut expected = blob(1, 5);
    expected.digest.sha256 = Some([3; 32]);
    assert_eq!(catalog.blob(&id).await.unwrap(), Some(expected.clone()));
    for path in ["a", "b"] {
        assert_eq!(catalog.file(&name, &key(path)).await.unwrap().blob, expected, "its files know it too");
    }
    assert_eq!(catalog.file(&name, &key("c")).await.unwrap().blob, blob(2, 5));
    let Committed { file, .. } = catalog.commit_file(new_file(&name, &key("d"), blob(1, 5))).await.unwrap();
    assert_eq!(file.blob, expected, "and files that come to point at it");

    for path in ["a", "b", "d"] {
        catalog.delete_file(&name, &key(path), &Precondition::None).await.unwrap();
    }
    assert!(catalog.chunks(&id).await.unwrap().is_some(), "kept as long as the blob");
    catalog.forget_blob(&id).await.unwrap();
    assert_eq!(catalog.chunks(&id).await.unwrap(), None, "and gone with it");
}

/// Bytes that are kept with the record come and go with it.
pub(super) async fn contents(catalog: &dyn Catalog) {
    let name = bucket_name("contents");
    put_bucket(catalog, &name, Some(100)).await;
    let with = |path: &str, number: u64, content: &[u8]| {
        let mut file = new_file(&name, &key(path), blob(number, content.len() as u64));
        file.content = Some(Bytes::copy_from_slice(content));
        file
    };
    let one = |number: u64| async move { catalog.contents(&[blob_id(number)]).await.unwrap().remove(0) };
    let large = vec![0xa5; 50];
    assert_eq!(catalog.contents(&[]).await.unwrap(), [] as [Option<Bytes>; 0]);
    catalog.commit_file(with("a", 1, b"one\0")).await.unwrap();
    catalog.commit_file(with("empty", 2, b"")).await.unwrap();
    catalog.commit_file(with("large", 3, &large)).await.unwrap();
    put_file(catalog, &name, "stored", 4, 4).await;
    let found = catalog.contents(&[3, 9, 1, 4, 2, 1].map(blob_id)).await.unwrap();
    let expected = [Some(&large[..]), None, Some(b"one\0"), None, Some(b""), Some(b"one\0")];
    assert_eq!(
        found,
        expected.map(|content| content.map(Bytes::copy_from_slice)),
        "in order, as often as named"
    );
    for (number, stored) in [(1, false), (4, true)] {
        assert_eq!(catalog.is_stored(&blob_id(number)).await.unwrap(), stored, "{number}");
    }
    let blobs = catalog.blobs(None, 9).await.unwrap();
    assert_eq!(blobs.len(), 4, "all are looked after");

    let mut wrong = with("wrong", 5, b"five");
    wrong.blob.size = 5;
    assert!(catalog.commit_file(wrong).await.is_err(), "they are the content or they are not");
    let too_many = catalog.commit_file(with("b", 6, &[6; 99])).await.unwrap_err();
    assert_eq!(too_many.code(), Code::QuotaExceeded);
    assert_eq!((one(5).await, one(6).await), (None, None), "nothing of what failed is kept");

    let same = new_file(&name, &key("same"), blob(1, 4));
    catalog.commit_file(same).await.unwrap();
    catalog.commit_file(with("a", 7, b"anew")).await.unwrap();
    catalog.forget_blob(&blob_id(1)).await.expect("of a referenced blob: nothing");
    assert_eq!(one(1).await.unwrap(), "one\0", "another file has it");
    catalog.delete_file(&name, &key("same"), &Precondition::None).await.unwrap();
    assert_eq!(one(1).await.unwrap(), "one\0", "somebody may be reading it");
    catalog.forget_blob(&blob_id(1)).await.unwrap();
    assert_eq!((one(1).await, one(7).await), (None, Some(Bytes::from_static(b"anew"))));
    assert!(catalog.spare_bytes().await.unwrap() < 1 << 20, "as good as nothing was deleted");
    let again = with("again", 8, b"with the number of one that is gone?");
    catalog.commit_file(again).await.unwrap();
    assert_eq!(one(7).await.unwrap(), "anew");
    // The last that came goes after it was read, and another comes.
    assert!(one(8).await.is_some());
    catalog.delete_file(&name, &key("again"), &Precondition::None).await.unwrap();
    assert_eq!(catalog.forget_contents(&[blob_id(8)]).await.unwrap(), []);
    catalog.commit_file(with("next", 10, b"next")).await.unwrap();
    assert_eq!((one(8).await, one(10).await), (None, Some(Bytes::from_static(b"next"))));
    many_contents(catalog, &name).await;
}

/// Of many, those are forgotten at once that nothing refers to and that are kept with their records.
async fn many_contents(catalog: &dyn Catalog, name: &BucketName) {
    // "anew" and "empty" lose their files, "large" keeps its own, the stored one has bytes elsewhere.
    for path in ["a", "empty", "stored"] {
        catalog.delete_file(name, &key(path), &Precondition::None).await.unwrap();
    }
    let others = catalog.forget_contents(&[7, 3, 4, 2, 9].map(blob_id)).await.unwrap();
    assert_eq!(others, [3, 4, 9].map(blob_id));
    let left = catalog.contents(&[7, 3, 2].map(blob_id)).await.unwrap();
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    let waiting = catalog.unreferenced_blobs(&[], 99).await.unwrap();
    assert!(waiting.contains(&blob_id(4)) && !waiting.contains(&blob_id(7)), "{waiting:?}");
    assert_eq!(catalog.forget_contents(&[]).await.unwrap(), []);
}
