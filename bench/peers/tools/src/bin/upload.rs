//! Upload client: sendfile from a page-cached file, no checksum, no TLS.
//!   upload --url URL --file SRC --size N [--proto tus|put] [--chunk N|0] [--conns C]
//!          [--count K] [--cwu 0|1] [--head 0|1] [--timeout S] [--header 'K: V']...
//! tus: POST creation, then PATCHes of --chunk bytes (0 = one PATCH with everything),
//!      or with --cwu 1 creation-with-upload (one POST carries the body).
//! put: one PUT per upload; `{}` in the URL becomes the upload's number.
//! K uploads are spread over C keep-alive connections (one thread each).
use bench_tools::*;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

struct Cfg {
    url: String,
    file: String,
    size: u64,
    chunk: u64,
    count: u64,
    tus: bool,
    cwu: bool,
    head: bool,
    hdrs: String,
    deadline: Instant,
}

struct Conn {
    host: String,
    s: Option<TcpStream>,
    reconnects: u64,
}

impl Conn {
    fn get(&mut self) -> io::Result<&mut TcpStream> {
        if self.s.is_none() {
            let s = TcpStream::connect(&self.host)?;
            s.set_nodelay(true)?;
            s.set_read_timeout(Some(Duration::from_secs(60)))?;
            s.set_write_timeout(Some(Duration::from_secs(60)))?;
            self.s = Some(s);
            self.reconnects += 1;
        }
        Ok(self.s.as_mut().unwrap())
    }
    fn request(&mut self, head: &str, body: Option<(&File, u64, u64)>) -> io::Result<Head> {
        let s = self.get()?;
        if let Some((f, off, len)) = body {
            // MSG_MORE so that head and first body bytes share a segment
            let n = unsafe {
                libc::send(
                    std::os::fd::AsRawFd::as_raw_fd(s),
                    head.as_ptr() as *const _,
                    head.len(),
                    libc::MSG_MORE,
                )
            };
            if n != head.len() as isize {
                return Err(io::Error::last_os_error());
            }
            if let Err(e) = sendfile_all(s, f, off, len) {
                // the server may have answered early: show what it said
                let said = read_head(s).map(|h| h.status).unwrap_or(0);
                return Err(io::Error::other(format!("sendfile: {e}; server said {said}")));
            }
        } else {
            s.write_all(head.as_bytes())?;
        }
        let h = read_head(s)?;
        let reuse = if head.starts_with("HEAD ") {
            !h.headers.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"))
        } else {
            drain_body(s, &h)?
        };
        if !reuse {
            self.s = None;
        }
        Ok(h)
    }
}

fn path_of(loc: &str) -> String {
    if let Some(r) = loc.strip_prefix("http://") {
        return r.find('/').map(|i| r[i..].to_string()).unwrap_or("/".into());
    }
    if let Some(r) = loc.strip_prefix("//") {
        return r.find('/').map(|i| r[i..].to_string()).unwrap_or("/".into());
    }
    if loc.starts_with('/') {
        return loc.to_string();
    }
    format!("/{loc}")
}

fn bad(what: &str, h: &Head) -> io::Error {
    io::Error::other(format!(
        "{what}: status {} {}",
        h.status,
        String::from_utf8_lossy(&h.extra).chars().take(120).collect::<String>()
    ))
}

fn one(c: &Cfg, conn: &mut Conn, u: &Url, f: &File, i: u64) -> io::Result<u64> {
    let ct = "Content-Type: application/offset+octet-stream\r\n";
    let base = format!("Host: {}\r\nUser-Agent: upload\r\n{}", u.host, c.hdrs);
    if !c.tus {
        let p = u.path.replace("{}", &i.to_string());
        let h = conn.request(&format!("PUT {p} HTTP/1.1\r\n{base}Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n", c.size), Some((f, 0, c.size)))?;
        if !(200..300).contains(&h.status) {
            return Err(bad("PUT", &h));
        }
        return Ok(c.size);
    }
    // "bench.bin" in base64
    let meta = "Upload-Metadata: filename YmVuY2guYmlu,filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt\r\n";
    let create = format!(
        "POST {} HTTP/1.1\r\n{base}Tus-Resumable: 1.0.0\r\nUpload-Length: {}\r\n{meta}",
        u.path, c.size
    );
    let h = if c.cwu {
        conn.request(&format!("{create}{ct}Content-Length: {}\r\n\r\n", c.size), Some((f, 0, c.size)))?
    } else {
        conn.request(&format!("{create}Content-Length: 0\r\n\r\n"), None)?
    };
    if h.status != 201 {
        return Err(bad("POST", &h));
    }
    let loc = path_of(h.headers.get("location").map(|s| s.as_str()).unwrap_or(""));
    let mut off = if c.cwu {
        h.headers.get("upload-offset").and_then(|v| v.parse::<u64>().ok()).unwrap_or(c.size)
    } else {
        0
    };
    while off < c.size {
        let len = if c.chunk == 0 { c.size - off } else { c.chunk.min(c.size - off) };
        let h = conn.request(
            &format!("PATCH {loc} HTTP/1.1\r\n{base}Tus-Resumable: 1.0.0\r\nUpload-Offset: {off}\r\n{ct}Content-Length: {len}\r\n\r\n"),
            Some((f, off, len)),
        )?;
        if h.status != 204 && h.status != 200 {
            return Err(bad("PATCH", &h));
        }
        let no = h.headers.get("upload-offset").and_then(|v| v.parse::<u64>().ok());
        if no != Some(off + len) {
            return Err(io::Error::other(format!("PATCH: Upload-Offset {no:?}, wanted {}", off + len)));
        }
        off += len;
        if Instant::now() > c.deadline {
            return Err(io::Error::other("time limit"));
        }
    }
    if c.head {
        let h = conn.request(&format!("HEAD {loc} HTTP/1.1\r\n{base}Tus-Resumable: 1.0.0\r\n\r\n"), None)?;
        let no = h.headers.get("upload-offset").and_then(|v| v.parse::<u64>().ok());
        if no != Some(c.size) {
            return Err(io::Error::other(format!("HEAD: status {} Upload-Offset {no:?}", h.status)));
        }
    }
    Ok(c.size)
}

fn main() {
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let m = args();
    let c = Arc::new(Cfg {
        url: get(&m, "url", String::new()),
        file: get(&m, "file", String::new()),
        size: get(&m, "size", 0),
        chunk: get(&m, "chunk", 0),
        count: get(&m, "count", 1),
        tus: get(&m, "proto", "tus".to_string()) == "tus",
        cwu: get(&m, "cwu", 0u8) == 1,
        head: get(&m, "head", 0u8) == 1,
        hdrs: m
            .get("header")
            .map(|v| v.iter().map(|h| format!("{h}\r\n")).collect::<String>())
            .unwrap_or_default(),
        deadline: Instant::now() + Duration::from_secs_f64(get(&m, "timeout", 120.0)),
    });
    let conns: u64 = get(&m, "conns", 1);
    let next = Arc::new(AtomicU64::new(0));
    let bar = Arc::new(Barrier::new(conns as usize + 1));
    let hs: Vec<_> = (0..conns)
        .map(|_| {
            let (c, next, bar) = (c.clone(), next.clone(), bar.clone());
            std::thread::spawn(move || {
                let u = parse_url(&c.url);
                let f = File::open(&c.file).expect("source file");
                let mut conn = Conn { host: u.host.clone(), s: None, reconnects: 0 };
                let (mut lat, mut errs, mut bytes) = (Vec::new(), Vec::new(), 0u64);
                bar.wait();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= c.count || Instant::now() > c.deadline {
                        break;
                    }
                    let t = Instant::now();
                    match one(&c, &mut conn, &u, &f, i) {
                        Ok(b) => {
                            bytes += b;
                            lat.push(t.elapsed().as_secs_f64());
                        }
                        Err(e) => {
                            errs.push(e.to_string());
                            conn.s = None;
                            if errs.len() > 20 {
                                break;
                            }
                        }
                    }
                }
                (lat, errs, bytes, conn.reconnects)
            })
        })
        .collect();
    let c0 = cpu_self();
    bar.wait();
    let t0 = Instant::now();
    let rs: Vec<_> = hs.into_iter().map(|h| h.join().unwrap()).collect();
    let wall = t0.elapsed().as_secs_f64();
    let mut lat: Vec<f64> = rs.iter().flat_map(|r| r.0.clone()).collect();
    lat.sort_by(|a, b| a.total_cmp(b));
    let errs: Vec<&String> = rs.iter().flat_map(|r| r.1.iter()).collect();
    let bytes: u64 = rs.iter().map(|r| r.2).sum();
    let connects: u64 = rs.iter().map(|r| r.3).sum();
    println!(
        "{{\"wall_s\":{wall:.6},\"bytes\":{bytes},\"uploads\":{},\"conns\":{conns},\"connects\":{connects},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"client_cpu_s\":{:.4},\"n_errors\":{},\"errors\":[{}]}}",
        lat.len(),
        pct(&lat, 0.5) * 1e3,
        pct(&lat, 0.99) * 1e3,
        cpu_self() - c0,
        errs.len(),
        errs.iter().take(3).map(|e| json_str(e)).collect::<Vec<_>>().join(",")
    );
    if !errs.is_empty() || lat.len() as u64 != c.count {
        std::process::exit(1);
    }
}
