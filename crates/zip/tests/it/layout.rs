//! T1 to T13: the bytes against the oracle.

use carrack_zip::{Manifest, ManifestBuilder, Method, NewEntry, ZipError};

use crate::oracle::{Found, Listing, parse};
use crate::sample::{Archive, MODIFIED, blank, manifest, mixed, read_sparse};

const M32: u64 = 0xFFFF_FFFF;

fn sparse(manifest: &Manifest) -> Listing {
    parse(manifest.len(), |offset, len| read_sparse(manifest, offset, len))
}

/// The formula of the design notes, written out a second time.
fn formula(entries: &[(u64, u64)]) -> u64 {
    let (mut offset, mut directory) = (0, 0);
    for &(name, size) in entries {
        let fields = 2 * u64::from(size >= M32) + u64::from(offset >= M32);
        directory += 46 + name + if fields > 0 { 4 + 8 * fields } else { 0 } + 9;
        offset += 30 + name + if size >= M32 { 20 } else { 0 } + 9 + size;
    }
    let zip64 = entries.len() >= 0xFFFF || directory >= M32 || offset >= M32;
    offset + directory + if zip64 { 76 } else { 0 } + 22
}

/// T1.
#[test]
fn length_is_the_formula_and_the_bytes() {
    for count in [1, 2, 65_534, 65_535, 65_536, 1_000_000] {
        let names: Vec<String> = (0..count).map(|at| format!("f{at}")).collect();
        let made = manifest(names.iter().map(|name| blank(name, 3)));
        let facts: Vec<_> = names.iter().map(|name| (name.len() as u64, 3)).collect();
        assert_eq!(made.len(), formula(&facts));
        assert_eq!(made.entries(), count);
        let bytes = read_sparse(&made, 0, u64::MAX);
        assert_eq!(made.len(), bytes.len() as u64);
        let listing = parse(made.len(), |at, len| bytes[at as usize..(at + len) as usize].to_vec());
        assert_eq!(listing.entries.len(), count);
        assert_eq!(listing.zip64_end, count >= 65_535);
        assert!(made.memory() < 49 * count + names.iter().map(String::len).sum::<usize>() + 1024);
    }
}

/// T1 for none, T13: no empty archive is made.
#[test]
fn no_entries_no_archive() {
    assert_eq!(ManifestBuilder::new().finish().unwrap_err(), ZipError::Empty);
}

/// T2 (sizes), T4, T5.
#[test]
fn sizes_around_4_gib() {
    for size in [M32 - 1, M32, M32 + 1, 5 << 30] {
        let made = manifest([blank("small", 1), blank("large", size)]);
        assert_eq!(made.len(), formula(&[(5, 1), (5, size)]));
        let large = sparse(&made).entries.remove(1);
        assert_eq!((large.size, large.compressed), (size, size));
        let zip64 = size >= M32;
        assert_eq!(large.local_zip64.as_ref().map(Vec::len), zip64.then_some(16));
        assert_eq!(large.central_zip64.as_ref().map(Vec::len), zip64.then_some(16));
        let version = if zip64 { 45 } else { 20 };
        assert_eq!((large.needed, large.local_needed), (version, version));
    }
}

/// T2 (offsets), T5: an entry, and the directory, at exactly these places.
#[test]
fn offsets_around_4_gib() {
    for offset in [M32 - 1, M32, M32 + 1] {
        let first = offset - (30 + 1 + 9);
        let entries = [("a", first.min(M32 - 1)), ("b", 7)];
        // A first entry of that size must not itself be Zip64.
        assert!(first < M32 - 1);
        let made = manifest(entries.map(|(name, size)| blank(name, size)));
        assert_eq!(made.len(), formula(&entries.map(|(name, size)| (name.len() as u64, size))));
        let listing = sparse(&made);
        assert_eq!(listing.entries[1].local.start, offset);
        assert_eq!(listing.entries[1].central_zip64.as_ref().map(Vec::len), (offset >= M32).then_some(8));
        assert_eq!(listing.entries[1].needed, if offset >= M32 { 45 } else { 20 });
        assert_eq!((listing.entries[1].local_needed, &listing.entries[1].local_zip64), (20, &None));
        assert!(listing.zip64_end);

        let made = manifest([blank("a", first)]);
        let listing = sparse(&made);
        assert_eq!(listing.directory.start, offset);
        assert_eq!(listing.zip64_end, offset >= M32);
        assert_eq!(made.len(), formula(&[(1, first)]));
    }
}

/// All three central fields, and only one of the sizes beyond 4 GiB.
#[test]
fn deflate_beyond_4_gib() {
    let deflated = |size, compressed| NewEntry {
        name: "deflated",
        size,
        compressed,
        crc32: 5,
        method: Method::Deflate,
        ..blank("", 0)
    };
    for (size, compressed, fields) in
        [(6 << 30, 5 << 30, 2), (6 << 30, 1000, 1), (M32 - 1, M32, 1), (9, 11, 0)]
    {
        let made = manifest([blank("a", 1), deflated(size, compressed)]);
        let found = sparse(&made).entries.remove(1);
        assert_eq!((found.size, found.compressed, found.method), (size, compressed, 8));
        assert_eq!(found.central_zip64.as_ref().map_or(0, Vec::len), 8 * fields);
        assert_eq!(found.local_zip64.as_ref().map_or(0, Vec::len), if fields > 0 { 16 } else { 0 });
        let made = manifest([blank("a", M32 - 1), deflated(size, compressed)]);
        let found = sparse(&made).entries.remove(1);
        assert_eq!(found.central_zip64.as_ref().map_or(0, Vec::len), 8 * (fields + 1));
        assert_eq!(found.needed, 45);
    }
}

/// T5, T7, T9, T10 on an archive of every kind; T6 and T8 (no descriptors: no gaps) are asserted by the oracle.
#[test]
fn flags_modes_and_times() {
    let files = mixed(300);
    let archive = Archive::new(&files);
    let bytes = archive.whole();
    let listing = parse(archive.manifest.len(), |at, len| bytes[at as usize..(at + len) as usize].to_vec());
    for (at, (entry, (name, content, deflated))) in listing.entries.iter().zip(&files).enumerate() {
        assert_eq!(&entry.name, name);
        assert_eq!(entry.flags, if name.is_ascii() { 0 } else { 1 << 11 });
        assert_eq!((entry.needed, entry.local_needed, entry.made_by), (20, 20, 0x0314));
        assert_eq!(entry.method, if *deflated { 8 } else { 0 });
        let mode = if name.ends_with('/') { 0o040_755 << 16 | 0x10 } else { 0o100_644 << 16 };
        assert_eq!(entry.external, mode);
        assert_eq!(entry.unix_time, MODIFIED as u64 + 2 * at as u64);
        assert_eq!(entry.size, content.len() as u64);
        assert_eq!(entry.crc32, u64::from(crc32fast::hash(content)));
        let data = &bytes[entry.data.start as usize..entry.data.end as usize];
        assert_eq!(data, archive.blobs[at]);
        assert_eq!(archive.manifest.name(at), Some(name.as_str()));
        assert_eq!(archive.manifest.size(at), Some(entry.size));
        assert_eq!(archive.manifest.crc32(at).map(u64::from), Some(entry.crc32));
        assert_eq!(archive.manifest.method(at) == Some(Method::Deflate), *deflated);
        assert_eq!(archive.manifest.entry_modified(at), Some(MODIFIED + 2 * at as i64));
    }
    assert_eq!(archive.manifest.modified(), MODIFIED + 2 * 299);
    assert_eq!(archive.manifest.name(300), None);
    assert_eq!(archive.manifest.content(300), None);
    let first = &listing.entries[0];
    assert_eq!((first.dos_date, first.dos_time), (43 << 9 | 11 << 5 | 14, 22 << 11 | 13 << 5 | 10));
}

/// Times beyond what the fields can say.
#[test]
fn extreme_times() {
    for (modified, year, unix_time) in [
        (i64::MIN, 1980, 0),
        (-1, 1980, 0),
        (0, 1980, 0),
        (4_102_444_800, 2100, 0x7FFF_FFFF),
        (i64::MAX, 2107, 0x7FFF_FFFF),
    ] {
        let made = manifest([NewEntry { modified, ..blank("a", 0) }]);
        let Found { dos_date, unix_time: ut, .. } = sparse(&made).entries.remove(0);
        assert_eq!((1980 + (dos_date >> 9), ut), (year, unix_time));
        assert_eq!(made.modified(), modified);
    }
}

/// T12.
#[test]
fn first_entry_is_small_if_one_is() {
    let order = |sizes: &[u64]| -> Vec<String> {
        let names: Vec<String> = (0..sizes.len()).map(|at| format!("{at}{}", "x".repeat(at))).collect();
        let made = manifest(names.iter().zip(sizes).map(|(name, &size)| blank(name, size)));
        let listing = sparse(&made);
        assert!((0..sizes.len()).all(|at| made.name(at) == Some(&listing.entries[at].name)));
        listing.entries.into_iter().map(|entry| entry.name[..1].to_owned()).collect()
    };
    assert_eq!(order(&[5 << 30, 6 << 30, 4, 5, 7 << 30]), ["2", "0", "1", "3", "4"]);
    assert_eq!(order(&[1, 5 << 30, 4]), ["0", "1", "2"]);
    assert_eq!(order(&[5 << 30, 6 << 30]), ["0", "1"]);
    assert_eq!(order(&[5 << 30, 0]), ["1", "0"]);
    // Info-ZIP misreads what follows an entry of exactly 4 GiB - 1.
    assert_eq!(order(&[1, M32, 5 << 30, 4, M32, 5]), ["0", "2", "3", "5", "1", "4"]);
    assert_eq!(order(&[M32, M32, 1]), ["2", "0", "1"]);
    assert_eq!(order(&[M32, 5 << 30]), ["1", "0"]);
    assert_eq!(order(&[M32]), ["0"]);
}

/// T12 with deflated entries, whose compressed sizes move along.
#[test]
fn moving_keeps_every_column() {
    let made = manifest([
        NewEntry { modified: 10, content: [10; 16], ..blank("large", 5 << 30) },
        NewEntry {
            compressed: 9,
            method: Method::Deflate,
            modified: 20,
            content: [20; 16],
            ..blank("small", 7)
        },
    ]);
    let all =
        |at| (made.name(at), made.size(at), made.compressed(at), made.method(at), made.entry_modified(at));
    assert_eq!(all(0), (Some("small"), Some(7), Some(9), Some(Method::Deflate), Some(20)));
    assert_eq!(all(1), (Some("large"), Some(5 << 30), Some(5 << 30), Some(Method::Store), Some(10)));
    assert_eq!((made.content(0), made.content(1)), (Some([20; 16]), Some([10; 16])));
    assert_eq!(sparse(&made).entries[0].crc32, 0x1234_5678);
}

#[test]
fn what_is_refused() {
    let push = |entry: NewEntry<'_>| ManifestBuilder::new().push(entry).unwrap_err();
    let long = "n".repeat(65_536);
    assert_eq!(push(blank("", 1)), ZipError::NoName);
    assert_eq!(push(blank(&long, 1)), ZipError::NameTooLong(65_536));
    assert_eq!(push(blank("f/", 1)), ZipError::FolderWithContent("f/".into()));
    let contradiction = ZipError::Contradiction("a".into());
    assert_eq!(push(NewEntry { compressed: 2, ..blank("a", 1) }), contradiction);
    assert_eq!(push(NewEntry { crc32: 2, ..blank("a", 0) }), contradiction);
    assert_eq!(push(NewEntry { method: Method::Deflate, ..blank("a", 1) }), contradiction);
    assert_eq!(push(blank("a", 1 << 63)), ZipError::TooLarge);
    assert_eq!(sparse(&manifest([blank(&long[1..], 1)])).entries[0].name.len(), 65_535);
    let mut builder = ManifestBuilder::new();
    builder.push(blank("a", 1 << 62)).unwrap();
    builder.push(blank("b", 1 << 62)).unwrap();
    assert_eq!(builder.finish().unwrap_err(), ZipError::TooLarge);
}
