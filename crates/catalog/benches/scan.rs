//! Prints what the hot paths cost: `cargo bench -p carrack-catalog --bench scan`.

use carrack_catalog::{Catalog, ListQuery, NewFile, Origin, SqliteCatalog, SqliteOptions};
use carrack_domain::digest::{ContentDigest, PieceHasher};
use carrack_domain::file::{Blob, BucketSettings, Precondition};
use carrack_domain::upload::{Echo, PartPlan, Receipt, Shape, StoredExtent, Target, Upload, UploadState};
use carrack_domain::{BlobId, BucketName, Key, KeyPrefix, Timestamp, UploadId};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

const FILES: u64 = 100_000;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn key(number: u64) -> Outcome<Key> {
    Ok(Key::parse(&format!("photos/2024/{:03}/IMG_{number:08}.jpeg", number % 500))?)
}

fn file(bucket: &BucketName, number: u64) -> Outcome<NewFile> {
    // Spread over the whole range of ids, as real ones are.
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let digest = ContentDigest { crc32: number as u32, blake3: [number as u8; 32], sha256: None };
    Ok(NewFile {
        target: Target {
            bucket: bucket.clone(),
            key: key(number)?,
            content_type: "image/jpeg".to_owned(),
            metadata: [("camera".to_owned(), "a camera of some make".to_owned())].into(),
        },
        blob: Blob { id: BlobId::from_bytes(id), size: number, digest, pieces: None },
        content: None,
        precondition: Precondition::None,
        created_at: NOW,
        created_by: "somebody@example.org".to_owned(),
        origin: Origin::Request,
    })
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
fn report(what: &str, count: u64, begun: Instant) {
    let nanos = begun.elapsed().as_nanos() as f64 / count as f64;
    println!("{what:<44} {:>10.0} ns each {:>12.0} /s", nanos, 1e9 / nanos);
}

async fn fill(catalog: &Arc<SqliteCatalog>, bucket: &BucketName) -> Outcome {
    let begun = Instant::now();
    let mut set: JoinSet<Outcome> = JoinSet::new();
    for worker in 0..512u64 {
        let (catalog, bucket) = (Arc::clone(catalog), bucket.clone());
        set.spawn(async move {
            for number in (worker..FILES).step_by(512) {
                catalog.commit_file(file(&bucket, number)?).await?;
            }
            Ok(())
        });
    }
    while let Some(result) = set.join_next().await {
        result??;
    }
    report("commit_file, 512 at a time", FILES, begun);
    Ok(())
}

async fn reads(catalog: &Arc<SqliteCatalog>, bucket: &BucketName) -> Outcome {
    for round in 1..=3 {
        let begun = Instant::now();
        let mut sum = 0;
        catalog
            .scan(
                bucket,
                &KeyPrefix::default(),
                Box::new(move |member| {
                    sum += member.blob.size + member.key.len() as u64;
                    std::hint::black_box(sum);
                    Ok(())
                }),
            )
            .await?;
        report(&format!("scan, a row (round {round})"), FILES, begun);
    }
    let begun = Instant::now();
    for number in 0..20_000u64 {
        std::hint::black_box(catalog.file(bucket, &key(number * 7919 % FILES)?).await?);
    }
    report("file, one at a time", 20_000, begun);
    let begun = Instant::now();
    for _ in 0..20_000 {
        std::hint::black_box(catalog.generation(bucket).await?);
    }
    report("generation, one at a time", 20_000, begun);
    let query = |delimiter, limit, prefix: &str| -> Outcome<ListQuery> {
        Ok(ListQuery { prefix: KeyPrefix::parse(prefix)?, delimiter, after: None, limit })
    };
    for (what, query) in [
        ("list, 1 prefix over 100000 files", query(Some('/'), 1000, "")?),
        ("list, 500 prefixes over 100000 files", query(Some('/'), 1000, "photos/2024/")?),
        ("list, 1000 files", query(None, 1000, "")?),
    ] {
        let begun = Instant::now();
        for _ in 0..100 {
            std::hint::black_box(catalog.list(bucket, &query).await?);
        }
        report(what, 100, begun);
    }
    Ok(())
}

fn extent(offset: u64) -> StoredExtent {
    let mut hasher = PieceHasher::new(offset);
    hasher.update(&[1; 1024]);
    StoredExtent { piece: hasher.finish(), blake3: [1; 32], receipt: Receipt::new() }
}

async fn ledger(catalog: &Arc<SqliteCatalog>, bucket: &BucketName) -> Outcome {
    let id = UploadId::from_bytes([1; 16]);
    let upload = Upload {
        id,
        owner: "somebody".to_owned(),
        target: file(bucket, 1)?.target,
        shape: Shape::Parts(PartPlan::new(10_000 * 1024, Some(1024), NonZeroU64::MIN)?),
        echo: Echo::default(),
        expected: Vec::new(),
        precondition: Precondition::None,
        told: false,
        wants_sha256: false,
        direct: false,
        state: UploadState::Open,
        created_at: NOW,
        expires_at: NOW,
    };
    catalog.create_upload(&upload).await?;
    let begun = Instant::now();
    for number in 0..500 {
        catalog.record_extent(&id, &extent(number * 1024), NOW).await?;
    }
    report("record_extent, one at a time", 500, begun);
    let (begun, commits) = (Instant::now(), catalog.commits());
    let mut set: JoinSet<Outcome> = JoinSet::new();
    for worker in 0..64u64 {
        let catalog = Arc::clone(catalog);
        set.spawn(async move {
            for number in (worker..10_000).step_by(64) {
                catalog.record_extent(&id, &extent(number * 1024), NOW).await?;
            }
            Ok(())
        });
    }
    while let Some(result) = set.join_next().await {
        result??;
    }
    report("record_extent, 64 at a time", 10_000, begun);
    report("  commits meanwhile", catalog.commits() - commits, begun);
    let begun = Instant::now();
    for number in 0..20_000 {
        std::hint::black_box(catalog.extent(&id, number % 10_000 * 1024).await?);
    }
    report("extent, one at a time", 20_000, begun);
    let begun = Instant::now();
    catalog.begin_finish(&id, BlobId::from_bytes([2; 16])).await?;
    report("begin_finish of 10000 extents", 1, begun);
    Ok(())
}

async fn run() -> Outcome {
    let directory = tempfile::TempDir::new_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    let options = SqliteOptions {
        path: directory.path().join("catalog.sqlite"),
        readers: 4,
        queue: 1024,
        audit: None,
        events: None,
    };
    let catalog = Arc::new(SqliteCatalog::open(options.clone())?);
    let bucket = BucketName::parse("bench")?;
    catalog.put_bucket(&bucket, &BucketSettings::of_quota(None), NOW).await?;
    fill(&catalog, &bucket).await?;
    reads(&catalog, &bucket).await?;
    ledger(&catalog, &bucket).await?;
    drop(catalog);
    let begun = Instant::now();
    let catalog = SqliteCatalog::open(options)?;
    report("open after an unclean stop, 100000 files", 1, begun);
    catalog.close().await?;
    Ok(())
}

fn main() -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}
