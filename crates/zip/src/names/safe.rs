//! One name made safe for every system it may be unpacked on, without looking at other names.

use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

/// Most bytes of one component: the limit of ext4, APFS and (in UTF-16 units, so less strict) NTFS.
pub(super) const MAX_COMPONENT: usize = 255;
/// Most bytes of the folders of a name with their slashes: with any component and a `/` after it, the whole stays
/// within the 65,535 bytes of the name field (4.4.10).
const MAX_PARENT: usize = 65_535 - MAX_COMPONENT - 1;
/// Most components. File systems give up far earlier than the name field, and every level costs a look-up.
const MAX_DEPTH: usize = 128;
/// Most bytes, dot included, that still count as an extension.
const MAX_EXTENSION: usize = 32;
/// Stands for what must not stay.
const SUBSTITUTE: char = '_';

/// Makes a wished name safe: relative, without `.`, `..`, empty or device components, in NFC, within the limits.
///
/// - Control characters, line separators, bidi embeddings, overrides and isolates, and `\ : * ? " < > |` become `_`;
///   a backslash never becomes a `/`, or a harmless component would turn into a path.
/// - Empty, `.` and `..` components are dropped, and with them leading slashes.
/// - Trailing dots and spaces of a component are dropped; a component or name of which nothing is left is `_`.
/// - A component whose part before the first dot is a Windows device (`CON`, `COM1`, …) gets a `_` in front.
/// - A component beyond 255 bytes is cut at a character, its extension kept. Of more than 128 components, or more
///   than 65,279 bytes of folders, the outermost folders that fit and the last component stay.
///
/// A trailing `/` (a folder entry) is kept. The result is borrowed if and only if nothing had to change, and a
/// safe name is its own safe name.
pub fn safe_name(wished: &str) -> Cow<'_, str> {
    if is_plain(wished) {
        return Cow::Borrowed(wished);
    }
    let safe = rebuild(wished);
    if safe == wished { Cow::Borrowed(wished) } else { Cow::Owned(safe) }
}

/// A quick look that accepts most names in use: printable ASCII, nothing to change. `false` only means "look closer".
fn is_plain(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.len() > MAX_PARENT {
        return false;
    }
    let (mut begin, mut depth) = (0, 1);
    for (at, &byte) in bytes.iter().enumerate() {
        if byte == b'/' {
            if !is_plain_component(&name[begin..at]) {
                return false;
            }
            (begin, depth) = (at + 1, depth + 1);
        } else if !PLAIN[usize::from(byte)] {
            return false;
        }
    }
    depth <= MAX_DEPTH && (is_plain_component(&name[begin..]) || (begin == bytes.len() && begin > 0))
}

/// For every byte: may it stand in a component that needs no closer look?
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7F {
        plain[byte as usize] = !is_forbidden(byte as char) && byte != b'/';
        byte += 1;
    }
    plain
};

fn is_plain_component(component: &str) -> bool {
    !component.is_empty()
        && component.len() <= MAX_COMPONENT
        && !component.ends_with(['.', ' '])
        && !is_device(component)
}

/// Characters that Windows refuses, that hide what a name is, or that split lines.
const fn is_forbidden(letter: char) -> bool {
    matches!(letter, '\0'..='\x1F' | '\x7F'..='\u{9F}'
        | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'
        | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn rebuild(wished: &str) -> String {
    // Substituting comes first: NFC makes no forbidden character out of allowed ones.
    let clean = wished.chars().map(|letter| if is_forbidden(letter) { SUBSTITUTE } else { letter }).nfc();
    let clean: String = clean.collect();
    let mut components: Vec<Cow<'_, str>> =
        clean.split('/').filter(|part| !matches!(*part, "" | "." | "..")).map(safe_component).collect();
    let leaf = components.pop().unwrap_or(Cow::Borrowed("_"));
    let mut safe = String::with_capacity(clean.len());
    for folder in components.iter().take(MAX_DEPTH - 1) {
        if safe.len() + folder.len() + 1 > MAX_PARENT {
            break;
        }
        safe.push_str(folder);
        safe.push('/');
    }
    safe.push_str(&leaf);
    if wished.ends_with('/') {
        safe.push('/');
    }
    safe
}

/// One component, given without forbidden characters and in NFC.
fn safe_component(component: &str) -> Cow<'_, str> {
    let short = shorten(Cow::Borrowed(component));
    // After the cut, because a cut can bare a device name that spaces had kept apart from the rest.
    let safe = if is_device(&short) { shorten(Cow::Owned(format!("{SUBSTITUTE}{short}"))) } else { short };
    if safe.is_empty() { Cow::Borrowed("_") } else { safe }
}

/// Drops trailing dots and spaces and cuts to [`MAX_COMPONENT`] bytes before the extension.
fn shorten(component: Cow<'_, str>) -> Cow<'_, str> {
    let kept = trim(&component);
    if kept.len() > MAX_COMPONENT {
        let (stem, extension) = split_extension(kept);
        let short = format!("{}{extension}", cut(stem, MAX_COMPONENT - extension.len()));
        return Cow::Owned(trim(&short).to_owned());
    }
    if kept.len() == component.len() {
        return component;
    }
    Cow::Owned(kept.to_owned())
}

fn trim(component: &str) -> &str {
    component.trim_end_matches(['.', ' '])
}

/// `(stem, extension)`: the extension begins with the last dot and is empty if that dot is the first character, or
/// if what follows is no plain short word.
pub(super) fn split_extension(component: &str) -> (&str, &str) {
    match component.rfind('.') {
        Some(dot) if dot > 0 => {
            let (stem, extension) = component.split_at(dot);
            let word = extension.len() <= MAX_EXTENSION && extension[1..].chars().all(char::is_alphanumeric);
            if word { (stem, extension) } else { (component, "") }
        }
        _ => (component, ""),
    }
}

/// The longest beginning of at most `max` bytes that ends between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Is the part before the first dot, trailing spaces aside, a name Windows gives to a device?
fn is_device(component: &str) -> bool {
    // Almost every name is settled by its first letter.
    if !matches!(
        component.as_bytes().first(),
        Some(b'a' | b'A' | b'c' | b'C' | b'l' | b'L' | b'n' | b'N' | b'p' | b'P')
    ) {
        return false;
    }
    let base = component.split('.').next().unwrap_or("").trim_end_matches(' ');
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
        .iter()
        .any(|device| base.eq_ignore_ascii_case(device))
    {
        return true;
    }
    let port = base.get(..3).is_some_and(|b| b.eq_ignore_ascii_case("COM") || b.eq_ignore_ascii_case("LPT"));
    // Windows takes the superscripts for digits.
    port && matches!(
        base.get(3..),
        Some("0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
    )
}
