//! Nanoseconds per entry and per piece. `cargo bench -p carrack-zip`; without `--bench` a short run.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use carrack_zip::{EntryNames, Manifest, ManifestBuilder, Method, NewEntry, Piece, ZipError};

/// Best of this many runs, because the machine is shared.
const RUNS: usize = 5;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("photos/2024-{:02}/IMG_{at:07}.jpg", at / 1000 % 12 + 1)).collect()
}

fn build(names: &[String], deflated: bool) -> Result<Manifest, ZipError> {
    let mut builder = ManifestBuilder::new();
    for (at, name) in names.iter().enumerate() {
        let size = 20_000 + at as u64 % 5_000_000;
        let mut content = [0; 16];
        content[..8].copy_from_slice(&(at as u64).to_le_bytes());
        let method = if deflated { Method::Deflate } else { Method::Store };
        let compressed = if deflated { size / 2 } else { size };
        let (crc32, modified) = (at as u32, 1_700_000_000 + at as i64);
        builder.push(NewEntry {
            name,
            size,
            compressed,
            crc32,
            method,
            modified,
            content,
            stream: content,
            digest: [at as u8; 32],
        })?;
    }
    builder.finish()
}

/// Fewest nanoseconds of [`RUNS`] runs, divided by `units`.
fn best(units: usize, mut run: impl FnMut() -> Result<(), ZipError>) -> Result<f64, ZipError> {
    let mut fewest = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        fewest = fewest.min(start.elapsed().as_nanos() as f64);
    }
    Ok(fewest / units as f64)
}

fn bench(count: usize) -> Result<(), ZipError> {
    let names = names(count);
    for deflated in [false, true] {
        let each = best(count, || build(&names, deflated).map(|manifest| drop(black_box(manifest))))?;
        println!(
            "{count:>8} entries  build (deflate {deflated:5})  {each:7.1} ns/entry  {:8.2} ms",
            each * count as f64 / 1e6
        );
    }
    let each = best(count, || {
        black_box(EntryNames::assign_all(names.iter().map(String::as_str)));
        Ok(())
    })?;
    println!(
        "{count:>8} names    assign                 {each:7.1} ns/name   {:8.2} ms",
        each * count as f64 / 1e6
    );

    let manifest = build(&names, false)?;
    let name_bytes: usize = names.iter().map(String::len).sum();
    println!(
        "{count:>8} entries  memory {:.2} bytes/entry without names, archive {} bytes",
        (manifest.memory() - name_bytes) as f64 / count as f64,
        manifest.len()
    );
    let mut pieces = 0;
    let each = best(1, || {
        let mut at = 0;
        pieces = 0;
        while let Some(piece) = manifest.piece_at(at) {
            pieces += 1;
            at += match black_box(piece) {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Data { len, .. } => len,
            };
        }
        Ok(())
    })?;
    println!(
        "{count:>8} entries  piece_at in sequence   {:7.1} ns/piece  ({pieces} pieces)",
        each / f64::from(pieces)
    );
    let headers_end = manifest.len() - count as u64 * 85;
    let each = best(1_000_000, || {
        let mut at = 1_u64;
        for _ in 0..1_000_000 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            black_box(manifest.piece_at((at >> 3) % headers_end));
        }
        Ok(())
    })?;
    println!("{count:>8} entries  piece_at at random     {each:7.1} ns/piece");
    let each = best(1000, || {
        for step in 0..1000 {
            black_box(manifest.piece_at(headers_end + step * 4096 % (count as u64 * 85 - 70_000).max(1)));
        }
        Ok(())
    })?;
    println!("{count:>8} entries  64 KiB of directory    {each:7.1} ns/piece");
    Ok(())
}

fn main() -> Result<(), ZipError> {
    let full = std::env::args().any(|argument| argument == "--bench");
    for count in if full { &[100_000, 1_000_000][..] } else { &[2_000] } {
        bench(*count)?;
    }
    Ok(())
}
