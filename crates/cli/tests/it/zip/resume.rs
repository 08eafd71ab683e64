//! Downloads over a bad network end with the same bytes as those over a good one (T19).

use super::proxy::Proxy;
use super::{bearer, below, client, escape, fetch, load, setup};
use crate::server::{Server, TOKEN, content, without_variables};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CUTS: usize = 10;

/// A server with a ZIP of 24 MB, and that ZIP.
async fn start() -> (Server, Vec<u8>) {
    let server = setup().start();
    let size = |i: usize| if i.is_multiple_of(3) { 40 * i } else { 360_000 + i };
    load(&server, (0..100).map(|i| (format!("r/{i:02}"), content(size(i), i as u64)))).await;
    let zip = fetch(&server, &below("r/")).await;
    assert!(zip.len() > 23_000_000);
    (server, zip)
}

/// Cuts the first connections, each after another number of bytes.
fn bad_network(server: &Server, cuts: usize) -> Proxy {
    Proxy::start(server.address(), move |number| (number < cuts).then_some(500_000 + 77_777 * number))
}

fn assert_same(path: &Path, zip: &[u8]) {
    let got = std::fs::read(path).unwrap();
    assert_eq!(got.len(), zip.len());
    assert!(got == zip, "other bytes");
}

fn output(server: &Server) -> PathBuf {
    server.folder().join("resumed.zip")
}

fn shown(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    format!("{}\n{out}\n{err}", output.status)
}

#[tokio::test]
async fn curl_continues_after_ten_cuts() {
    let (server, zip) = start().await;
    let proxy = bad_network(&server, CUTS);
    let mut failures = 0;
    loop {
        let run = client("curl", "curl")
            .args(["-sS", "-C", "-", "-H", &bearer(), "-o"])
            .arg(output(&server))
            .arg(proxy.url(&below("r/")))
            .output()
            .unwrap();
        if run.status.success() {
            break;
        }
        assert!(matches!(run.status.code(), Some(18 | 56)), "{}", shown(&run));
        failures += 1;
    }
    assert_eq!(failures, CUTS);
    assert_same(&output(&server), &zip);
}

#[tokio::test]
async fn wget_continues_by_itself() {
    let (server, zip) = start().await;
    let proxy = bad_network(&server, CUTS);
    let run = client("wget", "wget")
        .args(["-q", "-c", "--tries=30", "--waitretry=0", "--header", &bearer(), "-O"])
        .arg(output(&server))
        .arg(proxy.url(&below("r/")))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", shown(&run));
    assert_eq!(proxy.cuts(), CUTS);
    assert_same(&output(&server), &zip);
}

#[tokio::test]
async fn aria2_continues_sixteen_connections_at_once() {
    let (server, zip) = start().await;
    let proxy = bad_network(&server, 3 * CUTS);
    let run = client("aria2c", "aria2")
        .args(["-q", "--no-conf", "-x16", "-s16", "-k1M", "-m0", "--retry-wait=0", "--file-allocation=none"])
        .args(["--allow-overwrite=true", "--header", &bearer(), "-o", "resumed.zip", "-d"])
        .arg(server.folder())
        .arg(proxy.url(&below("r/")))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", shown(&run));
    assert!(proxy.cuts() >= CUTS);
    assert_same(&output(&server), &zip);
}

/// Our own client, against the proxy.
fn carrack_zip(server: &Server, proxy: &Proxy) -> Command {
    let mut command = without_variables(env!("CARGO_BIN_EXE_carrack"));
    command
        .args(["zip", "default/r/", "-o"])
        .arg(output(server))
        .env("CARRACK_URL", proxy.url(""))
        .env("CARRACK_TOKEN", TOKEN)
        .env("XDG_STATE_HOME", server.folder().join("state"))
        .env_remove("http_proxy");
    command
}

#[tokio::test]
async fn carrack_continues_by_itself() {
    let (server, zip) = start().await;
    let proxy = bad_network(&server, CUTS);
    let run = carrack_zip(&server, &proxy).output().unwrap();
    assert!(run.status.success(), "{}", shown(&run));
    assert_eq!(proxy.cuts(), CUTS);
    assert_same(&output(&server), &zip);
}

#[tokio::test]
async fn carrack_never_joins_two_archives() {
    let (server, zip) = start().await;
    // Nothing comes after the first half, until the client is told to give up.
    let half = zip.len() / 2;
    let proxy = Proxy::start(server.address(), move |number| Some(if number == 0 { half } else { 0 }));
    let first = carrack_zip(&server, &proxy).output().unwrap();
    assert!(!first.status.success() && proxy.cuts() > 1);
    // Same length, other bytes, in a place that both halves surround.
    load(&server, [("r/01".to_owned(), content(360_001, 7))]).await;
    let changed = fetch(&server, &below(&escape("r/"))).await;
    assert!(changed.len() == zip.len() && changed != zip);
    let proxy = bad_network(&server, 2);
    let second = carrack_zip(&server, &proxy).output().unwrap();
    assert!(second.status.success(), "{}", shown(&second));
    assert_same(&output(&server), &changed);
}
