//! Lines for people: sizes, names that cannot play tricks on a terminal, and where lines go.

use std::io::{self, Write as _};
use std::time::Duration;

/// Text from elsewhere without control characters: a terminal would obey them.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A line on standard error. Where that is closed there is nobody to tell.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr(), "{}", plain(line)).ok();
}

/// An error on standard error.
pub(crate) fn complain(message: &str) {
    note(&format!("carrack: {message}"));
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// What moved, how long it took and how fast that was.
pub(crate) fn pace(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let rate = if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { bytes };
    format!("{} in {seconds:.2} s, {}/s", size(bytes), size(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_talk_to_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc é"), "a\u{fffd}[2Jb\u{fffd}c é");
    }

    #[test]
    fn paces() {
        assert_eq!(pace(10 << 20, Duration::from_secs(2)), "10.00 MiB in 2.00 s, 5.00 MiB/s");
        assert_eq!(pace(3, Duration::ZERO), "3 B in 0.00 s, 3 B/s");
    }
}
