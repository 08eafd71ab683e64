//! Archives: continued by themselves and by the next run.

use crate::faults::Fault;
use crate::server::Server;
use crate::{Counted, client, content};
use carrack_client::{ArchiveRequest, ClientError, NoProgress, part_path};
use std::fs;
use std::sync::Arc;

fn request() -> ArchiveRequest {
    ArchiveRequest { bucket: "default".into(), prefix: "a b/".into(), compression: None }
}

#[tokio::test]
async fn an_archive_survives_cuts() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let (bytes, destination) = (content(500_000), folder.path().join("a.zip"));
    server.put("zip", &bytes);
    server.store.faults.add("GET", "/v1/zip/default?prefix=a%20b%2F", 0, 4, Fault::CutAfter(99_000));
    let watch = Arc::new(Counted::default());
    let size = client.download_archive(&request(), &destination, watch.clone()).await.unwrap();
    assert_eq!(size, 500_000);
    assert_eq!(fs::read(&destination).unwrap(), bytes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    watch.assert_complete();

    server.store.faults.add("GET", "/v1/zip", 0, 2, Fault::CutAfter(200_000));
    let mut streamed = Vec::new();
    client.stream_archive(&request(), &mut streamed, Arc::new(NoProgress)).await.unwrap();
    assert_eq!(streamed, bytes);
}

#[tokio::test]
async fn an_archive_continues_in_the_next_run_if_it_is_the_same() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    let destination = folder.path().join("a.zip");
    for (before, after, kept) in
        [(content(500_000), content(500_000), true), (content(500_000), content(400_001), false)]
    {
        server.put("zip", &before);
        server.store.faults.add("GET", "/v1/zip", 0, 1, Fault::CutAfter(300_000));
        server.store.faults.add("GET", "/v1/zip", 0, 1, Fault::Status(403));
        client.download_archive(&request(), &destination, Arc::new(NoProgress)).await.unwrap_err();
        assert_eq!(fs::metadata(part_path(&destination)).unwrap().len(), 300_000);
        server.put("zip", &after);
        let watch = Arc::new(Counted::default());
        client.download_archive(&request(), &destination, watch.clone()).await.unwrap();
        assert_eq!(fs::read(&destination).unwrap(), after);
        assert_eq!(watch.kept.load(std::sync::atomic::Ordering::Relaxed), if kept { 300_000 } else { 0 });
        watch.assert_complete();
    }
}

#[tokio::test]
async fn an_archive_replaced_in_the_middle_is_an_error() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let client = client(&server, folder.path());
    server.put("zip", &content(500_000));
    server.store.faults.add("GET", "/v1/zip", 0, 1, Fault::CutAfter(300_000));
    let store = Arc::clone(&server.store);
    let (mut streamed, request) = (Vec::new(), request());
    let replace = async {
        while server.seen("GET", "/v1/zip") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        store.files.lock().unwrap().insert("zip".into(), content(600_000).into());
    };
    let (outcome, ()) =
        tokio::join!(client.stream_archive(&request, &mut streamed, Arc::new(NoProgress)), replace);
    assert!(matches!(outcome, Err(ClientError::Replaced { .. })), "{outcome:?}");
}
