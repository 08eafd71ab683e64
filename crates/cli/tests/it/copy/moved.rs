//! From each kind of installation to each.

use super::filled::{answers, assert_same, fill, records, use_link};
use super::{Ground, copy, refused, said, serve};
use crate::server::{Server, Setup, content, without_variables};
use crate::tus;
use serde_json::json;
use std::path::Path;

fn verify(settings: &Path) -> String {
    let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
        .args(["audit", "verify", "--config"])
        .arg(settings)
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && found.starts_with("whole: "), "{found}{}", said(&output));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_answered_by_the_copy_and_by_its_copy() {
    let ground = Ground::new();
    let mut server = Setup::new().data(&ground.path("old")).start();
    let made = fill(&server).await;
    let before = answers(&server, &made).await;
    server.stop();
    let logged = {
        let mut again = Setup::new().data(&ground.path("old")).start();
        let logged = records(&again).await;
        again.stop();
        logged
    };
    let cluster = ground.settings("cluster", true, &ground.path("old"));
    let dry = copy(&ground.path("old"), &cluster, &["--dry-run"]);
    assert!(dry.contains("2 buckets, 8 files") && dry.contains("nothing was done"), "{dry}");
    let done = copy(&ground.path("old"), &cluster, &[]);
    assert!(done.contains("done: the target can be served"), "{done}");
    assert!(verify(&cluster).contains("records in blocks 1 to "), "one chain");
    let again = refused(&ground.path("old"), &cluster, &[]);
    assert!(again.contains("was finished at"), "{again}");

    let mut server = serve(&cluster).start();
    assert_same(&before, &answers(&server, &made).await);
    let now = records(&server).await;
    assert!(now.len() > logged.len());
    assert_eq!(now[..logged.len()], logged[..], "the log goes on");
    let busy = refused(&cluster, &ground.path("nowhere"), &[]);
    assert!(busy.contains("in use"), "{busy}");
    server.stop();

    // To PostgreSQL with a disk, and back to where it came from.
    let middle = ground.settings("middle", false, &ground.path("old"));
    copy(&cluster, &middle, &["--parallel", "2"]);
    copy(&middle, &ground.path("new"), &[]);
    let mut server = Setup::new().data(&ground.path("new")).start();
    assert_same(&before, &answers(&server, &made).await);
    use_link(&server, &made).await;
    let put = server.put("/v1/files/default/later").body("later").send().await.unwrap();
    assert_eq!(put.status(), 201);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_is_named() {
    let ground = Ground::new();
    let (old, new) = (ground.path("old"), ground.path("new"));
    let mut server = Setup::new().data(&old).start();
    tus::create(&server, &[("upload-length", "10"), ("upload-metadata", &tus::key("half"))]).await;
    let put = server.put("/v1/files/default/f").body(content(100_000, 1)).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let served = refused(&old, &new, &[]);
    assert!(served.contains("in use by another carrack"), "{served}");
    server.stop();

    let open = refused(&old, &new, &[]);
    assert!(open.contains("1 uploads are not complete") && open.contains("default/half: open"), "{open}");
    assert!(!new.exists(), "nothing was made");
    let nothing = refused(&ground.path("nothing"), &new, &[]);
    assert!(nothing.contains("neither a configuration file nor a data folder"), "{nothing}");
    let same = refused(&old, &old, &["--leave-uploads"]);
    assert!(same.contains("same data folder"), "{same}");
    let settings = ground.settings("keys", true, &old);
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("kid = \"", "kid = \"x")).unwrap();
    let keys = refused(&old, &settings, &["--leave-uploads"]);
    assert!(keys.contains("auth.keys lacks the key") && keys.contains("signing-keys"), "{keys}");

    let mut other = Setup::new().data(&new).start();
    other.stop();
    let other = refused(&old, &new, &["--leave-uploads"]);
    assert!(other.contains("has signing keys of its own, since it was served before"), "{other}");
    std::fs::copy(old.join("signing-keys"), new.join("signing-keys")).unwrap();
    let other = refused(&old, &new, &["--leave-uploads"]);
    assert!(other.contains("the target holds other data"), "{other}");
    let fresh = ground.path("fresh");
    let left = copy(&old, &fresh, &["--leave-uploads"]);
    assert!(left.contains("1 uploads that are not complete are left behind"), "{left}");
    let server = Setup::new().data(&fresh).start();
    let got = server.get("/v1/files/default/f").send().await.unwrap();
    assert!(got.bytes().await.unwrap() == content(100_000, 1));
}

/// A first run from a backup while the source is served; then only what has changed goes over.
#[tokio::test]
async fn a_short_stop_is_enough_after_a_preliminary_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let put = async |server: &Server, name: &str, seed: u64| {
        let put = server.put(&format!("/v1/files/default/{name}")).body(content(200_000, seed));
        assert!(put.send().await.unwrap().status().is_success());
    };
    let mut server = Setup::new().data(&path("old")).start();
    for number in 0..10 {
        put(&server, &format!("f{number}"), number).await;
    }
    server.stop();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(path("old")).arg(path("backup")).status().unwrap();
    assert!(copied.success());
    let first = copy(&path("backup"), &path("new"), &["--preliminary"]);
    assert!(first.contains("10 contents sent") && first.contains("stays unfinished"), "{first}");
    let unfinished = Setup::new().data(&path("new")).refused();
    assert!(unfinished.contains("unfinished copy of another installation"), "{unfinished}");

    let mut server = Setup::new().data(&path("old")).start();
    put(&server, "f3", 300).await;
    put(&server, "new", 400).await;
    assert_eq!(server.delete("/v1/files/default/f4").send().await.unwrap().status(), 204);
    ok_json(server.put("/v1/buckets/more").json(&json!({}))).await;
    server.stop();
    let second = copy(&path("old"), &path("new"), &[]);
    assert!(second.contains("2 contents sent"), "{second}");
    let server = Setup::new().data(&path("new")).start();
    for (name, seed) in [("f0", 0), ("f3", 300), ("new", 400)] {
        let got = server.get(&format!("/v1/files/default/{name}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == content(200_000, seed), "{name}");
    }
    assert_eq!(server.get("/v1/files/default/f4").send().await.unwrap().status(), 404);
    assert_eq!(server.get("/v1/buckets/more").send().await.unwrap().status(), 200);
}

async fn ok_json(request: reqwest::RequestBuilder) {
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}
