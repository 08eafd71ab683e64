//! What an archive promised stays, whatever happens to its files.

use super::{below, fetch, look, made, path, put, put_into, setup};
use crate::server::{Server, content};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn remove(server: &Server, key: &str) {
    let gone = server.delete(&format!("/v1/files/default/{key}")).send().await.unwrap();
    assert_eq!(gone.status(), 204, "{key}");
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stored_archive_is_there_at_once_and_the_same_as_the_one_shot_zip() {
    let server = setup().start();
    for number in 0..20 {
        put(&server, &format!("f/a/{number}"), content(number * 3000, number as u64)).await;
    }
    let response = server.post("/v1/archives").json(&below("f/", "store")).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(header(&response, "location").contains("/v1/archives/"));
    let archive: Value = response.json().await.unwrap();
    assert_eq!((&archive["state"], &archive["format"]), (&json!("completed"), &json!("zip")));
    assert_eq!(archive["progress"]["entries_done"], 20);
    assert_eq!(archive["progress"]["bytes_done"], archive["progress"]["bytes_total"]);
    let one_shot = server.get("/v1/zip/default?prefix=f/").send().await.unwrap();
    assert_eq!(header(&one_shot, "etag"), archive["etag"].as_str().unwrap());
    let zip = one_shot.bytes().await.unwrap();
    assert_eq!(archive["size"], zip.len());
    let url = format!("{}/content", path(&archive));
    let head = server.head(&url).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), zip.len().to_string());
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    assert_eq!(header(&head, "content-disposition"), "attachment; filename=\"x.zip\"");
    let etag = header(&head, "etag");
    assert!(fetch(&server, &archive).await == zip);
    let some = server.get(&url).header("range", "bytes=1000-1999").header("if-range", &etag);
    let some = some.send().await.unwrap();
    assert_eq!(some.status(), 206);
    assert_eq!(some.bytes().await.unwrap(), zip[1000..2000]);
    let other = server.get(&url).header("range", "bytes=1000-1999").header("if-range", "\"other\"");
    assert_eq!(other.send().await.unwrap().status(), 200);
    let beyond = server.get(&url).header("range", format!("bytes={}-", zip.len())).send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    let known = server.get(&url).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(known.status(), 304);
}

#[tokio::test]
async fn files_that_are_replaced_or_deleted_change_nothing_and_go_with_the_archive() {
    let mut server = setup().start();
    let large: Vec<String> = (0..1100).map(|number| format!("many/{number:04}")).collect();
    for key in &large {
        put(&server, key, key.clone().into_bytes()).await;
    }
    put(&server, "few/one", content(200_000, 1)).await;
    put(&server, "few/two", content(100_000, 2)).await;
    let (few, many) =
        (made(&server, &below("few/", "store")).await, made(&server, &below("many/", "store")).await);
    let (few_zip, many_zip) = (fetch(&server, &few).await, fetch(&server, &many).await);
    for key in &large {
        remove(&server, key).await;
    }
    remove(&server, "few/one").await;
    put(&server, "few/two", content(100_000, 3)).await;
    assert!(fetch(&server, &few).await == few_zip);
    server.stop();
    // The next start collects what nobody needs.
    let mut server = setup().data(&server.data).start();
    assert!(fetch(&server, &few).await == few_zip);
    assert!(fetch(&server, &many).await == many_zip);
    assert_eq!(look(&server, &few).await["etag"], few["etag"]);
    for archive in [&few, &many] {
        let gone = server.delete(&path(archive)).send().await.unwrap();
        assert_eq!(gone.status(), 204);
        assert_eq!(server.get(&path(archive)).send().await.unwrap().status(), 404);
        let content = server.get(&format!("{}/content", path(archive))).send().await.unwrap();
        assert_eq!(content.status(), 404);
    }
    server.stop();
    let server = setup().data(&server.data).start();
    crate::operations::wait::until("all but one blob to be gone", || {
        crate::operations::disk::blobs(&server.data).len() == 1
    });
}

#[tokio::test]
async fn archives_expire() {
    let mut server = setup().start();
    put(&server, "a", content(1000, 1)).await;
    let mut wish = below("", "store");
    wish["expires_in"] = json!(1);
    let archive = made(&server, &wish).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(server.get(&path(&archive)).send().await.unwrap().status(), 404);
    server.stop();
    let server = setup().data(&server.data).start();
    let list: Value = server.get("/v1/archives").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["archives"], json!([]));
}

#[tokio::test]
async fn names_of_ones_own_from_several_buckets_and_what_became_of_them() {
    let server = setup().start();
    let other = server.put("/v1/buckets/other").send().await.unwrap();
    assert!(other.status().is_success());
    put(&server, "a.txt", b"one".to_vec()).await;
    put_into(&server, "other", "b.txt", b"two".to_vec()).await;
    let archive = made(
        &server,
        &json!({"name": "mixed", "bucket": "default", "entries": [
            {"key": "a.txt", "name": "docs/ReadMe.txt"},
            {"key": "b.txt", "bucket": "other", "name": "docs/README.TXT"},
            {"key": "a.txt", "name": "../evil\\CON"},
            {"key": "a.txt"},
        ]}),
    )
    .await;
    assert_eq!(archive["renamed_total"], 2);
    let renamed = &archive["renamed"];
    assert_eq!(renamed[0], json!({"key": "b.txt", "name": "docs/README (1).TXT"}));
    assert_eq!(renamed[1]["key"], "a.txt");
    let zip = server.folder().join("mixed.zip");
    std::fs::write(&zip, fetch(&server, &archive).await).unwrap();
    let list = crate::server::tool("unzip", "unzip").arg("-Z1").arg(&zip).output().unwrap();
    let names = String::from_utf8(list.stdout).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names[..2], ["docs/ReadMe.txt", "docs/README (1).TXT"]);
    assert_eq!(names[2], renamed[1]["name"].as_str().unwrap());
    assert!(!names[2].contains("..") && names[3] == "a.txt");
}

#[tokio::test]
async fn pages_of_archives() {
    let server = setup().start();
    put(&server, "a", content(10, 1)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(made(&server, &below("", "store")).await["id"].as_str().unwrap().to_owned());
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/archives?limit=2{cursor}");
        let page: Value = server.get(&path).send().await.unwrap().json().await.unwrap();
        let archives = page["archives"].as_array().unwrap();
        assert!(archives.len() <= 2);
        seen.extend(archives.iter().map(|archive| archive["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>(), ids.iter().collect());
}
