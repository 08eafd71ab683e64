//! The local store through its trait, and what only a local disk can do.

mod s3;

use carrack_domain::{Code, Entropy, UploadId};
use carrack_storage::{Durability, LocalOptions, LocalStore, StageKind, Storage, conformance};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed);
        bytes.fill(0);
        bytes[0] = next as u8;
        bytes[8..16].copy_from_slice(&next.to_le_bytes());
    }
}

fn options(folder: &std::path::Path, durability: Durability) -> LocalOptions {
    LocalOptions { folder: folder.to_owned(), durability, reserve_bytes: 0, open_blobs_max: 16 }
}

#[tokio::test]
async fn conforms_with_either_durability() {
    for durability in [Durability::Power, Durability::Process] {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(options(folder.path(), durability)).unwrap();
        conformance::run(Arc::new(store), &Counting(AtomicU64::new(0))).await;
    }
}

#[tokio::test]
async fn opens_again_and_keeps_the_reserve() {
    let folder = tempfile::tempdir().unwrap();
    LocalStore::open(options(folder.path(), Durability::Power)).unwrap();
    let greedy = LocalOptions { reserve_bytes: u64::MAX, ..options(folder.path(), Durability::Power) };
    let store = LocalStore::open(greedy).unwrap();
    let stage = UploadId::from_bytes([1; 16]);
    let refused = store.create_stage(stage, Some(1), StageKind::Request).await.unwrap_err();
    assert_eq!(refused.code(), Code::StorageFull);
    assert_eq!(store.stages().await.unwrap(), []);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = LocalStore::open(options(&file, Durability::Power)).err().unwrap();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}
