//! Lines for people: sizes, names that cannot play tricks on a terminal, and where lines go.

use crate::failure::Failure;
use carrack_client::ClientError;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
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

/// A span of time as people write it, such as `90s`, `15m`, `12h` or `7d`, in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("write a number and s, m, h or d, such as 15m or 7d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a number before the unit, such as 7d".to_owned())?;
    number.checked_mul(unit).filter(|span| *span > 0).ok_or_else(|| "that is no span of time".to_owned())
}

/// The first line of a file.
pub(crate) fn first_line(file: &Path) -> Result<String, Failure> {
    let text =
        fs::read_to_string(file).map_err(|source| ClientError::Local { path: file.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
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
    fn spans_of_time() {
        let cases = [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)];
        for (text, expected) in cases {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "7", "d", "0s", "1w", "-1s", "1.5h", "99999999999999999999s", "9999999999999999999d"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paces() {
        assert_eq!(pace(10 << 20, Duration::from_secs(2)), "10.00 MiB in 2.00 s, 5.00 MiB/s");
        assert_eq!(pace(3, Duration::ZERO), "3 B in 0.00 s, 3 B/s");
    }
}
