//! T17, T18: any slice equals that slice of the whole.

use proptest::prelude::*;

use carrack_zip::Piece;

use crate::oracle::parse;
use crate::sample::{Archive, File, blank, manifest, mixed};

/// Offsets of everything that begins or ends in the archive.
fn boundaries(archive: &Archive, whole: &[u8]) -> Vec<u64> {
    let listing = parse(archive.manifest.len(), |at, len| whole[at as usize..(at + len) as usize].to_vec());
    let mut all = vec![0, listing.directory.start, listing.directory.end, whole.len() as u64 - 22];
    for entry in &listing.entries {
        all.extend([
            entry.local.start,
            entry.local.end,
            entry.data.end,
            entry.central.start,
            entry.central.end,
        ]);
    }
    all
}

/// T17: 10,000 random slices.
#[test]
fn random_slices() {
    let archive = Archive::new(&mixed(3000));
    let whole = archive.whole();
    assert_eq!(whole.len() as u64, archive.manifest.len());
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 20) % below
    };
    for _ in 0..10_000 {
        let offset = random(whole.len() as u64);
        let len = 1 + random(2000);
        let end = whole.len().min((offset + len) as usize);
        assert_eq!(archive.read(offset, len), whole[offset as usize..end]);
    }
}

/// T17: every boundary, one before and one after, to the next few bytes and beyond the next boundary.
#[test]
fn every_boundary() {
    let archive = Archive::new(&mixed(400));
    let whole = archive.whole();
    for boundary in boundaries(&archive, &whole) {
        for offset in [boundary.saturating_sub(1), boundary, boundary + 1] {
            for len in [1, 2, 300] {
                let begin = whole.len().min(offset as usize);
                let end = whole.len().min((offset + len) as usize);
                assert_eq!(archive.read(offset, len), whole[begin..end], "{len} bytes at {offset}");
            }
        }
    }
}

/// Pieces of a long directory join, and headers of a long run of empty entries do, within their bounds.
#[test]
fn long_runs_of_headers() {
    let files: Vec<File> = (0..5000).map(|at| (format!("folder-{at:05}/"), Vec::new(), false)).collect();
    let archive = Archive::new(&files);
    let whole = archive.whole();
    let mut pieces = 0;
    let mut at = 0;
    while let Some(Piece::Bytes(bytes)) = archive.manifest.piece_at(at) {
        assert_eq!(bytes, whole[at as usize..at as usize + bytes.len()]);
        at += bytes.len() as u64;
        pieces += 1;
    }
    assert_eq!(at, archive.manifest.len());
    assert!(pieces <= whole.len() / (32 * 1024) + 2, "{pieces} pieces");
}

/// T18: the end of a 1 TiB archive without opening a file.
#[test]
fn tail_of_a_tebibyte() {
    let names: Vec<String> = (0..1024).map(|at| format!("disk-image-{at:04}.raw")).collect();
    let made = manifest(names.iter().map(|name| blank(name, 1 << 30)));
    assert!(made.len() > 1 << 40);
    let mut at = made.len() - 64 * 1024;
    while at < made.len() {
        match made.piece_at(at) {
            Some(Piece::Bytes(bytes)) => at += bytes.len() as u64,
            other => panic!("{other:?} at {at}"),
        }
    }
    // And in the middle of the data, with the offset within the blob.
    let header = 30 + 19 + 9;
    let inside = 500 * ((1 << 30) + header) + header + 12_345;
    let expected = Piece::Data { entry: 500, content: [1; 16], offset: 12_345, len: (1 << 30) - 12_345 };
    assert_eq!(made.piece_at(inside), Some(expected));
}

fn files() -> impl Strategy<Value = Vec<File>> {
    let file = ("[a-zäß日]{1,12}", proptest::collection::vec(any::<u8>(), 0..40), 0..4_u8);
    proptest::collection::vec(file, 1..200).prop_map(|files| {
        let each = files.into_iter().map(|(name, content, kind)| match kind {
            0 => (format!("{name}/"), Vec::new(), false),
            1 => (name, Vec::new(), false),
            kind => (name, content, kind == 3),
        });
        each.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What `make fuzz` does at length.
    #[test]
    fn any_bytes_make_an_archive_that_is_one(data in proptest::collection::vec(any::<u8>(), 0..90)) {
        crate::judged::judge(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_archive_any_slice(files in files(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..20)) {
        let archive = Archive::new(&files);
        let whole = archive.whole();
        let listing = parse(archive.manifest.len(), |at, len| whole[at as usize..(at + len) as usize].to_vec());
        prop_assert_eq!(listing.entries.len(), files.len());
        for (entry, (name, content, _)) in listing.entries.iter().zip(&files) {
            prop_assert_eq!(&entry.name, name);
            prop_assert_eq!(entry.crc32, u64::from(crc32fast::hash(content)));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let slice = archive.read(pair[0] as u64, (pair[1] - pair[0]) as u64);
            prop_assert_eq!(&slice, &whole[pair[0]..pair[1]]);
        }
    }
}
