//! T14, T15: the ETag and the bytes are a function of the manifest, and of all of it.

use carrack_zip::{ManifestBuilder, Method, NewEntry};

use crate::sample::{Archive, blank, manifest, mixed};

/// T14: fixed values, so that another host, time zone, day or version of a dependency that changes a byte is noticed.
/// If this test fails on purpose, `LAYOUT_VERSION` must grow.
#[test]
fn the_same_forever() {
    let archive = Archive::new(&mixed(120));
    assert_eq!(archive.manifest.len(), GOLDEN.0);
    assert_eq!(crc32fast::hash(&archive.whole()), GOLDEN.1);
    assert_eq!(archive.manifest.etag(), GOLDEN.2);
}

const GOLDEN: (u64, u32, &str) = (14669, 0x2B37C563, "z1-ahcd6tlt7sz4jpxywhlggt4z6kqd4q7b");

#[test]
fn form() {
    let made = manifest([blank("a", 1)]);
    let letters = made.etag().strip_prefix("z1-").unwrap();
    assert_eq!(letters.len(), 32);
    assert!(letters.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
}

/// T15: every input that decides a byte decides the ETag.
#[test]
fn any_change_changes_it() {
    let base = NewEntry {
        name: "name",
        size: 10,
        compressed: 12,
        crc32: 1,
        method: Method::Deflate,
        modified: 1,
        content: [1; 16],
        stream: [1; 16],
        digest: [1; 32],
    };
    let stored = NewEntry { method: Method::Store, compressed: 10, ..base };
    let mut digest = base.digest;
    digest[31] ^= 1;
    let mut tags: Vec<String> = [
        base,
        stored,
        NewEntry { name: "nam", ..base },
        NewEntry { name: "namE", ..base },
        NewEntry { size: 11, ..base },
        NewEntry { compressed: 13, ..base },
        NewEntry { crc32: 2, ..base },
        NewEntry { modified: 2, ..base },
        NewEntry { digest, ..base },
        NewEntry { stream: [2; 16], ..base },
        NewEntry { size: 9, compressed: 9, ..stored },
    ]
    .into_iter()
    .map(|entry| manifest([blank("before", 3), entry, blank("after", 3)]).etag().to_owned())
    .collect();
    tags.push(manifest([blank("before", 3), blank("after", 3), base]).etag().to_owned());
    tags.push(manifest([blank("before", 3), base]).etag().to_owned());
    tags.push(manifest([blank("before", 3), base, blank("after", 3), blank("after", 3)]).etag().to_owned());
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count);
}

/// A stored blob kept a second time under another id gives the same bytes, hence the same ETag.
#[test]
fn stored_content_counts_by_digest() {
    let one = manifest([blank("a", 1)]);
    let other = manifest([NewEntry { content: [9; 16], ..blank("a", 1) }]);
    assert_eq!(one.etag(), other.etag());
}

/// Hashing in batches and reserving room leave no trace.
#[test]
fn batches_do_not_show() {
    let names: Vec<String> = (0..5000).map(|at| format!("{at}-{}", "n".repeat(at % 300))).collect();
    let mut roomy = ManifestBuilder::with_capacity(5000, 1 << 20);
    for name in &names {
        roomy.push(blank(name, 4)).unwrap();
    }
    let tight = manifest(names.iter().map(|name| blank(name, 4)));
    assert_eq!(roomy.finish().unwrap().etag(), tight.etag());
}
