//! Entries and archives around and beyond 4 GiB. Their content is zeros, so that the archive on this side may be a
//! sparse file.

use super::unpack::{Expected, accepted};
use super::{bearer, below, client, load, remove, setup};
use crate::server::{Server, Setup, tool};
use futures_util::future::join_all;
use std::path::Path;
use std::process::Command;

const GIB_4: u64 = 1 << 32;

/// With `CARRACK_TEST_BIN`, the server is that binary (a release build) instead of the one under test.
pub(crate) fn quick() -> Setup {
    match std::env::var("CARRACK_TEST_BIN") {
        Err(_) => setup(),
        Ok(path) => setup().under(&["sh", "-c", "shift; exec \"$0\" \"$@\"", &path]),
    }
}

/// Fails with a clear message where the disk is too small.
pub(crate) fn assert_room(server: &Server, gib: u64) {
    let shown =
        tool("df", "coreutils").args(["--output=avail", "-B1"]).arg(server.folder()).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let free: u64 = text.split_whitespace().last().unwrap().parse().unwrap();
    let folder = server.folder().display();
    assert!(
        free >> 30 >= gib,
        "{gib} GiB have to be free at {folder} (TMPDIR): there are {} MiB",
        free >> 20
    );
}

/// Runs a program to its end without keeping connections of this thread from noticing what happens to them.
async fn run(command: Command) {
    let output = tokio::process::Command::from(command).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{} {}", output.status, String::from_utf8_lossy(&said));
}

/// Uploads zeros from a file that has none on the disk.
async fn put_zeros(server: &Server, key: String, size: u64) {
    let zeros = server.folder().join(key.replace('/', "-"));
    std::fs::File::create(&zeros).unwrap().set_len(size).unwrap();
    let mut put = client("curl", "curl");
    put.args(["-sS", "--fail-with-body", "-H", &bearer(), "-T"]).arg(&zeros);
    put.arg(server.url(&format!("/v1/files/default/{key}")));
    run(put).await;
    std::fs::remove_file(zeros).unwrap();
}

/// Downloads an archive into a file with holes where there are zeros.
async fn fetch_sparse(server: &Server, path: &str, zip: &Path) {
    client("curl", "curl");
    let pipe = "set -o pipefail; curl -sSf -H \"$1\" \"$2\" | dd of=\"$3\" bs=256K iflag=fullblock conv=sparse status=none";
    let mut shell = client("bash", "bash");
    shell.args(["-c", pipe, "bash", &bearer(), &server.url(path)]).arg(zip);
    run(shell).await;
}

/// Archives what was uploaded, gives its space back, and lets every reader have the archive.
async fn assert_accepted(server: &Server, prefix: &str, keys: &[&str], expected: Expected) {
    let zip = server.folder().join("giant.zip");
    let length = server.head(&below(prefix)).send().await.unwrap();
    let length: u64 = super::header(&length, "content-length").parse().unwrap();
    fetch_sparse(server, &below(prefix), &zip).await;
    assert_eq!(std::fs::metadata(&zip).unwrap().len(), length);
    for key in keys {
        remove(server, key).await;
    }
    accepted(&zip, &expected);
}

/// T2, T33.
#[tokio::test]
async fn every_reader_accepts_entries_of_4_gib_less_one_and_4_gib_and_4_gib_and_five_between_small_ones() {
    let server = quick().start();
    assert_room(&server, 25);
    let small = |i: u8| crate::server::content(1000 * usize::from(i), u64::from(i));
    load(&server, [1, 3, 5, 7].map(|i| (format!("g/{i}-small"), small(i)))).await;
    let giants = [("2-edge", GIB_4 - 1), ("4-even", GIB_4), ("6-odd", GIB_4 + 5)];
    let put = |(name, size)| put_zeros(&server, format!("g/{name}"), size);
    join_all(giants.map(put)).await;
    let mut expected = Expected::default();
    // Info-ZIP misreads what follows an entry of 4 GiB - 1, which therefore comes last.
    for i in [1, 3, 4, 5, 6, 7, 2] {
        match giants.iter().find(|(name, _)| name.starts_with(&i.to_string())) {
            Some((name, size)) => expected.add_zeros(name, *size),
            None => expected.add(&format!("{i}-small"), &small(i)),
        }
    }
    assert_accepted(&server, "g/", &["g/2-edge", "g/4-even", "g/6-odd"], expected).await;
}

/// T2, T33.
#[tokio::test]
async fn every_reader_accepts_an_archive_beyond_4_gib_made_of_smaller_entries() {
    let server = quick().start();
    assert_room(&server, 10);
    let size: u64 = 860 << 20;
    let (mut keys, mut expected) = (Vec::new(), Expected::default());
    for i in 0..5 {
        let name = format!("{i}-large");
        put_zeros(&server, format!("l/{name}"), size).await;
        expected.add_zeros(&name, size);
        keys.push(format!("l/{name}"));
        let (name, content) = (format!("{i}-small"), crate::server::content(777, i));
        expected.add(&name, &content);
        load(&server, [(format!("l/{name}"), content)]).await;
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_accepted(&server, "l/", &keys, expected).await;
}
