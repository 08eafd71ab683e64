//! The unpackers people have. Each reads every byte of an archive and has to find what was uploaded.

use crate::server::tool;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// What there is in an archive: known without reading it.
#[derive(Default)]
pub(crate) struct Expected {
    names: Vec<String>,
    /// Over all contents.
    contents: crc32fast::Hasher,
    /// Over every name, a zero byte and the content.
    all: crc32fast::Hasher,
}

impl Expected {
    /// The next entry.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) {
        self.add_pieces(name, std::iter::once(content));
    }

    /// The next entry, which is zeros.
    pub(super) fn add_zeros(&mut self, name: &str, size: u64) {
        let zeros = [0; 1 << 16];
        let rest = &zeros[..(size % (1 << 16)) as usize];
        self.add_pieces(name, (0..size >> 16).map(|_| &zeros[..]).chain([rest]));
    }

    fn add_pieces<'a>(&mut self, name: &str, pieces: impl Iterator<Item = &'a [u8]>) {
        self.names.push(name.to_owned());
        self.all.update(name.as_bytes());
        self.all.update(&[0]);
        for piece in pieces {
            self.all.update(piece);
            self.contents.update(piece);
        }
    }

    fn found(&self) -> String {
        format!("{} {}\n", self.names.len(), self.all.clone().finalize())
    }
}

/// Runs a program to its end, which has to be a good one; its output and the CRC of it.
fn run(mut command: Command, input: Option<&Path>) -> (String, u32) {
    let input = input.map_or_else(Stdio::null, |path| File::open(path).unwrap().into());
    command.env("LC_ALL", "C.UTF-8").env_remove("JAVA_TOOL_OPTIONS").stdin(input).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut out = child.stdout.take().unwrap();
    let (mut crc, mut text, mut buffer) = (crc32fast::Hasher::new(), Vec::new(), vec![0; 1 << 18]);
    loop {
        let read = out.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        crc.update(&buffer[..read]);
        // Whoever prints more prints contents, of which the CRC is enough.
        if text.len() < 8 << 20 {
            text.extend_from_slice(&buffer[..read]);
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = child.wait().unwrap();
    let errors = reader.join().unwrap().unwrap();
    assert!(status.success() && errors.is_empty(), "{command:?}: {status}\n{text:.2000}\n{errors}");
    (text, crc.finalize())
}

fn unzip(zip: &Path, expected: &Expected) {
    let mut test = tool("unzip", "unzip");
    test.arg("-tq").arg(zip);
    let text = run(test, None).0;
    assert!(text.starts_with("No errors detected"), "{text}");
    let mut list = tool("unzip", "unzip");
    list.arg("-Z1").arg(zip);
    listed(&run(list, None).0, expected, "unzip");
}

fn seven_zip(zip: &Path, expected: &Expected) {
    let mut test = tool("7z", "7zip");
    test.args(["t", "-bd"]).arg(zip);
    let text = run(test, None).0;
    assert!(text.contains("Everything is Ok") && !text.contains("arning"), "{text}");
    let files = format!("Files: {}\n", expected.names.len());
    assert!(expected.names.len() == 1 || text.contains(&files), "{text}");
}

fn libarchive(zip: &Path, expected: &Expected, piped: bool) {
    let (from, input) = if piped { (Path::new("-"), Some(zip)) } else { (zip, None) };
    let mut list = tool("bsdtar", "libarchive-tools");
    list.arg("-tf").arg(from);
    listed(&run(list, input).0, expected, "bsdtar");
    let mut unpack = tool("bsdtar", "libarchive-tools");
    unpack.arg("-xOf").arg(from);
    assert_eq!(run(unpack, input).1, expected.contents.clone().finalize(), "bsdtar, piped: {piped}");
}

fn python(zip: &Path, expected: &Expected) {
    let mut command = tool("python3", "python3");
    command.args(["-c", include_str!("unpack.py")]).arg(zip);
    assert_eq!(run(command, None).0, expected.found(), "Python");
}

fn java(zip: &Path, expected: &Expected, how: &str) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("Unpack.java");
    std::fs::write(&source, include_str!("Unpack.java")).unwrap();
    let mut command = tool("java", "openjdk-17-jdk-headless");
    command.arg("-XX:TieredStopAtLevel=1").arg(&source).arg(how).arg(zip);
    assert_eq!(run(command, None).0, expected.found(), "Java, as a {how}");
}

fn listed(text: &str, expected: &Expected, by: &str) {
    assert!(text.lines().eq(expected.names.iter().map(String::as_str)), "{by} lists other names");
}

type Reader = fn(&Path, &Expected);

/// Every reader on an archive, two at a time.
pub(crate) fn accepted(zip: &Path, expected: &Expected) {
    let readers: Vec<Reader> = vec![
        |zip, expected| java(zip, expected, "stream"),
        |zip, expected| java(zip, expected, "file"),
        python,
        |zip, expected| libarchive(zip, expected, true),
        |zip, expected| libarchive(zip, expected, false),
        seven_zip,
        unzip,
    ];
    let queue = Mutex::new(readers);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(reader) = next() {
                    reader(zip, expected);
                }
            });
        }
    });
}
