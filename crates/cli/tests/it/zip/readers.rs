//! Every unpacker accepts archives around the limit of the 16-bit entry count, and the smallest.

use super::unpack::{Expected, accepted};
use super::{below, fetch, load, of_keys, setup};

/// Files below each prefix: `n/aaa`, `n/aa` and `n/a` name one more each.
fn files() -> Vec<(String, Vec<u8>)> {
    let content = |i: usize| format!("{i}").repeat(i % 4).into_bytes();
    let mut files: Vec<(String, Vec<u8>)> =
        (0..65_534).map(|i| (format!("n/aaa/{}/{i:05}", i % 7), content(i))).collect();
    files.push(("n/aab".to_owned(), content(65_535)));
    files.push(("n/ab".to_owned(), content(65_537)));
    files.sort();
    files
}

/// T1, T33.
#[tokio::test]
async fn every_reader_accepts_1_2_65534_65535_and_65536_entries() {
    let server = setup().start();
    let files = files();
    load(&server, files.clone()).await;
    let few = |from: usize| files[from..].iter().map(|file| file.0.as_str()).collect::<Vec<_>>();
    let cases = [
        (1, of_keys(&few(65_535))),
        (2, of_keys(&few(65_534))),
        (65_534, below("n/aaa")),
        (65_535, below("n/aa")),
        (65_536, below("n/a")),
    ];
    for (count, path) in cases {
        let zip = server.folder().join("archive.zip");
        std::fs::write(&zip, fetch(&server, &path).await).unwrap();
        let mut expected = Expected::default();
        let some = if count < 3 { &files[65_536 - count..] } else { &files[..count] };
        for (key, content) in some {
            expected.add(key.strip_prefix("n/").unwrap(), content);
        }
        accepted(&zip, &expected);
    }
}
