//! The key ring: where it comes from, and how it changes.

use super::Caller;
use crate::contract::answers::{json, refused, store, until};
use crate::server::{Server, Setup, without_variables};
use serde_json::json as value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

async fn sign(server: &Server) -> String {
    let wish = value!({"method": "GET", "path": "/v1/files/default/f"});
    let signed = json(server.post("/v1/sign").json(&wish).send().await.unwrap(), 200).await;
    signed["url"].as_str().unwrap().to_owned()
}

/// Writes the keys of these letters into a configuration file; the first signs.
fn write(file: &Path, letters: &[&str]) {
    let key = |letter: &&str| format!("{{kid = \"{letter}\", secret = \"{}\"}}", letter.repeat(32));
    let keys: Vec<String> = letters.iter().map(key).collect();
    std::fs::write(file, format!("[auth]\nkeys = [{}]\n", keys.join(", "))).unwrap();
}

/// Sends SIGHUP and waits until the log has said `what` once more.
async fn reload(server: &Server, what: &str) {
    let said = |server: &Server| server.log().matches(what).count();
    let before = said(server);
    server.signal("HUP");
    until(what, || said(server) > before).await;
}

#[tokio::test]
async fn the_first_start_makes_a_key_and_later_ones_use_it() {
    let mut server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let file = server.data.join("signing-keys");
    let text = std::fs::read_to_string(&file).unwrap();
    let (kid, secret) = text.trim().split_once(' ').unwrap();
    assert_eq!((kid.len(), secret.len()), (8, 64));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!server.log().contains(secret), "no secret is logged");
    let url = sign(&server).await;
    assert!(url.contains(&format!("?sig=cs1.{kid}.")), "{url}");
    server.stop();
    let again = Setup::new().data(&server.data).start();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let same = format!("{}{}", again.base, url.strip_prefix(&server.base).unwrap());
    assert_eq!(Caller::nobody(&again).get(&same).await.status(), 200, "a restart ends nothing");
}

#[tokio::test]
async fn a_rotation_fails_no_url_that_is_good_and_ends_those_of_a_key_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carrack.toml");
    write(&file, &["old"]);
    let server = Setup::new().set("CARRACK_CONFIG", file.to_str().unwrap()).start();
    assert!(!server.data.join("signing-keys").exists(), "the settings have keys");
    store(&server, "/v1/files/default/f", b"bytes").await;
    let nobody = Caller::nobody(&server);
    let read = "the signing keys were read again";
    let mut urls = vec![sign(&server).await];
    for ring in [["old", "new"], ["new", "old"]] {
        write(&file, &ring);
        reload(&server, read).await;
        urls.push(sign(&server).await);
        for url in &urls {
            assert_eq!(nobody.get(url).await.status(), 200, "{ring:?}");
        }
    }
    assert!(urls[1].contains("cs1.old.") && urls[2].contains("cs1.new."), "{urls:?}");
    write(&file, &["new"]);
    reload(&server, read).await;
    for url in &urls[..2] {
        refused(nobody.get(url).await, 403, "invalid_signature").await;
    }
    assert_eq!(nobody.get(&urls[2]).await.status(), 200);
    std::fs::write(&file, "[auth]\nkeys = [{kid = \"short\", secret = \"too-short-a-secret\"}]\n").unwrap();
    reload(&server, "the old ones stay").await;
    assert_eq!(nobody.get(&urls[2]).await.status(), 200, "keys that are no good change nothing");
    assert!(!server.log().contains("too-short-a-secret"), "no secret is logged");
}

#[tokio::test]
async fn keys_of_the_data_folder_rotate_too() {
    let server = Server::start();
    store(&server, "/v1/files/default/f", b"bytes").await;
    let nobody = Caller::nobody(&server);
    let url = sign(&server).await;
    let file = server.data.join("signing-keys");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# two of them\nnew {}\n{old}", "n".repeat(32))).unwrap();
    reload(&server, "the signing keys were read again").await;
    assert!(sign(&server).await.contains("cs1.new."));
    assert_eq!(nobody.get(&url).await.status(), 200);
}

#[test]
fn keys_that_are_no_good_stop_the_start_and_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    for (keys, expected) in [
        ("[{kid = \"a\", secret = \"short-secret\"}]", "at least 32"),
        ("[{kid = \"a b\", secret = \"ssssssssssssssssssssssssssssssss\"}]", "kid"),
        ("[{kid = \"a\"}]", "secret"),
        ("[{kid = \"a\", secret = \"ssssssssssssssssssssssssssssssss\", more = 1}]", "more"),
    ] {
        let file = folder.path().join("carrack.toml");
        std::fs::write(&file, format!("[auth]\nkeys = {keys}\n")).unwrap();
        let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("auth.keys") && said.contains(expected), "{said}");
        assert!(!said.contains("short-secret") && !said.contains("ssss"), "{said}");
    }
}
