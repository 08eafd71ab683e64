//! Shared pieces of the load generators: URL splitting, HTTP response heads,
//! sendfile, CPU time of this process, percentiles. std + libc only.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

pub struct Url {
    pub host: String,
    pub path: String,
}

/// Only http://HOST:PORT/PATH. The host has to be loopback.
pub fn parse_url(u: &str) -> Url {
    let rest = u.strip_prefix("http://").unwrap_or_else(|| panic!("not http: {u}"));
    let (host, path) = match rest.find('/') {
        Some(i) => (&rest[..i], &rest[i..]),
        None => (rest, "/"),
    };
    assert!(
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]"),
        "loopback only: {host}"
    );
    Url { host: host.to_string(), path: path.to_string() }
}

pub struct Head {
    pub status: u32,
    pub headers: BTreeMap<String, String>,
    /// body bytes that came in the same reads as the head
    pub extra: Vec<u8>,
}

/// Reads one response head. `buf` is what is left from earlier reads.
pub fn read_head(s: &mut TcpStream) -> io::Result<Head> {
    let mut buf = Vec::with_capacity(4096);
    let mut tmp = [0u8; 8192];
    loop {
        let n = s.read(&mut tmp)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a response head"));
        }
        buf.extend_from_slice(&tmp[..n]);
        if let Some(p) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buf[..p]).to_string();
            let extra = buf[p + 4..].to_vec();
            let mut lines = head.split("\r\n");
            let status =
                lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|c| c.parse().ok()).unwrap_or(0);
            if status == 100 {
                buf = extra;
                if buf.windows(4).any(|w| w == b"\r\n\r\n") {
                    panic!("100-continue and final head in one read: not handled");
                }
                continue;
            }
            let mut headers = BTreeMap::new();
            for l in lines {
                if let Some((k, v)) = l.split_once(':') {
                    headers.insert(k.trim().to_ascii_lowercase(), v.trim().to_string());
                }
            }
            return Ok(Head { status, headers, extra });
        }
        if buf.len() > 65536 {
            return Err(io::Error::other("response head too long"));
        }
    }
}

/// Reads and drops the body that belongs to `h` (Content-Length or chunked), so
/// that the connection can be used again. Returns false if it cannot be.
pub fn drain_body(s: &mut TcpStream, h: &Head) -> io::Result<bool> {
    let close = h.headers.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
    if h.status == 204 || h.status == 304 {
        return Ok(!close);
    }
    let mut tmp = [0u8; 65536];
    if let Some(n) = h.headers.get("content-length").and_then(|v| v.parse::<usize>().ok()) {
        let mut left = n.saturating_sub(h.extra.len());
        while left > 0 {
            let k = s.read(&mut tmp)?;
            if k == 0 {
                return Ok(false);
            }
            left -= k.min(left);
        }
        return Ok(!close);
    }
    if h.headers.get("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        let mut all = h.extra.clone();
        while !all.ends_with(b"0\r\n\r\n") {
            let k = s.read(&mut tmp)?;
            if k == 0 {
                return Ok(false);
            }
            all.extend_from_slice(&tmp[..k]);
        }
        return Ok(!close);
    }
    // neither: the body ends with the connection
    Ok(false)
}

pub fn sendfile_all(sock: &TcpStream, file: &std::fs::File, off: u64, len: u64) -> io::Result<()> {
    let mut o = off as libc::off_t;
    let end = (off + len) as libc::off_t;
    while o < end {
        let want = ((end - o) as usize).min(1 << 24);
        let n = unsafe { libc::sendfile(sock.as_raw_fd(), file.as_raw_fd(), &mut o, want) };
        if n < 0 {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(e);
        }
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "source file too short"));
        }
    }
    Ok(())
}

pub fn cpu_self() -> f64 {
    let mut ru: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut ru) };
    let t = |v: libc::timeval| v.tv_sec as f64 + v.tv_usec as f64 / 1e6;
    t(ru.ru_utime) + t(ru.ru_stime)
}

pub fn pct(sorted: &[f64], p: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    let i = ((sorted.len() as f64 - 1.0) * p).round() as usize;
    sorted[i]
}

pub fn json_str(s: &str) -> String {
    let mut o = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => o.push_str("\\\""),
            '\\' => o.push_str("\\\\"),
            c if (c as u32) < 32 => o.push_str(&format!("\\u{:04x}", c as u32)),
            c => o.push(c),
        }
    }
    o.push('"');
    o
}

/// --key value pairs, repeated keys kept; bare words collected under "".
pub fn args() -> BTreeMap<String, Vec<String>> {
    let mut m: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut it = std::env::args().skip(1);
    while let Some(a) = it.next() {
        if let Some(k) = a.strip_prefix("--") {
            let v = it.next().unwrap_or_else(|| panic!("--{k} needs a value"));
            m.entry(k.to_string()).or_default().push(v);
        } else {
            m.entry(String::new()).or_default().push(a);
        }
    }
    m
}

pub fn get<T: std::str::FromStr>(m: &BTreeMap<String, Vec<String>>, k: &str, d: T) -> T {
    m.get(k)
        .and_then(|v| v.last())
        .map(|v| v.parse().unwrap_or_else(|_| panic!("bad --{k} {v}")))
        .unwrap_or(d)
}
