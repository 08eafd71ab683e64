//! `Range` headers that a fuzzer makes up, against one that looks at every byte of a short content (RFC 9110 §14).

#![no_main]

use carrack_domain::range::{RANGES_MAX, Selection, select};
use libfuzzer_sys::fuzz_target;

/// The bytes that a range-spec selects of `length`, or `None` when it is malformed. Numbers may be of any length.
fn selected(spec: &str, length: u64) -> Option<Vec<u64>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        // Whatever has more digits is beyond any content here.
        digits.then(|| text.trim_start_matches('0').parse::<u128>().unwrap_or(if text.chars().all(|c| c == '0') { 0 } else { u128::MAX }))
    };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some((0..length).filter(|at| u128::from(length - at) <= suffix).collect());
    }
    let first = number(first)?;
    let last = if last.is_empty() { u128::MAX } else { number(last)? };
    if last < first && last.min(u128::from(u64::MAX)) < first.min(u128::from(u64::MAX)) {
        return None;
    }
    Some((0..length).filter(|at| (first..=last).contains(&u128::from(*at))).collect())
}

fn expected(header: &str, length: u64) -> Option<Vec<Vec<u64>>> {
    let (unit, set) = header.split_once('=')?;
    if unit.trim().to_ascii_lowercase() != "bytes" {
        return None;
    }
    let specs: Vec<&str> = set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()).collect();
    if specs.is_empty() || specs.len() > RANGES_MAX {
        return None;
    }
    let each: Option<Vec<Vec<u64>>> = specs.into_iter().map(|spec| selected(spec, length)).collect();
    let each: Vec<Vec<u64>> = each?.into_iter().filter(|bytes| !bytes.is_empty()).collect();
    let mut times = vec![0; length as usize];
    each.iter().flatten().for_each(|at| times[*at as usize] += 1);
    times.iter().all(|times| *times <= 1).then_some(each)
}

fuzz_target!(|data: &[u8]| {
    let Some((length, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let length = u64::from(*length);
    for header in [text.to_owned(), format!("bytes={text}")] {
        let bytes = |range: carrack_domain::ByteRange| (range.offset()..range.end()).collect::<Vec<u64>>();
        let found = match select(&header, length) {
            Selection::Whole => None,
            Selection::Unsatisfiable => Some(Vec::new()),
            Selection::One(range) => Some(vec![bytes(range)]),
            Selection::Many(ranges) => Some(ranges.into_iter().map(bytes).collect()),
        };
        assert_eq!(found, expected(&header, length), "{header:?} of {length}");
    }
});
