//! What every [`Catalog`] must do, as tests that know nothing of how it is made.
//!
//! [`run`] panics at the first deviation and says which. It makes a catalog of its own for every test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code that lives in the library so that every implementation can run it"
)]

mod appends;
mod archives;
mod audit;
mod blobs;
mod buckets;
pub mod copies;
pub mod events;
mod files;
mod joins;
mod links;
mod listing;
mod model;
mod owners;
mod races;
mod tokens;
mod uploads;

use crate::{Announced, Catalog, NewFile, Origin};
use carrack_domain::digest::{Algorithm, ContentDigest, Digest, PieceHasher};
use carrack_domain::file::{Blob, BucketSettings, Metadata, Precondition};
use carrack_domain::upload::{Echo, PartPlan, Receipt, Shape, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BlobId, BucketName, Code, Key, KeyPrefix, Result, Timestamp, UploadId};
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// A moment all tests agree on.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Runs everything. `make` gives a new, empty catalog each time, which keeps an audit log.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Catalog>) {
    buckets::life(&*make().await).await;
    buckets::generations_never_repeat(&*make().await).await;
    buckets::numbers_beyond_i64(&*make().await).await;
    buckets::settings(&*make().await).await;
    links::life(&*make().await).await;
    links::uses(&*make().await).await;
    links::expiry(&*make().await).await;
    links::as_many_as_there_are(make().await).await;
    tokens::life(&*make().await).await;
    tokens::what_was_made_with_one_ends_with_it(&*make().await).await;
    tokens::expiry(&*make().await).await;
    tokens::denials(&*make().await).await;
    files::life(&*make().await).await;
    files::preconditions(&*make().await).await;
    files::quota(&*make().await).await;
    owners::quotas(&*make().await).await;
    files::failed_commits_change_nothing(&*make().await).await;
    files::expire(&*make().await).await;
    files::content_is_found(&*make().await).await;
    files::copies(&*make().await).await;
    listing::pages(&*make().await).await;
    listing::scans(&*make().await).await;
    listing::random(&*make().await).await;
    listing::survives_changes_between_pages(&*make().await).await;
    uploads::life(&*make().await).await;
    uploads::ledger(&*make().await).await;
    uploads::coverage(&*make().await).await;
    uploads::finish(&*make().await).await;
    uploads::done_shows_the_file_as_it_was(&*make().await).await;
    uploads::reservations(&*make().await).await;
    uploads::lists(&*make().await).await;
    appends::grow_at_their_end(&*make().await).await;
    appends::writers_have_numbers(&*make().await).await;
    appends::come_at_once(&*make().await).await;
    appends::fencing(&*make().await).await;
    appends::lengths_said_later(&*make().await).await;
    appends::quota_of_what_grows(&*make().await).await;
    joins::life(&*make().await).await;
    joins::wishes_repeated(&*make().await).await;
    joins::what_cannot_be_joined(&*make().await).await;
    joins::finish_abandon_and_delete(&*make().await).await;
    joins::quotas(&*make().await).await;
    blobs::references(&*make().await).await;
    blobs::sweeping(&*make().await).await;
    blobs::facts_learnt_later(&*make().await).await;
    blobs::contents(&*make().await).await;
    archives::life(&*make().await).await;
    archives::holds(&*make().await).await;
    archives::jobs(&*make().await).await;
    archives::leases_end(&*make().await).await;
    archives::packs(&*make().await).await;
    archives::one_taker_each(make().await).await;
    audit::changes(&*make().await).await;
    audit::other_changes(&*make().await).await;
    audit::pages(&*make().await).await;
    audit::retention(&*make().await).await;
    audit::at_once(make().await).await;
    model::accounts_never_drift(&*make().await).await;
    races::one_creator_wins(make().await).await;
    races::one_finisher_begins(make().await).await;
    races::one_of_many_appends_wins(make().await).await;
    races::extents_side_by_side(make().await).await;
    races::reservations_share_one_quota(make().await).await;
    closes(make().await).await;
}

async fn closes(catalog: Arc<dyn Catalog>) {
    let name = bucket_name("closing");
    put_bucket(&*catalog, &name, None).await;
    catalog.check().await.expect("an open catalog is ready");
    catalog.close().await.expect("close");
    assert_code(catalog.bucket(&name).await, Code::ShuttingDown, "bucket after close");
    assert_code(catalog.buckets().await, Code::ShuttingDown, "buckets after close");
    assert_code(
        catalog.put_bucket(&name, &BucketSettings::of_quota(None), NOW).await,
        Code::ShuttingDown,
        "put_bucket after close",
    );
    assert_code(catalog.check().await, Code::ShuttingDown, "check after close");
}

/// SplitMix64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

fn assert_code<T: Debug>(result: Result<T>, code: Code, what: &str) {
    match result {
        Err(error) => assert_eq!(error.code(), code, "{what}: {error:?}"),
        Ok(value) => panic!("{what}: {code:?} expected, got {value:?}"),
    }
}

fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

fn bucket_name(text: &str) -> BucketName {
    BucketName::parse(text).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn prefix(text: &str) -> KeyPrefix {
    KeyPrefix::parse(text).unwrap()
}

async fn put_bucket(catalog: &dyn Catalog, name: &BucketName, quota: Option<u64>) {
    catalog.put_bucket(name, &BucketSettings::of_quota(quota), NOW).await.expect("put_bucket");
}

fn blob_id(number: u64) -> BlobId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    BlobId::from_bytes(bytes)
}

/// A blob whose facts all follow from its number; the top bits of every fact are in use.
fn blob(number: u64, size: u64) -> Blob {
    let mut blake3 = [0xfe; 32];
    blake3[..8].copy_from_slice(&number.to_be_bytes());
    let digest = ContentDigest { crc32: !(number as u32), blake3, sha256: None };
    Blob { id: blob_id(number), size, digest, pieces: None }
}

fn metadata(text: &str) -> Metadata {
    [("ключ \"1\"".to_owned(), text.to_owned()), (String::new(), "\\ \n \u{1f680}".to_owned())].into()
}

fn target(bucket: &BucketName, key: &Key) -> Target {
    Target {
        bucket: bucket.clone(),
        key: key.clone(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        metadata: metadata("v"),
    }
}

fn new_file(bucket: &BucketName, key: &Key, blob: Blob) -> NewFile {
    NewFile {
        target: target(bucket, key),
        blob,
        content: None,
        precondition: Precondition::None,
        created_at: NOW,
        created_by: "ann".to_owned(),
        origin: Origin::Request,
    }
}

async fn put_file(catalog: &dyn Catalog, bucket: &BucketName, name: &str, number: u64, size: u64) {
    catalog.commit_file(new_file(bucket, &key(name), blob(number, size))).await.expect("commit_file");
}

fn upload_id(number: u64) -> UploadId {
    UploadId::from_bytes(*blob_id(number).as_bytes())
}

fn upload(number: u64, bucket: &BucketName, name: &str, size: u64) -> Upload {
    Upload {
        id: upload_id(number),
        owner: "ann".to_owned(),
        target: target(bucket, &key(name)),
        shape: Shape::Parts(PartPlan::new(size, Some(1000), NonZeroU64::MIN).unwrap()),
        echo: Echo::default(),
        expected: vec![
            Digest::new(Algorithm::Sha256, vec![0xee; 32]).unwrap(),
            Digest::new(Algorithm::Crc32, vec![0, 1, 2, 0xff]).unwrap(),
        ],
        precondition: Precondition::Absent,
        told: false,
        wants_sha256: false,
        direct: false,
        state: UploadState::Open,
        created_at: NOW,
        expires_at: later(60),
    }
}

/// An append upload.
fn append_upload(number: u64, bucket: &BucketName, name: &str, length: Option<u64>) -> Upload {
    Upload {
        shape: Shape::Append { length, partial: false },
        echo: Echo { metadata: Some("name dMO8,  flag".to_owned()), concat: None },
        ..upload(number, bucket, name, 0)
    }
}

/// A length that a request at an offset says.
fn said(offset: u64, length: u64) -> Option<Announced> {
    Some(Announced { offset, length })
}

/// An extent of `len` bytes that are all `fill`.
fn extent(offset: u64, len: u64, fill: u8) -> StoredExtent {
    let bytes = vec![fill; usize::try_from(len).unwrap()];
    let mut whole = PieceHasher::new(offset);
    whole.update(&bytes);
    let mut alone = PieceHasher::new(0);
    alone.update(&bytes);
    StoredExtent {
        piece: whole.finish(),
        blake3: alone.finish().content().unwrap().blake3,
        receipt: Receipt::new(),
    }
}

/// Records a whole upload of one extent.
async fn fill(catalog: &dyn Catalog, upload: &Upload) {
    let whole = extent(0, upload.length().unwrap(), 7);
    catalog.record_extent(&upload.id, &whole, upload.expires_at).await.expect("record_extent");
}

/// The file an upload becomes.
fn finished_file(upload: &Upload, number: u64) -> NewFile {
    let mut file =
        new_file(&upload.target.bucket, &upload.target.key, blob(number, upload.length().unwrap()));
    file.origin = Origin::Session(upload.id);
    file
}

/// used, reserved, files.
async fn account(catalog: &dyn Catalog, name: &BucketName) -> (u64, u64, u64) {
    let bucket = catalog.bucket(name).await.expect("bucket");
    (bucket.used_bytes, bucket.reserved_bytes, bucket.file_count)
}
