//! The S3 store against a real S3, Garage.

use carrack_domain::{Clock, Entropy, Timestamp};
use carrack_engines::Garage;
use carrack_storage::{S3Options, S3Store, conformance};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Now;

impl Clock for Now {
    #[allow(clippy::disallowed_methods, reason = "S3 compares it with its own")]
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
    }
}

async fn open(options: S3Options) -> Result<S3Store, String> {
    S3Store::open(options, Arc::new(Now), Arc::new(Counting(AtomicU64::new(1 << 40)))).await
}

#[tokio::test]
async fn conforms_with_much_memory_and_with_the_least() {
    let folder = tempfile::tempdir().unwrap();
    let garage = Garage::start(folder.path()).unwrap();
    let entropy = Counting(AtomicU64::new(0));
    for memory_bytes in [64 << 20, 0] {
        let store = open(S3Options { memory_bytes, ..options(&garage) }).await.unwrap();
        conformance::run(Arc::new(store), &entropy).await;
    }
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
