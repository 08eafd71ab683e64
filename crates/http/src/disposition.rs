//! `Content-Disposition`, and what browsers must not run.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// RFC 8187 §3.2.1 attr-char stays, all else is encoded.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The longest name that is passed on, in bytes; longer ones are cut, keeping a short extension.
const NAME_BYTES_MAX: usize = 240;

/// `inline` or `attachment` with the file's name twice (RFC 6266 §4.3): an ASCII likeness for old clients, and the name
/// itself. Separators, control characters and text-direction tricks are replaced, so a name stays one plain name.
pub(crate) fn header(attachment: bool, name: &str) -> HeaderValue {
    let kind = if attachment { "attachment" } else { "inline" };
    let name = harmless(name);
    let likeness: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' })
        .collect();
    let mut text = format!("{kind}; filename=\"{likeness}\"");
    if likeness != name {
        text.push_str("; filename*=UTF-8''");
        text.extend(utf8_percent_encode(&name, ATTR_CHAR));
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

fn harmless(name: &str) -> String {
    let tricky = |c: char| {
        c.is_control()
            || matches!(c, '/' | '\\' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let name: String = name.chars().map(|c| if tricky(c) { '_' } else { c }).collect();
    if name.is_empty() {
        return "download".to_owned();
    }
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let extension = match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= 20 => &name[at..],
        _ => "",
    };
    let mut end = NAME_BYTES_MAX - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &name[..end])
}

/// Whether a browser would run content of this type on the server's origin: it gets a sandbox instead.
pub(crate) fn is_active(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    ["html", "xml", "svg", "script", "multipart/", "pdf", "x-shockwave", "java"]
        .iter()
        .any(|part| kind.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("a.txt", r#"inline; filename="a.txt""#),
            ("a b.txt", r#"inline; filename="a b.txt""#),
            ("a\"b\\c%.txt", r#"inline; filename="a_b_c_.txt"; filename*=UTF-8''a%22b_c%25.txt"#),
            ("a\r\nX: y", r#"inline; filename="a__X: y""#),
            ("日本.txt", "inline; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt"),
            ("😀", "inline; filename=\"_\"; filename*=UTF-8''%F0%9F%98%80"),
            ("a\u{202e}txt.exe", r#"inline; filename="a_txt.exe""#),
            ("", r#"inline; filename="download""#),
        ];
        for (name, expected) in cases {
            assert_eq!(header(false, name), expected, "{name:?}");
        }
        let long = header(true, &format!("{}.tar.gz", "ü".repeat(300)));
        assert!(
            long.to_str().unwrap().ends_with(".gz") && long.to_str().unwrap().starts_with("attachment; ")
        );
    }

    #[test]
    fn active() {
        for kind in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/javascript",
        ] {
            assert!(is_active(kind), "{kind}");
        }
        for kind in ["text/plain", "image/png", "application/octet-stream", "video/mp4", "application/zip"] {
            assert!(!is_active(kind), "{kind}");
        }
    }
}
