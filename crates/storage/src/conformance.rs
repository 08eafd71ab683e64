//! What every [`Storage`] must do, as a function to run on each of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test of the caller"
)]

use crate::{Before, Flush, Form, Hand, Observer, StageKind, Storage, Whole};
use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::upload::Receipt;
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
    bytes_in_order_go_on_from_their_receipt(&*store, entropy).await;
    if store.is_shared() {
        nothing_of_a_displaced_writer_gets_in(&*store, entropy).await;
    }
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

fn fresh(entropy: &dyn Entropy) -> (UploadId, BlobId) {
    let stage = UploadId::generate(entropy);
    (stage, stage.blob())
}

fn whole(bytes: &[u8], receipts: Vec<Receipt>) -> Whole {
    Whole { size: bytes.len() as u64, crc32: Some(crc32fast::hash(bytes)), receipts }
}

async fn stages(store: &dyn Storage) -> Vec<UploadId> {
    store.stages().await.unwrap().into_iter().map(|(stage, _)| stage).collect()
}

async fn write(store: &dyn Storage, stage: UploadId, offset: u64, bytes: &Bytes) -> Receipt {
    let mut writer = store.extent_writer(stage, offset, Hand::default(), nobody()).await.unwrap();
    for part in bytes.chunks(1000) {
        writer.write(bytes.slice_ref(part)).await.unwrap();
    }
    writer.finish(Flush::Now).await.unwrap()
}

async fn blob_of(store: &dyn Storage, entropy: &dyn Entropy, bytes: &Bytes) -> BlobId {
    let (stage, blob) = fresh(entropy);
    store.create_stage(stage, None, StageKind::Request).await.unwrap();
    let receipt = write(store, stage, 0, bytes).await;
    store.publish(stage, &whole(bytes, vec![receipt])).await.unwrap();
    blob
}

fn all(blob: BlobId, size: usize) -> Extent {
    Extent::Blob { blob, size: size as u64, offset: 0, len: size as u64 }
}

async fn extents_in_any_order_become_a_blob(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    let bytes = content(300_000, 1);
    store.create_stage(stage, Some(300_000), StageKind::Session).await.unwrap();
    let (second, first) =
        tokio::join!(async { write(store, stage, 100_000, &bytes.slice(100_000..)).await }, async {
            write(store, stage, 0, &bytes.slice(..100_000)).await
        },);
    assert_eq!(store.blob_size(blob).await.unwrap(), None);
    store.publish(stage, &whole(&bytes, vec![second, first])).await.unwrap();
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(300_000));
    assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 300_000)]).await.unwrap(), bytes);
    let listed = store.blobs(blob.as_bytes()[0]).await.unwrap();
    assert!(listed.iter().any(|(id, _)| *id == blob));
}

/// Written by several at once, to whom more comes before the last is written, and who wait in between.
async fn large_extents_meet_anywhere(store: &dyn Storage, entropy: &dyn Entropy) {
    const CUTS: [usize; 4] = [0, 1_234_567, 1_238_000, 4_500_001];
    let (stage, blob) = fresh(entropy);
    let bytes = content(CUTS[3], 8);
    store.create_stage(stage, Some(bytes.len() as u64), StageKind::Session).await.unwrap();
    let one = async |extent: usize| {
        let (from, to) = (CUTS[extent], CUTS[extent + 1]);
        let mut writer = store.extent_writer(stage, from as u64, Hand::default(), nobody()).await.unwrap();
        for (number, part) in bytes[from..to].chunks(300_007).enumerate() {
            writer.write(bytes.slice_ref(part)).await.unwrap();
            if number % 3 == 1 {
                let waited = tokio::time::timeout(std::time::Duration::ZERO, writer.settle()).await;
                assert!(waited.is_err() || writer.is_settled());
            }
            if number % 3 == 2 {
                let patience = std::time::Duration::from_millis(100);
                if let Ok(settled) = tokio::time::timeout(patience, writer.settle()).await {
                    settled.unwrap();
                    assert!(writer.is_settled());
                }
            }
        }
        writer.finish(Flush::Now).await.unwrap()
    };
    let (third, first, second) = tokio::join!(one(2), one(0), one(1));
    let whole = whole(&bytes, vec![first, second, third]);
    let stored = store.read_stage(stage, &whole, 0, bytes.len()).await.unwrap();
    assert!(stored == bytes, "as it was written");
    store.publish(stage, &whole).await.unwrap();
    assert!(store.reader(Form::Copied).read(vec![all(blob, bytes.len())]).await.unwrap() == bytes);
}

async fn observers_see_every_byte_in_order(store: &dyn Storage, entropy: &dyn Entropy) {
    let stage = UploadId::generate(entropy);
    let bytes = content(50_000, 2);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let observer: Observer = Box::new(move |part| sink.lock().unwrap().extend_from_slice(part));
    let mut writer = store.extent_writer(stage, 0, Hand::default(), observer).await.unwrap();
    for part in [bytes.slice(..10), bytes.slice(10..20_000), bytes.slice(20_000..)] {
        writer.write(part).await.unwrap();
    }
    let whole = whole(&bytes, vec![writer.finish(Flush::Now).await.unwrap()]);
    assert_eq!(*seen.lock().unwrap(), bytes);
    assert_eq!(store.read_stage(stage, &whole, 10, 30_000).await.unwrap(), bytes[10..30_010]);
    store.discard_stage(stage).await.unwrap();
}

async fn publishing_twice_is_fine(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let bytes = content(10, 3);
    let whole = whole(&bytes, vec![write(store, stage, 0, &bytes).await]);
    store.publish(stage, &whole).await.unwrap();
    store.publish(stage, &whole).await.unwrap();
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(10));
    store.discard_stage(stage).await.unwrap();
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(10), "a blob is no stage any more");
    let elsewhere = store.publish(UploadId::generate(entropy), &whole).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::DataLost);
}

async fn small_bodies_are_stored_at_once(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    let bytes = content(5_000, 9);
    store.store(stage, bytes.clone()).await.unwrap();
    assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 5_000)]).await.unwrap(), bytes);
    assert!(!stages(store).await.contains(&stage));
    if !store.is_shared() {
        // Not every S3 can say that a name is taken: names are random, and nobody tries one twice.
        assert!(store.store(stage, content(5_000, 1)).await.is_err(), "a blob's name is new");
        let kept = store.reader(Form::Copied).read(vec![all(blob, 5_000)]).await.unwrap();
        assert_eq!(kept, bytes, "untouched");
    }
    let one = |seed| async move {
        let ((stage, blob), bytes) = (fresh(entropy), content(100, seed));
        store.store(stage, bytes.clone()).await.unwrap();
        assert_eq!(store.reader(Form::Copied).read(vec![all(blob, 100)]).await.unwrap(), bytes);
    };
    tokio::join!(one(1), one(2), one(3), one(4), one(5), one(6));
}

async fn publishing_the_wrong_size_is_refused(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let receipt = write(store, stage, 0, &content(10, 4)).await;
    let wrong = whole(&content(11, 4), vec![receipt]);
    assert_eq!(store.publish(stage, &wrong).await.unwrap_err().code(), Code::DataLost);
    assert_eq!(store.blob_size(blob).await.unwrap(), None);
    store.discard_stage(stage).await.unwrap();
}

async fn publishing_leaves_out_what_was_never_acknowledged(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    let bytes = content(300, 4);
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let receipt = write(store, stage, 0, &bytes.slice(..200)).await;
    let hand = Hand { writer: 0, before: receipt.clone().into() };
    let mut unrecorded = store.extent_writer(stage, 200, hand, nobody()).await.unwrap();
    unrecorded.write(bytes.slice(200..)).await.unwrap();
    unrecorded.finish(Flush::Now).await.unwrap();
    let whole = whole(&bytes[..200], vec![receipt]);
    store.publish(stage, &whole).await.unwrap();
    store.publish(stage, &whole).await.unwrap();
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

async fn stages_come_and_go(store: &dyn Storage, entropy: &dyn Entropy) {
    let stage = UploadId::generate(entropy);
    store.create_stage(stage, Some(1 << 20), StageKind::Session).await.unwrap();
    assert!(store.create_stage(stage, None, StageKind::Session).await.is_err(), "a stage's name is new");
    assert!(stages(store).await.contains(&stage));
    let mut writer = store.extent_writer(stage, 0, Hand::default(), nobody()).await.unwrap();
    writer.write(content(10, 9)).await.unwrap();
    writer.abandon().await;
    store.discard_stage(stage).await.unwrap();
    store.discard_stage(stage).await.unwrap();
    assert!(!stages(store).await.contains(&stage));
    assert!(store.extent_writer(stage, 0, Hand::default(), nobody()).await.is_err());
    let huge = store.create_stage(UploadId::generate(entropy), Some(1 << 60), StageKind::Session).await;
    assert_eq!(huge.unwrap_err().code(), Code::StorageFull);
    assert_eq!(store.admit(1 << 60).map(drop).unwrap_err().code(), Code::StorageFull);
    drop(store.admit(1).unwrap());
}

/// As tus sends them: short requests, each of which goes on where the one before ended.
async fn bytes_in_order_go_on_from_their_receipt(store: &dyn Storage, entropy: &dyn Entropy) {
    let (stage, blob) = fresh(entropy);
    let bytes = content(9_000_000, 11);
    store.create_stage(stage, None, StageKind::Session).await.unwrap();
    let mut receipt = Receipt::new();
    let cuts = [0, 10, 5_000, 100_000, 8_388_607, 8_388_608, 8_388_608, 8_400_000, bytes.len()];
    for (writer, cut) in cuts.windows(2).enumerate() {
        let hand = Hand { writer: writer as u32 / 2, before: receipt.clone().into() };
        let mut writer = store.extent_writer(stage, cut[0] as u64, hand, nobody()).await.unwrap();
        if cut[1] > cut[0] {
            writer.write(bytes.slice(cut[0]..cut[1])).await.unwrap();
        }
        receipt = writer.finish(Flush::Now).await.unwrap();
    }
    store.publish(stage, &whole(&bytes, vec![receipt])).await.unwrap();
    assert!(store.reader(Form::Copied).read(vec![all(blob, bytes.len())]).await.unwrap() == bytes);
}

async fn nothing_of_a_displaced_writer_gets_in(store: &dyn Storage, entropy: &dyn Entropy) {
    for len in [100_000, 8_388_608 + 5] {
        let (stage, blob) = fresh(entropy);
        let (one, two) = (content(len, 1), content(len, 2));
        store.create_stage(stage, Some(len as u64), StageKind::Session).await.unwrap();
        let mut displaced = store.extent_writer(stage, 0, Hand::default(), nobody()).await.unwrap();
        displaced.write(one.slice(..len / 2)).await.unwrap();
        let hand = Hand { writer: 1, before: Before::default() };
        let mut newer = store.extent_writer(stage, 0, hand, nobody()).await.unwrap();
        newer.write(two.clone()).await.unwrap();
        let receipt = newer.finish(Flush::Now).await.unwrap();
        displaced.write(one.slice(len / 2..)).await.unwrap();
        displaced.finish(Flush::Now).await.unwrap();
        store.publish(stage, &whole(&two, vec![receipt])).await.unwrap();
        assert!(store.reader(Form::Copied).read(vec![all(blob, len)]).await.unwrap() == two);
    }
}

async fn empty_blobs_exist(store: &dyn Storage, entropy: &dyn Entropy) {
    let blob = blob_of(store, entropy, &Bytes::new()).await;
    assert_eq!(store.blob_size(blob).await.unwrap(), Some(0));
    store.reader(Form::Copied).open(blob, 0).await.unwrap();
}
