//! The unpackers people have, on archives from 1 to 65,536 entries. A tool that is not there fails the test.

use std::fs::File as DiskFile;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use carrack_zip::{NewEntry, Piece};
use tempfile::TempDir;

use crate::sample::{Archive, File, blank, manifest, mixed};

/// Around the limit of the 16-bit entry count, and the smallest.
const COUNTS: [usize; 5] = [1, 2, 65_534, 65_535, 65_536];

struct Written {
    path: std::path::PathBuf,
    files: Vec<File>,
}

/// One archive per count; two entries means a folder and a file in it, both with UTF-8 names.
fn write_all(folder: &TempDir) -> Vec<Written> {
    let each = COUNTS.iter().map(|&count| {
        let files = if count == 2 { mixed(9).split_off(7) } else { mixed(count) };
        let path = folder.path().join(format!("{count}.zip"));
        std::fs::write(&path, Archive::new(&files).whole()).unwrap();
        Written { path, files }
    });
    each.collect()
}

/// CRC-32 over every name, a zero byte and every content, in order: what each unpacker must come to.
fn fingerprint(files: &[File]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for (name, content, _) in files {
        crc.update(name.as_bytes());
        crc.update(&[0]);
        crc.update(content);
    }
    crc.finalize()
}

/// Runs a tool; its standard output if it exits with 0.
fn run(package: &str, command: &mut Command, input: Option<&Path>) -> String {
    command.env("LC_ALL", "C.UTF-8").env_remove("JAVA_TOOL_OPTIONS");
    match input {
        Some(path) => command.stdin(DiskFile::open(path).unwrap()),
        None => command.stdin(Stdio::null()),
    };
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!(
            "{:?} did not start ({error}): install Debian package {package}",
            command.get_program().to_string_lossy()
        ),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let brief: String = text.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
    assert!(output.status.success(), "{command:?}: {}\n{brief}\n{errors}", output.status);
    text
}

fn listed(text: &str, files: &[File], by: &str) {
    assert!(text.lines().eq(files.iter().map(|file| file.0.as_str())), "{by} lists other names");
}

#[test]
fn info_zip() {
    let folder = TempDir::new().unwrap();
    for Written { path, files } in write_all(&folder) {
        let text = run("unzip", Command::new("unzip").arg("-tq").arg(&path), None);
        assert!(text.starts_with("No errors detected"), "{text}");
        listed(&run("unzip", Command::new("unzip").arg("-Z1").arg(&path), None), &files, "unzip");
    }
}

/// A member of exactly 4 GiB - 1 bytes must not make Info-ZIP misread its neighbours; the file on disk is sparse.
#[test]
fn info_zip_beside_the_mark_itself() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sparse.zip");
    let crc32 = crc32fast::hash(&[0; 5]);
    let files = ["edge-1", "edge-2"].map(|name| blank(name, 0xFFFF_FFFF));
    let small = ["end/a", "end/b"].map(|name| NewEntry { crc32, ..blank(name, 5) });
    let made = manifest([files[0], small[0], blank("large", 1 << 32), files[1], blank("end/", 0), small[1]]);
    let disk = DiskFile::create(&path).unwrap();
    disk.set_len(made.len()).unwrap();
    let mut at = 0;
    while let Some(piece) = made.piece_at(at) {
        at += match piece {
            Piece::Bytes(bytes) => disk.write_at(&bytes, at).unwrap() as u64,
            Piece::Data { len, .. } => len,
        };
    }
    let text = run("unzip", Command::new("unzip").arg("-tq").arg(&path).arg("end/*"), None);
    assert!(text.starts_with("No errors detected"), "{text}");
    let names = run("unzip", Command::new("unzip").arg("-Z1").arg(&path), None);
    assert_eq!(names, "end/a\nlarge\nend/\nend/b\nedge-1\nedge-2\n");
}

#[test]
fn seven_zip() {
    let folder = TempDir::new().unwrap();
    for Written { path, files } in write_all(&folder) {
        let text = run("7zip", Command::new("7z").args(["t", "-bd"]).arg(&path), None);
        assert!(text.contains("Everything is Ok") && !text.contains("Warning"), "{text}");
        let folders = files.iter().filter(|file| file.0.ends_with('/')).count();
        let single = files.len() == 1;
        assert!(single || text.contains(&format!("Files: {}\n", files.len() - folders)), "{text}");
    }
}

#[test]
fn libarchive_from_file_and_from_pipe() {
    let folder = TempDir::new().unwrap();
    for Written { path, files } in write_all(&folder) {
        let tar = || Command::new("bsdtar");
        listed(&run("libarchive-tools", tar().arg("-tf").arg(&path), None), &files, "bsdtar");
        listed(&run("libarchive-tools", tar().args(["-tf", "-"]), Some(&path)), &files, "bsdtar on a pipe");
        let contents: Vec<u8> = files.iter().flat_map(|file| file.1.clone()).collect();
        for input in [None, Some(path.as_path())] {
            let from = if input.is_some() { Path::new("-") } else { path.as_path() };
            let text = run("libarchive-tools", tar().arg("-xOf").arg(from), input);
            assert!(text.as_bytes() == contents, "bsdtar extracts other bytes from {}", from.display());
        }
    }
}

#[test]
fn python() {
    let script = "
import sys, zlib, zipfile
for path in sys.argv[1:]:
    crc = 0
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        for info in z.infolist():
            crc = zlib.crc32(z.read(info), zlib.crc32(info.filename.encode() + b'\\0', crc))
        print(len(z.infolist()), crc)
";
    let folder = TempDir::new().unwrap();
    let written = write_all(&folder);
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(written.iter().map(|one| &one.path));
    let text = run("python3", &mut command, None);
    let expected = written.iter().map(|one| format!("{} {}", one.files.len(), fingerprint(&one.files)));
    assert!(text.lines().eq(expected), "{text}");
}

#[test]
fn java_stream_and_file() {
    let folder = TempDir::new().unwrap();
    let written = write_all(&folder);
    let source = folder.path().join("Unpack.java");
    std::fs::write(&source, include_str!("Unpack.java")).unwrap();
    let mut command = Command::new("java");
    command.arg("-XX:TieredStopAtLevel=1").arg(&source).args(written.iter().map(|one| &one.path));
    let text = run("openjdk-17-jdk-headless", &mut command, None);
    let expected = written.iter().flat_map(|one| {
        let tail = format!("{} {}", one.files.len(), fingerprint(&one.files));
        [format!("stream {tail}"), format!("file {tail}")]
    });
    assert!(text.lines().eq(expected), "{text}");
}

/// T11: the reader that explains every byte finds nothing it cannot explain.
#[test]
fn zipdetails() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("some.zip");
    std::fs::write(&path, Archive::new(&mixed(300)).whole()).unwrap();
    let text = run("perl", Command::new("zipdetails").arg(&path), None);
    for word in ["ERROR", "WARNING", "Unexpected", "UNKNOWN", "Unknown"] {
        assert!(!text.contains(word), "zipdetails says {word}");
    }
    assert_eq!(text.matches("LOCAL HEADER #").count(), 300);
    assert_eq!(text.matches("CENTRAL HEADER #").count(), 300);
}
