//! Ranges (RFC 9110, section 14).

use super::answers::{header, refused, store};
use crate::server::{Server, content};

const PATH: &str = "/v1/files/default/r.bin";
const LEN: usize = 1000;

/// What a `Range` comes to.
enum Expect {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes, both ends included.
    One(usize, usize),
    /// 206 `multipart/byteranges`.
    Many(&'static [(usize, usize)]),
    /// 416.
    None,
}
use Expect::{Many, None as Unsatisfiable, One, Whole};

#[rustfmt::skip]
const CASES: &[(&str, Expect)] = &[
    // One range.
    ("bytes=0-0", One(0, 0)),
    ("bytes=0-999", One(0, 999)),
    ("bytes=10-19", One(10, 19)),
    ("bytes=999-999", One(999, 999)),
    ("BYTES=10-19", One(10, 19)),
    ("bytes= 10-19", One(10, 19)),
    ("bytes=010-0019", One(10, 19)),
    // Open.
    ("bytes=0-", One(0, 999)),
    ("bytes=500-", One(500, 999)),
    ("bytes=999-", One(999, 999)),
    // From the end.
    ("bytes=-1", One(999, 999)),
    ("bytes=-999", One(1, 999)),
    ("bytes=-1000", One(0, 999)),
    ("bytes=-1001", One(0, 999)),
    ("bytes=-99999999999999999999999999", One(0, 999)),
    // Clamped.
    ("bytes=0-1000", One(0, 999)),
    ("bytes=990-5000", One(990, 999)),
    ("bytes=990-18446744073709551615", One(990, 999)),
    ("bytes=990-99999999999999999999999999", One(990, 999)),
    // Not there.
    ("bytes=1000-", Unsatisfiable),
    ("bytes=1000-1000", Unsatisfiable),
    ("bytes=18446744073709551615-", Unsatisfiable),
    ("bytes=99999999999999999999999999-", Unsatisfiable),
    ("bytes=-0", Unsatisfiable),
    ("bytes=1000-1001,2000-", Unsatisfiable),
    // Malformed: as if it were not there.
    ("bytes=", Whole),
    ("bytes", Whole),
    ("=0-1", Whole),
    ("bytes=-", Whole),
    ("bytes=5-4", Whole),
    ("bytes=a-b", Whole),
    ("bytes=0-0x10", Whole),
    ("bytes=0", Whole),
    ("bytes=0-1-2", Whole),
    ("bytes=--1", Whole),
    ("bytes=+1-2", Whole),
    ("bytes=1.0-2", Whole),
    ("bytes=0-1;2-3", Whole),
    ("bytes=0-1,x", Whole),
    ("bytes=,", Whole),
    ("bytes 0-1", Whole),
    // Another unit.
    ("lines=0-1", Whole),
    ("seconds=0-", Whole),
    // Several.
    ("bytes=0-9,20-29", Many(&[(0, 9), (20, 29)])),
    ("bytes=20-29,0-9", Many(&[(20, 29), (0, 9)])),
    ("bytes=0-9 ,\t20-29", Many(&[(0, 9), (20, 29)])),
    ("bytes=,0-9,,20-29,", Many(&[(0, 9), (20, 29)])),
    ("bytes=0-0,-1", Many(&[(0, 0), (999, 999)])),
    ("bytes=0-9,10-19", Many(&[(0, 9), (10, 19)])),
    ("bytes=0-499,500-", Many(&[(0, 499), (500, 999)])),
    ("bytes=0-0,2-2,4-4,6-6,8-8", Many(&[(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)])),
    ("bytes=0-9,5000-", One(0, 9)),
    ("bytes=5000-,990-2000", One(990, 999)),
    // Overlapping or too many: broken clients and attacks (section 14.2).
    ("bytes=0-9,5-14", Whole),
    ("bytes=0-,0-,0-", Whole),
    ("bytes=0-9,9-9", Whole),
    ("bytes=0-500,-500", Whole),
    ("bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30,32-32", Whole),
];

/// Takes `multipart/byteranges` apart, strictly: the range of each part and its bytes.
fn multipart(kind: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes()).unwrap();
    let mut parts = Vec::new();
    loop {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let mut lines = head.split("\r\n");
        assert_eq!(lines.next().unwrap(), "Content-Type: text/x-ranges");
        let range = lines.next().unwrap().strip_prefix("Content-Range: ").unwrap().to_owned();
        assert_eq!(lines.next(), None);
        let (ends, whole) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        assert_eq!(whole, LEN.to_string());
        let (first, last) = ends.split_once('-').unwrap();
        let len = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        let bytes = &rest[end + 4..][..len];
        parts.push((range.clone(), bytes.to_vec()));
        rest = &rest[end + 4 + len..];
        rest = rest.strip_prefix(format!("\r\n--{boundary}").as_bytes()).unwrap();
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap();
    }
}

async fn check(server: &Server, range: &str, expected: &Expect, whole: &[u8]) {
    let answer = server.get(PATH).header("range", range).send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = header(&answer, "content-type").to_owned();
    let content_range = header(&answer, "content-range").to_owned();
    let length: usize = header(&answer, "content-length").parse().unwrap();
    match expected {
        Unsatisfiable => {
            assert_eq!(content_range, "bytes */1000", "{range}");
            refused(answer, 416, "range_not_satisfiable").await;
            return;
        }
        Whole | One(..) | Many(_) => {}
    }
    assert_eq!(header(&answer, "accept-ranges"), "bytes");
    assert!(header(&answer, "etag").starts_with('"'));
    assert!(!header(&answer, "last-modified").is_empty());
    let body = answer.bytes().await.unwrap();
    assert_eq!(body.len(), length, "{range}");
    match expected {
        Whole => {
            assert_eq!((status, content_range.as_str()), (200, ""), "{range}");
            assert!(body == whole, "{range}");
        }
        One(first, last) => {
            assert_eq!((status, content_range), (206, format!("bytes {first}-{last}/1000")), "{range}");
            assert_eq!(kind, "text/x-ranges");
            assert!(body == whole[*first..=*last], "{range}");
        }
        Many(ranges) => {
            assert_eq!((status, content_range.as_str()), (206, ""), "{range}");
            let expected: Vec<_> = ranges
                .iter()
                .map(|(first, last)| (format!("bytes {first}-{last}/1000"), whole[*first..=*last].to_vec()))
                .collect();
            assert!(multipart(&kind, &body) == expected, "{range}");
        }
        Unsatisfiable => {}
    }
}

async fn with_file(bytes: &[u8]) -> Server {
    let server = Server::start();
    let put = server.put(PATH).header("content-type", "text/x-ranges").body(bytes.to_vec());
    assert_eq!(put.send().await.unwrap().status(), 201);
    server
}

#[tokio::test]
async fn every_line_of_the_table_holds() {
    let whole = content(LEN, 5);
    let server = with_file(&whole).await;
    for (range, expected) in CASES {
        check(&server, range, expected, &whole).await;
    }
}

#[tokio::test]
async fn head_ignores_a_range() {
    let server = with_file(&content(LEN, 5)).await;
    for range in ["bytes=0-9", "bytes=5000-", "bytes=0-1,5-6"] {
        let answer = server.head(PATH).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{range}");
        assert_eq!((header(&answer, "content-length"), header(&answer, "content-range")), ("1000", ""));
        assert_eq!(header(&answer, "accept-ranges"), "bytes");
        assert_eq!(answer.bytes().await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn no_range_of_an_empty_file_exists() {
    let server = with_file(b"").await;
    let whole = server.get(PATH).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), header(&whole, "content-length")), (200, "0"));
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
        let answer = server.get(PATH).header("range", range).send().await.unwrap();
        assert_eq!(header(&answer, "content-range"), "bytes */0");
        refused(answer, 416, "range_not_satisfiable").await;
    }
    let malformed = server.get(PATH).header("range", "bytes=2-1").send().await.unwrap();
    assert_eq!(malformed.status(), 200);
}

#[tokio::test]
async fn if_range_decides_whether_a_range_is_honoured() {
    let server = with_file(&content(LEN, 5)).await;
    let head = server.head(PATH).send().await.unwrap();
    let (etag, date) = (header(&head, "etag").to_owned(), header(&head, "last-modified").to_owned());
    let cases = [
        (etag.clone(), 206),
        (date, 206),
        (format!("W/{etag}"), 200),
        ("\"other\"".to_owned(), 200),
        (etag.trim_matches('"').to_owned(), 200),
        (format!("\"x\", {etag}"), 200),
        ("*".to_owned(), 200),
        ("Tue, 14 Nov 2023 22:13:20 GMT".to_owned(), 200),
        ("Sat, 14 Nov 2099 22:13:20 GMT".to_owned(), 200),
        ("yesterday".to_owned(), 200),
        (String::new(), 200),
    ];
    for (value, status) in cases {
        let request = server.get(PATH).header("range", "bytes=0-9").header("if-range", &value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{value}");
        let len = if status == 206 { 10 } else { LEN };
        assert_eq!(answer.bytes().await.unwrap().len(), len, "{value}");
    }
    // A range that does not exist is none of the client's concern when the content is another.
    let stale =
        server.get(PATH).header("range", "bytes=5000-").header("if-range", "\"other\"").send().await.unwrap();
    assert_eq!(stale.status(), 200);
    let fresh =
        server.get(PATH).header("range", "bytes=5000-").header("if-range", etag).send().await.unwrap();
    refused(fresh, 416, "range_not_satisfiable").await;
}

#[tokio::test]
async fn a_download_continues_across_a_replacement_only_with_the_same_bytes() {
    let server = with_file(b"the first content").await;
    let etag = header(&server.head(PATH).send().await.unwrap(), "etag").to_owned();
    store(&server, PATH, b"another, longer content").await;
    let next = server.get(PATH).header("range", "bytes=4-").header("if-range", &etag).send().await.unwrap();
    assert_eq!(next.status(), 200);
    assert_eq!(next.bytes().await.unwrap(), "another, longer content");
    store(&server, PATH, b"the first content").await;
    let next = server.get(PATH).header("range", "bytes=4-").header("if-range", &etag).send().await.unwrap();
    assert_eq!(next.status(), 206, "equal bytes have equal tags");
    assert_eq!(next.bytes().await.unwrap(), "first content");
}

#[tokio::test]
async fn ranges_of_a_large_file_are_exact_at_every_border() {
    let whole = content((5 << 20) + 3, 6);
    let server = with_file(&whole).await;
    let borders = [
        0,
        1,
        4095,
        4096,
        65_536,
        262_143,
        262_144,
        262_145,
        1 << 20,
        (4 << 20) - 1,
        4 << 20,
        whole.len() - 1,
    ];
    for (index, first) in borders.into_iter().enumerate() {
        for last in &borders[index..] {
            let answer =
                server.get(PATH).header("range", format!("bytes={first}-{last}")).send().await.unwrap();
            assert_eq!(answer.status(), 206);
            assert!(answer.bytes().await.unwrap() == whole[first..=*last], "{first}-{last}");
        }
    }
}
