//! Certificates that are no good, and new ones.

use super::{Pair, authority, curl, https, issue, s_client, text};
use crate::operations::wait::until;
use crate::server::{Server, Setup, carrack, content, without_variables};
use std::path::Path;

/// Tries to start; what it says when it refuses to.
fn refusal(cert: &Path, key: &Path) -> String {
    refusal_of(&[("CARRACK_TLS__CERT", cert.to_str().unwrap()), ("CARRACK_TLS__KEY", key.to_str().unwrap())])
}

fn refusal_of(variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = without_variables(env!("CARGO_BIN_EXE_carrack"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .current_dir(folder.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(output.stdout.is_empty(), "it never listened");
    assert!(!folder.path().join("data").exists(), "nothing was made");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_by_name() {
    let Pair { cert, key } = &authority().pair;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let absent = folder.path().join("absent");
    let (prose, empty) = (file("prose", "no PEM at all\n"), file("empty", ""));
    let hollow = file("hollow", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let torn = file("torn", &std::fs::read_to_string(cert).unwrap()[..200]);
    let other = issue(authority().folder.path(), "other", "-newkey rsa:2048", "-days 30");
    for (setting, cert, key, expected) in [
        ("tls.cert", &absent, key, "No such file"),
        ("tls.cert", &prose, key, "no CERTIFICATE"),
        ("tls.cert", &empty, key, "no CERTIFICATE"),
        ("tls.cert", &hollow, key, "no X.509"),
        ("tls.cert", &torn, key, "not PEM"),
        ("tls.cert", key, key, "no CERTIFICATE"),
        ("tls.key", cert, &absent, "No such file"),
        ("tls.key", cert, cert, "no unencrypted PRIVATE KEY"),
        ("tls.key", cert, &prose, "no unencrypted PRIVATE KEY"),
        ("tls.key", cert, &other.key, "not that of the first certificate"),
    ] {
        let said = refusal(cert, key);
        let found = if setting == "tls.cert" { cert } else { key };
        for part in [format!("setting {setting}"), format!("{found:?}"), "expected".into(), expected.into()] {
            assert!(said.contains(&part), "{part} in {said}");
        }
    }
}

#[test]
fn half_a_pair_and_unknown_versions_are_refused() {
    let Pair { cert, key } = &authority().pair;
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let said = refusal_of(&[("CARRACK_TLS__CERT", cert)]);
    assert!(said.contains("setting tls.key: found \"\", expected"), "{said}");
    let said = refusal_of(&[("CARRACK_TLS__KEY", key)]);
    assert!(said.contains("setting tls.cert: found \"\", expected"), "{said}");
    let said = refusal_of(&[("CARRACK_TLS__MIN_VERSION", "1.1")]);
    assert!(said.contains("tls.min_version") && said.contains("1.1") && said.contains("1.2"), "{said}");
}

#[test]
fn an_expired_certificate_is_shown_with_a_warning() {
    let folder = authority().folder.path();
    let expired = issue(folder, "expired", "-newkey ec -pkeyopt ec_paramgen_curve:P-256", "-days -1");
    let server = Setup::new().tls(&expired.cert, &expired.key, &authority().cert).start();
    assert!(server.log().contains("certificate has expired"), "{}", server.log());
    let said = text(&s_client(&server, &[]));
    assert!(said.contains("certificate has expired"), "clients decide: {said}");
}

#[test]
fn keys_of_each_kind_are_read() {
    let folder = authority().folder.path();
    for (name, kind) in [
        ("rsa", "-newkey rsa:2048"),
        ("p384", "-newkey ec -pkeyopt ec_paramgen_curve:P-384"),
        ("ed25519", "-newkey ed25519"),
    ] {
        let pair = issue(folder, name, kind, "-days 30");
        let server = Setup::new().tls(&pair.cert, &pair.key, &authority().cert).start();
        let said = text(&s_client(&server, &[]));
        assert!(
            said.contains("Verify return code: 0 (ok)") && said.contains(&format!("CN = {name}")),
            "{said}"
        );
    }
}

/// The name of the certificate that a new connection sees.
fn shows(server: &Server, name: &str) -> bool {
    text(&s_client(server, &[])).contains(&format!("subject=CN = {name}\n"))
}

#[tokio::test]
async fn sighup_reads_the_certificate_again_and_keeps_the_old_one_when_the_new_is_no_good() {
    let folder = tempfile::tempdir().unwrap();
    let kind = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    let (first, second) = (&authority().pair, issue(authority().folder.path(), "second", kind, "-days 30"));
    let used = Pair { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let put = |pair: &Pair| {
        std::fs::copy(&pair.cert, &used.cert).unwrap();
        std::fs::copy(&pair.key, &used.key).unwrap();
    };
    put(first);
    let server = Setup::new().tls(&used.cert, &used.key, &authority().cert).start();
    assert!(shows(&server, "first"));
    // A connection from before goes on.
    let live = server.get("/readyz").send().await.unwrap();
    assert_eq!(live.status(), 200);
    put(&second);
    assert!(shows(&server, "first"), "not before it is told");
    server.signal("HUP");
    until("the second certificate is shown", || shows(&server, "second"));
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    std::fs::copy(&first.key, &used.key).unwrap();
    server.signal("HUP");
    until("the refusal is logged", || server.log().contains("the old one stays"));
    assert!(shows(&server, "second"));
    std::fs::remove_file(&used.cert).unwrap();
    server.signal("HUP");
    until("both are logged", || server.log().matches("the old one stays").count() == 2);
    assert!(shows(&server, "second"));
    put(first);
    server.signal("HUP");
    until("the first certificate is back", || shows(&server, "first"));
}

#[tokio::test]
async fn urls_that_are_handed_out_are_https() {
    let server = https().start();
    let create = r#"{"bucket": "default", "key": "k", "size": 3}"#;
    let made = server.post("/v1/uploads").body(create).send().await.unwrap();
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&format!("{}/v1/uploads/", server.base)), "{location}");
    let made: serde_json::Value = made.json().await.unwrap();
    assert!(!made.to_string().contains("http://"), "{made}");
}

#[test]
fn the_client_speaks_https_to_whom_it_trusts() {
    let server = https().start();
    let bytes = content(20_000_000, 3);
    std::fs::write(server.folder().join("file"), &bytes).unwrap();
    let put = carrack(&server, &["put", "file", "default/file"]);
    assert!(put.status.success(), "{}", text(&put));
    let got = carrack(&server, &["get", "default/file", "-o", "copy"]);
    assert!(got.status.success(), "{}", text(&got));
    assert!(std::fs::read(server.folder().join("copy")).unwrap() == bytes);
    let stranger = without_variables(env!("CARGO_BIN_EXE_carrack"))
        .args(["ls", "--tries", "1", "--server", &server.base])
        .current_dir(server.folder())
        .output()
        .unwrap();
    assert!(!stranger.status.success() && text(&stranger).contains("certificate"), "{}", text(&stranger));
    let absent = carrack(&server, &["ls", "--ca-cert", "absent"]);
    assert!(!absent.status.success() && text(&absent).contains("absent"), "{}", text(&absent));
    let h2 = curl("--http2").arg(server.url("/v1/files/default/file?meta")).output().unwrap();
    assert!(text(&h2).contains("\"size\":20000000"), "{}", text(&h2));
}
