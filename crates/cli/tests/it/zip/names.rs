//! Keys that are no good as file names become good ones, and no two of them meet (T9, T25, T26).

use super::layout::{parse, unpack};
use super::{below, fetch, load, setup};
use crate::server::tool;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Keys, and the names they have to get: of two that meet, the first in byte order stays.
const RENAMED: [(&str, &str); 32] = [
    ("a\\b", "a_b"),
    ("..\\..\\evil", ".._.._evil"),
    ("C:x", "C_x"),
    ("C:\\Windows\\x", "C__Windows_x"),
    ("con.txt", "_con.txt"),
    ("NUL", "_NUL"),
    ("com1", "_com1"),
    ("COM².log", "_COM².log"),
    ("aux.tar.gz", "_aux.tar.gz"),
    ("x.", "x"),
    ("y ", "y"),
    ("d. /z", "d/z"),
    ("...", "_"),
    ("....", "_ (1)"),
    ("q?*<>|\"q", "q______q"),
    ("a\u{308}", "\u{e4}"),
    ("\u{e4}", "\u{e4} (1)"),
    ("A.txt", "A.txt"),
    ("a.TXT", "a (1).TXT"),
    ("STRASSE", "STRASSE"),
    ("straße", "straße (1)"),
    ("f", "f (1)"),
    ("f/b", "f/b"),
    ("photo\u{202e}gpj.exe", "photo_gpj.exe"),
    ("\u{2066}x\u{2069}", "_x_"),
    ("\u{1F600}/\u{1F468}\u{200D}\u{1F469}.png", "\u{1F600}/\u{1F468}\u{200D}\u{1F469}.png"),
    ("-rf", "-rf"),
    ("$(reboot)`x`;&", "$(reboot)`x`;&"),
    ("%2e%2e%2fx", "%2e%2e%2fx"),
    ("line\u{2028}feed", "line_feed"),
    ("日本語/ファイル", "日本語/ファイル"),
    (" lead", " lead"),
];

fn is_safe(name: &str) -> bool {
    let forbidden = |c: char| {
        c.is_control()
            || "\\:*?\"<>|".contains(c)
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    let component = |part: &str| {
        let base = part.split('.').next().unwrap_or("").to_uppercase();
        let device = ["CON", "PRN", "AUX", "NUL", "COM1", "COM²", "LPT1"].contains(&base.as_str());
        !part.is_empty() && part.len() <= 255 && !part.ends_with(['.', ' ']) && !device
    };
    !name.contains(forbidden) && name.split('/').all(component)
}

fn text(command: &mut std::process::Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Files that Python makes of an archive, and other readers find no fault with.
fn extracted(zip: &Path, folder: &Path) -> BTreeMap<String, String> {
    assert!(text(tool("unzip", "unzip").arg("-tq").arg(zip)).starts_with("No errors detected"));
    assert!(text(tool("7z", "7zip").args(["t", "-bd"]).arg(zip)).contains("Everything is Ok"));
    text(tool("bsdtar", "libarchive-tools").arg("-tf").arg(zip));
    let script = ["-c", include_str!("extract.py")];
    let found = text(tool("python3", "python3").args(script).arg(zip).arg(folder));
    serde_json::from_str(&found).unwrap()
}

#[tokio::test]
async fn hostile_keys_get_safe_and_unique_names_that_readers_extract() {
    let server = setup().start();
    let long = ["l".repeat(700), format!("{}.tar", "ü".repeat(400)), format!("{}m", "d/".repeat(500))];
    let keys = RENAMED.iter().map(|(key, _)| *key).chain(long.iter().map(String::as_str));
    let keys: Vec<&str> = keys.collect();
    load(&server, keys.iter().map(|key| (format!("n/{key}"), key.as_bytes().to_vec()))).await;
    let zip = fetch(&server, &below("n/")).await;
    let given: BTreeMap<String, String> =
        unpack(&zip).into_iter().map(|(name, content)| (String::from_utf8(content).unwrap(), name)).collect();
    assert_eq!(given.len(), keys.len());
    for (key, name) in RENAMED {
        assert_eq!(given[key], name, "{key:?}");
    }
    for name in given.values() {
        assert!(is_safe(name), "{name:?}");
    }
    let folded: BTreeSet<String> = given.values().map(|name| name.to_lowercase()).collect();
    assert_eq!(folded.len(), keys.len(), "unique where case does not count");
    for entry in parse(&zip).0 {
        assert_eq!(entry.flags, if entry.name.is_ascii() { 0 } else { 1 << 11 }, "{}", entry.name);
    }

    let path = server.folder().join("names.zip");
    std::fs::write(&path, &zip).unwrap();
    let found = extracted(&path, &server.folder().join("extracted"));
    let expected: BTreeMap<String, String> = given.into_iter().map(|(key, name)| (name, key)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn keys_that_would_leave_the_folder_do_not_exist() {
    let server = setup().start();
    for key in ["..", ".", "a/..", "a/./b", "/a", "a//b", "a/", "a\0b", "a\nb", "\u{7f}"] {
        let path = format!("/v1/files/default/n/{}", super::escape(key).replace('.', "%2E"));
        // The client's own URL parser must not tidy up: spoken by hand.
        let mut command = super::client("curl", "curl");
        command.args(["-sS", "--path-as-is", "-T", "-", "-H", &super::bearer(), &server.url(&path)]);
        let answer = text(command.stdin(std::process::Stdio::null()));
        assert!(answer.contains("\"invalid_key\""), "{key:?}: {answer}");
    }
}
