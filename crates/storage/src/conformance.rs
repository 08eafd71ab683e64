//! What every [`Storage`] must do, as a function to run on each of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test of the caller"
)]

use crate::{Flush, Form, Observer, StageKind, Storage};
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::{BlobId, Code, Entropy, UploadId};
use std::sync::{Arc, Mutex};

/// Runs the whole suite on an empty store.
pub async fn run(store: Arc<dyn Storage>, entropy: &dyn Entropy) {
    extents_in_any_order_become_a_blob(&*store, entropy).await;
    large_extents_meet_anywhere(&*store, entropy).await;
    observers_see_every_byte_in_order(&*store, entropy).await;
    publishing_twice_is_fine(&*store, entropy).await;
    small_bodies_are_stored_at_once(&*store, entropy).await;
    publishing_the_wrong_size_is_refused(&*store, entropy).await;
    publishing_leaves_out_what_was_never_acknowledged(&*store, entropy).await;
    reads_gather_blobs_and_inline_bytes(&*store, entropy).await;
    deleted_blobs_stay_readable_for_open_readers(&*store, entropy).await;
    damaged_promises_are_errors(&*store, entropy).await;
    stages_come_and_go(&*store, entropy).await;
    empty_blobs_exist(&*store, entropy).await;
    store.check().await.unwrap();
    assert!(store.available().await.unwrap() > 0);
}

fn nobody() -> Observer {
    Box::new(|_| {})
}

fn content(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<u8>>().into()
}

async fn write(store: &dyn Storage, stage: UploadId, offset: u64, bytes: &Bytes) {
    let mut writer = store.extent_writer(stage, offset, nobody()).await.unwrap();
    for part in bytes.chunks(1000) {
        writer.write(bytes.slice_ref(part)).await.unwrap();
    }
    writer.finish(Flush::Now).await.unwrap();
}

async fn blob_of(store: &dyn Storage, entropy: &dyn Entropy, bytes: &Bytes) -> BlobId {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    store.create_stage(stage, None, StageKind::Request).await.unwrap();
    write(store, stage, 0, bytes).await;
    store.publish(stage, blob, bytes.len() as u64).await.unwrap();
    blob
}

fn all(blob: BlobId, size: usize) -> Extent {
    Extent::Blob { blob, size: size as u64, offset: 0, len: size as u64 }
}

async fn extents_in_any_order_become_a_blob(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    let bytes = content(300_000, 1);
    store.create_stage(stage, Some(300_000), StageKind::Session).await.unwrap();
    let (second, first) =
        tokio::join!(async { write(store, stage, 100_000, &bytes.slice(100_000..)).await }, async {
            write(store, stage, 0, &bytes.slice(..100_000)).await
        },);
    let ((), ()) = (second, first);
    assert_eq!(store.blob_size(blob).await.unwrap(), None);
    store.publish(stage, blob, 300_000).await.unwrap();
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(300_000));
    assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 300_000)]).await.unwrap(), bytes);
    let listed = store.blobs(blob.as_bytes()[0]).await.unwrap();
    assert!(listed.iter().any(|(id, _)| *id == blob));
}

/// Written by several at once, to whom more comes before the last is written, and who wait in between.
async fn large_extents_meet_anywhere(store: &dyn Storage, entropy: &dyn Entropy) {
    const CUTS: [usize; 4] = [0, 1_234_567, 1_238_000, 4_500_001];
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    let bytes = content(CUTS[3], 8);
    store.create_stage(stage, Some(bytes.len() as u64), StageKind::Session).await.unwrap();
    let one = async |extent: usize| {
        let (from, to) = (CUTS[extent], CUTS[extent + 1]);
        let mut writer = store.extent_writer(stage, from as u64, nobody()).await.unwrap();
        for (number, part) in bytes[from..to].chunks(300_007).enumerate() {
            writer.write(bytes.slice_ref(part)).await.unwrap();
            if number % 3 == 1 {
                let waited = tokio::time::timeout(std::time::Duration::ZERO, writer.settle()).await;
                assert!(waited.is_err() || writer.is_settled());
            }
            if number % 3 == 2 {
                writer.settle().await.unwrap();
                assert!(writer.is_settled());
            }
        }
        writer.finish(Flush::Now).await.unwrap();
    };
    tokio::join!(one(2), one(0), one(1));
    let stored = store.read_stage(stage, 0, bytes.len()).await.unwrap();
    assert!(stored == bytes, "as it was written");
    store.publish(stage, blob, bytes.len() as u64).await.unwrap();
    assert!(store.reader(Form::Copied).read(vec![all(blob, bytes.len())]).await.unwrap() == bytes);
}

async fn observers_see_every_byte_in_order(store: &dyn Storage, entropy: &dyn Entropy) {
    let stage = UploadId::generate(entropy);
    let bytes = content(50_000, 2);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let observer: Observer = Box::new(move |part| sink.lock().unwrap().extend_from_slice(part));
    let mut writer = store.extent_writer(stage, 7, observer).await.unwrap();
    for part in [bytes.slice(..10), bytes.slice(10..20_000), bytes.slice(20_000..)] {
        writer.write(part).await.unwrap();
    }
    writer.finish(Flush::Now).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), bytes);
    assert_eq!(store.read_stage(stage, 17, 30_000).await.unwrap(), bytes[10..30_010]);
    store.discard_stage(stage).await.unwrap();
}

async fn publishing_twice_is_fine(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    write(store, stage, 0, &content(10, 3)).await;
    store.publish(stage, blob, 10).await.unwrap();
    store.publish(stage, blob, 10).await.unwrap();
    let elsewhere = store.publish(UploadId::generate(entropy), BlobId::generate(entropy), 10).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::DataLost);
}

async fn small_bodies_are_stored_at_once(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    let bytes = content(5_000, 9);
    store.store(stage, blob, bytes.clone()).await.unwrap();
    assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 5_000)]).await.unwrap(), bytes);
    assert!(!has_stage(store, stage).await);
    let again = UploadId::generate(entropy);
    assert!(store.store(again, blob, content(5_000, 1)).await.is_err(), "a blob's name is new");
    assert!(!has_stage(store, again).await, "nothing is left");
    assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 5_000)]).await.unwrap(), bytes, "untouched");
    let one = |seed| async move {
        let (blob, bytes) = (BlobId::generate(entropy), content(100, seed));
        store.store(UploadId::generate(entropy), blob, bytes.clone()).await.unwrap();
        assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 100)]).await.unwrap(), bytes);
    };
    tokio::join!(one(1), one(2), one(3), one(4), one(5), one(6));
}

async fn publishing_the_wrong_size_is_refused(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    write(store, stage, 0, &content(10, 4)).await;
    assert_eq!(store.publish(stage, blob, 11).await.unwrap_err().code(), Code::DataLost);
    assert_eq!(store.blob_size(blob).await.unwrap(), None);
    store.discard_stage(stage).await.unwrap();
}

async fn publishing_leaves_out_what_was_never_acknowledged(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = (UploadId::generate(entropy), BlobId::generate(entropy));
    let bytes = content(300, 4);
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    write(store, stage, 0, &bytes).await;
    store.publish(stage, blob, 200).await.unwrap();
    store.publish(stage, blob, 200).await.unwrap();
    let read = store.reader(Form::Copied).read(vec![all(blob, 200)]).await.unwrap();
    assert_eq!(read, bytes[..200]);
}

async fn reads_gather_blobs_and_inline_bytes(store: &dyn Storage, entropy: &dyn Entropy) {
    let (one, two) = (content(5_000, 5), content(70_000, 6));
    let (a, b) = (blob_of(store, entropy, &one).await, blob_of(store, entropy, &two).await);
    let extents = vec![
        Extent::Inline(Bytes::from_static(b"head")),
        Extent::Blob { blob: a, size: 5_000, offset: 10, len: 20 },
        Extent::Inline(Bytes::from_static(b"between")),
        Extent::Blob { blob: b, size: 70_000, offset: 69_999, len: 1 },
        Extent::Blob { blob: b, size: 70_000, offset: 0, len: 65_000 },
    ];
    let expected = [b"head", &one[10..30], b"between", &two[69_999..], &two[..65_000]].concat();
    for form in [Form::Copied, Form::Mapped] {
        let mut reader = store.reader(form);
        assert_eq!(reader.read(extents.clone()).await.unwrap(), expected);
        for (offset, len) in [(3, 4), (3, 60_000), (0, 16 << 10), (0, (16 << 10) + 1)] {
            let again = Extent::Blob { blob: b, size: 70_000, offset, len };
            let range = offset as usize..(offset + len) as usize;
            assert_eq!(reader.read(vec![again]).await.unwrap(), two[range]);
        }
    }
}

async fn deleted_blobs_stay_readable_for_open_readers(store: &dyn Storage, entropy: &dyn Entropy) {
    let bytes = content(1_000, 7);
    let blob = blob_of(store, entropy, &bytes).await;
    let mut reader = store.reader(Form::Copied);
    reader.open(blob, 1_000).await.unwrap();
    store.delete(blob).await.unwrap();
    store.delete(blob).await.unwrap();
    assert_eq!(store.blob_size(blob).await.unwrap(), None);
    assert_eq!(reader.read(vec![all(blob, 1_000)]).await.unwrap(), bytes);
    assert_eq!(store.reader(Form::Copied).open(blob, 1_000).await.unwrap_err().code(), Code::DataLost);
}

async fn damaged_promises_are_errors(store: &dyn Storage, entropy: &dyn Entropy) {
    let blob = blob_of(store, entropy, &content(100, 8)).await;
    assert_eq!(store.reader(Form::Copied).open(blob, 101).await.unwrap_err().code(), Code::DataLost);
    assert_eq!(
        store.reader(Form::Copied).read(vec![all(blob, 99)]).await.unwrap_err().code(),
        Code::DataLost
    );
}

async fn has_stage(store: &dyn Storage, stage: UploadId) -> bool {
    store.stages().await.unwrap().iter().any(|(found, age_secs)| *found == stage && *age_secs < 3600)
}

async fn stages_come_and_go(store: &dyn Storage, entropy: &dyn Entropy) {
    let stage = UploadId::generate(entropy);
    store.create_stage(stage, Some(1 << 20), StageKind::Session).await.unwrap();
    assert!(store.create_stage(stage, None, StageKind::Session).await.is_err(), "a stage's name is new");
    assert!(has_stage(store, stage).await);
    let mut writer = store.extent_writer(stage, 0, nobody()).await.unwrap();
    writer.write(content(10, 9)).await.unwrap();
    writer.abandon().await;
    store.discard_stage(stage).await.unwrap();
    store.discard_stage(stage).await.unwrap();
    assert!(!has_stage(store, stage).await);
    assert!(store.extent_writer(stage, 0, nobody()).await.is_err());
    let huge = store.create_stage(UploadId::generate(entropy), Some(1 << 60), StageKind::Session).await;
    assert_eq!(huge.unwrap_err().code(), Code::StorageFull);
    assert_eq!(store.admit(1 << 60).map(drop).unwrap_err().code(), Code::StorageFull);
    drop(store.admit(1).unwrap());
}

async fn empty_blobs_exist(store: &dyn Storage, entropy: &dyn Entropy) {
    let blob = blob_of(store, entropy, &Bytes::new()).await;
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(0));
    store.reader(Form::Copied).open(blob, 0).await.unwrap();
}
