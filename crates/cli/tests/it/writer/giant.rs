//! A file of 5 GiB: offsets that need more than 32 bits.

use super::get;
use crate::operations::wire::Wire;
use crate::zip::giants::{assert_room, quick};

const LEN: u64 = (5 << 30) + 4097;
const GIB_4: u64 = 1 << 32;
/// Not a divisor of 4 GiB or of any buffer: bytes from a wrong place differ.
const PERIOD: usize = (1 << 20) + 4099;
const STEP: usize = 1 << 20;

/// The content: this, over and over.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Pattern {
        let once = crate::server::content(PERIOD, 5);
        Pattern([&once[..], &once[..STEP]].concat())
    }

    /// At most [`STEP`] bytes at an offset.
    fn at(&self, offset: u64, len: usize) -> &[u8] {
        &self.0[(offset % PERIOD as u64) as usize..][..len]
    }
}

fn assert_range(wire: &mut Wire, pattern: &Pattern, range: &str, first: u64, len: u64) {
    wire.request(&get("giant"), &[&format!("range: bytes={range}")]);
    let head = wire.head();
    assert_eq!((head.status, head.length() as u64), (206, len), "{range}");
    assert_body(wire, pattern, first, len);
}

fn assert_body(wire: &mut Wire, pattern: &Pattern, first: u64, len: u64) {
    let mut done = 0;
    while done < len {
        let bytes = wire.some();
        assert!(!bytes.is_empty(), "the body ended at {done} of {len}");
        for piece in bytes.chunks(STEP) {
            assert!(piece == pattern.at(first + done, piece.len()), "bytes {} and on", first + done);
            done += piece.len() as u64;
        }
    }
    assert_eq!(done, len);
}

#[test]
fn five_gibibytes_and_ranges_across_four_are_exact() {
    let server = quick().start();
    assert_room(&server, 6);
    let pattern = Pattern::new();
    let mut wire = Wire::connect(&server);
    wire.request("PUT /v1/files/default/giant", &[&format!("content-length: {LEN}")]);
    let mut sent = 0;
    while sent < LEN {
        let piece = pattern.at(sent, STEP.min((LEN - sent) as usize));
        wire.send(piece).unwrap();
        sent += piece.len() as u64;
    }
    let stored = wire.head();
    assert_eq!(stored.status, 201);
    wire.body(stored.length());
    wire.request("HEAD /v1/files/default/giant", &[]);
    assert_eq!(wire.head().length() as u64, LEN);
    let end = LEN - 1;
    let ranges = [
        (format!("{}-{}", GIB_4 - 1, GIB_4), GIB_4 - 1, 2),
        (format!("{}-{}", GIB_4 - 5_000_000, GIB_4 + 4_999_999), GIB_4 - 5_000_000, 10_000_000),
        (format!("{GIB_4}-{}", GIB_4 + 16_384), GIB_4, 16_385),
        (format!("{}-{}", (1_u64 << 31) - 20_000, (1_u64 << 31) + 19_999), (1 << 31) - 20_000, 40_000),
        (format!("{end}-"), end, 1),
        ("-100000".to_owned(), LEN - 100_000, 100_000),
    ];
    for (range, first, len) in &ranges {
        assert_range(&mut wire, &pattern, range, *first, *len);
    }
    wire.request(&get("giant"), &[]);
    assert_eq!(wire.head().length() as u64, LEN);
    assert_body(&mut wire, &pattern, 0, LEN);
    wire.request(&get("giant"), &["range: bytes=0-0", "connection: close"]);
    assert_eq!(wire.head().status, 206);
    assert_eq!(wire.rest(), pattern.at(0, 1), "nothing came between the whole and what follows");
}
