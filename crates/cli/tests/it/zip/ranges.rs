//! Ranges are slices of the whole, wherever they begin and end (T17, T18, T23, T24).

use super::layout::parse;
use super::{below, fetch, header, load, setup};
use crate::server::{Server, content, tool};
use futures_util::{StreamExt, stream};
use std::path::Path;
use std::time::{Duration, Instant};

async fn start() -> (Server, Vec<u8>) {
    let server = setup().start();
    let size = |i: usize| [0, 1, 40, 3000, 0, 0, 65_536, 299_000][i % 8] + i / 8;
    let files = (0..240).map(|i| (format!("r/{}/{i:03}", i % 5), content(size(i), i as u64)));
    load(&server, files).await;
    let zip = fetch(&server, &below("r/")).await;
    (server, zip)
}

/// Asks for `first` to `last` and compares with the whole.
async fn assert_slice(server: &Server, zip: &[u8], first: usize, last: usize) {
    let range = format!("bytes={first}-{last}");
    let part = server.get(&below("r/")).header("range", &range).send().await.unwrap();
    let last = last.min(zip.len() - 1);
    assert_eq!(part.status(), 206, "{range}");
    assert_eq!(header(&part, "content-range"), format!("bytes {first}-{last}/{}", zip.len()));
    assert_eq!(header(&part, "content-length"), (last + 1 - first).to_string());
    assert!(part.bytes().await.unwrap() == zip[first..=last], "{range}");
}

async fn assert_slices(server: &Server, zip: &[u8], ranges: impl Iterator<Item = (usize, usize)>) {
    let each = |(first, last)| assert_slice(server, zip, first, last);
    stream::iter(ranges).for_each_concurrent(4, each).await;
}

#[tokio::test]
async fn five_hundred_random_ranges_are_slices_of_the_whole() {
    let (server, zip) = start().await;
    let numbers = content(500 * 16, 42);
    let ranges = numbers.chunks_exact(16).map(|number| {
        let [a, b] = [0, 8].map(|at| u64::from_le_bytes(number[at..at + 8].try_into().unwrap()) as usize);
        let first = a % zip.len();
        // Half of them short, half of any length.
        let most = if b & 1 == 0 { 2000 } else { zip.len() };
        (first, first + (b >> 1) % most)
    });
    assert_slices(&server, &zip, ranges).await;
}

#[tokio::test]
async fn ranges_beside_every_boundary_are_slices_of_the_whole() {
    let (server, zip) = start().await;
    let (entries, end) = parse(&zip);
    assert_eq!(entries.len(), 240);
    let starts = entries.iter().flat_map(|e| [e.local.start, e.data.start, e.data.end, e.central.start]);
    let mut boundaries: Vec<usize> = starts.chain([end, zip.len()]).collect();
    boundaries.sort_unstable();
    boundaries.dedup();
    let beside = boundaries.iter().flat_map(|at| {
        let near = [at.saturating_sub(1), *at, at + 1];
        let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
        pairs.map(|(first, last)| (near[first], near[last]))
    });
    let mut ranges: Vec<(usize, usize)> = beside.filter(|(first, _)| *first < zip.len()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    assert_slices(&server, &zip, ranges.into_iter()).await;
    let whole = boundaries.windows(2).map(|pair| (pair[0], pair[1] - 1));
    assert_slices(&server, &zip, whole).await;
}

#[tokio::test]
async fn suffixes_open_ends_and_odd_ranges() {
    let (server, zip) = start().await;
    let len = zip.len();
    let (all, more) = (format!("bytes=-{len}"), format!("bytes=-{}", len + 1));
    let (last, past) = (format!("bytes={}-", len - 1), format!("bytes={len}-"));
    let cases: [(&str, u16, &[u8]); 12] = [
        ("bytes=-1", 206, &zip[len - 1..]),
        ("bytes=-22", 206, &zip[len - 22..]),
        (&all, 206, &zip),
        (&more, 206, &zip),
        (&last, 206, &zip[len - 1..]),
        ("bytes=5-", 206, &zip[5..]),
        (&past, 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-4", 200, &zip),
        ("bytes=a-b", 200, &zip),
        ("lines=0-1", 200, &zip),
        ("bytes=0-9,5-14", 200, &zip),
    ];
    for (range, status, body) in cases {
        let answer = server.get(&below("r/")).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        if status == 416 {
            assert_eq!(header(&answer, "content-range"), format!("bytes */{len}"), "{range}");
        } else {
            assert!(answer.bytes().await.unwrap() == body, "{range}");
        }
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts_of_one_answer() {
    let (server, zip) = start().await;
    let (entries, end) = parse(&zip);
    let asked: Vec<(usize, usize)> = entries[..14].iter().map(|e| (e.local.start + 3, e.local.end)).collect();
    let asked = [&asked[..], &[(end, zip.len() - 1), (end - 100_000, end - 1)]].concat();
    let list: Vec<String> = asked.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    let range = format!("bytes={}", list.join(", "));
    let answer = server.get(&below("r/")).header("range", range).send().await.unwrap();
    assert_eq!(answer.status(), 206);
    let kind = header(&answer, "content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let length: usize = header(&answer, "content-length").parse().unwrap();
    let body = answer.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let mut expected = Vec::new();
    for (index, (first, last)) in asked.iter().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{line}--{boundary}\r\nContent-Type: application/zip\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
            zip.len()
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&zip[*first..=*last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(body == expected);
}

/// How often a blob was opened, once the trace is complete up to now.
async fn opened(server: &Server, trace: &Path) -> usize {
    // The trace is written in the background: it is complete once it shows what the server opens after all else.
    let mark = |text: &str| text.matches("openat(").count() > 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = String::new();
    loop {
        assert_eq!(server.get("/livez").send().await.unwrap().status(), 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = std::fs::read_to_string(trace).unwrap();
        if mark(&now) && now == before {
            return now.matches("/blobs/").count();
        }
        assert!(Instant::now() < deadline, "the trace does not come to rest");
        before = now;
    }
}

/// T18.
#[tokio::test]
async fn the_last_64_kib_of_20000_entries_open_no_blob() {
    let mut loaded = setup().start();
    // Most are kept in the catalog; every hundredth is a blob of its own.
    let len = |i| if i % 100 == 0 { 40 << 10 } else { 5 };
    let files = (0..20_000).map(|i| (format!("r/{i:05}"), format!("{i:05}").into_bytes().repeat(len(i) / 5)));
    load(&loaded, files).await;
    let zip = fetch(&loaded, &below("r/")).await;
    loaded.stop();
    let trace = loaded.folder().join("trace");
    // -D: the server stays the child of the test.
    let words = ["-D", "-f", "--seccomp-bpf", "-e", "trace=open,openat,openat2", "-o"];
    tool("strace", "strace").arg("-V").output().unwrap();
    let server = setup()
        .data(&loaded.data)
        .under(&[&["strace"], &words[..], &[trace.to_str().unwrap()]].concat())
        .start();
    let before = opened(&server, &trace).await;
    assert_slice(&server, &zip, zip.len() - (64 << 10), zip.len() - 1).await;
    assert_eq!(opened(&server, &trace).await, before, "the tail is made from the manifest alone");
    assert_slice(&server, &zip, 0, 1000).await;
    assert!(opened(&server, &trace).await > before, "the trace sees blobs that are opened");
}
