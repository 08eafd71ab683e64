//! Downloads: in pieces, continued, verified, never mixed, never outside the folder.

use crate::faults::Fault;
use crate::server::Server;
use crate::{Counted, PART, client, content, name};
use carrack_client::{ClientError, NoProgress, part_path};
use std::fs;
use std::sync::Arc;

#[tokio::test]
async fn pieces_come_to_the_file() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let destination = folder.path().join("out");
    for size in [0, 1, PART as usize, 1_000_003] {
        let (bytes, watch) = (content(size), Arc::new(Counted::default()));
        server.put("default/k", &bytes);
        client.download_file(&name("default/k"), &destination, watch.clone()).await.unwrap();
        assert_eq!(fs::read(&destination).unwrap(), bytes);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no part file, no journal");
        watch.assert_complete();
        let mut streamed = Vec::new();
        client.download_stream(&name("default/k"), &mut streamed, Arc::new(NoProgress)).await.unwrap();
        assert_eq!(streamed, bytes);
    }
}

#[tokio::test]
async fn a_cut_piece_continues_where_it_was_cut() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (bytes, destination) = (content(1_000_003), folder.path().join("out"));
    let watch = Arc::new(Counted::default());
    server.put("default/k", &bytes);
    // More cuts than tries: each of them moved something.
    server.store.faults.add("GET", "/default/k", 2, 10, Fault::CutAfter(30_000));
    client.download_file(&name("default/k"), &destination, watch.clone()).await.unwrap();
    assert_eq!(fs::read(&destination).unwrap(), bytes);
    watch.assert_complete();
    assert!(
        server.seen("GET", "bytes=30000-") + server.seen("GET", "30000-") > 0,
        "from the byte of the cut"
    );
}

#[tokio::test]
async fn a_download_continues_with_the_pieces_that_are_missing() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (bytes, destination) = (content(1_000_003), folder.path().join("out"));
    server.put("default/k", &bytes);
    server.store.faults.add("GET", "/default/k", 5, 1000, Fault::Status(403));
    client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await.unwrap_err();
    assert!(!destination.exists() && part_path(&destination).exists());

    server.store.faults.clear();
    server.forget_log();
    let watch = Arc::new(Counted::default());
    let downloaded = client.download_file(&name("default/k"), &destination, watch.clone()).await.unwrap();
    // Up to three pieces that were in flight when the refusal came may not have been noted.
    assert!((PART..=4 * PART).contains(&downloaded.kept_bytes), "{}", downloaded.kept_bytes);
    assert_eq!(server.seen("GET", "bytes="), 11 - (downloaded.kept_bytes / PART) as usize);
    assert_eq!(fs::read(&destination).unwrap(), bytes);
    watch.assert_complete();
}

#[tokio::test]
async fn a_part_file_of_another_content_is_not_used() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let destination = folder.path().join("out");
    server.put("default/k", &content(1_000_003));
    server.store.faults.add("GET", "/default/k", 5, 1000, Fault::Status(403));
    client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await.unwrap_err();
    server.store.faults.clear();
    let other: Vec<u8> = content(1_000_003).into_iter().rev().collect();
    server.put("default/k", &other);
    let downloaded =
        client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await.unwrap();
    assert_eq!((downloaded.kept_bytes, fs::read(&destination).unwrap()), (0, other));
}

#[tokio::test]
async fn damage_is_found_and_nothing_is_left() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let destination = folder.path().join("out");
    fs::write(&destination, "before").unwrap();
    server.put("default/k", &content(1_000_003));
    server.store.faults.add("GET", "/default/k", 4, 1, Fault::Damage);
    let outcome = client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await;
    assert!(matches!(outcome, Err(ClientError::Corrupt { .. })), "{outcome:?}");
    assert_eq!(fs::read(&destination).unwrap(), b"before");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    // Pieces of an earlier run that went bad on the disk.
    server.store.faults.clear();
    server.store.faults.add("GET", "/default/k", 6, 1000, Fault::Status(403));
    client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await.unwrap_err();
    server.store.faults.clear();
    let part = part_path(&destination);
    let mut bytes = fs::read(&part).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&part, bytes).unwrap();
    let outcome = client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await;
    assert!(matches!(outcome, Err(ClientError::Corrupt { .. })), "{outcome:?}");
    assert!(!part.exists());
    let mut streamed = Vec::new();
    server.store.faults.add("GET", "/default/k", 1, 1, Fault::Damage);
    let outcome = client.download_stream(&name("default/k"), &mut streamed, Arc::new(NoProgress)).await;
    assert!(matches!(outcome, Err(ClientError::Corrupt { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_file_replaced_in_the_middle_is_never_mixed() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let destination = folder.path().join("out");
    server.put("default/k", &content(1_000_003));
    let other = content(1_000_004);
    server.store.faults.add("GET", "/default/k", 4, 1, Fault::Replace(other.clone()));
    let outcome = client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await;
    assert!(matches!(outcome, Err(ClientError::Replaced { .. })), "{outcome:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    client.download_file(&name("default/k"), &destination, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(fs::read(&destination).unwrap(), other);
}

#[tokio::test]
async fn a_folder_stays_inside_its_folder() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let target = folder.path().join("in");
    fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(folder.path(), target.join("link")).unwrap();
    for key in ["p/1", "p/a/2", "p/a/b/3", "p/z 4", "p/link/evil"] {
        server.put(&format!("default/{key}"), key.as_bytes());
    }
    let hostile =
        ["p/../../evil", "p//evil", "/evil", "p/..", "p/\\..\\evil", "q/evil", "p/C:/evil", "p/a\nb", ""];
    *server.store.hostile.lock().unwrap() = hostile.iter().map(|key| (*key).to_owned()).collect();
    let mut refused = Vec::new();
    let watch = Arc::new(NoProgress);
    let each = |key: &str, outcome: carrack_client::Result<_>| {
        if outcome.is_err() {
            refused.push(key.to_owned());
        }
    };
    let downloaded = client.download_folder("default", "p/", &target, watch, each).await.unwrap();
    assert_eq!(downloaded, 4, "the rest is had all the same");
    assert_eq!(refused.len(), hostile.len() + 1);
    assert_eq!(fs::read(target.join("a/b/3")).unwrap(), b"p/a/b/3");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside the folder");
    assert_eq!(server.seen("GET", "?meta"), 4, "the others are not even asked for");
}
