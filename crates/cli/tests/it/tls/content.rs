//! The same bytes through TLS, whichever HTTP carries them.

use super::{PROTOCOLS, curl, https, text};
use crate::server::{Server, content, tool};
use std::path::PathBuf;
use std::process::Command;

/// Runs a request; the body it wrote to a file, and the status.
fn fetch(server: &Server, command: &mut Command, path: &str) -> (Vec<u8>, String) {
    let file = server.folder().join("fetched");
    std::fs::write(&file, "").unwrap();
    let output =
        command.args(["-w", "%{http_code}", "-o"]).arg(&file).arg(server.url(path)).output().unwrap();
    assert!(output.status.success(), "{path}: {}", text(&output));
    (std::fs::read(&file).unwrap(), text(&output))
}

fn store(server: &Server, protocol: &str, key: &str, bytes: &[u8]) {
    let file: PathBuf = server.folder().join("source");
    std::fs::write(&file, bytes).unwrap();
    let (_, status) = fetch(server, curl(protocol).arg("-T").arg(&file), &format!("/v1/files/default/{key}"));
    assert_eq!(status, "201", "{key}");
}

/// Around records, batches, pieces that are read at once, and the bound between copied and mapped.
const LENGTHS: [usize; 14] = [
    0,
    1,
    16_383,
    16_384,
    16_385,
    32_768,
    65_535,
    65_536,
    65_537,
    131_072,
    262_143,
    262_145,
    5_000_000,
    150_000_000,
];

#[test]
fn files_of_any_length_pass_both_ways_unchanged() {
    let server = https().start();
    for protocol in PROTOCOLS {
        for len in LENGTHS {
            let (bytes, key) = (content(len, len as u64), format!("{}-{len}", &protocol[6..]));
            store(&server, protocol, &key, &bytes);
            for reader in PROTOCOLS {
                let (got, status) = fetch(&server, &mut curl(reader), &format!("/v1/files/default/{key}"));
                assert!(status == "200" && got == bytes, "{protocol} {reader} {len}: {} bytes", got.len());
            }
        }
    }
}

#[test]
fn ranges_heads_and_refusals() {
    let server = https().start();
    let bytes = content(1_000_000, 4);
    store(&server, "--http2", "f", &bytes);
    for protocol in PROTOCOLS {
        for (range, expected) in [
            ("0-0", &bytes[..1]),
            ("16383-16384", &bytes[16_383..16_385]),
            ("65535-700000", &bytes[65_535..700_001]),
            ("-1", &bytes[999_999..]),
        ] {
            let (got, status) = fetch(&server, curl(protocol).args(["-r", range]), "/v1/files/default/f");
            assert!(status == "206" && got == expected, "{protocol} {range}");
        }
        let (several, status) =
            fetch(&server, curl(protocol).args(["-r", "5-9,500000-900000"]), "/v1/files/default/f");
        assert_eq!(status, "206");
        for part in [&bytes[5..10], &bytes[500_000..900_001]] {
            assert!(several.windows(part.len()).any(|window| window == part), "{protocol}");
        }
        let (head, status) = fetch(&server, curl(protocol).arg("-I"), "/v1/files/default/f");
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(status == "200" && head.contains("content-length: 1000000"), "{protocol}: {head}");
        let (problem, status) = fetch(&server, &mut curl(protocol), "/v1/files/default/absent");
        assert!(
            status == "404" && String::from_utf8_lossy(&problem).contains("file_not_found"),
            "{protocol}"
        );
        let (_, status) = fetch(&server, curl(protocol).args(["-r", "1000000-"]), "/v1/files/default/f");
        assert_eq!(status, "416", "{protocol}");
    }
}

/// The answer arrives although the body is still being sent: the connection lingers below TLS as it does without.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = https().start();
    store(&server, "--http2", "f", b"there");
    let file = server.folder().join("source");
    std::fs::write(&file, content(20_000_000, 2)).unwrap();
    for _ in 0..5 {
        let mut put = curl("--http1.1");
        put.arg("-T").arg(&file).args(["-H", "If-None-Match: *", "-H", "Expect:"]);
        let (problem, status) = fetch(&server, &mut put, "/v1/files/default/f");
        let problem = String::from_utf8_lossy(&problem).into_owned();
        assert!(status == "412" && problem.contains("precondition_failed"), "{status} {problem}");
    }
}

#[test]
fn zips_pass_unchanged_and_resume() {
    let server = https().start();
    for index in 0..40 {
        store(&server, "--http1.1", &format!("z/{index}"), &content(index * 7919, index as u64));
    }
    store(&server, "--http1.1", "z/large", &content(3_000_000, 77));
    let mut all = Vec::new();
    for protocol in PROTOCOLS {
        let (zip, status) = fetch(&server, &mut curl(protocol), "/v1/zip/default?prefix=z/");
        assert_eq!(status, "200");
        let (rest, status) =
            fetch(&server, curl(protocol).args(["-r", "100000-"]), "/v1/zip/default?prefix=z/");
        assert!(status == "206" && rest == zip[100_000..], "{protocol}");
        all.push(zip);
    }
    assert!(all[0] == all[1]);
    let file = server.folder().join("z.zip");
    std::fs::write(&file, &all[0]).unwrap();
    let checked = tool("unzip", "unzip").arg("-tq").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
}

#[test]
fn many_requests_share_a_connection() {
    let server = https().start();
    store(&server, "--http2", "f", &content(70_000, 1));
    for protocol in PROTOCOLS {
        let url = server.url("/v1/files/default/f");
        let output = curl(protocol)
            .args(["-Z", "-w", "%{http_code} %{size_download}\n"])
            .args(std::iter::repeat_n(["-o", "/dev/null", url.as_str()], 60).flatten())
            .output()
            .unwrap();
        let said = text(&output);
        assert_eq!(said.matches("200 70000\n").count(), 60, "{protocol}: {said}");
    }
}
