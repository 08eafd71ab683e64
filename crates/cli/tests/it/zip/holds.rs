//! Files that are deleted or replaced while a ZIP with them is being downloaded.

use super::{below, blobs, fetch, header, load, remove, setup, tag};
use crate::server::{Server, TOKEN, content};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A download whose reader takes its time: the server cannot be ahead by more than what the sockets hold.
pub(super) struct Slow {
    stream: BufReader<TcpStream>,
    /// What Content-Length says.
    pub(super) length: usize,
    got: Vec<u8>,
}

impl Slow {
    /// Begins a download and reads its head.
    pub(super) fn begin(server: &Server, path: &str) -> Slow {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        let mut length = None;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse().unwrap());
            }
        }
        Slow { stream, length: length.unwrap(), got: Vec::new() }
    }

    /// Reads so many more bytes.
    pub(super) fn read(&mut self, count: u64) {
        self.stream.by_ref().take(count).read_to_end(&mut self.got).unwrap();
    }

    /// Reads what is left, and returns everything there was.
    pub(super) fn rest(mut self) -> Vec<u8> {
        let left = self.length - self.got.len();
        // A reset is an end before the end.
        let _ = self.stream.take(left as u64).read_to_end(&mut self.got);
        self.got
    }
}

/// Waits until so many blobs are left.
fn await_blobs(server: &Server, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(50);
    while blobs(server).len() != count {
        assert!(Instant::now() < deadline, "{} blobs instead of {count}", blobs(server).len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until no ZIP is on its way.
async fn await_quiet(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(50);
    loop {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|l| l.contains("downloads_in_progress") && l.contains("zip"));
        if line.is_none_or(|line| line.ends_with(" 0")) {
            return;
        }
        assert!(Instant::now() < deadline, "{line:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Blobs that are deleted but still open or mapped: their space is not free.
fn lingering(server: &Server) -> usize {
    let process = format!("/proc/{}", server.pid());
    let gone = |name: &str| name.contains("/blobs/") && name.ends_with("(deleted)");
    let files = std::fs::read_dir(format!("{process}/fd")).unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let open = links.filter(|link| gone(&link.to_string_lossy())).count();
    let maps = std::fs::read_to_string(format!("{process}/maps")).unwrap();
    open + maps.lines().filter(|line| gone(line)).count()
}

const FILES: usize = 12;

fn file(i: usize, seed: u64) -> (String, Vec<u8>) {
    (format!("h/{i:02}"), content(6 << 20, seed + i as u64))
}

#[tokio::test]
async fn a_download_stays_whole_when_its_files_are_deleted_and_replaced() {
    let mut server = setup().start();
    load(&server, (0..FILES).map(|i| file(i, 0))).await;
    let zip = fetch(&server, &below("h/")).await;
    let old = tag(&server, &below("h/")).await;
    let mut slow = Slow::begin(&server, &below("h/"));
    slow.read(100_000);
    for i in (0..FILES).step_by(2) {
        remove(&server, &file(i, 0).0).await;
    }
    load(&server, (1..FILES).step_by(2).map(|i| file(i, 99))).await;
    assert_eq!(blobs(&server).len(), FILES + FILES / 2, "the old bytes are still there");
    assert!(slow.rest() == zip, "the download under way is what it was when it began");

    // It cannot be continued: the archive is another one now.
    let now = fetch(&server, &below("h/")).await;
    assert!(now != zip);
    let resume = server.get(&below("h/")).header("range", "bytes=1000000-").header("if-match", &old);
    assert_eq!(resume.send().await.unwrap().status(), 412);
    let resume = server.get(&below("h/")).header("range", "bytes=1000000-").header("if-range", &old);
    let whole = resume.send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_ne!(header(&whole, "etag"), old);
    assert!(whole.bytes().await.unwrap() == now);

    // The space is given back, at the latest by the next start.
    server.stop();
    let server = setup().data(&server.data).start();
    await_blobs(&server, FILES / 2);
    assert!(fetch(&server, &below("h/")).await == now);
}

#[tokio::test]
async fn what_no_download_needs_is_deleted_at_once() {
    let server = setup().start();
    load(&server, (0..FILES).map(|i| file(i, 0))).await;
    fetch(&server, &below("h/")).await;
    let mut slow = Slow::begin(&server, &below("h/"));
    slow.read(100_000);
    drop(slow);
    await_quiet(&server).await;
    for i in 0..FILES {
        remove(&server, &file(i, 0).0).await;
    }
    assert_eq!(blobs(&server).len(), 0, "neither the finished download nor the one given up holds them");
    assert_eq!(lingering(&server), 0);
}

#[tokio::test]
async fn a_download_holds_its_own_files_and_no_others() {
    let server = setup().start();
    load(&server, (0..FILES).map(|i| file(i, 0))).await;
    load(&server, [("other/a", content(100_000, 1))]).await;
    let mut slow = Slow::begin(&server, &below("h/"));
    slow.read(100_000);
    fetch(&server, &below("")).await;
    remove(&server, "other/a").await;
    assert_eq!(blobs(&server).len(), FILES);
    let length = slow.length;
    assert_eq!(slow.rest().len(), length);
}
