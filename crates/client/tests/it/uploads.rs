//! Uploads: whole, in parts, continued, and of files that change.

use crate::faults::Fault;
use crate::server::Server;
use crate::{Counted, PART, client, content, name};
use carrack_client::{ClientError, NoProgress, UploadOptions};
use std::fs;
use std::sync::Arc;

#[tokio::test]
async fn small_files_go_whole_and_are_sent_again_when_cut() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    for size in [0, 1, PART as usize] {
        let (path, bytes, watch) = (folder.path().join("a"), content(size), Arc::new(Counted::default()));
        fs::write(&path, &bytes).unwrap();
        server.store.faults.add("PUT", "/v1/files", 0, 2, Fault::Status(503));
        let options = UploadOptions::default();
        client.upload_file(&path, &name("default/d/ü a"), &options, watch.clone()).await.unwrap();
        assert_eq!(server.get("default/d/ü a").unwrap(), bytes);
        watch.assert_complete();
    }
    assert_eq!(server.seen("POST", "/v1/uploads"), 0);
}

#[tokio::test]
async fn streams_have_one_try() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let bytes = content(777_777);
    let (options, reader) = (UploadOptions::default(), std::io::Cursor::new(bytes.clone()));
    client.upload_stream(reader, &name("default/s"), &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(server.get("default/s").unwrap(), bytes);
    server.store.faults.add("PUT", "/v1/files", 0, 1, Fault::Status(503));
    let reader = std::io::Cursor::new(bytes);
    let error = client.upload_stream(reader, &name("default/t"), &options, Arc::new(NoProgress)).await;
    assert!(matches!(error, Err(ClientError::Unavailable { .. })));
    assert_eq!(server.get("default/t"), None);
}

#[tokio::test]
async fn an_upload_continues_with_the_parts_that_are_missing() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (path, bytes) = (folder.path().join("a"), content(1_234_567));
    fs::write(&path, &bytes).unwrap();
    let (target, options) = (name("default/a"), UploadOptions::default());
    // Five parts get through, then the server refuses for good.
    server.store.faults.add("PUT", "/parts/", 5, 1000, Fault::Status(403));
    let error = client.upload_file(&path, &target, &options, Arc::new(NoProgress)).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert_eq!(server.open_uploads(), 1);

    server.store.faults.clear();
    server.forget_log();
    let watch = Arc::new(Counted::default());
    let uploaded = client.upload_file(&path, &target, &options, watch.clone()).await.unwrap();
    assert_eq!(uploaded.kept_bytes, 5 * PART);
    assert_eq!(server.seen("PUT", "/parts/"), 13 - 5);
    assert_eq!(server.seen("POST", "/v1/uploads "), 0, "no second upload");
    assert_eq!(server.get("default/a").unwrap(), bytes);
    watch.assert_complete();

    server.forget_log();
    client.upload_file(&path, &target, &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(server.seen("POST", "/v1/uploads "), 1, "the journal ended with the upload");
}

#[tokio::test]
async fn an_upload_that_the_server_forgot_begins_anew() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (path, bytes) = (folder.path().join("a"), content(500_001));
    fs::write(&path, &bytes).unwrap();
    let (target, options) = (name("default/a"), UploadOptions::default());
    server.store.faults.add("PUT", "/parts/", 2, 1000, Fault::Status(400));
    client.upload_file(&path, &target, &options, Arc::new(NoProgress)).await.unwrap_err();
    server.store.faults.clear();
    server.drop_uploads();
    let uploaded = client.upload_file(&path, &target, &options, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(uploaded.kept_bytes, 0);
    assert_eq!(server.get("default/a").unwrap(), bytes);
}

#[tokio::test]
async fn lost_answers_and_damaged_parts_are_sent_again() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (path, bytes, watch) = (folder.path().join("a"), content(900_000), Arc::new(Counted::default()));
    fs::write(&path, &bytes).unwrap();
    server.store.faults.add("PUT", "/parts/2", 0, 1, Fault::CutAfter(3));
    server.store.faults.add("PUT", "/parts/3", 0, 2, Fault::Status(500));
    server.store.faults.add("PUT", "/parts/4", 0, 1, Fault::Damage);
    server.store.faults.add("POST", "/complete", 0, 1, Fault::CutAfter(0));
    client.upload_file(&path, &name("default/a"), &UploadOptions::default(), watch.clone()).await.unwrap();
    assert_eq!(server.get("default/a").unwrap(), bytes);
    assert_eq!(server.seen("PUT", "/parts/4"), 2);
    assert_eq!(server.seen("POST", "/complete"), 2);
    watch.assert_complete();
}

#[tokio::test]
async fn a_part_that_stays_damaged_ends_the_upload() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let path = folder.path().join("a");
    fs::write(&path, content(300_000)).unwrap();
    server.store.faults.add("PUT", "/parts/2", 0, 9, Fault::Damage);
    let outcome =
        client.upload_file(&path, &name("default/a"), &UploadOptions::default(), Arc::new(NoProgress)).await;
    assert!(matches!(outcome, Err(ClientError::Corrupt { .. })));
    assert_eq!((server.get("default/a"), server.open_uploads()), (None, 0));
}

/// Changes the file under the upload's hands.
struct Meddler(std::path::PathBuf, fn(&std::path::Path));

impl carrack_client::Progress for Meddler {
    fn started(&self, _total: Option<u64>) {
        (self.1)(&self.0);
    }

    fn advanced(&self, _bytes: u64) {}
    fn finished(&self) {}
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_an_error() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let meddlings: [fn(&std::path::Path); 2] = [
        |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(250_000).unwrap(),
        |path| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let mut bytes = fs::read(path).unwrap();
            bytes[299_999] ^= 1;
            fs::write(path, bytes).unwrap();
        },
    ];
    for meddling in meddlings {
        let path = folder.path().join("a");
        fs::write(&path, content(300_000)).unwrap();
        let watch = Arc::new(Meddler(path.clone(), meddling));
        let outcome = client.upload_file(&path, &name("default/a"), &UploadOptions::default(), watch).await;
        assert!(matches!(outcome, Err(ClientError::Changed { .. })), "{outcome:?}");
        assert_eq!((server.get("default/a"), server.open_uploads()), (None, 0));
    }
}

#[tokio::test]
async fn refusals_are_not_tried_again_and_say_why() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let error = client.delete(&name("default/none")).await.unwrap_err();
    assert_eq!(error.to_string(), "Do otherwise. (file_not_found, HTTP 404)");
    assert_eq!(server.seen("DELETE", "none"), 1);
    server.store.faults.add("DELETE", "none", 0, 99, Fault::Status(429));
    assert!(matches!(client.delete(&name("default/none")).await, Err(ClientError::Unavailable { .. })));
    assert_eq!(server.seen("DELETE", "none"), 1 + 3);
}

#[tokio::test]
async fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let client = client(&server, folder.path());
    drop(server);
    let error = client.buckets().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
