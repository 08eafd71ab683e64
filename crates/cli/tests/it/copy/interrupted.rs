//! A copy that is killed goes on where it was, and damage is told of without stopping the rest.

use super::{Ground, command, copy, refused, said, serve};
use crate::server::{Server, Setup, content};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const FILES: u64 = 60;
const BYTES: usize = 600_000;

async fn filled(data: &Path) -> Server {
    let server = Setup::new().data(data).set("CARRACK_UPLOADS__DURABILITY", "process").start();
    for number in 0..FILES {
        let put = server.put(&format!("/v1/files/default/f{number}")).body(content(BYTES, number));
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    server
}

/// Stored blobs, each with what tells the file from one that was written again.
fn blobs(data: &Path) -> BTreeMap<PathBuf, (u64, i64)> {
    let mut found = BTreeMap::new();
    let Ok(shards) = std::fs::read_dir(data.join("blobs")) else { return found };
    for blob in shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap()) {
        let facts = blob.as_ref().unwrap().metadata().unwrap();
        found.insert(blob.unwrap().path(), (facts.ino(), facts.mtime_nsec()));
    }
    found
}

async fn assert_whole(server: &Server) {
    for number in 0..FILES {
        let got = server.get(&format!("/v1/files/default/f{number}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == content(BYTES, number), "f{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_goes_on_and_sends_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    filled(&old).await.stop();
    let mut kills = 0;
    for round in 1..=5 {
        let before = blobs(&new);
        let mut copying = command(&old, &new, &["--parallel", "1"]).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while blobs(&new).len() < before.len().max(8 * (round - 1)) + 4
            && copying.try_wait().unwrap().is_none()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not go on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if copying.try_wait().unwrap().is_none() {
            copying.kill().unwrap();
            kills += 1;
        }
        copying.wait().unwrap();
        let after = blobs(&new);
        for (path, written) in &before {
            assert_eq!(after.get(path), Some(written), "{} was written again", path.display());
        }
        assert!(after.len() < FILES as usize, "it was killed too late");
        let unfinished = Setup::new().data(&new).refused();
        assert!(unfinished.contains("unfinished copy"), "{unfinished}");
    }
    assert_eq!(kills, 5);
    let before = blobs(&new);
    let last = copy(&old, &new, &[]);
    let after = blobs(&new);
    assert!(before.iter().all(|(path, written)| after.get(path) == Some(written)));
    assert_eq!(after.len() as u64, FILES);
    let sent = last.split(" contents sent").next().unwrap().rsplit(' ').next().unwrap();
    assert!(sent.parse::<usize>().unwrap() <= FILES as usize - before.len(), "{last}");
    assert_whole(&Setup::new().data(&new).start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_s3_it_goes_on_too() {
    let ground = Ground::new();
    filled(&ground.path("old")).await.stop();
    let settings = ground.settings("killed", true, &ground.path("old"));
    let objects = || {
        let info = ground.garage.run(&["bucket", "info", ground.garage.bucket()]).unwrap();
        let line = info.lines().find(|line| line.trim_start().starts_with("Objects:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for round in 1..=3 {
        let mut copying = command(&ground.path("old"), &settings, &[]).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while objects() < round * 8 {
            assert!(begun.elapsed() < Duration::from_secs(60) && copying.try_wait().unwrap().is_none());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        copying.kill().unwrap();
        copying.wait().unwrap();
        let unfinished = serve(&settings).refused();
        assert!(unfinished.contains("unfinished copy"), "{unfinished}");
    }
    let there = objects();
    let last = copy(&ground.path("old"), &settings, &[]);
    let sent = last.split(" contents sent").next().unwrap().rsplit(' ').next().unwrap();
    assert!(sent.parse::<u64>().unwrap() <= FILES - there, "{there} were there: {last}");
    assert_whole(&serve(&settings).start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_and_the_rest_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    filled(&old).await.stop();
    let all: Vec<PathBuf> = blobs(&old).into_keys().collect();
    let whole = std::fs::read(&all[0]).unwrap();
    let mut bytes = whole.clone();
    bytes[300_000] ^= 1;
    std::fs::write(&all[0], bytes).unwrap();
    let lost = std::fs::read(&all[1]).unwrap();
    std::fs::remove_file(&all[1]).unwrap();
    let said_of = refused(&old, &new, &[]);
    for blob in &all[..2] {
        let id = blob.file_name().unwrap().to_str().unwrap();
        assert!(said_of.contains(&format!("blob {id}: ")), "{said_of}");
    }
    assert_eq!(said_of.matches("not copied, its content").count(), 2, "files are named: {said_of}");
    assert!(
        said_of.contains("NOT all of it is at the target") && said_of.contains("58 contents sent"),
        "{said_of}"
    );
    assert!(Setup::new().data(&new).refused().contains("unfinished copy"));

    // Damage at the target is found as well: a content that is there without its record is not believed.
    std::fs::write(&all[0], whole).unwrap();
    std::fs::write(&all[1], lost).unwrap();
    let shard = new.join("blobs").join(all[0].parent().unwrap().file_name().unwrap());
    std::fs::write(shard.join(all[0].file_name().unwrap()), vec![0; BYTES]).unwrap();
    let repaired = copy(&old, &new, &[]);
    assert!(repaired.contains("2 contents sent") && repaired.contains("58 were there"), "{repaired}");
    assert_whole(&Setup::new().data(&new).start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["one", "two"] {
        Setup::new().data(&path(name)).start().stop();
    }
    copy(&path("one"), &path("new"), &["--preliminary"]);
    let other = command(&path("two"), &path("new"), &[]).output().unwrap();
    // The keys tell first; with those of the other it is the log's name.
    assert_eq!(other.status.code(), Some(1));
    std::fs::remove_file(path("new").join("signing-keys")).unwrap();
    let other = command(&path("two"), &path("new"), &[]).output().unwrap();
    assert!(said(&other).contains("the unfinished copy of another installation"), "{}", said(&other));
}
