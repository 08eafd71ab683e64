//! When two names are the same to a file system that ignores case.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use unicode_normalization::UnicodeNormalization;

/// The key under which names that differ only in case or composition meet.
///
/// Lower, upper and again lower case joins letters that share only one of them (`ς`, `σ`, `Σ`; `ẞ`, `ß`, `ss`; `ſ`,
/// `s`). Each character is mapped for itself, so a folder's key is the beginning of the keys below it. ASCII letters
/// keep their case and are compared without it, so that an ASCII name is its own key and nothing is copied.
#[derive(Clone, Debug)]
pub(super) struct Folded<'a>(Cow<'a, str>);

impl<'a> Folded<'a> {
    /// The key of a name.
    pub(super) fn new(name: Cow<'a, str>) -> Self {
        if name.is_ascii() {
            return Self(name);
        }
        let lower = name.nfc().flat_map(char::to_lowercase);
        let folded = lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfc().collect();
        Self(Cow::Owned(folded))
    }

    /// The key itself, to look for `/` in.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The key of a folder this name lies in, given where its `/` is in [`text`](Self::text).
    pub(super) fn folder(&self, slash: usize) -> Folded<'_> {
        Folded(Cow::Borrowed(&self.0[..slash]))
    }

    /// The same, to keep.
    pub(super) fn to_folder(&self, slash: usize) -> Folded<'a> {
        Folded(match &self.0 {
            Cow::Borrowed(name) => Cow::Borrowed(&name[..slash]),
            Cow::Owned(name) => Cow::Owned(name[..slash].to_owned()),
        })
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Folded<'_> {}

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lower = [0; 64];
        for chunk in self.0.as_bytes().chunks(lower.len()) {
            let lower = &mut lower[..chunk.len()];
            lower.copy_from_slice(chunk);
            lower.make_ascii_lowercase();
            state.write(lower);
        }
        // As `str` does, a byte that ends the text.
        state.write_u8(0xFF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(name: &str) -> String {
        Folded::new(Cow::Borrowed(name)).text().to_ascii_lowercase()
    }

    #[test]
    fn equal_keys_have_equal_hashes() {
        let long = "Long name ".repeat(30);
        let mut keys = std::collections::HashSet::new();
        assert!(keys.insert(Folded::new(Cow::Borrowed(&long))));
        assert!(!keys.insert(Folded::new(Cow::Owned(long.to_uppercase()))));
        assert!(keys.insert(Folded::new(Cow::Borrowed("STRASSE"))));
        assert!(!keys.insert(Folded::new(Cow::Borrowed("straße"))));
        assert!(keys.insert(Folded::new(Cow::Borrowed("["))) && keys.insert(Folded::new(Cow::Borrowed("{"))));
    }

    #[test]
    fn names_that_meet() {
        for (one, other) in [
            ("readme.TXT", "README.txt"),
            ("Ä", "a\u{308}"),
            ("ΣΑΣ", "σας"),
            ("ΣΑΣ", "σασ"),
            ("STRASSE", "straße"),
            ("ẞ", "ß"),
            ("\u{212A}", "k"),
            ("ſ", "S"),
            ("µ", "μ"),
            ("İ", "i\u{307}"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        assert_ne!(fold("a"), fold("ä"));
        assert!(matches!(Folded::new(Cow::Borrowed("Plain/Name.TXT")).0, Cow::Borrowed(_)));
    }

    #[test]
    fn lower_case_equals_are_equals() {
        for letter in ('\0'..=char::MAX).filter(|letter| !letter.is_ascii()) {
            let text = letter.to_string();
            let lower: String = text.nfc().collect::<String>().to_lowercase().nfc().collect();
            assert_eq!(fold(&text), fold(&lower), "{letter:?}");
        }
    }
}
