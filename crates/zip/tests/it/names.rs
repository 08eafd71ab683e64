//! T25, T26: names are safe by a checker of its own, unique without regard to case, and stay what they are.

use std::collections::HashSet;
use std::time::Duration;

use carrack_zip::{Assigned, EntryNames, safe_name};
use proptest::prelude::*;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// What is wrong with a name, by the rules and not by the code.
fn fault(name: &str) -> Option<&'static str> {
    let path = name.strip_suffix('/').unwrap_or(name);
    let bad_letters = "\\:*?\"<>|\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}";
    if name.is_empty() || name.len() > 65_535 {
        return Some("length");
    }
    if !is_nfc(name) {
        return Some("not NFC");
    }
    if name.chars().any(|letter| letter.is_control() || bad_letters.contains(letter)) {
        return Some("forbidden character");
    }
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." || part.len() > 255 {
            return Some("bad component");
        }
        if part.ends_with('.') || part.ends_with(' ') {
            return Some("trailing dot or space");
        }
        let base = part.split('.').next().unwrap().trim_end().to_uppercase();
        let numbered = base.strip_prefix("COM").or(base.strip_prefix("LPT"));
        if ["CON", "PRN", "AUX", "NUL"].contains(&base.as_str())
            || numbered.is_some_and(|number| number.len() == 1 && number.as_bytes()[0].is_ascii_digit())
        {
            return Some("device");
        }
    }
    None
}

/// The folding of the brief: NFC, lower case, NFC.
fn folded(name: &str) -> String {
    name.strip_suffix('/').unwrap_or(name).nfc().collect::<String>().to_lowercase().nfc().collect()
}

fn assign<'a>(wished: &[&'a str]) -> Vec<Assigned<'a>> {
    let assigned = EntryNames::assign_all(wished.iter().copied());
    check(wished, &assigned);
    assigned
}

/// Everything that must hold whatever was wished.
fn check(wished: &[&str], assigned: &[Assigned<'_>]) {
    assert_eq!(wished.len(), assigned.len());
    let mut seen = HashSet::new();
    let mut folders = HashSet::new();
    for (wish, Assigned { name, renamed }) in wished.iter().zip(assigned) {
        assert_eq!(fault(name), None, "{wish:?} -> {name:?}");
        assert_eq!(*renamed, name != wish);
        assert_eq!(name.ends_with('/'), wish.ends_with('/'));
        assert!(seen.insert(folded(name)), "{name:?} twice");
        let folder = folded(name);
        for (slash, _) in folder.match_indices('/') {
            folders.insert(folder[..slash].to_owned());
        }
    }
    for Assigned { name, .. } in assigned {
        assert!(name.ends_with('/') || !folders.contains(&folded(name)), "{name:?} is a file and a folder");
    }
    let again = EntryNames::assign_all(assigned.iter().map(|assigned| &*assigned.name));
    for (first, second) in assigned.iter().zip(&again) {
        assert_eq!((&first.name, false), (&second.name, second.renamed), "not idempotent");
    }
}

fn names(wished: &[&str]) -> Vec<String> {
    assign(wished).into_iter().map(|assigned| assigned.name.into_owned()).collect()
}

/// T25, one by one.
#[test]
fn safe_names() {
    let cut = format!("{}.jpeg", "x".repeat(250));
    let long = format!("{}.jpeg", "x".repeat(400));
    let umlauts = "ä".repeat(200);
    let cut_umlauts = "ä".repeat(127);
    for (wish, expected) in [
        ("photo.jpg", "photo.jpg"),
        ("a/b c/d-e_f (1).tar.gz", "a/b c/d-e_f (1).tar.gz"),
        ("größe/日本語.txt", "größe/日本語.txt"),
        ("folder/", "folder/"),
        ("", "_"),
        ("/", "_/"),
        (".", "_"),
        ("..", "_"),
        ("../", "_/"),
        ("../../etc/passwd", "etc/passwd"),
        ("a/../b", "a/b"),
        ("a/./b//c", "a/b/c"),
        ("/etc/passwd", "etc/passwd"),
        ("//server/share/x", "server/share/x"),
        ("\\\\server\\share\\x", "__server_share_x"),
        ("..\\..\\x", ".._.._x"),
        ("C:\\Windows\\x", "C__Windows_x"),
        ("C:/x", "C_/x"),
        ("file:stream", "file_stream"),
        ("a\0b\nc\u{7F}d\u{85}e", "a_b_c_d_e"),
        ("a:*?\"<>|b", "a_______b"),
        ("dot./space /both. .", "dot/space/both"),
        ("...", "_"),
        (".. /x", "_/x"),
        (". .", "_"),
        (".\u{202E}.", "._"),
        ("\u{202E}gpj.exe", "_gpj.exe"),
        ("a\u{2066}b\u{2069}c\u{200F}", "a_b_c\u{200F}"),
        (".bashrc", ".bashrc"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("nul.tar.gz", "_nul.tar.gz"),
        ("Aux /x", "_Aux/x"),
        ("lpt1 .txt", "_lpt1 .txt"),
        ("COM¹", "_COM¹"),
        ("dir/Com9.log/", "dir/_Com9.log/"),
        ("CONSOLE", "CONSOLE"),
        ("COM10", "COM10"),
        ("con:", "con_"),
        ("A\u{30A}", "Å"),
        ("\u{212B}", "Å"),
        (&long, &cut),
        (&umlauts, &cut_umlauts),
    ] {
        let safe = safe_name(wish);
        assert_eq!(safe, expected, "{wish:?}");
        assert_eq!(fault(&safe), None, "{wish:?}");
        assert_eq!(safe_name(&safe), safe);
        assert_eq!(matches!(safe, std::borrow::Cow::Borrowed(_)), safe == wish);
    }
}

/// T25: long and deep ones, and cuts that lay something bare.
#[test]
fn long_and_deep() {
    let whole = format!("{}/{}", vec!["d".repeat(255); 127].join("/"), "f".repeat(255));
    assert_eq!(safe_name(&whole), whole);
    let deep = "a/".repeat(40_000) + "leaf.txt";
    assert_eq!(safe_name(&deep), "a/".repeat(127) + "leaf.txt");
    let wide = format!("{}/leaf/", vec!["ü".repeat(127); 600].join("/"));
    let safe = safe_name(&wide);
    assert!(safe.ends_with("ü/leaf/") && fault(&safe).is_none());
    let device = format!("CON{}x.txt", " ".repeat(300));
    assert_eq!(safe_name(&device), format!("_CON{}.txt", " ".repeat(247)));
    let spaces = format!("{}x", " ".repeat(300));
    assert_eq!(safe_name(&spaces), "_");
    let long_extension = format!("a.{}", "e".repeat(300));
    assert_eq!(safe_name(&long_extension).len(), 255);
}

/// T26: duplicates.
#[test]
fn duplicates_get_numbers() {
    assert_eq!(
        names(&["a.txt", "a.txt", "A.TXT", "a.txt"]),
        ["a.txt", "a (1).txt", "A (2).TXT", "a (3).txt"]
    );
    assert_eq!(names(&["a (1).txt", "a.txt", "a.txt"]), ["a (1).txt", "a.txt", "a (2).txt"]);
    assert_eq!(names(&["a", "a", "a (1)"]), ["a", "a (1)", "a (1) (1)"]);
    assert_eq!(names(&["Ä", "a\u{308}", "ä"]), ["Ä", "ä (1)", "ä (2)"]);
    assert_eq!(names(&["x/IMG.JPG", "X/img.jpg"]), ["x/IMG.JPG", "X/img (1).jpg"]);
    assert_eq!(names(&["a:b", "a?b"]), ["a_b", "a_b (1)"]);
    assert_eq!(
        names(&[".rc", ".rc", "v1.2 final", "v1.2 final"]),
        [".rc", ".rc (1)", "v1.2 final", "v1.2 final (1)"]
    );
    assert_eq!(names(&["f.d/", "f.d/", "F.d/x"]), ["f.d/", "f.d (1)/", "F.d/x"]);
    assert_eq!(names(&["straße", "STRASSE"]), ["straße", "STRASSE (1)"]);
    assert_eq!(names(&["", "", "/"]), ["_ (1)", "_ (2)", "_/"]);
}

/// T26: a file makes way for a folder, wherever the folder comes.
#[test]
fn folders_win_over_files() {
    assert_eq!(names(&["a", "a/b"]), ["a (1)", "a/b"]);
    assert_eq!(names(&["a/b", "a"]), ["a/b", "a (1)"]);
    assert_eq!(names(&["a.txt", "A.TXT/b/c"]), ["a (1).txt", "A.TXT/b/c"]);
    assert_eq!(names(&["a", "a/"]), ["a (1)", "a/"]);
    assert_eq!(names(&["a", "a/b", "a (1)/c"]), ["a (2)", "a/b", "a (1)/c"]);
    assert_eq!(names(&["x/y", "x", "X/Y/z"]), ["x/y (1)", "x (1)", "X/Y/z"]);
    assert_eq!(names(&["Ö", "ö/x", "o\u{308}/y"]), ["Ö (1)", "ö/x", "ö/y"]);
}

#[test]
fn long_duplicates_stay_within_the_limit() {
    let long = format!("{}.txt", "x".repeat(251));
    let wished = [long.as_str(); 20];
    let got = names(&wished);
    assert!(got[1].ends_with(" (1).txt") && got[19].ends_with(" (19).txt"));
}

/// Hostile lists: many equal names, many pairs whose cut stems are equal, numbers already taken, deep folders.
#[test]
fn hostile_lists_take_no_square_time() {
    let start = on_cpu();
    EntryNames::assign_all(std::iter::repeat_n("same.txt", 50_000));
    let stems: Vec<String> = (0..10_000).map(|at| format!("{}{:05}", "x".repeat(250), at / 2)).collect();
    EntryNames::assign_all(stems.iter().map(String::as_str));
    let taken: Vec<String> = (0..20_000).map(|at| format!("a ({at})")).collect();
    EntryNames::assign_all(taken.iter().map(String::as_str).chain(std::iter::repeat_n("a", 20_000)));
    let cases: Vec<String> = (0..20_000_u32)
        .map(|bits| (0..16).map(|bit| if bits >> bit & 1 == 1 { 'A' } else { 'a' }).collect())
        .collect();
    EntryNames::assign_all(cases.iter().map(String::as_str));
    let deep: Vec<String> = (0..100).map(|at| format!("{at}/{}x", "a/".repeat(30_000))).collect();
    EntryNames::assign_all(deep.iter().map(String::as_str));
    let spent = on_cpu() - start;
    assert!(spent.as_secs() < 20, "{spent:?}");
}

/// For how long this thread has run: not what others on the machine do meanwhile.
fn on_cpu() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(line.split(' ').next().unwrap().parse().unwrap())
}

/// Letters that make trouble, more often than chance would bring them.
fn trouble() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-cA-C]{1,3}",
        3 => Just("/".to_owned()),
        2 => "[. ]{1,3}",
        1 => prop::sample::select(vec![
            "..", "\\", "con", "NUL", "com1", ":", "\0", "\u{202E}", "ä", "a\u{308}", "Ä", "ß", "SS", "ς", "Σ", "σ", " (1)",
            ".txt", ".TXT", "\u{338}", "<", "\u{37E}", "İ", "\u{1FEF}", "ﬁ", "\u{FB1D}", "각", "\u{1100}\u{1161}",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (240..300_usize).prop_map(|count| "é".repeat(count / 2) + &"y".repeat(count % 2)),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_name_becomes_safe(wish in prop_oneof![trouble(), any::<String>()]) {
        let safe = safe_name(&wish);
        prop_assert_eq!(fault(&safe), None, "{:?}", safe);
        prop_assert_eq!(&safe_name(&safe), &safe);
    }

    #[test]
    fn any_list_becomes_safe_and_unique(wished in proptest::collection::vec(trouble(), 0..40)) {
        let wished: Vec<&str> = wished.iter().map(String::as_str).collect();
        let assigned = assign(&wished);
        prop_assert_eq!(&assigned, &assign(&wished));
    }

    #[test]
    fn short_names_collide_and_are_told_apart(wished in proptest::collection::vec("[aA](/[aA]){0,2}/?", 0..30)) {
        let wished: Vec<&str> = wished.iter().map(String::as_str).collect();
        assign(&wished);
    }
}
