//! Files of every size at which the server changes how it sends, and their ranges, on every way.

use super::ways::Way;
use super::{multipart, store};
use crate::server::{Server, Setup, content};
use crate::zip::layout::unpack;

/// Around what is copied instead of sent from the file, what is read at once, copied and not, and what is mapped at
/// once.
const BORDERS: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 4 << 20];

fn sizes() -> Vec<usize> {
    let around = BORDERS.into_iter().flat_map(|border| [border - 1, border, border + 1]);
    [0, 1, 2].into_iter().chain(around).collect()
}

/// What does not depend on the disk; durability is not the matter here.
async fn with_files() -> (Server, Vec<Vec<u8>>) {
    let server = Setup::new().set("CARRACK_UPLOADS__DURABILITY", "process").start();
    let mut files = Vec::new();
    for size in sizes() {
        let bytes = content(size, size as u64);
        store(&server, &format!("f/{size}"), &bytes).await;
        files.push(bytes);
    }
    (server, files)
}

fn path(bytes: &[u8]) -> String {
    format!("/v1/files/default/f/{}", bytes.len())
}

#[tokio::test]
async fn files_are_whole_on_every_way_and_again_when_they_are_hot() {
    let (server, files) = with_files().await;
    for mut way in Way::all(&server) {
        for bytes in &files {
            let named = format!("{} bytes, {}", bytes.len(), way.name());
            let head = way.head(&path(bytes));
            assert_eq!((head.status, head.length()), (200, bytes.len()), "{named}");
            for _ in 0..2 {
                let (head, body) = way.get(&path(bytes), "");
                assert_eq!((head.status, head.length()), (200, bytes.len()), "{named}");
                assert!(body == *bytes, "{named}");
            }
        }
    }
}

/// First and last byte of ranges of a file, and how they are asked for.
fn single_ranges(len: usize) -> Vec<(String, usize, usize)> {
    let end = len - 1;
    let mut ranges = vec![("bytes=0-".to_owned(), 0, end), ("bytes=-1".to_owned(), end, end)];
    for border in BORDERS {
        for count in [border - 1, border, border + 1].into_iter().filter(|count| *count < len) {
            ranges.push((format!("bytes=0-{}", count - 1), 0, count - 1));
            ranges.push((format!("bytes=-{count}"), len - count, end));
            ranges.push((format!("bytes={}-{end}", len - count), len - count, end));
        }
    }
    ranges
}

#[tokio::test]
async fn ranges_are_exact_on_every_way() {
    let (server, files) = with_files().await;
    for mut way in Way::all(&server) {
        for bytes in files.iter().filter(|bytes| BORDERS.iter().any(|border| bytes.len() == border + 1)) {
            for (range, first, last) in single_ranges(bytes.len()) {
                let named = format!("{range} of {} bytes, {}", bytes.len(), way.name());
                let (head, body) = way.get(&path(bytes), &range);
                let said = head.header("content-range").unwrap();
                assert_eq!(said, format!("bytes {first}-{last}/{}", bytes.len()), "{named}");
                assert_eq!((head.status, head.length()), (206, last + 1 - first), "{named}");
                assert!(body == bytes[first..=last], "{named}");
            }
        }
    }
}

#[tokio::test]
async fn several_ranges_are_exact_on_every_way() {
    let (server, files) = with_files().await;
    let (k16, k64, k256, m4) = (16 << 10, 64 << 10, 256 << 10, 4 << 20);
    // Runs that are copied and runs that are not, in both orders; two that share a page; one beside the end.
    let wishes: [&[(usize, usize)]; 5] = [
        &[(0, 0), (m4, m4)],
        &[(0, k16), (k16 + 1, 2 * k16), (k64, k64 + k16 - 1)],
        &[(k256, m4), (0, k16 - 1), (k64, k64 + k16)],
        &[(1, k64), (k64 + 3, k64 + 4), (k64 + 5, k256 + 5), (m4 - 1, m4)],
        &[(m4, m4), (0, 0), (7, 8), (2 * k16, 3 * k16), (5 * k16, k256)],
    ];
    let bytes = files.last().unwrap();
    for mut way in Way::all(&server) {
        for ranges in wishes {
            let wish: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let (head, body) = way.get(&path(bytes), &format!("bytes={}", wish.join(",")));
            assert_eq!(head.status, 206, "{}", way.name());
            assert_eq!(head.length(), body.len(), "{}", way.name());
            assert!(body == multipart(&head, ranges, bytes), "{wish:?}, {}", way.name());
        }
    }
}

#[tokio::test]
async fn archives_and_their_ranges_are_exact_on_every_way() {
    const PATH: &str = "/v1/zip/default?prefix=f/";
    let (server, files) = with_files().await;
    let zip = server.get(PATH).send().await.unwrap().bytes().await.unwrap().to_vec();
    let mut packed: Vec<Vec<u8>> = unpack(&zip).into_iter().map(|(_, bytes)| bytes).collect();
    packed.sort_by_key(Vec::len);
    assert!(packed == files);
    let len = zip.len();
    let spots = [1, 29, 31, 100, 16_385, 65_536, 262_144, 1_000_000, 4_194_305, len / 2, len - 23, len - 1];
    for mut way in Way::all(&server) {
        assert_eq!(way.head(PATH).length(), len);
        assert!(way.get(PATH, "").1 == zip, "{}", way.name());
        for (index, first) in spots.into_iter().enumerate() {
            for last in [first, first + 70_000, spots[(index + 3) % spots.len()]] {
                let last = last.clamp(first, len - 1);
                let (head, body) = way.get(PATH, &format!("bytes={first}-{last}"));
                assert_eq!(head.status, 206);
                assert!(body == zip[first..=last], "{first}-{last}, {}", way.name());
            }
            assert!(way.get(PATH, &format!("bytes=-{first}")).1 == zip[len - first..], "{}", way.name());
        }
    }
}
