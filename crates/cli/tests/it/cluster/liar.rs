//! A proxy before S3 that lies, where it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What it does with the answers of S3; each a number of times that are left.
#[derive(Default)]
pub(super) struct Lies {
    /// Completions of multipart uploads are answered 200, with an error inside, and not passed on.
    pub(super) errors_inside_a_200: AtomicUsize,
    /// So are parts of them.
    pub(super) errors_for_parts: AtomicUsize,
    /// Another checksum is told of what was stored.
    pub(super) checksums: AtomicUsize,
    /// The connection is cut after 100,000 bytes of an answer.
    pub(super) cuts: AtomicUsize,
}

/// Passes on to S3 until it is dropped.
pub(super) struct Liar {
    /// `http://127.0.0.1:PORT`
    pub(super) endpoint: String,
    pub(super) lies: Arc<Lies>,
    stopped: Arc<AtomicBool>,
}

impl Liar {
    pub(super) fn start(upstream: &str) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let (lies, stopped) = (Arc::new(Lies::default()), Arc::new(AtomicBool::new(false)));
        let (told, stop) = (lies.clone(), stopped.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (near, far) = (near.unwrap(), TcpStream::connect(&upstream).unwrap());
                let (back_near, back_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (here, there) = (told.clone(), told.clone());
                std::thread::spawn(move || requests(near, far, &here));
                std::thread::spawn(move || answers(back_far, back_near, &there));
            }
        });
        Liar { endpoint, lies, stopped }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections; if that fails there is none to wake.
        let _ = TcpStream::connect(self.endpoint.strip_prefix("http://").unwrap());
    }
}

fn is_due(lie: &AtomicUsize) -> bool {
    lie.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// One request after the other, each with a length.
fn requests(mut near: TcpStream, mut far: TcpStream, lies: &Lies) {
    let mut waiting = Vec::new();
    let mut chunk = [0; 64 << 10];
    loop {
        let Some(end) = waiting.windows(4).position(|window| window == b"\r\n\r\n") else {
            match near.read(&mut chunk) {
                Ok(count) if count > 0 => waiting.extend_from_slice(&chunk[..count]),
                _ => break,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&waiting[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let completes = head.starts_with("post ") && head.contains("?uploadid=");
        let is_part = head.starts_with("put ") && head.contains("partnumber=");
        let lie =
            (completes && is_due(&lies.errors_inside_a_200)) || (is_part && is_due(&lies.errors_for_parts));
        let mut left = end + 4 + length;
        while left > 0 {
            if waiting.is_empty() {
                match near.read(&mut chunk) {
                    Ok(count) if count > 0 => waiting.extend_from_slice(&chunk[..count]),
                    _ => return drop(far.shutdown(Shutdown::Both)),
                }
            }
            let now = left.min(waiting.len());
            if !lie && far.write_all(&waiting[..now]).is_err() {
                return;
            }
            waiting.drain(..now);
            left -= now;
        }
        if lie {
            let body = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We lied.</Message></Error>";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if near.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
    // The other direction ends as well.
    let _ = far.shutdown(Shutdown::Both);
}

fn answers(mut far: TcpStream, mut near: TcpStream, lies: &Lies) {
    const NAME: &[u8] = b"x-amz-checksum-crc32: ";
    let mut chunk = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(count) = far.read(&mut chunk) {
        let bytes = &mut chunk[..count];
        if bytes.is_empty() {
            break;
        }
        let name = bytes.windows(NAME.len()).position(|window| window == NAME);
        if let Some(at) = name
            && is_due(&lies.checksums)
        {
            let value = &mut bytes[at + NAME.len()..][..4];
            value.copy_from_slice(if &value[..] == b"AAAA" { b"BBBB" } else { b"AAAA" });
        }
        passed += count;
        if near.write_all(bytes).is_err() || (passed > 100_000 && is_due(&lies.cuts)) {
            break;
        }
    }
    let _ = near.shutdown(Shutdown::Both);
    let _ = far.shutdown(Shutdown::Both);
}
