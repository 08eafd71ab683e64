//! Clients that read slowly, through a relay with a tiny window.

use super::{PROTOCOLS, authority, curl, https, text};
use crate::operations::wait::until;
use crate::server::{Server, content};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on, taking at most `step` bytes at once from the server through a window of 4 KiB.
pub(crate) async fn relay(server: &Server, step: usize) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target: SocketAddr = server.address().parse().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let upstream = socket.connect(target).await.unwrap();
            connections.spawn(pass_on(client, upstream, step));
        }
    });
    (port, tasks)
}

async fn pass_on(client: TcpStream, upstream: TcpStream, step: usize) {
    client.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let down = async {
        let mut bytes = vec![0; step];
        while let Ok(count) = from_server.read(&mut bytes).await
            && count > 0
            && to_client.write_all(&bytes[..count]).await.is_ok()
        {}
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_window_and_tiny_reads_change_no_byte() {
    let server = https().start();
    for (len, step) in [(200_000, 1), (6_000_000, 700)] {
        let bytes = content(len, 8);
        server.put("/v1/files/default/f").body(bytes.clone()).send().await.unwrap();
        let (port, _tasks) = relay(&server, step).await;
        for protocol in PROTOCOLS {
            let file = server.folder().join("got");
            let mut command = curl(protocol);
            command.arg("-o").arg(&file).arg(format!("https://127.0.0.1:{port}/v1/files/default/f"));
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{protocol} {step}: {}", text(&output));
            assert!(std::fs::read(&file).unwrap() == bytes, "{protocol} {step}");
        }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Clients that ask for 64 MiB each and read nothing cost what is in flight, not what they asked for.
#[tokio::test]
async fn clients_that_stand_still_cost_little_memory() {
    const CLIENTS: usize = 200;
    /// Twice and more of what was measured, so that only what grows with the file is found.
    const BYTES_EACH_MAX: u64 = 512 << 10;
    let server = https().start();
    server.put("/v1/files/default/f").body(content(64 << 20, 8)).send().await.unwrap();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&authority().cert).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let ask = || client.get(server.url("/v1/files/default/f")).bearer_auth(crate::server::TOKEN).send();
    drop(ask().await.unwrap());
    let before = resident_bytes(server.pid());
    let mut waiting = Vec::new();
    for _ in 0..CLIENTS {
        let answer = ask().await.unwrap();
        assert_eq!(answer.status(), 200);
        waiting.push(answer);
    }
    let mut highest = 0;
    until("memory stays as it is", || {
        let now = resident_bytes(server.pid());
        let stays = now <= highest;
        highest = highest.max(now);
        stays
    });
    let each = highest.saturating_sub(before) / CLIENTS as u64;
    assert!(each <= BYTES_EACH_MAX, "{each} bytes for each client");
    println!("{each} bytes for each of {CLIENTS} clients that stand still");
}
