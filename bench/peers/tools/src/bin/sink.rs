//! HTTP GET client that throws the body away.
//!   sink [--mode read|trunc] [--buf N] [--timeout S] [--header 'K: V']... URL...
//!     one connection (thread) per URL, all started together, Connection: close.
//!     read  = recv into a buffer (the copy a real client pays)
//!     trunc = MSG_TRUNC: the kernel drops the bytes without the copy, so the
//!             client costs almost nothing and the server's own limit shows
//!   sink --slow RATE_BYTES_S --conns N --duration S URL
//!     N connections, each reading RATE_BYTES_S, until S seconds have passed, or with --until-eof 1
//!     until standard input ends, whichever comes first.
use bench_tools::*;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

struct One {
    status: u32,
    ttfb_head: f64,
    ttfb_body: f64,
    bytes: u64,
    want: Option<u64>,
    err: String,
    headers: String,
}

fn one(url: &Url, trunc: bool, bufsz: usize, deadline: Instant, hdrs: &[String], bar: &Barrier) -> One {
    let mut r = One {
        status: 0,
        ttfb_head: 0.0,
        ttfb_body: 0.0,
        bytes: 0,
        want: None,
        err: String::new(),
        headers: "{}".into(),
    };
    let mut buf = vec![0u8; bufsz];
    bar.wait();
    let t0 = Instant::now();
    let mut run = || -> std::io::Result<()> {
        let mut s = TcpStream::connect(&url.host)?;
        s.set_nodelay(true)?;
        s.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut req = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: sink\r\nAccept: */*\r\nConnection: close\r\n",
            url.path, url.host
        );
        for h in hdrs {
            req.push_str(h);
            req.push_str("\r\n");
        }
        req.push_str("\r\n");
        s.write_all(req.as_bytes())?;
        let h = read_head(&mut s)?;
        r.ttfb_head = t0.elapsed().as_secs_f64();
        r.status = h.status;
        r.want = h.headers.get("content-length").and_then(|v| v.parse().ok());
        let keep = [
            "content-length",
            "transfer-encoding",
            "etag",
            "last-modified",
            "accept-ranges",
            "content-type",
            "content-range",
            "server",
        ];
        let kv: Vec<String> = keep
            .iter()
            .filter_map(|k| h.headers.get(*k).map(|v| format!("{}:{}", json_str(k), json_str(v))))
            .collect();
        r.headers = format!("{{{}}}", kv.join(","));
        r.bytes = h.extra.len() as u64;
        if r.bytes > 0 {
            r.ttfb_body = r.ttfb_head;
        }
        let flags = if trunc { libc::MSG_TRUNC } else { 0 };
        // with MSG_TRUNC nothing is copied, so the length may be larger than the buffer
        let len = if trunc { 1 << 22 } else { bufsz };
        loop {
            if r.want == Some(r.bytes) {
                break;
            }
            let n = unsafe { libc::recv(s.as_raw_fd(), buf.as_mut_ptr() as *mut _, len, flags) };
            if n < 0 {
                return Err(std::io::Error::last_os_error());
            }
            if n == 0 {
                break;
            }
            if r.bytes == 0 {
                r.ttfb_body = t0.elapsed().as_secs_f64();
            }
            r.bytes += n as u64;
            if Instant::now() > deadline {
                return Err(std::io::Error::other("time limit"));
            }
        }
        if let Some(w) = r.want {
            if w != r.bytes {
                return Err(std::io::Error::other(format!("short body: {} of {w}", r.bytes)));
            }
        }
        Ok(())
    };
    if let Err(e) = run() {
        r.err = e.to_string();
    }
    r
}

/// Whether the other end of standard input, a pipe, was closed.
fn stdin_ended() -> bool {
    let mut fd = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&mut fd, 1, 0) > 0 && fd.revents & libc::POLLHUP != 0 }
}

fn slow(url: &Url, rate: f64, conns: usize, dur: f64, until_eof: bool, hdrs: &[String]) {
    let mut socks = Vec::new();
    for _ in 0..conns {
        let mut s = TcpStream::connect(&url.host).expect("connect");
        // a small receive buffer, as on a slow line: otherwise loopback swallows megabytes per
        // connection at once and the server never feels the slow reader
        let rcv: libc::c_int = 65536;
        unsafe {
            libc::setsockopt(
                s.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                &rcv as *const _ as *const _,
                4,
            )
        };
        let mut req = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: sink-slow\r\nAccept: */*\r\nConnection: close\r\n",
            url.path, url.host
        );
        for h in hdrs {
            req.push_str(h);
            req.push_str("\r\n");
        }
        req.push_str("\r\n");
        s.write_all(req.as_bytes()).unwrap();
        s.set_nonblocking(true).unwrap();
        socks.push(s);
    }
    println!("connected {conns}");
    let tick = 0.05;
    let mut buf = vec![0u8; (rate * tick).max(1.0) as usize];
    let t0 = Instant::now();
    let (mut total, mut closed) = (0u64, 0u64);
    let mut open = vec![true; conns];
    while t0.elapsed().as_secs_f64() < dur && !(until_eof && stdin_ended()) {
        let next = Instant::now() + Duration::from_secs_f64(tick);
        for (i, s) in socks.iter().enumerate() {
            if !open[i] {
                continue;
            }
            let n = unsafe {
                libc::recv(s.as_raw_fd(), buf.as_mut_ptr() as *mut _, buf.len(), libc::MSG_DONTWAIT)
            };
            if n > 0 {
                total += n as u64;
            } else if n == 0 {
                open[i] = false;
                closed += 1;
            } else {
                let e = std::io::Error::last_os_error();
                if e.kind() != std::io::ErrorKind::WouldBlock {
                    open[i] = false;
                    closed += 1;
                }
            }
        }
        let now = Instant::now();
        if next > now {
            std::thread::sleep(next - now);
        }
    }
    println!(
        "{{\"slow_conns\":{conns},\"bytes\":{total},\"closed_early\":{closed},\"wall_s\":{:.3},\"rate_per_conn\":{:.0}}}",
        t0.elapsed().as_secs_f64(),
        total as f64 / t0.elapsed().as_secs_f64() / conns as f64
    );
}

fn main() {
    let m = args();
    let mut urls: Vec<String> = m.get("").cloned().unwrap_or_default();
    if let Some(f) = m.get("urls").and_then(|v| v.last()) {
        urls.extend(std::fs::read_to_string(f).unwrap().lines().filter(|l| !l.is_empty()).map(String::from));
    }
    let hdrs: Arc<Vec<String>> = Arc::new(m.get("header").cloned().unwrap_or_default());
    if m.contains_key("slow") {
        slow(
            &parse_url(&urls[0]),
            get(&m, "slow", 65536.0),
            get(&m, "conns", 200),
            get(&m, "duration", 5.0),
            get(&m, "until-eof", 0u8) == 1,
            &hdrs,
        );
        return;
    }
    let trunc = get(&m, "mode", "read".to_string()) == "trunc";
    let bufsz: usize = get(&m, "buf", 262144);
    let deadline = Instant::now() + Duration::from_secs_f64(get(&m, "timeout", 120.0));
    let bar = Arc::new(Barrier::new(urls.len() + 1));
    let hs: Vec<_> = urls
        .iter()
        .map(|u| {
            let (u, bar, hdrs) = (parse_url(u), bar.clone(), hdrs.clone());
            std::thread::spawn(move || one(&u, trunc, bufsz, deadline, &hdrs, &bar))
        })
        .collect();
    let c0 = cpu_self();
    bar.wait();
    let t0 = Instant::now();
    let rs: Vec<One> = hs.into_iter().map(|h| h.join().unwrap()).collect();
    let wall = t0.elapsed().as_secs_f64();
    let bytes: u64 = rs.iter().map(|r| r.bytes).sum();
    let mut tb: Vec<f64> = rs.iter().map(|r| r.ttfb_body).collect();
    tb.sort_by(|a, b| a.total_cmp(b));
    let mut th: Vec<f64> = rs.iter().map(|r| r.ttfb_head).collect();
    th.sort_by(|a, b| a.total_cmp(b));
    let errs: Vec<String> = rs.iter().filter(|r| !r.err.is_empty()).map(|r| json_str(&r.err)).collect();
    let bad = rs.iter().filter(|r| r.status != 200 && r.status != 206).count();
    println!(
        "{{\"wall_s\":{wall:.6},\"bytes\":{bytes},\"conns\":{},\"bad_status\":{bad},\"status\":{},\"ttfb_head_ms\":{:.3},\"ttfb_body_ms\":{:.3},\"client_cpu_s\":{:.4},\"headers\":{},\"errors\":[{}]}}",
        rs.len(),
        rs[0].status,
        pct(&th, 0.5) * 1e3,
        pct(&tb, 0.5) * 1e3,
        cpu_self() - c0,
        rs[0].headers,
        errs.join(",")
    );
    if bad > 0 || !errs.is_empty() {
        std::process::exit(1);
    }
}
