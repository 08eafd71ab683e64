//! The S3 store against a real S3, Garage.

use bytes::Bytes;
use carrack_domain::rope::Extent;
use carrack_domain::upload::Receipt;
use carrack_domain::{BlobId, Clock, Code, Entropy, Timestamp, UploadId};
use carrack_engines::Garage;
use carrack_storage::{Flush, Form, Hand, S3Options, S3Store, StageKind, Storage, Whole, conformance};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

struct Now;

impl Clock for Now {
    #[allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "S3 compares it with its own")]
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(now.as_millis() as i64)
    }
}

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed);
        bytes.fill(0);
        bytes[0] = next as u8;
        let end = bytes.len();
        bytes[end - 7..].copy_from_slice(&next.to_le_bytes()[..7]);
    }
}

fn options(garage: &Garage) -> S3Options {
    S3Options {
        endpoint: garage.endpoint(0),
        region: garage.region().to_owned(),
        bucket: garage.bucket().to_owned(),
        prefix: "below/".to_owned(),
        access_key_id: garage.access_key_id().to_owned(),
        secret_access_key: garage.secret_access_key().to_owned(),
        path_style: true,
        memory_bytes: 64 << 20,
        public_endpoint: String::new(),
        direct_parts: false,
        direct_downloads: false,
    }
}

async fn open(options: S3Options) -> Result<S3Store, String> {
    static NODES: AtomicU64 = AtomicU64::new(1);
    let names = NODES.fetch_add(1, Ordering::Relaxed) << 40;
    S3Store::open(options, Arc::new(Now), Arc::new(Counting(AtomicU64::new(names)))).await
}

#[tokio::test]
async fn conforms_with_much_memory_and_with_the_least() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let entropy = Counting(AtomicU64::new(0));
    for (memory_bytes, direct_parts) in [(64 << 20, false), (0, false), (64 << 20, true)] {
        let store = open(S3Options { memory_bytes, direct_parts, ..options(&garage) }).await.unwrap();
        conformance::run(Arc::new(store), &entropy).await;
    }
}

fn bytes(len: usize, seed: u8) -> Bytes {
    (0..len)
        .map(|at| (at as u8).wrapping_mul(29).wrapping_add(seed) ^ (at >> 12) as u8)
        .collect::<Vec<u8>>()
        .into()
}

fn hand(writer: u32, receipt: &Receipt) -> Hand {
    Hand { writer, before: receipt.clone().into() }
}

/// The whole blob, in pieces as a download reads it.
async fn read(store: &S3Store, blob: BlobId, size: u64) -> Result<Vec<u8>, Code> {
    let mut reader = store.reader(Form::Mapped);
    reader.follow(Box::new(std::iter::once(Extent::Blob { blob, size, offset: 0, len: size })));
    let mut got = Vec::new();
    while (got.len() as u64) < size {
        let offset = got.len() as u64;
        let len = (64 << 10).min(size - offset);
        let piece = reader
            .read(vec![Extent::Blob { blob, size, offset, len }])
            .await
            .map_err(|error| error.code())?;
        assert_eq!(piece.len() as u64, len);
        got.extend_from_slice(&piece);
    }
    Ok(got)
}

#[tokio::test]
async fn nodes_go_on_with_what_others_began() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let nodes = [open(options(&garage)).await.unwrap(), open(options(&garage)).await.unwrap()];
    let stage = UploadId::from_bytes([7; 16]);
    let all = bytes(30_000_000, 3);
    nodes[0].create_stage(stage, Some(all.len() as u64), StageKind::Session).await.unwrap();
    let mut receipt = Receipt::new();
    for (turn, cut) in [0, 9_000_000, 9_500_000, 20_000_000, 20_000_001, all.len()].windows(2).enumerate() {
        let node = turn % 2;
        let mut writer = nodes[node]
            .extent_writer(stage, cut[0] as u64, hand(node as u32, &receipt), Box::new(|_| {}))
            .await
            .unwrap();
        writer.write(all.slice(cut[0]..cut[1])).await.unwrap();
        receipt = writer.finish(Flush::Now).await.unwrap();
    }
    let whole = Whole { size: all.len() as u64, crc32: Some(crc32fast::hash(&all)), receipts: vec![receipt] };
    let (one, two) = tokio::join!(nodes[0].publish(stage, &whole), nodes[1].publish(stage, &whole));
    assert!(one.is_ok() && two.is_ok(), "both are told that it is there: {one:?} {two:?}");
    assert!(read(&nodes[1], stage.blob(), whole.size).await.unwrap() == all);
    assert_eq!(nodes[0].stages().await.unwrap(), []);
    nodes[0].delete(stage.blob()).await.unwrap();
    assert_eq!(
        read(&nodes[1], stage.blob(), whole.size).await.unwrap_err(),
        Code::DataLost,
        "never a shorter file"
    );
    assert_eq!(nodes[1].stages().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_damaged_behind_our_back_is_noticed_before_it_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let store = open(options(&garage)).await.unwrap();
    let stage = UploadId::from_bytes([8; 16]);
    let all = bytes(20_000_000, 4);
    store.create_stage(stage, Some(all.len() as u64), StageKind::Session).await.unwrap();
    let mut writer = store.extent_writer(stage, 0, Hand::default(), Box::new(|_| {})).await.unwrap();
    writer.write(all.clone()).await.unwrap();
    let receipt = writer.finish(Flush::Now).await.unwrap();
    // A program that does not keep to the lanes writes other bytes over a part.
    let mut rogue = store.extent_writer(stage, 0, Hand::default(), Box::new(|_| {})).await.unwrap();
    rogue.write(bytes(8 << 20, 5)).await.unwrap();
    rogue.finish(Flush::Now).await.unwrap();
    let whole = Whole { size: all.len() as u64, crc32: Some(crc32fast::hash(&all)), receipts: vec![receipt] };
    assert_eq!(store.publish(stage, &whole).await.unwrap_err().code(), Code::DataLost);
    assert_eq!(store.blob_size(stage.blob()).await.unwrap(), None);
}

#[tokio::test]
async fn slow_writers_give_their_memory_to_those_who_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let store = open(S3Options { memory_bytes: 0, ..options(&garage) }).await.unwrap();
    let stage = |number: u8| UploadId::from_bytes([number; 16]);
    let all = bytes(12_000_000, 6);
    let mut slow = JoinSet::new();
    for number in 0..100 {
        let (store, all) = (store.clone(), all.clone());
        slow.spawn(async move {
            store.create_stage(stage(number), None, StageKind::Session).await.unwrap();
            let mut writer =
                store.extent_writer(stage(number), 0, Hand::default(), Box::new(|_| {})).await.unwrap();
            // More of them together than there is memory.
            writer.write(all.slice(..400_000)).await.unwrap();
            let settled = tokio::time::timeout(Duration::from_secs(3), writer.settle()).await;
            assert!(settled.is_err() || writer.is_settled());
            writer.write(all.slice(400_000..500_000)).await.unwrap();
            let receipts = vec![writer.finish(Flush::Now).await.unwrap()];
            let whole = Whole { size: 500_000, crc32: Some(crc32fast::hash(&all[..500_000])), receipts };
            store.publish(stage(number), &whole).await.unwrap();
        });
    }
    store.create_stage(stage(200), Some(all.len() as u64), StageKind::Request).await.unwrap();
    let mut writer = store.extent_writer(stage(200), 0, Hand::default(), Box::new(|_| {})).await.unwrap();
    let fast = async {
        writer.write(all.clone()).await.unwrap();
        vec![writer.finish(Flush::AtPublish).await.unwrap()]
    };
    let receipts = tokio::time::timeout(Duration::from_secs(60), fast).await.expect("memory comes back");
    let whole = Whole { size: all.len() as u64, crc32: Some(crc32fast::hash(&all)), receipts };
    store.publish(stage(200), &whole).await.unwrap();
    slow.join_all().await;
    assert!(read(&store, stage(200).blob(), whole.size).await.unwrap() == all);
    assert!(read(&store, stage(99).blob(), 500_000).await.unwrap() == all[..500_000]);
    assert_eq!(store.stages().await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_work_is_said_in_words_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let wrong = [
        (S3Options { bucket: "another".to_owned(), ..options(&garage) }, "storage.s3.bucket"),
        (S3Options { secret_access_key: "1".repeat(64), ..options(&garage) }, "storage.s3.access_key_id"),
        (S3Options { region: "elsewhere".to_owned(), ..options(&garage) }, "storage.s3.region"),
        (S3Options { endpoint: "127.0.0.1".to_owned(), ..options(&garage) }, "storage.s3.endpoint"),
        (S3Options { endpoint: "http://127.0.0.1:1".to_owned(), ..options(&garage) }, "no connection"),
    ];
    for (options, word) in wrong {
        let secret = options.secret_access_key.clone();
        let said = open(options).await.err().unwrap();
        assert!(said.contains(word) && !said.contains(&secret), "{word}: {said}");
    }
}
